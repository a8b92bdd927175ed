"""How the scoring of a study goes on: how far it is, whether there is time for more, and what a reader should know."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Course"]


@dataclass
class Course:
    """Asked before each measurement.

    Attributes:
        known: measurements there are.
        ends: time of `time.monotonic` after which no more are begun; None if all of them are.
        step: called with measurements done, known, and what begins.
        done: how many are done, or were there.
        left_out: names of those for which there was no time.
        notes: what a reader should know.
    """

    known: int
    ends: float | None = None
    step: Callable[[int, int, str], None] = lambda *_: None
    done: int = 0
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def begins(self, name: str) -> bool:
        """Whether a measurement that is not there yet shall be made; if not, it is among those left out."""
        if self.ends is not None and time.monotonic() > self.ends:
            self.left_out.append(name)
            return False
        self.step(self.done, self.known, name)
        return True

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)
