"""A checkpoint on the Hub, read where it lies: headers, and the tensors asked for, without its weights."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, refuse_patch_only
from hf_bias_patch.checkpoint.choice import PICKLE, PICKLE_INDEX, entry_name, stock_choice
from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.checkpoint.header import Header, TensorInfo, header_size, parse_header
from hf_bias_patch.checkpoint.hub_files import ByteRange, HubFiles, open_hub_files
from hf_bias_patch.checkpoint.index import INDEX_SUFFIX, check_agreement, listed_names, parse_index, parse_object
from hf_bias_patch.checkpoint.pickled import open_any_model
from hf_bias_patch.checkpoint.shorten import listed
from hf_bias_patch.checkpoint.sidecar import ADAPTER, PATCH
from hf_bias_patch.checkpoint.source import Source, locate
from hf_bias_patch.errors import CheckpointError

__all__ = ["Opened", "RemoteCheckpoint", "open_anywhere", "open_remote"]

_FIRST = 32_768
"""Bytes asked for first of a weight file: the header of a shard of a large model fits."""

_GAP = 16_384
"""Bytes between two tensors that are fetched along rather than asked for in another request."""


@dataclass(frozen=True)
class RemoteCheckpoint(Checkpoint):
    """A checkpoint whose values come by HTTP range. `folder` is the Hub id, for messages.

    Attributes:
        hub: its files.
    """

    hub: HubFiles
    _cache: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def received(self) -> int:
        return self.hub.received

    def prepare(self, names: Iterable[str]) -> None:
        """Fetch these tensors, neighbours by one request, several requests at once.

        Raises:
            CheckpointError: no such tensor.
            SourceError: the Hub cannot be reached, or refuses.
        """
        by_file: dict[str, list[TensorInfo]] = {}
        for name in sorted(set(names) - set(self._cache)):
            by_file.setdefault(self.file_of(name), []).append(self.info(name))
        runs = [(file, run) for file, infos in by_file.items() for run in _runs(infos)]
        wanted = [ByteRange(file, run[0].start, run[-1].stop) for file, run in runs]
        for (_, run), (part, content) in zip(runs, self.hub.parts(wanted), strict=True):
            for info in run:
                self._cache[info.name] = content[info.start - part.start : info.stop - part.start]

    def _read(self, info: TensorInfo, shape: tuple[int, ...], start: int) -> np.ndarray[Any, Any]:
        dtype = numpy_dtype(info.dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if info.name in self._cache:
            content = self._cache[info.name][start - info.start :][:nbytes]
        else:
            content = self.hub.part(ByteRange(self.file_of(info.name), start, start + nbytes))
        return np.frombuffer(bytearray(content), dtype).reshape(shape)


def open_remote(model: str, revision: str | None = None) -> RemoteCheckpoint:
    """Open a model on the Hub by its config, index and headers alone.

    Args:
        model: a Hub id.
        revision: branch, tag or commit; the main branch if None.

    Raises:
        SourceError: there is no such model or revision, or the Hub cannot be reached.
        CheckpointError: as for `open_checkpoint`.
    """
    hub = open_hub_files(model, revision)
    folder = Path(model)
    if "config.json" not in hub.sizes:
        raise CheckpointError(
            f"{model} has no config.json",
            why="It holds a PEFT adapter" if ADAPTER in hub.sizes else "It says which architecture this is",
            remedy="Give the Hub id of the model itself",
        )
    if PATCH in hub.sizes:
        refuse_patch_only(folder)
    config_bytes = hub.small("config.json")
    config = parse_object(folder / "config.json", config_bytes)
    names = [name for name in hub.sizes if "/" not in name]
    _refuse_pickles(model, stock_choice(names, config))
    name = entry_name(folder, names, config, (name for name in hub.sizes if name.count("/") == 1))
    if not name.endswith(INDEX_SUFFIX):
        return RemoteCheckpoint(folder, config, config_bytes, _headers(hub, folder, [name]), None, {}, hub)
    index = parse_index(folder / name, hub.small(name))
    shards = listed_names(folder / name, index)
    if missing := [shard for shard in shards if shard not in hub.sizes]:
        raise CheckpointError(f"{model} lacks {len(missing)} of {len(shards)} weight files: {listed(missing, 10)}")
    files = _headers(hub, folder, shards)
    check_agreement(folder / name, index, files)
    return RemoteCheckpoint(folder, config, config_bytes, files, name, index, hub)


def _refuse_pickles(model: str, chosen: str | None) -> None:
    """Refuse what would take a request for each tensor: an archive says beside each storage where that begins."""
    if chosen in (PICKLE, PICKLE_INDEX):
        raise CheckpointError(
            f"What transformers loads from {model} is a PyTorch pickle",
            why="On the Hub, only safetensors files can be read in parts",
            remedy=f"Download the model (`hf download {model}`) and give its folder",
        )


def _headers(hub: HubFiles, folder: Path, names: list[str]) -> dict[str, Header]:
    """The headers of weight files, by a request or two each."""
    begin = [ByteRange(name, 0, min(_FIRST, hub.sizes[name])) for name in names]
    firsts = {part.name: content for part, content in hub.parts(begin)}
    sizes = {name: header_size(folder / name, firsts[name], hub.sizes[name]) for name in names}
    longer = [name for name in names if sizes[name] > len(firsts[name])]
    rests = hub.parts(ByteRange(name, len(firsts[name]), sizes[name]) for name in longer)
    for part, content in rests:
        firsts[part.name] += content
    return {name: parse_header(folder / name, firsts[name][: sizes[name]], hub.sizes[name]) for name in names}


def _runs(infos: list[TensorInfo]) -> list[list[TensorInfo]]:
    """Tensors of one file that lie close together."""
    ordered = sorted(infos, key=lambda info: info.start)
    runs = [ordered[:1]]
    for before, info in pairwise(ordered):
        if info.start - before.stop <= _GAP:
            runs[-1].append(info)
        else:
            runs.append([info])
    return runs


class Opened(NamedTuple):
    """A checkpoint that was found and opened.

    Attributes:
        name: what the user called it; of a Hub id without its revision.
        commit: of a model on the Hub, or in its cache; None for any other place.
        checkpoint: opened.
    """

    name: str
    commit: str | None
    checkpoint: Checkpoint


def open_anywhere(model: str | os.PathLike[str], *, revision: str | None = None) -> Opened:
    """Find and open a checkpoint of which little will be read: what is not on this machine is not downloaded.

    Args:
        model, revision: as for `source.locate`.

    Raises:
        ArgumentError, SourceError: as for `source.resolve`.
        CheckpointError: as for `open_any_model`.
    """
    found = locate(model, revision=revision)
    if isinstance(found, Source):
        return Opened(found.name, found.revision, open_any_model(found.path))
    remote = open_remote(found.name, found.revision)
    return Opened(found.name, remote.hub.commit, remote)
