"""What a patch and its card put beside a checkpoint."""

from __future__ import annotations

from pathlib import Path

__all__ = ["EVAL_RESULTS", "PATCH", "SIDE_FOLDER", "is_patch_only", "side_files"]

SIDE_FOLDER = "bias_patch"
"""Holds a variant's plan, undo values and certificate. The caller looks after it; no list of companions has it."""

PATCH = f"{SIDE_FOLDER}/patch.json"
"""Stands where a variant was published without its weights."""

EVAL_RESULTS = ".eval_results/hf_bias_patch.yaml"
"""A variant's scores as the Hub reads them."""


def side_files(folder: Path) -> list[Path]:
    """All but the card: paths relative to the folder, sorted."""
    found = [path for path in (folder / SIDE_FOLDER).rglob("*") if path.is_file()]
    found += [folder / EVAL_RESULTS] if (folder / EVAL_RESULTS).is_file() else []
    return sorted(path.relative_to(folder) for path in found)


def is_patch_only(folder: Path) -> bool:
    """Whether a folder holds a variant without its weights."""
    return (folder / PATCH).is_file()
