"""Why a folder cannot be opened as a checkpoint: its weights are of another format, or in a folder below it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path, PurePosixPath

from hf_bias_patch.checkpoint.shorten import listed
from hf_bias_patch.errors import CheckpointError

__all__ = ["no_config", "no_weights"]

_MOST = 10_000
"""Names below a folder that are looked at."""

_FORMATS = {
    ".h5": "TensorFlow",
    ".msgpack": "Flax",
    ".onnx": "ONNX",
    ".gguf": "GGUF",
    ".ot": "Rust",
    ".bin": "PyTorch pickle",
    ".pt": "PyTorch pickle",
    ".pth": "PyTorch pickle",
    ".ckpt": "checkpoint pickle",
}

_PARTED = {
    "modules.json": "As modules.json says, it is a sentence-transformers model, whose parts have folders of their own",
    "model_index.json": "As model_index.json says, it is a pipeline of several models, each in a folder of its own",
}
"""A file that lists the folders of a model's parts → what it says."""


def no_config(folder: Path, names: Iterable[str], below: Iterable[str]) -> CheckpointError:
    """The error for a folder without config.json.

    Args:
        folder: for messages.
        names: of the files in it.
        below: of files one folder deeper, with "/" between parts.
    """
    what, why = f"{folder} has no config.json", "It says which architecture this is"
    return _elsewhere(folder, what, set(names), below) or CheckpointError(what, why, "Add the model's config.json")


def no_weights(folder: Path, names: Iterable[str], below: Iterable[str]) -> CheckpointError:
    """The error for a folder without safetensors files; arguments as for `no_config`."""
    there = sorted(names)
    if found := _elsewhere(folder, f"{folder} holds no weights itself", set(there), below):
        return found
    for name in there:
        if Path(name).suffix in _FORMATS:
            return CheckpointError(
                f"{folder} holds its weights only as {_FORMATS[Path(name).suffix]} ({name})",
                why="Only safetensors files can be patched",
                remedy="Load the model with transformers and save it again: save_pretrained writes safetensors",
            )
    return CheckpointError(
        f"{folder} holds no weights",
        why="There is no model.safetensors and no model.safetensors.index.json in it",
        remedy="Point to the folder that holds them, or download them",
    )


def _elsewhere(folder: Path, what: str, names: set[str], below: Iterable[str]) -> CheckpointError | None:
    """The error that names the folders below that hold whole models; None if none does."""
    found: dict[str, set[str]] = {}
    for name in islice(below, _MOST):
        found.setdefault(str(PurePosixPath(name).parent), set()).add(PurePosixPath(name).name)
    models = sorted(inner for inner, files in found.items() if "config.json" in files and any(map(_is_weights, files)))
    if not models:
        return None
    why = next((said for file, said in _PARTED.items() if file in names), "Its weights are in a folder below")
    # A Hub id cannot name a folder within a model.
    place = f"Point to {folder / models[0]}"
    remedy = place if folder.is_dir() else f"Download it (`hf download {folder}`), and point to its {models[0]}"
    return CheckpointError(what, f"{why}: {listed(models)}" if len(models) > 1 else why, remedy)


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors") or (name.startswith("pytorch_model") and name.endswith(".bin"))
