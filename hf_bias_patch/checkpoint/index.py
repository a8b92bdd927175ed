"""The index of a sharded checkpoint: which file holds which tensor. Hostile until checked."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from hf_bias_patch.checkpoint.header import Header, read_header
from hf_bias_patch.checkpoint.paths import check_link, is_inside, open_regular
from hf_bias_patch.checkpoint.shorten import brief, listed
from hf_bias_patch.errors import CheckpointError

__all__ = [
    "INDEX_SUFFIX", "LARGEST_JSON", "check_agreement", "is_text", "listed_names", "parse_index", "parse_object",
    "read_index", "read_shards", "refuse_missing", "shard_names",
]  # fmt: skip

INDEX_SUFFIX = ".safetensors.index.json"
_RESTORE = "Restore it from the model's origin"

LARGEST_JSON = 100_000_000
"""Bytes of a config or index; the largest in use have a hundredth of that."""

_LONGEST_NAME, _LONGEST_PATH = 255, 1024
"""Bytes; more than that no file system takes."""

_SHOWN, _DEEPEST = 10, 100


def read_shards(folder: Path, index_name: str) -> tuple[dict[str, Header], dict[str, Any]]:
    """Read an index and the header of every shard it lists.

    Returns:
        Headers by file name, sorted by name, and the parsed index.

    Raises:
        CheckpointError: the index is broken or leads out of the folder, a shard is missing, or index and
            shards disagree.
    """
    index_path = folder / index_name
    index = read_index(index_path)
    names = _checked_names(folder, index_path, index)
    refuse_missing(folder, index_name, names)
    files = {name: read_header(folder / name) for name in names}
    check_agreement(index_path, index, files)
    return files, index


def shard_names(folder: Path, index_name: str) -> list[str]:
    """Names of the files an index lists, sorted, each checked to be inside the folder; it need not exist.

    Raises:
        CheckpointError: the index is broken or leads out of the folder.
    """
    index_path = folder / index_name
    return _checked_names(folder, index_path, read_index(index_path))


def refuse_missing(folder: Path, index_name: str, names: list[str]) -> None:
    """Refuse a folder that lacks files its index lists.

    Raises:
        CheckpointError: some are missing; all of them are named.
    """
    missing = [name for name in names if not os.path.isfile(folder / name)]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing):,} of {len(names):,} weight files: {listed(missing, _SHOWN)}",
            f"{index_name} lists them",
            "Download them",
        )


def parse_object(path: Path, content: bytes) -> dict[str, Any]:
    """Parse the content of a JSON file that must hold an object.

    Raises:
        CheckpointError: it does not; `path` is named.
    """
    if len(content) > LARGEST_JSON:
        raise CheckpointError(f"{path} has more than {LARGEST_JSON:,} bytes", "No valid one is that large", _RESTORE)
    try:
        table = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON", str(error), _RESTORE) from error
    if type(table) is not dict:
        raise CheckpointError(f"{path} is not a JSON object", "", _RESTORE)
    if _is_deep(table):
        raise CheckpointError(
            f"{path} has more than {_DEEPEST} brackets within one another", "No valid one has", _RESTORE
        )
    return table


def _is_deep(value: Any) -> bool:
    """Whether tables and lists lie deeper within one another than what writes or compares them can follow."""
    level = [value]
    for _ in range(_DEEPEST):
        parts = (part for each in level for part in (each.values() if type(each) is dict else each))
        level = [part for part in parts if type(part) in (dict, list)]
    return bool(level)


def read_index(path: Path) -> dict[str, Any]:
    """Read and parse an index.

    Raises:
        CheckpointError: it cannot be read, or maps no tensors to files.
    """
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST_JSON + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read", error.strerror or str(error)) from error
    return parse_index(path, content)


def parse_index(path: Path, content: bytes) -> dict[str, Any]:
    """Parse the content of an index.

    Raises:
        CheckpointError: it maps no tensors to files; `path` is named.
    """
    index = parse_object(path, content)
    weight_map = index.get("weight_map")
    if type(weight_map) is not dict or not all(type(file) is str for file in weight_map.values()):
        raise CheckpointError(f"{path} has no weight_map from tensor to file", "", _RESTORE)
    if not weight_map:
        raise CheckpointError(f"{path} lists no tensors", "", _RESTORE)
    return index


def _checked_names(folder: Path, index_path: Path, index: dict[str, Any]) -> list[str]:
    names = listed_names(index_path, index)
    for name in names:
        check_link(folder, folder / name)
    return names


def listed_names(index_path: Path, index: dict[str, Any]) -> list[str]:
    """The files that an index lists, sorted.

    Raises:
        CheckpointError: a name leads out of the folder.
    """
    names = sorted(set(index["weight_map"].values()))
    for name in names:
        _check_inside(index_path, name)
    return names


def _check_inside(index_path: Path, name: str) -> None:
    if not is_inside(name):
        raise CheckpointError(
            f"{index_path} lists the weight file {brief(name)}, which is not inside the folder", "", _RESTORE
        )
    sizes = [len(part.encode("utf-8", "surrogatepass")) for part in PurePosixPath(name).parts]
    if max(sizes) > _LONGEST_NAME or sum(sizes) > _LONGEST_PATH or not is_text(name):
        raise CheckpointError(
            f"{index_path} lists the weight file {brief(name)}, which no file can be called", "", _RESTORE
        )


def is_text(name: str) -> bool:
    """Whether it can be written; a lone surrogate cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def check_agreement(index_path: Path, index: dict[str, Any], files: dict[str, Header]) -> None:
    """Refuse an index that says otherwise than the files.

    Raises:
        CheckpointError: a tensor is not where the index puts it, or is in two files.
    """
    for tensor, file in index["weight_map"].items():
        if tensor not in files[file].tensors:
            raise CheckpointError(
                f"Tensor {brief(tensor)} is not in {file}, where {index_path} puts it",
                "The index and the weight files are of different versions",
                "Download them together",
            )
    owner: dict[str, str] = {}
    for file, header in files.items():
        for tensor in header.tensors:
            first = owner.setdefault(tensor, file)
            if first != file:
                raise CheckpointError(
                    f"Tensor {brief(tensor)} is both in {first} and in {file} of {index_path.parent}",
                    "Loaders may take either of them",
                    "Export the checkpoint again",
                )
