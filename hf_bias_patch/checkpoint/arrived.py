"""Whether a downloaded file is what the Hub has: its client compares sizes only."""

from __future__ import annotations

from pathlib import Path

from hf_bias_patch.checkpoint.hashing import sha256_file
from hf_bias_patch.checkpoint.paths import forget
from hf_bias_patch.errors import CheckpointError

__all__ = ["arrived_sha256"]


def arrived_sha256(folder: Path, name: str, said: str | None, model: str) -> str:
    """The sha256 of a file, read and not believed.

    Args:
        folder: where it lies.
        name: relative to the folder.
        said: what the Hub says it is; None if it does not.
        model: for messages.

    Raises:
        CheckpointError: it cannot be read; or it lies in the Hub's cache and is not what the Hub said it was. It is
            removed from there then.
    """
    found = sha256_file(folder / name)
    if said not in (None, found):
        forget(folder, folder / name)
        raise CheckpointError(
            f"{name} of {model} is damaged: its sha256 is {found}, and the Hub's is {said}",
            why="It did not arrive whole, or the disk is at fault; it was removed from the cache",
            remedy="Try again, and it is downloaded anew",
        )
    return found
