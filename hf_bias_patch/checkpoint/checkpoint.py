"""A checkpoint as it lies on disk: its config, its weight files and where each tensor is in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from hf_bias_patch.checkpoint.choice import entry_name, stock_choice
from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.checkpoint.guards import refuse_interrupted
from hf_bias_patch.checkpoint.header import Header, TensorInfo, read_header
from hf_bias_patch.checkpoint.index import INDEX_SUFFIX, LARGEST_JSON, parse_object, read_shards
from hf_bias_patch.checkpoint.no_weights import no_config
from hf_bias_patch.checkpoint.paths import open_regular
from hf_bias_patch.checkpoint.sidecar import ADAPTER, is_patch_only
from hf_bias_patch.errors import CheckpointError

__all__ = ["Checkpoint", "entry_file", "open_checkpoint", "open_model", "read_config"]


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. Holds headers only; values are read when asked for.

    Attributes:
        folder: where the files lie.
        config: the parsed config.json; empty for a lone safetensors file without one.
        config_bytes: config.json as it is; empty where there is none.
        files: weight file name, relative to the folder with "/" between parts, to its header; sorted by name.
        index_name: the file that says which tensor is in which shard; None for a single weight file.
        index: that file parsed; empty where there is none.
    """

    folder: Path
    config: dict[str, Any]
    config_bytes: bytes
    files: dict[str, Header]
    index_name: str | None
    index: dict[str, Any]

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by name, file after file, in the order of the data."""
        return {name: info for header in self.files.values() for name, info in header.tensors.items()}

    @cached_property
    def _file_names(self) -> dict[str, str]:
        return {tensor: file for file, header in self.files.items() for tensor in header.tensors}

    @property
    def weight_names(self) -> set[str]:
        """Names of its weight files, and of their index if there is one."""
        return {*self.files, *([self.index_name] if self.index_name else [])}

    @property
    def entry(self) -> str:
        """The file it is opened by: its only weight file, or the index of several."""
        return self.index_name or next(iter(self.files))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together, without headers."""
        return sum(info.nbytes for info in self.tensors.values())

    @property
    def parameters(self) -> int:
        """Number of stored values, every dtype counted."""
        return sum(info.size for info in self.tensors.values())

    @property
    def shared(self) -> tuple[tuple[str, ...], ...]:
        """Groups of tensors with values in common (tied weights); never any in a safetensors file."""
        return ()

    @property
    def received(self) -> int:
        """Bytes that came over the network."""
        return 0

    def info(self, name: str) -> TensorInfo:
        """The name, dtype, shape and place of a tensor.

        Raises:
            CheckpointError: there is no tensor of that name.
        """
        try:
            return self.tensors[name]
        except KeyError:
            raise CheckpointError(f"Tensor {name!r} is not in {self.folder}") from None

    def file_of(self, name: str) -> str:
        """Name, relative to the folder, of the weight file that holds a tensor.

        Raises:
            CheckpointError: there is no tensor of that name.
        """
        self.info(name)
        return self._file_names[name]

    def prepare(self, names: Iterable[str]) -> None:
        """Say which tensors will be read, all of each: what is not on this machine is fetched together."""

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """A tensor's values in their storage dtype and shape: a copy that the caller owns.

        Raises:
            CheckpointError: no such tensor, a dtype without a numpy form, or the file ended early.
        """
        info = self.info(name)
        return self._read(info, info.shape, info.start)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Rows start to stop along axis 0, so that a large matrix need not be held whole.

        Args:
            name: a tensor of at least one axis.
            start: first row, 0 <= start <= stop.
            stop: row behind the last, at most shape[0].

        Returns:
            An owned array of shape (stop - start, *shape[1:]) in the storage dtype.

        Raises:
            CheckpointError: as for `read`.
            IndexError: the rows are not within the tensor.
        """
        info = self.info(name)
        if not info.shape or not 0 <= start <= stop <= info.shape[0]:
            raise IndexError(f"rows {start}:{stop} are not within {name!r} of shape {info.shape}")
        row_bytes = info.nbytes // info.shape[0] if info.shape[0] else 0
        return self._read(info, (stop - start, *info.shape[1:]), info.start + start * row_bytes)

    def _read(self, info: TensorInfo, shape: tuple[int, ...], start: int) -> np.ndarray[Any, Any]:
        array = np.empty(shape, numpy_dtype(info.dtype))
        path = self.folder / self._file_names[info.name]
        # Not a memory map: a file that shrinks under a map kills the process, and maps count as memory.
        view = array.reshape(-1).view(np.uint8).data
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(start)
                while view:
                    count = file.readinto(view)
                    if not count:
                        raise CheckpointError(
                            f"Tensor {info.name!r} of {path} ends early", "The file shrank since it was opened"
                        )
                    view = view[count:]
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read", why=error.strerror or str(error)) from error
        return array


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint folder, or a single safetensors file with the config.json beside it, if any.

    In a folder, what stock transformers loads comes before any other single safetensors file (`stock_choice`). Reads
    headers, the index and the config, no values.

    Raises:
        CheckpointError: nothing here can be opened; the message names the file, the reason and the remedy.
    """
    path = Path(path)
    if path.is_dir():
        refuse_interrupted(path)
        config, config_bytes = read_config(path, required=True)
        folder, name = path, entry_file(path, config)
    elif path.is_file() and path.suffix == ".safetensors":
        folder, name = path.parent, path.name
        refuse_interrupted(folder)
        config, config_bytes = read_config(folder, required=False)
    elif path.exists():
        raise CheckpointError(f"{path} is not a checkpoint", "A folder or a .safetensors file was expected")
    else:
        raise CheckpointError(f"{path} does not exist")
    if name.endswith(INDEX_SUFFIX):
        files, index = read_shards(folder, name)
        return Checkpoint(folder, config, config_bytes, files, name, index)
    return Checkpoint(folder, config, config_bytes, {name: read_header(folder / name)}, None, {})


