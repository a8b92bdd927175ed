"""The dtype that a checkpoint is verified in; a refusal where its files tell that it cannot be verified."""

from __future__ import annotations

from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.dtypes import FLOATS
from hf_bias_patch.checkpoint.quantised import Quantised, quantised
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.evidence.tensors import storage_dtype

__all__ = ["dtype_to_verify"]


def dtype_to_verify(name: str, files: Checkpoint) -> str:
    """The storage dtype of a checkpoint, one of `FLOATS`.

    Args:
        name: of the checkpoint, for messages.
        files: its files; no values are read.

    Raises:
        VerifyError: its weights are quantised, or config.json says so of weights that are not.
    """
    dtype = storage_dtype(files)
    found = quantised(files.config, files.tensors)
    if found is not None:
        raise _leftover(name, found, dtype) if found.leftover else _quantised(name, found)
    if dtype not in FLOATS:
        raise VerifyError(
            f"{name} is stored as {dtype or 'no floating tensors'}",
            why="It has no float64 counterpart to compare with",
            remedy=f"Verify a checkpoint stored as one of {', '.join(FLOATS)}",
        )
    return dtype


def _quantised(name: str, found: Quantised) -> VerifyError:
    return VerifyError(
        f"{name} cannot be verified: {found.what}",
        why="Quantised weights have no float64 counterpart to compare with",
        remedy="Verify the checkpoint that was quantised, as it was before",
    )


def _leftover(name: str, found: Quantised, dtype: str) -> VerifyError:
    return VerifyError(
        f"{name} cannot be verified: {found.what}",
        why=f"All weights are plain {dtype}. Stock transformers goes by config.json and would not load them as they "
        "are; merging an adapter of a quantised model often leaves this entry behind",
        remedy=f"If the weights are meant to be plain, take `{found.key}` out of config.json",
    )
