"""SIGTERM during training: the run saves its state first, and then ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["TERMINATED", "StopSignal"]

TERMINATED = 143
"""Exit code of what SIGTERM stopped, after it saved its state: 128 and the signal's number, as shells have it."""


class StopSignal:
    """Within a `with` block, SIGTERM sets `received` instead of ending the process, if this is the main thread."""

    def __init__(self) -> None:
        self.received = False
        self._before: Any = None

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.received = True
