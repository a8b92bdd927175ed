"""Runs a study's experiments: makes each measurement that is missing, shared between processes, within the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from hf_bias_patch.studies.processes import Processes
from hf_bias_patch.studies.store import MeasurementStore, Outcome

__all__ = ["Experiment", "Measurement", "PartDone", "Progress", "Runner"]

PartDone = Callable[[float], None]
"""Called with the share of a measurement that is done, from 0 to 1."""

Progress = Callable[[float, int, str], None]
"""Called with how many measurements are done (fractions too), how many there are, and what is running."""


class Measurement(NamedTuple):
    """One measurement to be made.

    Attributes:
        name: for people.
        what: the argument of the experiment's `measure`.
        depends_on: a hash of what it depends on, apart from what all studies in a folder share.
    """

    name: str
    what: Any
    depends_on: str = ""

    @property
    def key(self) -> str:
        """The key of the measurement in the store."""
        return f"{self.name} ({self.depends_on})" if self.depends_on else self.name


@dataclass(frozen=True)
class Experiment:
    """Measurements of one kind.

    Attributes:
        title: for people.
        kind: of their records: a key of `store.KINDS`.
        size: how many measurements there are.
        measurements: lists them; they may depend on earlier ones.
        measure: takes the `what` of some measurements and returns the outcome of each.
        at_once: how many are best measured together.
    """

    title: str
    kind: str
    size: int
    measurements: Callable[[MeasurementStore], Sequence[Measurement]]
    measure: Callable[[Sequence[Any], PartDone], list[Outcome]]
    at_once: int = 1


@dataclass
class Runner:
    """Runs experiments one after the other.

    Attributes:
        store: measurements made so far.
        processes: those that share the work.
        ends: time of `time.monotonic` after which no measurement is begun; None for no limit.
        progress: called by the main process.
        left_out: names of measurements that the time did not suffice for.
        notes: what a reader should know, each once.
    """

    store: MeasurementStore
    processes: Processes
    ends: float | None = None
    progress: Progress = lambda *_: None
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def noise_floor(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The noise floor: stored, or measured by the main process."""
        if self.store.floor is None:
            self._report(0, 0, 0, "noise floor", 0.0)
            self.store.add_floor(self.processes.of_main(measure() if self.processes.is_main else None))
        assert self.store.floor is not None
        return self.store.floor

    def run(self, experiments: Sequence[Experiment]) -> dict[str, tuple[Any, ...]]:
        """Make and store the missing measurements; returns the records of all, by kind."""
        known, done = sum(experiment.size for experiment in experiments), 0
        found: dict[str, list[Any]] = {}
        for experiment in experiments:
            measurements = experiment.measurements(self.store)
            self._make(experiment, [one for one in measurements if one.key not in self.store], done, known)
            outcomes = [self.store.of(one.key) for one in measurements if one.key in self.store]
            found.setdefault(experiment.kind, []).extend(record for one in outcomes for record in one.records)
            self._note(note for one in outcomes for note in one.notes)
            done += experiment.size
        return {kind: tuple(records) for kind, records in found.items()}

    def _make(self, experiment: Experiment, todo: Sequence[Measurement], done: int, known: int) -> None:
        at_once = experiment.at_once * self.processes.size
        done += experiment.size - len(todo)
        for start in range(0, len(todo), at_once):
            if self.processes.of_main(self.ends is not None and time.monotonic() > self.ends):
                self.left_out += [measurement.name for measurement in todo[start:]]
                return
            some = todo[start : start + at_once]
            part_done = partial(self._report, done + start, len(some), known, experiment.title)
            part_done(0.0)
            mine = [measurement.what for measurement in self.processes.share(some)]
            outcomes = self.processes.gather(experiment.measure(mine, part_done))
            for measurement, outcome in zip(some, outcomes, strict=True):
                if outcome.records:
                    self.store.add(measurement.key, experiment.kind, outcome)
                self._note(outcome.notes)

    def _report(self, done: int, some: int, known: int, title: str, share: float) -> None:
        if self.processes.is_main:
            self.progress(done + share * some, known, title)

    def _note(self, notes: Any) -> None:
        self.notes += [note for note in notes if note not in self.notes]
