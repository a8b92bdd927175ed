"""The files that a patch and its card add to a checkpoint folder."""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "ADAPTER",
    "ADAPTER_WEIGHTS",
    "EVAL_RESULTS",
    "LOADER",
    "PATCH",
    "SIDE_FOLDER",
    "is_adapter_alone",
    "is_adapter_weights",
    "is_patch_only",
    "side_files",
]

SIDE_FOLDER = "bias_patch"
"""Holds a variant's plan, undo values and certificate. The caller looks after it; no list of companions has it."""

PATCH = f"{SIDE_FOLDER}/patch.json"
"""Stands where a variant was published without its weights."""

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""What peft calls the files of an adapter."""

EVAL_RESULTS = ".eval_results/hf_bias_patch.yaml"
"""A variant's scores as the Hub reads them."""


LOADER = "modeling_bias_patch.py"
"""The code that loads a variant whose biases are absent."""


def side_files(folder: Path) -> list[Path]:
    """All but the card: paths relative to the folder, sorted."""
    found = [path for path in (folder / SIDE_FOLDER).rglob("*") if path.is_file()]
    found += [folder / EVAL_RESULTS] if (folder / EVAL_RESULTS).is_file() else []
    return sorted(path.relative_to(folder) for path in found)


def is_adapter_alone(folder: Path) -> bool:
    """Whether a folder holds a peft adapter and no model. One beside a whole model is put on by transformers itself."""
    return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()


def is_adapter_weights(name: str) -> bool:
    """Whether a file of this name, in whatever folder, holds a peft adapter's weights."""
    return name.rpartition("/")[2] in (ADAPTER_WEIGHTS, "adapter_model.bin")


def is_patch_only(folder: Path) -> bool:
    """Whether a folder holds a variant without its weights."""
    return (folder / PATCH).is_file()
