"""The dtype that a checkpoint is verified in; a refusal where its files tell that it cannot be verified."""

from __future__ import annotations

from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.dtypes import FLOATS
from hf_bias_patch.checkpoint.quantised import quantised
from hf_bias_patch.errors import VerifyError

__all__ = ["dtype_to_verify", "storage_dtype"]


def storage_dtype(checkpoint: Checkpoint) -> str:
    """The dtype of most floating bytes: one of `F64`, `F32`, `F16`, `BF16`, or another that starts with F."""
    sizes: dict[str, int] = {}
    for info in checkpoint.tensors.values():
        if "F" in info.dtype:
            sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
    return max(sizes, key=lambda name: sizes[name], default="")


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
    if found is not None and found.leftover:
        raise VerifyError(
            f"{name} cannot be verified: {found.what}",
            why=f"All weights are plain {dtype}. Stock transformers goes by config.json and would not load them as "
            "they are; merging an adapter of a quantised model often leaves this entry behind",
            remedy=f"If the weights are meant to be plain, take `{found.key}` out of config.json",
        )
    if found is not None:
        raise VerifyError(
            f"{name} cannot be verified: {found.what}",
            why="Quantised weights have no float64 counterpart to compare with",
            remedy="Verify the checkpoint that was quantised, as it was before",
        )
    if dtype not in FLOATS:
        raise VerifyError(
            f"{name} is stored as {dtype or 'no floating tensors'}",
            why="It has no float64 counterpart to compare with",
            remedy=f"Verify a checkpoint stored as one of {', '.join(FLOATS)}",
        )
    return dtype
