"""Compares scores without a bias to scores with all of them: paired by seed, with a t-test."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hf_bias_patch.scoring.extra import need
from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.records import ScoreRecord

__all__ = ["REMOVED", "Contrast", "comparable", "contrasts", "spread"]

REMOVED = ("nothing", *STUDIED)
"""What may be removed, in the order in which it is shown."""

_PAIRS = (*((name, "nothing") for name in REMOVED), ("value", "query"))
"""What is removed, and against the removal of what. Of value and query, too: that one of two differences is significant
and the other is not does not make them differ."""

_ROUNDING = 1e-12
"""Share of the scores below which differences are equal: what subtraction leaves of equal ones."""


@dataclass(frozen=True)
class Contrast:
    """Scores of models without a bias, compared with the same models with all biases, or without another.

    Attributes:
        task, metric, greater_is_better, how: as of `ScoreRecord`.
        removed: which bias is lacking.
        against: the bias removed from the other models: `nothing`, or `query` against a removed `value`.
        seeds: training runs that both have; 0 where nothing was trained, and there is one score.
        mean, sd: of the scores without the bias, in the metric's unit; sd is the sample's, None of fewer than two.
        difference, difference_sd: the same of the paired differences, removed minus against.
        p: of a two-sided paired t-test that the differences are 0 in the mean, not corrected for how many tests there
            are; None with fewer than two seeds, or where all differences are equal: then they have no spread to be
            held against.
    """

    task: str
    metric: str
    greater_is_better: bool
    how: str
    removed: str
    against: str
    seeds: int
    mean: float
    sd: float | None
    difference: float
    difference_sd: float | None
    p: float | None


def contrasts(scores: Sequence[ScoreRecord]) -> list[Contrast]:
    """For each task, way and metric: each removal against none, and value against query."""

    made = []
    for some in comparable(scores):
        values: dict[str, dict[int | None, float]] = {}
        for score in some:
            values.setdefault(score.removed, {})[score.seed] = score.value
        for removed, against in _PAIRS:
            if found := _contrast(some[0], removed, against, values):
                made.append(found)
    return made


def comparable(scores: Sequence[ScoreRecord]) -> list[list[ScoreRecord]]:
    """Scores that can be compared: of one task, way and metric."""
    groups: dict[tuple[str, str, str], list[ScoreRecord]] = {}
    for score in scores:
        groups.setdefault((score.task, score.how, score.metric), []).append(score)
    return list(groups.values())


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation of a sample; the latter is None for fewer than two or infinite values."""
    mean = statistics.fmean(values)
    return mean, statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None


def _contrast(
    like: ScoreRecord, removed: str, against: str, values: Mapping[str, Mapping[int | None, float]]
) -> Contrast | None:
    """None if they have no seed in common."""
    mine, others = values.get(removed, {}), values.get(against, {})
    paired = [seed for seed in mine if seed in others]
    if not paired:
        return None
    first, second = [mine[seed] for seed in paired], [others[seed] for seed in paired]
    differences = [a - b for a, b in zip(first, second, strict=True)]
    return Contrast(
        like.task,
        like.metric,
        like.greater_is_better,
        like.how,
        removed,
        against,
        sum(seed is not None for seed in paired),
        *spread(first),
        *spread(differences),
        _p(first, second, differences),
    )


def _p(first: Sequence[float], second: Sequence[float], differences: Sequence[float]) -> float | None:
    largest = max(map(abs, (*first, *second)))
    if len(differences) < 2 or not math.isfinite(largest):
        return None
    if max(differences) - min(differences) <= _ROUNDING * largest:
        return None
    return float(need("scipy.stats").ttest_rel(first, second).pvalue)
