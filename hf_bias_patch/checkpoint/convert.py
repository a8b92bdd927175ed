"""Writes a PyTorch pickle anew as safetensors, without executing it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from hf_bias_patch.checkpoint.choice import MAIN_FILE, MAIN_INDEX
from hf_bias_patch.checkpoint.copying import CopyRange, NewBytes, copy_whole, write_file
from hf_bias_patch.checkpoint.dtypes import BITS
from hf_bias_patch.checkpoint.header import build_header
from hf_bias_patch.checkpoint.listing import companion_files
from hf_bias_patch.checkpoint.pickled import PickledCheckpoint, open_pickled
from hf_bias_patch.checkpoint.pickled_file import PickledTensor

__all__ = ["convert"]


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
        (out / MAIN_INDEX).write_text(json.dumps(index, indent=2) + "\n")
    for path in companion_files(pickled):
        copy_whole(folder / path, out / path, progress)
    return list(pickled.shared)


def _new_name(number: int, count: int) -> str:
    return MAIN_FILE if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _write(pickled: PickledCheckpoint, file: str, target: Path, progress: Callable[[int], None] | None) -> None:
    """Write one file. What lies in the pickle as safetensors has it is copied; the rest is read tensor by tensor."""
    # The library's order: wide types first, so that every tensor starts at a multiple of its width.
    infos = sorted(pickled.files[file].tensors.values(), key=lambda info: (-BITS[info.dtype], info.name))
    header = build_header(infos, {"format": "pt"})
    segments: list[CopyRange | NewBytes] = [NewBytes(header, len(header))]
    for info in infos:
        plain = not isinstance(info, PickledTensor) or info.is_plain
        content = (pickled.read(name).tobytes() for name in (info.name,))
        segments.append(CopyRange(info.start, info.stop) if plain else NewBytes(content, info.nbytes))
    write_file(pickled.folder / file, target, segments, progress)
