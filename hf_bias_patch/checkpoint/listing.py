"""What else lies in a checkpoint folder: what a variant must carry, and what would contradict it.

Everything travels but another copy of the weights. Where a file's tensors can be read, they tell (`copies`); else its
name does (`file_names`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, entry_file, read_config
from hf_bias_patch.checkpoint.copies import OwnWeights, parts_of
from hf_bias_patch.checkpoint.file_names import (
    OTHER_FORMAT,
    TRAINING,
    UNPATCHED,
    left_by_folder,
    left_by_name,
    may_be_variant,
    may_hold_weights,
    says_weights,
)
from hf_bias_patch.checkpoint.index import INDEX_SUFFIX, shard_names
from hf_bias_patch.checkpoint.paths import check_link
from hf_bias_patch.checkpoint.sidecar import SIDE_FOLDER
from hf_bias_patch.errors import CheckpointError

__all__ = ["companion_files", "files_beside", "left_behind", "weight_names"]

_LINK = "a link to another folder"
_OTHER_VALUES = "other values of the model's weights, unpatched too"
_UNKNOWN = "what cannot be read, and is large enough to be the weights"


def companion_files(checkpoint: Checkpoint) -> list[Path]:
    """The files beside the weights that a variant must carry: config, tokenizer, cards, heads, adapters, sub-modules.

    Hidden files and folders (but .gitattributes), `__pycache__` and the side folder are not listed.

    Args:
        checkpoint: opened.

    Returns:
        Paths of files, relative to the folder, sorted.

    Raises:
        CheckpointError: a file is a link that leads out of the folder, or nowhere.
    """
    return _checked(checkpoint.folder, checkpoint.weight_names, _left(checkpoint))


def left_behind(checkpoint: Checkpoint) -> dict[Path, str]:
    """The files that a variant must not carry, since they hold the unpatched weights, or go with these.

    Args:
        checkpoint: opened.

    Returns:
        Path relative to the folder → what it holds, sorted by path; a folder stands for all in it.
    """
    return {path: what for path, what in sorted(_left(checkpoint).items()) if what}


def files_beside(folder: Path, weights: Collection[str]) -> list[Path]:
    """As `companion_files`, where there is no model to compare with: an adapter's folder, or that of a patch alone.

    Args:
        folder: to look into.
        weights: names of files that are not listed.
    """
    left = {path: left_by_name(path.as_posix()) or what for path, what in _walk(folder)}
    return _checked(folder, weights, left)


def weight_names(folder: Path) -> set[str]:
    """Names of the weight files, and of their index if there is one; empty where `open_checkpoint` would open none.

    Raises:
        CheckpointError: the index is broken or leads out of the folder.
    """
    try:
        name = entry_file(folder, read_config(folder, required=False)[0])
    except CheckpointError:
        return set()
    return {name, *shard_names(folder, name)} if name.endswith(INDEX_SUFFIX) else {name}


def _checked(folder: Path, weights: Collection[str], left: dict[Path, str]) -> list[Path]:
    found = sorted(path for path, what in left.items() if not what and path.as_posix() not in weights)
    for path in found:
        check_link(folder, folder / path)
        if not (folder / path).is_file():
            raise CheckpointError(f"{folder / path} is not a readable file", remedy="Remove it, or put the file there")
    return found


def _left(checkpoint: Checkpoint) -> dict[Path, str]:
    """Every other file of the folder → why a variant must not hold it; empty text if it may."""
    model = OwnWeights(checkpoint)
    found = {}
    for path, what in _walk(checkpoint.folder):
        if path.as_posix() not in checkpoint.weight_names:
            found[path] = what or left_by_name(path.as_posix()) or _held(model, path)
    for path in found:
        if path.name.endswith(".index.json") and not found[path]:
            found[path] = _held_by_shards(checkpoint.folder, path, found)
    return found


def _held(model: OwnWeights, path: Path) -> str:
    """What the content of a file tells."""
    place = model.checkpoint.folder / path
    if not may_hold_weights(path.name) or not place.is_file():
        return ""
    parts = parts_of(place)
    if not parts:
        if may_be_variant(path.as_posix()) or path.suffix == ".ckpt":
            return UNPATCHED
        large = says_weights(path.name) and model.fits(place.stat().st_size)
        return _UNKNOWN if large and not _is_text(place) else ""
    # Below the root, beside a config.json of its own, lies another module, unless its values are this model's.
    is_module = path.parent.parts != () and (place.parent / "config.json").is_file()
    named = model.named_alike(parts)
    if named and model.same_values(place, named):
        return UNPATCHED
    if named:
        return "" if is_module else _OTHER_VALUES
    return "" if is_module or not model.shaped_alike(parts) else UNPATCHED


def _is_text(place: Path) -> bool:
    with suppress(OSError, UnicodeDecodeError), place.open(encoding="utf-8") as file:
        return "\0" not in file.read(4096)
    return False


def _held_by_shards(folder: Path, path: Path, found: dict[Path, str]) -> str:
    """An index goes with the files that it lists."""
    with suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
        listed = json.loads((folder / path).read_bytes())["weight_map"].values()
        return next((what for name in set(listed) if (what := found.get(path.parent / name))), "")
    return ""


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file that is not hidden, relative to the folder; and folders left behind as a whole, with the reason."""
    for parent, folders, files in os.walk(folder):
        below = Path(parent).relative_to(folder)
        visible = [name for name in folders if not _skipped(below / name)]
        left = {name: what for name in visible if (what := _left_folder(folder / below / name))}
        yield from ((below / name, what) for name, what in left.items())
        folders[:] = [name for name in visible if name not in left]
        yield from ((below / name, "") for name in files if not _skipped(below / name))


def _left_folder(path: Path) -> str:
    if path.is_symlink():
        return _LINK  # what it holds belongs elsewhere
    if any(path.glob("*.distcp")):
        return TRAINING  # shards of the weights, or of an optimiser, as FSDP writes them
    if (path / "saved_model.pb").is_file():
        return OTHER_FORMAT
    return left_by_folder(path.name) or ""


def _skipped(path: Path) -> bool:
    hidden = path.name.startswith(".") and path.name != ".gitattributes"
    return hidden or path.name == "__pycache__" or path == Path(SIDE_FOLDER)
