"""A checkpoint that is a PyTorch pickle: opened, read and written anew as safetensors, without executing it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_model, read_config
from hf_bias_patch.checkpoint.copying import Keep, Put, write_file
from hf_bias_patch.checkpoint.dtypes import BITS, numpy_dtype
from hf_bias_patch.checkpoint.header import TensorInfo, build_header
from hf_bias_patch.checkpoint.index import read_index, refuse_missing, shard_names
from hf_bias_patch.checkpoint.links import check_link
from hf_bias_patch.checkpoint.listing import companion_files
from hf_bias_patch.checkpoint.overlap import overlapping
from hf_bias_patch.checkpoint.pickled_file import PickledTensor, read_pickled
from hf_bias_patch.checkpoint.pickled_views import SAVE_AGAIN
from hf_bias_patch.errors import CheckpointError

__all__ = [
    "PICKLE", "PICKLE_INDEX", "PickledCheckpoint", "convert", "is_pickled", "open_any_model", "open_pickled",
    "pickle_files",
]  # fmt: skip

PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"


@dataclass(frozen=True)
class PickledCheckpoint(Checkpoint):
    """A checkpoint whose weight files are PyTorch pickles. To be looked at: nothing edits these files."""

    @cached_property
    def shared(self) -> tuple[tuple[str, ...], ...]:
        return tuple(names for header in self.files.values() for names in overlapping(header))

    def _read(self, info: TensorInfo, shape: tuple[int, ...], start: int) -> np.ndarray[Any, Any]:
        if not isinstance(info, PickledTensor) or info.is_plain:
            return super()._read(info, shape, start)
        span = TensorInfo(info.name, "U8", (info.extent,), info.start, info.start + info.extent)
        values = super()._read(span, span.shape, span.start)
        whole = np.ndarray(info.shape, numpy_dtype(info.dtype), values, 0, info.strides)
        if shape != info.shape:  # rows: `start` counts whole rows before the first
            first = (start - info.start) * info.shape[0] // info.nbytes if info.nbytes else 0
            whole = whole[first : first + shape[0]]
        whole = np.conjugate(whole) if info.conjugate else whole
        return np.array(np.negative(whole) if info.negative else whole, order="C")


def is_pickled(folder: Path) -> bool:
    """Whether a folder's weights are a PyTorch pickle and nothing that `open_checkpoint` reads."""
    has_safetensors = any(name.suffix == ".safetensors" for name in folder.iterdir())
    return not has_safetensors and any((folder / name).is_file() for name in (PICKLE, PICKLE_INDEX))


def open_pickled(folder: Path) -> PickledCheckpoint:
    """Open a folder whose weights are a PyTorch pickle, or several and their index. Reads no values.

    Raises:
        CheckpointError: there is no config.json, a pickle would have to run code, is damaged or holds something else
            than tensors, a file is missing, or a tensor is in two of them.
    """
    config, config_bytes = read_config(folder, required=True)
    files = {name: read_pickled(folder / name) for name in pickle_files(folder)}
    owner: dict[str, str] = {}
    for file, header in files.items():
        for name in header.tensors:
            if owner.setdefault(name, file) != file:
                _refuse(f"Tensor {name!r} is in two of the files that {folder / PICKLE_INDEX} lists")
    if (folder / PICKLE).is_file():
        return PickledCheckpoint(folder, config, config_bytes, files, None, {})
    return PickledCheckpoint(folder, config, config_bytes, files, PICKLE_INDEX, read_index(folder / PICKLE_INDEX))


def open_any_model(path: Path) -> Checkpoint:
    """Open a model to look at: as `open_model`, and a folder of PyTorch pickles as well.

    Raises:
        CheckpointError: as for `open_model` and `open_pickled`.
    """
    return open_pickled(path) if path.is_dir() and is_pickled(path) else open_model(path)


def convert(folder: Path, out: Path, progress: Callable[[int], None] | None = None) -> list[tuple[str, ...]]:
    """Write a pickled checkpoint anew as safetensors, with everything else of the folder.

    Args:
        folder: holds pytorch_model.bin, or pytorch_model.bin.index.json and the files it lists.
        out: an existing folder; receives model.safetensors or as many shards, and the companion files.
        progress: called with the number of bytes written since the last call.

    Returns:
        Groups of tensor names that share memory (tied weights). Each is written whole.

    Raises:
        CheckpointError: as for `open_pickled`.
        TargetError: the disk is full, or cannot be written.
    """
    pickled = open_pickled(folder)
    names = [_new_name(number, len(pickled.files)) for number in range(1, len(pickled.files) + 1)]
    weight_map: dict[str, str] = {}
    for file, name in zip(pickled.files, names, strict=True):
        _write(pickled, file, out / name, progress)
        weight_map |= dict.fromkeys(pickled.files[file].tensors, name)
    if len(names) > 1:
        index = {"metadata": {"total_size": pickled.nbytes}, "weight_map": dict(sorted(weight_map.items()))}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    for path in companion_files(folder):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        write_file(folder / path, out / path, [Keep(0, (folder / path).stat().st_size)], progress)
    return list(pickled.shared)


def pickle_files(folder: Path) -> list[str]:
    """Names of the files that hold a pickled checkpoint's weights.

    Raises:
        CheckpointError: there are none, the index is broken, or a file is missing or a link that leads elsewhere.
    """
    if (folder / PICKLE).is_file():
        names = [PICKLE]
    elif (folder / PICKLE_INDEX).is_file():
        names = shard_names(folder, PICKLE_INDEX)
        refuse_missing(folder, PICKLE_INDEX, names)
    else:
        _refuse(f"{folder} has neither {PICKLE} nor {PICKLE_INDEX}")
    for name in names:
        check_link(folder, folder / name)
    return names


def _new_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _write(pickled: PickledCheckpoint, file: str, target: Path, progress: Callable[[int], None] | None) -> None:
    """Write one file. What lies in the pickle as safetensors has it is copied; the rest is read tensor by tensor."""
    # The library's order: wide types first, so that every tensor starts at a multiple of its width.
    infos = sorted(pickled.files[file].tensors.values(), key=lambda info: (-BITS[info.dtype], info.name))
    header = build_header(infos, {"format": "pt"})
    segments: list[Keep | Put] = [Put(header, len(header))]
    for info in infos:
        plain = not isinstance(info, PickledTensor) or info.is_plain
        content = (pickled.read(name).tobytes() for name in (info.name,))
        segments.append(Keep(info.start, info.stop) if plain else Put(content, info.nbytes))
    write_file(pickled.folder / file, target, segments, progress)


def _refuse(what: str) -> NoReturn:
    raise CheckpointError(what, remedy=SAVE_AGAIN)
