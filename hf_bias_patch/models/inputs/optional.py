"""Arguments of forward methods that a model runs without, but that make more of its attention run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from hf_bias_patch.models.inputs.wanted import BATCH, Wanted

__all__ = ["options", "reach_more"]

Maker = Callable[[Wanted], Any]

_ENTITIES, _MENTION = 3, 2
"""Entities of a text, and words of each."""
_MEMORY = 9
"""Hidden states that cross-attention reads."""
_RESIDUES = 8
"""Of a protein."""
_CROSS = re.compile(r"(.*\.)?\w*(cross_?att|encoder_att|enc_att|encoder_decoder_att)\w*(\..*)?")
_KEYS = ("key", "k", "k_proj", "key_proj", "c_attn", "k_lin", "kv_proj")


_PADDING = frozenset(("encoder_attention_mask", "decoder_attention_mask"))


def reach_more(names: Iterable[str]) -> bool:
    """Whether any of these arguments makes more of a model run than padding does, which hides what runs anyway."""
    return bool(set(names) - _PADDING)


def options(want: Wanted, plain: Mapping[str, Any]) -> dict[str, Any]:
    """The optional arguments that a forward method has and that are not given yet.

    Args:
        want: of the model.
        plain: the arguments given.
    """
    want.made = dict(plain)
    for name, make in _MAKERS.items():
        if name in want.parameters and name not in plain:
            value = make(want)
            if value is not None:
                want.made[name] = value
    return {name: value for name, value in want.made.items() if name not in plain}


def _rows(want: Wanted) -> int:
    """Texts or images in a batch."""
    first = next((value for value in want.made.values() if isinstance(value, torch.Tensor)), None)
    return BATCH if first is None else len(first)


def _entities(want: Wanted) -> torch.Tensor:
    return want.integers(2, want.look("entity_vocab_size", default=3), _rows(want), _ENTITIES)


def _entity_mask(want: Wanted) -> torch.Tensor:
    """The second text has one entity less."""
    mask = torch.ones(_rows(want), _ENTITIES, dtype=torch.long)
    mask[1:, -1:] = 0
    return mask


def _entity_segments(want: Wanted) -> torch.Tensor | None:
    kinds = want.look("type_vocab_size", default=1)
    return want.integers(0, kinds, _rows(want), _ENTITIES) if isinstance(kinds, int) and kinds > 1 else None


def _entity_positions(want: Wanted) -> torch.Tensor:
    """Of the words of each mention; the last has one word less, which -1 says."""
    length = want.made["input_ids"].shape[1]
    positions = want.integers(0, length, _rows(want), _ENTITIES, _MENTION)
    positions[:, -1, -1] = -1
    return positions


def _entity_starts(want: Wanted) -> torch.Tensor:
    """The first word of each mention."""
    return want.integers(0, want.made["input_ids"].shape[1] - 1, _rows(want), _ENTITIES)


def _entity_ends(want: Wanted) -> torch.Tensor:
    starts: torch.Tensor = want.made["entity_start_positions"]
    return starts + 1


def _global_mask(want: Wanted) -> torch.Tensor | None:
    """Tokens that see, and are seen by, all others: two in the first text, one in the second."""
    text = want.made.get("input_ids")
    if text is None:
        return None
    mask = torch.zeros_like(text)
    mask[:, 0] = mask[:1, 4] = 1
    return mask


def _memory(want: Wanted) -> torch.Tensor | None:
    """What cross-attention reads, as wide as its key's map takes; None where there is no cross-attention."""
    for name, module in want.model.named_modules():
        path, _, last = name.rpartition(".")
        if last in _KEYS and _CROSS.fullmatch(path):
            width = getattr(module, "in_features", None) or getattr(module, "nx", None)
            if isinstance(width, int):
                return want.normal(_rows(want), _MEMORY, width)
    return None


def _memory_mask(want: Wanted) -> torch.Tensor | None:
    """The second memory is one state shorter."""
    memory = want.made.get("encoder_hidden_states")
    if memory is None or memory.dim() != 3:
        return None
    mask = torch.ones(memory.shape[:2], dtype=torch.long)
    mask[1:, -1:] = 0
    return mask


def _decoder_mask(want: Wanted) -> torch.Tensor | None:
    """The second text of the decoder is one token shorter."""
    text = want.made.get("decoder_input_ids")
    if text is None:
        return None
    mask = torch.ones(text.shape[:2], dtype=torch.long)
    mask[1:, -1:] = 0
    return mask


def _prompt_boxes(want: Wanted) -> torch.Tensor:
    """Two boxes an image: middle and sides, in parts of it."""
    return torch.tensor([[[0.4, 0.4, 0.3, 0.5], [0.6, 0.5, 0.2, 0.4]]], dtype=torch.float64).repeat(_rows(want), 1, 1)


def _unseen_predictions(want: Wanted) -> torch.Tensor:
    """A permutation's masks: XLNet's second stream predicts tokens that it does not see."""
    length = want.made["input_ids"].shape[1]
    mask = torch.zeros(_rows(want), length, length, dtype=torch.float64)
    mask[:, :, -2:] = 1
    return mask


def _predicted(want: Wanted) -> torch.Tensor:
    """Which tokens XLNet predicts: the last two."""
    length = want.made["input_ids"].shape[1]
    return torch.eye(length, dtype=torch.float64)[-2:].repeat(_rows(want), 1, 1)


_MAKERS: dict[str, Maker] = {
    "entity_ids": _entities,
    "entity_attention_mask": _entity_mask,
    "entity_token_type_ids": _entity_segments,
    "entity_position_ids": _entity_positions,
    "entity_start_positions": _entity_starts,
    "entity_end_positions": _entity_ends,
    "global_attention_mask": _global_mask,
    "encoder_hidden_states": _memory,
    "encoder_attention_mask": _memory_mask,
    "decoder_attention_mask": _decoder_mask,
    "protein_input_ids": lambda want: want.integers(5, 20, _rows(want), _RESIDUES),
    "protein_attention_mask": lambda want: torch.ones(_rows(want), _RESIDUES, dtype=torch.long),
    "input_boxes": _prompt_boxes,
    "perm_mask": _unseen_predictions,
    "target_mapping": _predicted,
}
"""By name, in the order in which they are made."""
