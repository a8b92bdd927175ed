"""Undoing a fold into a weight: what rounding took away, so that the old matrix comes back bit for bit.

A fold stores W' = round(W + u). Taking u off again gives round(W' − u), which differs from W by the few last bits
that rounding lost. Only that difference, of the bit patterns, is kept: most of it is zeros, which compress well.
The update u = b dᵀ is computed elementwise in float64 from stored b and d, so it is the same on every machine.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np

from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.patching.algebra import round_once
from hf_bias_patch.patching.folds import RankOneUpdate
from hf_bias_patch.patching.rewrite import Block
from hf_bias_patch.patching.tensors import TensorReader
from hf_bias_patch.patching.undo.manifest import OldTensor, OldUpdate

__all__ = ["MatrixResiduals", "decode", "encode", "restored_rows"]

_WORDS: dict[int, np.dtype] = {size: np.dtype(f"<u{size}") for size in (2, 4, 8)}


def encode(old: np.ndarray, new: np.ndarray, update: np.ndarray) -> bytes:
    """What `decode` needs, besides `new` and `update`, to give `old` back.

    Args:
        old, new: the values before and after, in one storage dtype.
        update: u, float64.
    """
    word = _WORDS[old.dtype.itemsize]
    difference = _bits(old, word) - _bits(_guess(new, update), word)
    # Small differences of either sign become small numbers, whose upper bytes are zero.
    top = np.array(8 * word.itemsize - 1, word)
    folded = (difference << np.array(1, word)) ^ (np.array(0, word) - (difference >> top))
    planes = folded.reshape(-1, 1).view(np.uint8)
    # Runs of equal bytes are all there is to find: quicker than the default, and smaller.
    packer = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    return packer.compress(np.ascontiguousarray(planes.T).data) + packer.flush()


def decode(new: np.ndarray, update: np.ndarray, residual: bytes) -> np.ndarray:
    """The old values, bit for bit.

    Raises:
        ValueError: the residual belongs to other values.
    """
    word = _WORDS[new.dtype.itemsize]
    unpacker = zlib.decompressobj()  # no more than is needed: a few bytes may stand for any number
    raw = np.frombuffer(unpacker.decompress(residual, new.nbytes + 1), np.uint8)
    if raw.size != new.nbytes:
        raise ValueError(f"a residual of {raw.size} bytes for {new.nbytes} bytes of values")
    folded = np.ascontiguousarray(raw.reshape(word.itemsize, -1).T).view(word).reshape(-1)
    one = np.array(1, word)
    difference = (folded >> one) ^ (np.array(0, word) - (folded & one))
    bits = _bits(_guess(new, update), word) + difference
    return bits.view(new.dtype).reshape(new.shape)


@np.errstate(over="ignore", invalid="ignore")
def _guess(new: np.ndarray, update: np.ndarray) -> np.ndarray:
    return round_once(new.astype(np.float64) - update, new.dtype)


def _bits(values: np.ndarray, word: np.dtype) -> np.ndarray:
    return np.ascontiguousarray(values).view(word).reshape(-1)


class MatrixResiduals:
    """What is kept of one matrix, block by block.

    Args:
        updates: those that the matrix was changed by.
    """

    def __init__(self, updates: Sequence[RankOneUpdate]) -> None:
        self._updates = updates
        self._before, self._after = hashlib.sha256(), hashlib.sha256()
        self._step = 1

    def residuals(self, block: Block, new: bytes) -> bytes:
        """What restores a block, and its length before each piece of it."""
        self._step = max(self._step, block.stop - block.start)
        self._before.update(np.ascontiguousarray(block.old).view(np.uint8).data)
        self._after.update(new)
        pieces = []
        for update in self._updates:
            index, change = update.part(block.start, block.stop)
            piece = encode(block.old[index], block.new[index], change)
            pieces += [len(piece).to_bytes(8, "little"), piece]
        return b"".join(pieces)

    def record(self, **place: Any) -> OldTensor:
        """The entry of the manifest, once all blocks went by."""
        updates = tuple(OldUpdate(view=update.view, conv1d=update.conv1d) for update in self._updates)
        checksums = {"sha256": self._before.hexdigest(), "patched_sha256": self._after.hexdigest()}
        return OldTensor(**place, **checksums, updates=updates, step=self._step)


def restored_rows(
    name: str, old: OldTensor, updates: Sequence[RankOneUpdate], tensors: TensorReader, kept: IO[bytes]
) -> Iterator[bytes]:
    """The old bytes of a matrix, in blocks.

    Args:
        name, old: the tensor, and what the manifest says of it.
        updates: those that changed it.
        tensors: the patched checkpoint.
        kept: what `MatrixResiduals` gave, at its start.
    """
    for start in range(0, old.shape[0], old.step):
        stop = min(start + old.step, old.shape[0])
        block = tensors.rows(name, start, stop).astype(numpy_dtype(old.dtype), copy=False)
        for update in updates:
            index, change = update.part(start, stop)
            piece = kept.read(int.from_bytes(kept.read(8), "little"))
            block[index] = decode(block[index], change, piece)
        yield block.tobytes()
