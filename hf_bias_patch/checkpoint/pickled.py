"""A checkpoint that is a PyTorch pickle: opened and read, without executing it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_model, read_config
from hf_bias_patch.checkpoint.choice import PICKLE, PICKLE_INDEX, stock_choice
from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.checkpoint.header import TensorInfo
from hf_bias_patch.checkpoint.index import read_index, refuse_missing, shard_names
from hf_bias_patch.checkpoint.overlap import overlapping
from hf_bias_patch.checkpoint.paths import check_link
from hf_bias_patch.checkpoint.pickled_file import PickledTensor, read_pickled
from hf_bias_patch.checkpoint.pickled_views import SAVE_AGAIN
from hf_bias_patch.errors import CheckpointError

__all__ = ["PickledCheckpoint", "is_pickled", "open_any_model", "open_pickled", "pickle_files"]


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
    """Whether what stock transformers loads from a folder is a PyTorch pickle, whatever lies beside it.

    Raises:
        CheckpointError: config.json is damaged.
    """
    config, _ = read_config(folder, required=False)
    return stock_choice([path.name for path in folder.iterdir() if path.is_file()], config) in (PICKLE, PICKLE_INDEX)


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


def _refuse(what: str) -> NoReturn:
    raise CheckpointError(what, remedy=SAVE_AGAIN)
