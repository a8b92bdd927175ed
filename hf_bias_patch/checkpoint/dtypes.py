"""The dtypes that a safetensors file may hold, and their numpy names."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from hf_bias_patch.errors import CheckpointError

__all__ = ["BITS", "FLOATS", "OF_TORCH", "dtype_name", "numpy_dtype", "unit_roundoff"]

FLOATS = ("F64", "F32", "F16", "BF16")
"""The formats whose values can be edited; everything else is copied, never rewritten."""

_NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
}

# Several values share a byte: numpy has no array of these.
_PACKED = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}

BITS: dict[str, int] = {name: dtype.itemsize * 8 for name, dtype in _NUMPY.items()} | _PACKED
"""Bits a value takes, for every dtype name the safetensors library (0.8) accepts."""

OF_TORCH = {
    "bool": "BOOL", "complex64": "C64",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
"""The safetensors name of a torch dtype, by its name without `torch.`."""

_NAMES = {dtype: name for name, dtype in _NUMPY.items()}

# Half the distance from 1 to the next number: 2**-(significant bits, the hidden one included).
_UNIT_ROUNDOFF = {"F64": 2.0**-53, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype that reads a safetensors dtype without conversion.

    Raises:
        CheckpointError: the dtype is unknown, or packs several values into a byte.
    """
    if name in _NUMPY:
        return _NUMPY[name]
    if name in _PACKED:
        raise CheckpointError(
            f"dtype {name} has no numpy form", why=f"Its values take {_PACKED[name]} bits and share bytes"
        )
    raise CheckpointError(f"{name!r} is not a safetensors dtype", why=f"Known are {', '.join(BITS)}")


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The safetensors name of a numpy dtype; the inverse of `numpy_dtype`.

    Raises:
        CheckpointError: a safetensors file cannot hold the dtype.
    """
    try:
        return _NAMES[np.dtype(dtype).newbyteorder("<")]
    except KeyError:
        raise CheckpointError(f"a safetensors file cannot hold numpy dtype {dtype}") from None


def unit_roundoff(name: str) -> float:
    """Largest relative error of rounding a normal number to one of `FLOATS`, to nearest.

    Raises:
        CheckpointError: the dtype is not one of `FLOATS`.
    """
    try:
        return _UNIT_ROUNDOFF[name]
    except KeyError:
        raise CheckpointError(f"dtype {name} cannot be edited", why=f"Only {', '.join(FLOATS)} are") from None
