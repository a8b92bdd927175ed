"""Which paths of a checkpoint folder may be opened: links may lead out of it, and reading a pipe never ends.

The Hub's cache is made of links; everywhere else they may be a trick.

A cached model is `<cache>/models--<owner>--<name>/snapshots/<commit>/<file>`, each file a link to
`<repo>/blobs/<etag>`, which may itself be a link to `<cache>/blobs/<two digits>/<hash>`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hf_bias_patch.errors import CheckpointError

__all__ = ["check_link", "forget", "hub_repo", "hub_sha256", "is_inside", "open_regular"]


def hub_repo(folder: Path) -> tuple[Path, str] | None:
    """The cached repository and commit that a folder is a snapshot of; None for any other folder."""
    folder = folder.resolve()
    repo = folder.parent.parent
    return (repo, folder.name) if folder.parent.name == "snapshots" and (repo / "blobs").is_dir() else None


def hub_sha256(folder: Path) -> dict[str, str]:
    """The sha256 of the large files of a cached snapshot: the cache uses it as the name of their blob.

    Returns:
        File name relative to the folder, with "/" between parts, to 64 hexadecimal digits; empty for a folder
        that is not a snapshot.
    """
    found = hub_repo(folder)
    if found is None:
        return {}
    blobs = found[0] / "blobs"
    hashes = {}
    for path in folder.resolve().rglob("*"):
        if path.is_symlink():
            # One hop only: what lies behind it in a cache-wide store is named by another hash.
            blob = Path(os.path.normpath(path.parent / os.readlink(path)))
            if blob.parent == blobs and len(blob.name) == 64 and not set(blob.name) - set("0123456789abcdef"):
                hashes[path.relative_to(folder.resolve()).as_posix()] = blob.name
    return hashes


def forget(folder: Path, path: Path) -> None:
    """Remove a file in a folder of the Hub's cache, so that it is downloaded again; leaves any other folder alone."""
    if path.is_symlink() and hub_repo(folder) is not None:
        path.resolve().unlink(missing_ok=True)
        path.unlink()


def is_inside(name: object) -> bool:
    """Whether a relative name stays in its folder, also when it is read as a Windows path. Links are not followed.

    A file that names others travels, and "\\" or "C:" must not begin to matter elsewhere.
    """
    if not isinstance(name, str):
        return False
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return bool(parts) and ".." not in parts and parts[0] != "/" and ":" not in parts[0] and "\0" not in name


def check_link(folder: Path, path: Path) -> None:
    """Follow a path inside a folder only if it stays there, or leads from the Hub's cache to its blobs.

    Raises:
        CheckpointError: a link on the way leads elsewhere, such as to a private file that would be copied.
    """
    step = folder
    if not any((step := step / part).is_symlink() for part in path.relative_to(folder).parts):
        return
    allowed = [folder.resolve()]
    found = hub_repo(folder)
    if found is not None:
        allowed += [found[0] / "blobs", found[0].parent / "blobs"]
    target = path.resolve()
    if not any(target.is_relative_to(place) for place in allowed):
        raise CheckpointError(
            f"{path} is a link that leads out of its folder, to {target}",
            remedy="Copy the file into the folder if it is meant (`cp -L`)",
        )


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file, or a link to one, for reading.

    Raises:
        CheckpointError: it is a pipe, a device, a socket or a folder.
        OSError: it cannot be opened.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CheckpointError(
                f"{path} is not a regular file",
                why="It is a pipe or a device, and reading it might never end",
                remedy="Put the file itself in its place",
            )
        yield file


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a pipe waits for somebody to write into it, unless told not to; regular files do not care.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
