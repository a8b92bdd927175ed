"""Puts into texts as many placeholder tokens as the towers give features."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from hf_bias_patch.models.float64 import in_single_steps
from hf_bias_patch.models.inputs.wanted import BATCH, TEXT_HIGH, TEXT_LOW, Wanted

__all__ = ["place"]

_START = 3
"""Tokens before the first placeholder."""

_TOWERS = (
    (
        "get_image_features",
        ("image_token_id", "image_token_index", "image_patch_id", "video_token_index"),
        ("pixel_values",),
    ),
    ("get_audio_features", ("audio_token_id", "audio_token_index"), ("input_features", "input_values")),
)
"""The method that runs a tower, the names of its placeholder in configs, and what it is given."""


def place(want: Wanted) -> None:
    """Lengthen `input_ids` by placeholders, and mark them where the model wants to know what they stand for."""
    ids = want.made.get("input_ids")
    if ids is None or "_placed" in want.made:
        return
    kinds = torch.zeros_like(ids)
    for number, (method, names, sources) in enumerate(_TOWERS, 1):
        token = want.look(*names)
        if not isinstance(token, int) or not any(source in want.made for source in sources):
            continue
        get = next((getattr(module, method) for module in want.model.modules() if hasattr(module, method)), None)
        shares = [0] if get is None else _shares(get, want.made)
        if any(shares):
            ids, kinds = _inserted(want, ids, kinds, token, number, shares)
    if ids.shape[1] > want.made["input_ids"].shape[1]:
        want.made["input_ids"] = ids
        _lengthen(want, kinds)


def _inserted(
    want: Wanted, ids: torch.Tensor, kinds: torch.Tensor, token: int, number: int, shares: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with a run of placeholders, whose length may differ from text to text; more text makes up for it."""
    added = want.integers(TEXT_LOW, TEXT_HIGH, BATCH, max(shares))
    marks = torch.zeros_like(added)
    for row, count in enumerate(shares):
        added[row, :count], marks[row, :count] = token, number
    return (
        torch.cat((ids[:, :_START], added, ids[:, _START:]), 1),
        torch.cat((kinds[:, :_START], marks, kinds[:, _START:]), 1),
    )


def _lengthen(want: Wanted, kinds: torch.Tensor) -> None:
    """The masks beside the text."""
    if "attention_mask" in want.made:
        mask = torch.ones_like(kinds)
        mask[1:, -2:] = 0
        want.made["attention_mask"] = mask
    if "token_type_ids" in want.made:
        want.made["token_type_ids"] = (kinds > 0).long()
    if "mm_token_type_ids" in want.parameters:
        want.made["mm_token_type_ids"] = kinds


def _shares(get: Any, made: Mapping[str, Any]) -> list[int]:
    """Rows of features that a tower gives for each text of the batch."""
    accepted = inspect.signature(get).parameters
    required = {name for name, parameter in accepted.items() if parameter.default is inspect.Parameter.empty}
    usable = required | (set(accepted) - {"input_ids", "attention_mask"})
    with in_single_steps():
        found = get(**{name: value for name, value in made.items() if name in usable})
    pooled = getattr(found, "pooler_output", None)
    found = found if pooled is None else pooled
    if isinstance(found, (list, tuple)) and len(found) == BATCH:
        return [_rows(item) for item in found]
    count = _rows(found)
    return [count - count // BATCH * (BATCH - 1)] + [count // BATCH] * (BATCH - 1)


def _rows(found: Any) -> int:
    pooled = getattr(found, "pooler_output", None)
    found = found if pooled is None else pooled
    if isinstance(found, torch.Tensor):
        return found.numel() // found.shape[-1]
    if isinstance(found, (list, tuple)):
        return sum(_rows(item) for item in found)
    return _rows(found[0]) if hasattr(found, "to_tuple") else 0