def open_model(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint whose architecture must be known: like `open_checkpoint`, and its config.json is there.

    Raises:
        CheckpointError: as for `open_checkpoint`, or a lone file has no config.json beside it.
    """
    checkpoint = open_checkpoint(path)
    if not checkpoint.config_bytes:
        raise CheckpointError(
            f"There is no config.json beside {path}",
            "It says which architecture this is",
            "Put the model's config.json into the same folder",
        )
    return checkpoint


def read_config(folder: Path, *, required: bool) -> tuple[dict[str, Any], bytes]:
    """A folder's config.json, parsed and as it is; empty where there is none and none is required.

    Raises:
        CheckpointError: it is missing, cannot be read, or is not a JSON object.
    """
    path = folder / "config.json"
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST_JSON + 1)
    except FileNotFoundError:
        if not required:
            return {}, b""
        if (folder / ADAPTER).is_file():
            raise CheckpointError(
                f"{folder} holds a PEFT adapter and no model", "", "Merge the adapter and save the whole model"
            ) from None
        raise no_config(folder, [entry.name for entry in folder.iterdir()], _below(folder)) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read", error.strerror or str(error)) from error
    return parse_object(path, content), content


def entry_file(folder: Path, config: Mapping[str, Any]) -> str:
    """Name of the file a folder is opened by: a weight file, or the index of several.

    Raises:
        CheckpointError: there is none, or no telling which; or stock transformers loads a PyTorch pickle here.
    """
    if is_patch_only(folder):
        refuse_patch_only(folder)
    files = [entry.name for entry in folder.iterdir() if entry.is_file()]
    # Stock passes over what is no file; without a file, a link that leads nowhere is named.
    found = stock_choice(files, config) is not None
    names = files if found else [entry.name for entry in folder.iterdir()]
    return entry_name(folder, names, config, _below(folder))


def _below(folder: Path) -> Iterator[str]:
    """Names of the files one folder deeper; looked up only if somebody asks."""
    return (path.relative_to(folder).as_posix() for path in folder.glob("*/*"))


def refuse_patch_only(folder: Path) -> NoReturn:
    """Of a variant that was published without its weights."""
    raise CheckpointError(
        f"{folder} holds only a patch, without weights",
        "They are computed from the weights of its base",
        f"Make the variant with `hf-bias-patch pull {folder} OUT`, or use its base",
    )
