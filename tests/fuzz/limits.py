"""Runs a call in a child process of little memory and time."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["TooLongError", "limited", "start_clock", "where"]

MEMORY = 512 << 20
"""Bytes that a call may allocate; the checkpoints have 1 MB."""

SECONDS = 20
"""Of the processor, for a call: others may keep the machine busy."""

Value = TypeVar("Value")


class TooLongError(BaseException):
    """A call took too long. No `Exception`, so that nothing takes it for an error of its own."""


def limited(call: Callable[[], Value]) -> Value:
    """What a call returns, made in a child process.

    Raises:
        AssertionError: it raised something, or the process died; the text says where.
    """
    with tempfile.NamedTemporaryFile() as answer:
        child = os.fork()
        if not child:
            _in_child(call, Path(answer.name))
        _, status = os.waitpid(child, 0)
        said = answer.read()
    assert said and not status, f"the process ended with {status}"
    done, value = pickle.loads(said)
    assert done, value
    return value


def _in_child(call: Callable[[], object], answer: Path) -> None:
    """Never returns: whatever happens ends in an exit status."""
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        signal.signal(signal.SIGPROF, _ring)
        start_clock()
        warnings.simplefilter("error")
        try:
            result: tuple[bool, object] = (True, call())
        except BaseException as error:
            result = (False, where(error))
        answer.write_bytes(pickle.dumps(result))
        os._exit(0)
    finally:
        os._exit(3)


def start_clock() -> None:
    """Give what follows in this process its seconds."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)


def _ring(*_: object) -> None:
    raise TooLongError(f"more than {SECONDS} s")


def where(error: BaseException) -> str:
    """An error and the last place of this package that it went through, in one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "hf_bias_patch" in frame.filename]
    at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {at}: {str(error)[:120]}"
