"""A new folder that appears whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hf_bias_patch.checkpoint.copying import target_error
from hf_bias_patch.checkpoint.durable import sync_folder
from hf_bias_patch.checkpoint.leftovers import clear_leftovers, hidden_prefix, make_hidden
from hf_bias_patch.errors import TargetError

__all__ = ["new_folder", "refuse_existing"]

_NOREPLACE, _EXCHANGE = 1, 2  # flags of renameat2(2)
_AT_FDCWD = -100
_NOT_OFFERED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}


@contextmanager
def new_folder(out: Path, *, overwrite: bool, inputs: Sequence[Path]) -> Iterator[Path]:
    """Yield a hidden folder beside `out`, which becomes `out` when the block ends without an exception.

    Missing parents are made. After an exception nothing is left; what a killed run left is removed by the next one
    in the same place (`leftovers`). An old folder is replaced when the new one is on the disk, so that a power cut
    leaves one of the two. A folder that replaces none is left to the system to write out, as `cp` leaves it:
    its inputs are still there, and waiting for the disk would take longer than all else.

    Args:
        out: the folder to make; an empty one may be there.
        overwrite: whether an existing checkpoint folder may be replaced, whole, at the last moment.
        inputs: folders or files that are read: `out` must not be one of them, inside one, or around one.

    Raises:
        TargetError: `out` is refused or cannot be written.
    """
    out = Path(out)
    _refuse_inputs(out, inputs)
    out = out.resolve()  # a link stays, and what it leads to is replaced
    _clean_up(out)
    refuse_existing(out, overwrite)
    made = _make_parents(out)
    try:
        folder, unlock = make_hidden(out.parent, out.name)
    except BaseException as error:
        _remove_parents(made)
        if isinstance(error, OSError):
            raise target_error(out, error, 0) from error
        raise
    try:
        yield folder
        try:
            replaces = os.path.lexists(out) and not _is_empty(out)
            if replaces:
                _sync_all(folder)
            _give_name(folder, out, overwrite)
            if replaces:
                sync_folder(out.parent)
        except OSError as error:
            raise target_error(out, error, 0) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        _remove_parents(made)
        raise
    finally:
        unlock()


def _refuse_inputs(out: Path, inputs: Sequence[Path]) -> None:
    target = out.resolve()
    for given in inputs:
        source = Path(given).resolve()
        if target == source or source in target.parents or target in source.parents:
            raise TargetError(
                f"{out} cannot be written: it is, holds, or lies inside the input {given}",
                why="The source is never modified",
                remedy="Choose a folder elsewhere",
            )


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Refuse a place that is taken; who computes long before a folder is made asks this first.

    Raises:
        TargetError: something is there, and it may not be replaced.
    """
    if not os.path.lexists(out) or _is_empty(out):
        return
    if not overwrite:
        raise TargetError(f"{out} exists", remedy="Choose another folder, or replace it with --overwrite")
    if not out.is_dir():
        raise TargetError(f"{out} exists and is not a folder", remedy="Choose another place")
    # Whole folders go: be sure that it is a checkpoint, and not, say, a home folder given by mistake.
    names = set(os.listdir(out))
    if "config.json" not in names or ".git" in names:
        holds = "a git repository" if ".git" in names else "no checkpoint (it has no config.json)"
        raise TargetError(f"{out} holds {holds} and is not overwritten", remedy="Remove it, or choose another folder")


def _is_empty(out: Path) -> bool:
    """Whether a place is a folder that holds nothing, and so may be taken as if it were not there."""
    with suppress(OSError):
        return out.is_dir() and not os.listdir(out)
    return False


def _make_parents(out: Path) -> list[Path]:
    """Make missing parents; return those made, inner before outer."""
    missing = [parent for parent in out.parents if not parent.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_parents(missing)
        raise target_error(out, error, 0) from error
    if not os.access(out.parent, os.W_OK):
        raise TargetError(f"{out} cannot be written: {out.parent} is read-only", remedy="Choose another folder")
    return missing


def _remove_parents(made: list[Path]) -> None:
    for parent in made:
        with suppress(OSError):
            parent.rmdir()


def _aside(out: Path) -> Path:
    return out.parent / f"{hidden_prefix(out.name)}old"


def _clean_up(out: Path) -> None:
    """Remove what killed runs left beside `out`; a living one holds its lock."""
    aside = _aside(out)
    with suppress(OSError):
        if aside.exists() and not out.exists():
            os.rename(aside, out)  # killed between two renames: the old folder is all there is
        elif aside.exists():
            shutil.rmtree(aside, ignore_errors=True)
    clear_leftovers(out.parent)


def _sync_all(folder: Path) -> None:
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            descriptor = os.open(Path(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(parent))


def _give_name(folder: Path, out: Path, overwrite: bool) -> None:
    if not os.path.lexists(out):
        if not _rename2(folder, out, _NOREPLACE):
            os.rename(folder, out)
    elif _is_empty(out):
        os.rename(folder, out)  # which fails if something came into it in this moment
    elif not overwrite:
        raise TargetError(f"{out} was created by another program in the meantime", remedy="Choose another folder")
    elif _rename2(folder, out, _EXCHANGE):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        aside = _aside(out)
        os.rename(out, aside)
        try:
            os.rename(folder, out)
        except BaseException:
            os.rename(aside, out)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _rename2(source: Path, target: Path, flags: int) -> bool:
    """renameat2(2), which exchanges two names or spares an existing one; False where it is not offered."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(flags)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_OFFERED:
        return False
    raise OSError(code, os.strerror(code), str(target))
