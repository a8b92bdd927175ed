"""Measurements of one kind, and how those that are not there yet are made: shared out, as long as there is time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from hf_bias_patch.study.kept import Kept, Measured
from hf_bias_patch.study.team import Team

__all__ = ["Course", "Item", "Progress", "Stage", "Tell"]

Tell = Callable[[float], None]
"""Is told how much of a measurement is done, from 0 to 1."""

Progress = Callable[[float, int, str], None]
"""Is told how many measurements are done (a part of one, too), how many there are, and what is running."""


class Item(NamedTuple):
    """A measurement to be made.

    Attributes:
        name: for people.
        what: is given to the stage's `measure`.
        asked: a hash of what it depends on beside what all studies in a folder share.
    """

    name: str
    what: Any
    asked: str = ""

    @property
    def key(self) -> str:
        """By which it is known again."""
        return f"{self.name} ({self.asked})" if self.asked else self.name


@dataclass(frozen=True)
class Stage:
    """Measurements of one kind.

    Attributes:
        title: for people.
        kind: of their records: a key of `kept.KINDS`.
        size: how many there are.
        items: they may depend on what was measured before.
        measure: takes what some items ask for, and gives what came of each.
        at_once: how many are best measured together.
    """

    title: str
    kind: str
    size: int
    items: Callable[[Kept], Sequence[Item]]
    measure: Callable[[Sequence[Any], Tell], list[Measured]]
    at_once: int = 1


@dataclass
class Course:
    """How a study goes on.

    Attributes:
        kept: what is there.
        team: the processes that share the work.
        ends: time of `time.monotonic` after which nothing more is begun; None if all of it is.
        progress: is told how far it is, by the process that leads.
        left_out: names of what there was no time for.
        notes: what a reader should know, each once.
    """

    kept: Kept
    team: Team
    ends: float | None = None
    progress: Progress = lambda *_: None
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, stages: Sequence[Stage]) -> dict[str, tuple[Any, ...]]:
        """Make and keep all measurements that are not there; the records of all that are, by kind."""
        known, done = sum(stage.size for stage in stages), 0
        found: dict[str, list[Any]] = {}
        for stage in stages:
            items = stage.items(self.kept)
            self._make(stage, [item for item in items if item.key not in self.kept], done, known)
            there = [self.kept.of(item.key) for item in items if item.key in self.kept]
            found.setdefault(stage.kind, []).extend(record for one in there for record in one.records)
            self._note(note for one in there for note in one.notes)
            done += stage.size
        return {kind: tuple(records) for kind, records in found.items()}

    def _make(self, stage: Stage, todo: Sequence[Item], done: int, known: int) -> None:
        at_once = stage.at_once * self.team.size
        done += stage.size - len(todo)
        for start in range(0, len(todo), at_once):
            if self.team.agreed(self.ends is not None and time.monotonic() > self.ends):
                self.left_out += [item.name for item in todo[start:]]
                return
            some = todo[start : start + at_once]
            tell = partial(self._tell, done + start, len(some), known, stage.title)
            tell(0.0)
            made = self.team.all(stage.measure([item.what for item in self.team.mine(some)], tell))
            for item, measured in zip(some, made, strict=True):
                if measured.records:
                    self.kept.add(item.key, stage.kind, measured)
                self._note(measured.notes)

    def _tell(self, done: int, some: int, known: int, title: str, share: float) -> None:
        if self.team.leads:
            self.progress(done + share * some, known, title)

    def _note(self, notes: Any) -> None:
        self.notes += [note for note in notes if note not in self.notes]
