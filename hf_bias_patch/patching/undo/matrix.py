"""Undoing a fold into a weight: what rounding took away, so that the old matrix comes back bit for bit.

A fold stores W' = round(W + u). Taking u off again gives round(W' − u), which differs from W by the few last bits
that rounding lost. Only that difference, of the bit patterns, is kept: most of it is zeros, which compress well.
The update u = b dᵀ is computed elementwise in float64 from stored b and d, so it is the same on every machine.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import IO

import numpy as np

from hf_bias_patch.patching.algebra import round_once
from hf_bias_patch.patching.folds import RankOneUpdate
from hf_bias_patch.patching.rewrite import Block

__all__ = ["decode", "encode", "residuals", "restore"]

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


def residuals(updates: Sequence[RankOneUpdate], block: Block) -> bytes:
    """What restores a block of a matrix, for each update: 8 bytes of length, and the residual."""
    pieces = []
    for update in updates:
        index, change = update.part(block.start, block.stop)
        piece = encode(block.old[index], block.new[index], change)
        pieces += [len(piece).to_bytes(8, "little"), piece]
    return b"".join(pieces)


def restore(updates: Sequence[RankOneUpdate], start: int, new: np.ndarray, kept: IO[bytes]) -> None:
    """Put the old rows in the place of new ones: those from `start` on, by what `residuals` gave for them."""
    for update in updates:
        index, change = update.part(start, start + len(new))
        piece = kept.read(int.from_bytes(kept.read(8), "little"))
        new[index] = decode(new[index], change, piece)
