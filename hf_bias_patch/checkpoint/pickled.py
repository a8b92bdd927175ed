"""From a PyTorch pickle to safetensors, without executing what the pickle says."""

from __future__ import annotations

import json
import pickle
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hf_bias_patch.checkpoint.copying import Keep, Put, write_file
from hf_bias_patch.checkpoint.dtypes import BITS, OF_TORCH
from hf_bias_patch.checkpoint.header import TensorInfo, build_header
from hf_bias_patch.checkpoint.index import refuse_missing, shard_names
from hf_bias_patch.checkpoint.links import check_link
from hf_bias_patch.checkpoint.listing import companion_files
from hf_bias_patch.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = ["convert", "is_pickled", "pickle_files"]

PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"


def is_pickled(folder: Path) -> bool:
    """Whether a folder's weights are a PyTorch pickle and nothing that `open_checkpoint` reads."""
    has_safetensors = any(name.suffix == ".safetensors" for name in folder.iterdir())
    return not has_safetensors and any((folder / name).is_file() for name in (PICKLE, PICKLE_INDEX))


def convert(folder: Path, out: Path, progress: Callable[[int], None] | None = None) -> list[tuple[str, ...]]:
    """Write a pickled checkpoint anew as safetensors, with everything else of the folder.

    Args:
        folder: holds pytorch_model.bin, or pytorch_model.bin.index.json and the files it lists.
        out: an existing folder; receives model.safetensors or as many shards, and the companion files.
        progress: called with the number of bytes written since the last call.

    Returns:
        Groups of tensor names that shared memory (tied weights). Each is written whole.

    Raises:
        CheckpointError: the pickle would have to run code, is damaged, or holds something else than tensors;
            or torch is not installed.
        TargetError: the disk is full, or cannot be written.
    """
    pickles = pickle_files(folder)
    names = [_new_name(number, len(pickles)) for number in range(1, len(pickles) + 1)]
    weight_map: dict[str, str] = {}
    total = 0
    shared: list[tuple[str, ...]] = []
    for pickled, name in zip(pickles, names, strict=True):
        tensors = _load(folder / pickled)
        for tensor in tensors:
            if weight_map.setdefault(tensor, name) != name:
                _refuse(f"Tensor {tensor!r} is in two of the files that {folder / PICKLE_INDEX} lists")
        total += _write(tensors, out / name, progress)
        shared += _shared(tensors)
    if len(names) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    for path in companion_files(folder):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        write_file(folder / path, out / path, [Keep(0, (folder / path).stat().st_size)], progress)
    return shared


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


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise CheckpointError(
            f"{path} is a PyTorch pickle", why="Only torch can read it", remedy="pip install torch"
        ) from error
    try:
        content = _unpickle(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is a pickle that asks for more than tensors, and is not executed",
            why=str(error).strip().splitlines()[0],
            remedy="If you trust its origin, save it as safetensors there",
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
    ) as error:
        raise CheckpointError(
            f"{path} is no readable PyTorch pickle",
            why=f"{type(error).__name__}: {error}".splitlines()[0],
            remedy="Download it again",
        ) from error
    return _only_tensors(path, content)


def _unpickle(path: Path) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols, which the reader copes with or refuses
        try:
            # Mapped, so that memory holds a tensor at a time; files of before torch 1.6 cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:
            return torch.load(path, map_location="cpu", weights_only=True)


def _only_tensors(path: Path, content: Any) -> dict[str, torch.Tensor]:
    import torch

    if not isinstance(content, Mapping):
        _refuse(f"{path} holds a {type(content).__name__}, no table of tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            _refuse(f"Entry {name!r} of {path} is a {type(value).__name__}, no tensor")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            _refuse(f"Tensor {name!r} of {path} is sparse, quantised or empty of values")
        if str(value.dtype).removeprefix("torch.") not in OF_TORCH:
            _refuse(f"Tensor {name!r} of {path} has {value.dtype}, which safetensors cannot hold")
    return {name: value.detach() for name, value in content.items()}


def _write(tensors: dict[str, torch.Tensor], target: Path, progress: Callable[[int], None] | None) -> int:
    """Write one file; returns the bytes of its tensors."""
    infos = [
        TensorInfo(
            name,
            OF_TORCH[str(value.dtype).removeprefix("torch.")],
            tuple(value.shape),
            0,
            value.numel() * value.element_size(),
        )
        for name, value in tensors.items()
    ]
    # The library's order: wide types first, so that every tensor starts at a multiple of its width.
    infos.sort(key=lambda info: (-BITS[info.dtype], info.name))
    header = build_header(infos, {"format": "pt"})
    nbytes = sum(info.nbytes for info in infos)
    data = Put((_bytes(tensors[info.name]) for info in infos), nbytes)
    write_file(None, target, [Put(header, len(header)), data], progress)
    return nbytes


def _bytes(value: torch.Tensor) -> memoryview:
    import torch

    plain = value.resolve_conj().resolve_neg().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().data


def _shared(tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, ...]]:
    groups: dict[int, list[str]] = defaultdict(list)
    for name, value in tensors.items():
        if value.numel():
            groups[value.untyped_storage().data_ptr()].append(name)
    return (tuple(names) for names in groups.values() if len(names) > 1)


def _refuse(what: str) -> NoReturn:
    raise CheckpointError(what, remedy="Load the model with transformers and save it again: it writes safetensors")
