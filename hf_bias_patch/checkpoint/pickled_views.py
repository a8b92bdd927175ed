"""What a PyTorch pickle says of its tensors: which part of which storage each is, and how it is laid out there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hf_bias_patch.checkpoint.dtypes import BITS, OF_TORCH
from hf_bias_patch.checkpoint.index import is_text
from hf_bias_patch.checkpoint.shorten import brief
from hf_bias_patch.checkpoint.unpickle import PickledCall, PickledName, PickledStorage
from hf_bias_patch.errors import CheckpointError

__all__ = ["SAVE_AGAIN", "Storage", "StoredView", "is_known", "views_of"]

BY_STATE_DICT = "Save the model's tensors alone, with save_pretrained or torch.save(model.state_dict(), FILE)"
SAVE_AGAIN = "Load the model with transformers and save it again: it writes safetensors"

_OF_STORAGE = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}  # fmt: skip
_UNTYPED = "torch.storage.UntypedStorage"

# Data all of these, and nothing here calls them. What is named and not read (sparse, quantised) is refused by tensor.
_KNOWN = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.(Tensor|nn\.parameter\.Parameter|Size|device|serialization\._get_layout|per_(tensor|channel)_affine)"
    r"|torch\.(\w+Storage|storage\.UntypedStorage|u?int\d+|float\w+|bfloat16|bool|complex\d+)"
)
_MOST_AXES, _WRAPPINGS = 64, 8
"""Of a tensor: a pickle may say one long shape once, and mean it for every tensor."""

_WRAPPED = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")


@dataclass(frozen=True, slots=True)
class Storage:
    """One block of values, and the part of it that is meant.

    Attributes:
        key: which block.
        width: bytes of one value; 1 where the block has no type of its own.
        count: values in the block.
        first, stop: the part, in values; all of it but in files of before PyTorch 0.4.
    """

    key: str
    width: int
    count: int
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class StoredView:
    """One tensor.

    Attributes:
        storage: where its values are.
        dtype: a safetensors dtype name.
        shape: its axes.
        strides: values from one entry of an axis to the next.
        offset: of its first value, in values of its dtype, from the start of its block.
        conjugate, negative: whether the values are to be read so.
    """

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    conjugate: bool
    negative: bool

    @property
    def extent(self) -> int:
        """Values from its first to behind its last; 0 if it has none."""
        if 0 in self.shape:
            return 0
        return 1 + sum((axis - 1) * stride for axis, stride in zip(self.shape, self.strides, strict=True))


def is_known(name: str) -> bool:
    """Whether a name may stand in a pickle of tensors."""
    return _KNOWN.fullmatch(name) is not None


def views_of(path: Path, content: Any) -> dict[str, StoredView]:
    """The tensors of an unpickled table.

    Args:
        path: the file, for messages.
        content: what `unpickle` gave.

    Raises:
        CheckpointError: it is not a table of tensors, or one of them has no plain values; the entry is named.
    """
    if type(content) is not dict:
        _refuse(f"{path} holds a {_kind(content)}, not a table of tensors", BY_STATE_DICT)
    for name, value in content.items():
        if _is_table(value):
            raise CheckpointError(
                f"{path} is a training state, whose tensors are in its entry {brief(name)}",
                why="Stock transformers does not look there, and loads none of them",
                remedy=f"Save that entry alone: torch.save(torch.load(FILE)[{brief(name)}], FILE)",
            )
    return {name: _view(path, name, value) for name, value in content.items()}


def _view(path: Path, name: Any, value: Any) -> StoredView:
    call = _unwrapped(value)
    if type(name) is not str or not _is_tensor(value):
        _refuse(f"Entry {brief(name)} of {path} is a {_kind(value)}, not a tensor", BY_STATE_DICT)
    if name == "__metadata__" or not is_text(name):
        _refuse(f"Tensor {brief(name)} of {path} has a name that safetensors cannot hold")
    kind = call.what.removeprefix("torch._utils._rebuild_")
    try:
        if kind in ("tensor", "tensor_v2"):
            storage, offset, shape, strides, *more = call.args
            dtype, metadata = "", more[2:]
        elif kind == "tensor_v3":
            storage, offset, shape, strides, _, _, dtype, *metadata = call.args
        else:
            _refuse(f"Tensor {brief(name)} of {path} is sparse, quantised or empty of values")
        return _checked(path, name, storage, dtype, offset, shape, strides, metadata)
    except CheckpointError:
        raise
    except (ValueError, TypeError):
        raise CheckpointError(
            f"Tensor {brief(name)} of {path} is not a valid part of its storage", remedy="Download the file again"
        ) from None


def _is_tensor(value: Any) -> bool:
    call = _unwrapped(value)
    return isinstance(call, PickledCall) and "._rebuild_" in call.what


def _is_table(value: Any) -> bool:
    return type(value) is dict and any(map(_is_tensor, value.values()))


def _unwrapped(value: Any) -> Any:
    """The tensor in a parameter, or in one with attributes of its own."""
    for _ in range(_WRAPPINGS):
        if not (isinstance(value, PickledCall) and value.args):
            break
        if value.what in _WRAPPED:
            value = value.args[0]
        elif value.what == "torch._tensor._rebuild_from_type_v2" and len(value.args) == 4:
            value = PickledCall(value.args[0].name, value.args[2]) if isinstance(value.args[0], PickledName) else None
        else:
            break
    return value


def _checked(
    path: Path, name: str, stored: Any, named: Any, offset: Any, shape: Any, strides: Any, metadata: list[Any]
) -> StoredView:
    storage, own = _storage(stored)
    torch_name = named.name.removeprefix("torch.") if isinstance(named, PickledName) else own
    if torch_name not in OF_TORCH:
        _refuse(f"Tensor {brief(name)} of {path} has torch.{torch_name}, which safetensors cannot hold")
    dtype = OF_TORCH[torch_name]
    marks = metadata[0] if metadata and type(metadata[0]) is dict else {}
    view = StoredView(
        storage,
        dtype,
        _sizes(shape),
        _sizes(strides),
        _count(offset) + storage.first,
        marks.get("conj") is True,
        marks.get("neg") is True,
    )
    width = BITS[dtype] // 8
    if len(view.shape) != len(view.strides) or (view.offset + view.extent) * width > storage.stop * storage.width:
        raise ValueError
    return view


def _storage(stored: Any) -> tuple[Storage, str]:
    """The storage that a persistent id names, and the torch dtype of its values; empty if it has none."""
    if not isinstance(stored, PickledStorage):
        raise TypeError
    tag, kind, key, _, count, *view = stored.said
    if tag != "storage" or type(key) is not str or not isinstance(kind, PickledName):
        raise TypeError
    dtype = _OF_STORAGE.get(kind.name.removeprefix("torch.").removesuffix("Storage"), "")
    if not dtype and kind.name != _UNTYPED:
        raise TypeError
    width = 16 if dtype == "complex128" else BITS[OF_TORCH[dtype]] // 8 if dtype else 1
    first, length = (0, count) if not view or view[0] is None else view[0][1:]
    if _count(first) + _count(length) > _count(count):
        raise ValueError
    return Storage(key, width, count, first, first + length), dtype


def _sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, PickledCall) and value.what == "torch.Size":
        (value,) = value.args
    if type(value) not in (tuple, list) or len(value) > _MOST_AXES:
        raise TypeError
    return tuple(map(_count, value))


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError
    return value


def _kind(value: Any) -> str:
    if isinstance(value, PickledCall):
        return value.what
    return value.name if isinstance(value, PickledName) else type(value).__name__


def _refuse(what: str, remedy: str = SAVE_AGAIN) -> NoReturn:
    raise CheckpointError(what, remedy=remedy)
