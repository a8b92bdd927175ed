"""What else lies in a checkpoint folder: what a variant must carry, and what would be stale in it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatch
from pathlib import Path

from hf_bias_patch.checkpoint.checkpoint import entry_file
from hf_bias_patch.checkpoint.index import INDEX_SUFFIX, shard_names
from hf_bias_patch.checkpoint.links import check_link
from hf_bias_patch.checkpoint.side import SIDE_FOLDER
from hf_bias_patch.errors import CheckpointError

__all__ = ["companion_files", "is_stale", "stale_files", "weight_names"]

# The same weights once more, in a form we do not rewrite; stale wherever they lie.
_EXPORTS = (
    "*.onnx", "*.onnx_data*", "*.onnx.data", "openvino*.xml", "openvino*.bin", "*.gguf", "*.ggml", "*.tflite",
    "*.mlmodel", "*.h5", "*.h5.index.json", "*.msgpack", "*.msgpack.index.json", "*.ot", "*.pth", "*.ckpt",
    "*.ckpt.*",
)  # fmt: skip

# Stale in the root only: below it, they may be another module's own weights (sentence-transformers' 2_Dense).
_ROOT_ONLY = (
    "*model*.bin", "*model*.bin.index.json", "optimizer.bin", "*.pt", "*.pkl", "*.safetensors",
    f"*{INDEX_SUFFIX}",
)  # fmt: skip

# Folders nothing is taken from: a bundle of weights, and a trainer's intermediate states.
_STALE_FOLDER = re.compile(r".*\.mlpackage|.*\.mlmodelc|checkpoint-\d+")


def stale_files(folder: Path, weights: Collection[str] | None = None) -> list[Path]:
    """The files that hold the same weights in another format, and would contradict a variant's.

    Args:
        folder: a checkpoint folder.
        weights: names of the weight files and of the index that are the checkpoint; found out if not given.

    Returns:
        Paths relative to the folder, sorted; a folder stands for all in it.
    """
    keep = weight_names(folder) if weights is None else weights
    return sorted(path for path, stale in _walk(folder) if stale and path.as_posix() not in keep)


def companion_files(folder: Path, weights: Collection[str] | None = None) -> list[Path]:
    """The files beside the weights that a variant must carry: config, tokenizer, cards, sub-modules.

    Hidden files and folders (but .gitattributes), `__pycache__` and the side folder are not listed.

    Args:
        folder: a checkpoint folder.
        weights: as for `stale_files`.

    Returns:
        Paths of files, relative to the folder, sorted.

    Raises:
        CheckpointError: a file is a link that leads out of the folder, or nowhere.
    """
    keep = weight_names(folder) if weights is None else weights
    found = sorted(path for path, stale in _walk(folder) if not stale and path.as_posix() not in keep)
    for path in found:
        check_link(folder, folder / path)
        if not (folder / path).is_file():
            raise CheckpointError(f"{folder / path} is no readable file", remedy="Remove it, or put the file there")
    return found


def weight_names(folder: Path) -> set[str]:
    """Names of the weight files, and of their index if there is one; empty without safetensors files.

    Raises:
        CheckpointError: the index is broken or leads out of the folder.
    """
    try:
        name = entry_file(folder)
    except CheckpointError:
        return set()
    return {name, *shard_names(folder, name)} if name.endswith(INDEX_SUFFIX) else {name}


def is_stale(name: str) -> bool:
    """Whether a file, by its name alone, holds weights that only the checkpoint's own files should hold.

    Args:
        name: relative to the folder, with "/" between parts. The checkpoint's own weight files count as well.
    """
    *folders, file = name.split("/")
    patterns = _EXPORTS if folders else _EXPORTS + _ROOT_ONLY
    return any(_STALE_FOLDER.fullmatch(part) for part in folders) or any(fnmatch(file, p) for p in patterns)


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Every file that is not hidden, relative to the folder, and whether it is stale."""
    for parent, folders, files in os.walk(folder):
        below = Path(parent).relative_to(folder)
        # A linked folder shows up as a name that os.walk does not enter: what it holds belongs elsewhere.
        kept = [name for name in folders if not _skipped(below / name)]
        yield from ((below / name, True) for name in kept if _STALE_FOLDER.fullmatch(name))
        folders[:] = [name for name in kept if not _STALE_FOLDER.fullmatch(name)]
        yield from ((below / name, is_stale((below / name).as_posix())) for name in files if not _skipped(below / name))


def _skipped(path: Path) -> bool:
    hidden = path.name.startswith(".") and path.name != ".gitattributes"
    return hidden or path.name == "__pycache__" or path == Path(SIDE_FOLDER)
