"""sha256 of large files, at the speed of the disk and beside other work."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable

from hf_bias_patch.errors import CheckpointError

__all__ = ["BackgroundHash", "sha256_file"]

_BUFFER = 128 << 10  # stays in a core's own cache between reading and hashing: half as fast again as with megabytes
# However many files are waiting: hashing them side by side would only cost memory and disk seeks.
_ONE_AT_A_TIME = threading.Lock()


def sha256_file(path: str | os.PathLike[str], progress: Callable[[int], None] | None = None) -> str:
    """The sha256 of a file, as 64 hexadecimal digits.

    Args:
        path: the file.
        progress: called with the number of bytes hashed since the last call.

    Raises:
        CheckpointError: the file cannot be read.
    """
    digest = _sha256(path, progress, threading.Event())
    assert digest is not None  # nobody could stop it
    return digest


class BackgroundHash:
    """Hashes a file in a thread while the caller does something else; hashlib lets go of the interpreter.

    One file at a time is hashed in the whole process; others wait for their turn.

    As a context manager, leaving it early (by an exception, say) stops the thread.

    Args:
        path: the file; must not change until `result` returns.
        progress: called from the thread with the number of bytes hashed since the last call.
    """

    def __init__(self, path: str | os.PathLike[str], progress: Callable[[int], None] | None = None) -> None:
        self._stop = threading.Event()
        self._digest: str | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(path, progress), daemon=True)
        self._thread.start()

    def _run(self, path: str | os.PathLike[str], progress: Callable[[int], None] | None) -> None:
        try:
            # Looked at again and again: one that waits must be able to stop while another still hashes.
            while not self._stop.is_set():
                if _ONE_AT_A_TIME.acquire(timeout=0.02):
                    try:
                        self._digest = _sha256(path, progress, self._stop)
                        return
                    finally:
                        _ONE_AT_A_TIME.release()
        except BaseException as error:  # raised again by result()
            self._error = error

    def result(self) -> str:
        """Wait for the sha256, as 64 hexadecimal digits.

        Raises:
            CheckpointError: the file cannot be read.
            RuntimeError: the block was left before the end was reached.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._digest is None:
            raise RuntimeError("hashing was stopped before the end")
        return self._digest

    def __enter__(self) -> BackgroundHash:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _sha256(path: str | os.PathLike[str], progress: Callable[[int], None] | None, stop: threading.Event) -> str | None:
    """The sha256, or None if stopped."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_BUFFER))
    try:
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                if stop.is_set():
                    return None
                digest.update(buffer[:count])
                if progress is not None:
                    progress(count)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read", why=error.strerror or str(error)) from error
    return digest.hexdigest()
