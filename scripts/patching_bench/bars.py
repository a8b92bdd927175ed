"""Every promise against its figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from patching_bench.arms import FOLDS, NAIVE, RECORD, SYNC
from patching_bench.runs import Sample

MB = 1e6


@dataclass(frozen=True)
class Bar:
    """A promise, and what became of it.

    Attributes:
        measured: None where its arm did not run.
        strict: whether it is the promise as it stands, or the same figure counted otherwise, to explain it.
    """

    name: str
    measured: float | None
    limit: float
    unit: str
    strict: bool = True

    @property
    def met(self) -> bool:
        """Whether it was kept; what was not measured was not kept."""
        return self.measured is not None and self.measured <= self.limit


class Results:
    """All samples, by arm. Medians are over those that nothing disturbed, or over all if there is none."""

    def __init__(self, samples: dict[str, list[Sample]]) -> None:
        self.samples = samples
        calm = {arm: [sample for sample in found if sample.calm] for arm, found in samples.items()}
        self.used = {arm: calm[arm] or found for arm, found in samples.items()}

    def seconds(self, arm: str) -> float | None:
        """Median seconds of an arm's whole process."""
        return self._median(arm, lambda sample: sample.seconds)

    def figure(self, arm: str, name: str) -> float | None:
        """Median of what an arm said of itself."""
        return self._median(arm, lambda sample: sample.figures.get(name))

    def peak(self, arm: str) -> float | None:
        """Largest peak memory of an arm, in bytes."""
        return max((sample.peak_bytes for sample in self.samples.get(arm, [])), default=None)

    def ratio(self, arm: str, peer: str) -> float | None:
        """Median seconds of an arm over those of a peer."""
        one, other = self.seconds(arm), self.seconds(peer)
        return one / other if one and other else None

    def _median(self, arm: str, take: Callable[[Sample], float | None]) -> float | None:
        values = [value for sample in self.used.get(arm, []) if (value := take(sample)) is not None]
        return statistics.median(values) if values else None


def bars(results: Results, shards: int) -> list[Bar]:
    """Every promise against its figure."""
    found = []
    for fold in FOLDS:
        arm = f"patch {fold}"
        found += [
            Bar(f"{arm}: time, against cp", results.ratio(arm, "cp"), 1.25, "x"),
            Bar(f"{arm}: time, against naive", results.ratio(arm, NAIVE), 0.5, "x"),
            _memory_bar(results, arm),
        ]
    for fold in FOLDS:
        found += _in_place_bars(results, f"in place {fold}", vectors="query" not in fold)
    found += [
        Bar("--help: time", results.seconds("--help"), 0.3, "s"),
        Bar("inspect: time", results.seconds("inspect"), 0.7, "s"),
        Bar(f"inspect {shards:,} shards: time", results.seconds(f"inspect {shards:,} shards"), 2.0, "s"),
    ]
    peers = [(f"patch {fold}", SYNC) for fold in FOLDS] + [
        (f"patch {FOLDS[1]}", RECORD),
        (f"patch {FOLDS[1]}, Hub cache", "cp"),
    ]
    found += [
        Bar(f"{arm}: time, against {peer}", results.ratio(arm, peer), 1.25, "x", strict=False) for arm, peer in peers
    ]
    return sorted(found, key=lambda bar: not bar.strict)


def _memory_bar(results: Results, arm: str) -> Bar:
    peak = results.peak(arm)
    limit = 150 + (results.figure(arm, "largest_matrix") or 0) / MB
    return Bar(f"{arm}: peak memory", None if peak is None else peak / MB, limit, "MB")


def _in_place_bars(results: Results, arm: str, *, vectors: bool) -> list[Bar]:
    touched = results.figure(arm, "touched_bytes")
    ratios = {
        what: written / touched
        for what in ("written", "dirtied")
        if touched and (written := results.figure(arm, f"{what}_bytes")) is not None
    }
    found = [
        Bar(f"{arm}: bytes written, against touched", ratios.get("written"), 3, "x"),
        Bar(f"{arm}: bytes of pages made dirty, against touched", ratios.get("dirtied"), 3, "x", strict=False),
        _memory_bar(results, arm),
    ]
    if vectors:
        call = results.figure(arm, "call_seconds")
        found.append(Bar(f"{arm}: time of the process", results.seconds(arm), 0.5, "s"))
        found.append(Bar(f"{arm}: time of the call in it", call, 0.5, "s", strict=False))
    return found
