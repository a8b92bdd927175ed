"""A peft adapter in the model's own folder, which transformers applies on loading: what a plan means for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.copies import parts_of
from hf_bias_patch.checkpoint.index import parse_object
from hf_bias_patch.checkpoint.remote import RemoteCheckpoint, open_anywhere
from hf_bias_patch.checkpoint.sidecar import ADAPTER, is_adapter_weights
from hf_bias_patch.patching.folds import FOLDS, touched
from hf_bias_patch.patching.plan import Edit, Plan

__all__ = ["adapter_note"]

_TRAVELS = f"The folder holds a peft adapter ({ADAPTER}), which transformers applies when it loads the model"
_IN_FILE = "base_model.model."  # before each name in a peft file

_ADD = {"LORA", "ADALORA", "LOHA", "LOKR", "VERA", "VBLORA", "RANDLORA", "FOURIERFT", "WAVEFT", "BEFT"}
"""Kinds of adapters that add to what a map gives out, whatever the map's own weight and bias are."""


def adapter_note(model: str | os.PathLike[str], plan: Plan) -> str:
    """What a plan means for an adapter beside the model's weights; empty where there is none.

    A LoRA adds B·A·x to the output of a map, whatever the map's bias is. So folds leave its effect as it was, unless it
    changes a map that they send the bias through, or holds a bias or a map of its own that they change.

    Args:
        model: as for `plan`.
        plan: made for it.

    Raises:
        SourceError, CheckpointError: as for `open_anywhere`; or adapter_config.json is damaged.
    """
    checkpoint = open_anywhere(model).checkpoint
    if isinstance(checkpoint, RemoteCheckpoint):
        if ADAPTER not in checkpoint.hub.sizes:
            return ""
        return f"{_TRAVELS}. Download the model to see what these edits mean for it."
    if not (checkpoint.folder / ADAPTER).is_file():
        return ""
    config = parse_object(checkpoint.folder / ADAPTER, (checkpoint.folder / ADAPTER).read_bytes())
    adds = config.get("peft_type") in _ADD and not config.get("use_dora")
    on, own = _held(checkpoint)
    changed = sorted({name for edit in plan.edits if edit.changes for name in _in_the_way(edit, on, own, adds)})
    if not changed:
        return f"{_TRAVELS}. It is copied unchanged, and what these edits keep equal stays equal with it."
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return (
        f"{_TRAVELS}. It is copied unchanged, but with it these edits change what the model computes: it changes "
        f"what they rely on: {', '.join(changed[:3])}{more}. Merge it first (merge_and_unload of peft), or leave these "
        "edits out."
    )


def _held(checkpoint: Checkpoint) -> tuple[set[str], set[str]]:
    """What an adapter is for: the model's modules that it is applied to, and the model's tensors that it replaces."""
    ends: dict[str, str] = {}
    for tensor in checkpoint.tensors:
        for name in (tensor, tensor.rpartition(".")[0]):
            parts = name.split(".")
            ends |= {".".join(parts[start:]): name for start in range(len(parts))}
    files = [path for path in checkpoint.folder.iterdir() if is_adapter_weights(path.name)]
    parts = [part.name.removeprefix(_IN_FILE) for path in files for part in parts_of(path)]
    names = {name.replace(".base_layer.", ".") for name in parts}
    found = {ends[known] for name in names if (known := next((p for p in _beginnings(name) if p in ends), None))}
    own = found & checkpoint.tensors.keys()
    return found - own, own


def _beginnings(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:stop]) for stop in range(len(parts), 0, -1))


def _in_the_way(edit: Edit, on: set[str], own: set[str], adds: bool) -> set[str]:
    """What an adapter changes that an edit goes by.

    Args:
        edit: whose effect is asked about.
        on, own: as `_held` gives them.
        adds: whether the adapter adds to what a map gives out.
    """
    changes = set(touched(edit))
    found = own & changes
    if found == changes:
        return set()  # with the adapter on, none of the edit is there
    if edit.norm is not None:
        norm = {edit.norm.weight, edit.norm.bias}
        found |= norm & own | {name.rpartition(".")[0] for name in norm} & on
    return found | (FOLDS[edit.destination].spoiled_by(edit, on, adds) if edit.destination else set())
