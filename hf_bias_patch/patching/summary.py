"""A plan in few words: its edits by kind, and where they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_bias_patch.patching.plan import Edit, Plan

__all__ = ["CARRIES", "FLAGS", "by_label", "places", "runs"]

FLAGS = {
    "logits": "logits",
    "hidden_states": "hidden states",
    "attention_weights": "attention weights",
    "with_dropout": "training with dropout",
    "lora": "existing LoRA adapters",
    "kv_cache": "existing KV caches",
}
"""Flag of what stays equal → in words."""

CARRIES = {"nothing": "cancels in softmax", "output": "output bias", "weight": "own weight", "norm": "norm bias"}
"""Destination of a fold → where the bias goes."""


def by_label(plan: Plan) -> dict[str, list[Edit]]:
    """The edits by what is done, such as `fold key:nothing`."""
    groups: dict[str, list[Edit]] = {}
    for edit in plan.edits:
        groups.setdefault(edit.label, []).append(edit)
    return groups


def places(edits: Sequence[Edit]) -> str:
    """Site names, their layers joined: `encoder self 0-5`."""
    groups: dict[str, list[int]] = {}
    for edit in edits:
        stack, layer, kind = edit.site.split(".")
        groups.setdefault(f"{stack} {kind}", []).append(int(layer))
    return ", ".join(f"{name} {runs(layers)}" for name, layers in groups.items())


def runs(numbers: Iterable[int]) -> str:
    """Numbers in few words: `0-5,7`."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in found)
