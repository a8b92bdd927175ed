"""Whether a downloaded file is what the Hub has: its client compares sizes only."""

from __future__ import annotations

from hf_bias_patch.checkpoint.hashing import sha256_file
from hf_bias_patch.checkpoint.links import forget
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import CheckpointError

__all__ = ["arrived_sha256"]


def arrived_sha256(source: Source, name: str) -> str:
    """The sha256 of a file, read and not believed.

    Args:
        source: where it lies.
        name: relative to the folder.

    Raises:
        CheckpointError: it cannot be read; or it lies in the Hub's cache and is not what the Hub said it was. It is
            removed from there then.
    """
    folder = source.path if source.path.is_dir() else source.path.parent
    path = folder / name
    found, said = sha256_file(path), source.known_sha256.get(name)
    if said not in (None, found):
        forget(folder, path)
        raise CheckpointError(
            f"{name} of {source.name} is damaged: its sha256 is {found}, and the Hub's is {said}",
            why="It did not arrive whole, or the disk is at fault; it was removed from the cache",
            remedy="Try again, and it is downloaded anew",
        )
    return found
