"""What scores without a bias say against those with all of them: paired by seed, with a test."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from hf_bias_patch.scoring.extra import need
from hf_bias_patch.study.arms import STUDIED

if TYPE_CHECKING:
    from hf_bias_patch.study.found import Score

__all__ = ["Contrast", "contrasts"]

_PAIRS = (*((name, "nothing") for name in ("nothing", *STUDIED)), ("value", "query"))
"""What is removed, and against the removal of what. Of value and query, too: that one of two differences is significant
and the other is not does not make them differ."""

_ROUNDING = 1e-12
"""Share of the scores below which differences are equal: what subtraction leaves of equal ones."""


@dataclass(frozen=True)
class Contrast:
    """Scores of models that lack a bias, against scores of the same models that lack none, or another.

    Attributes:
        task, metric, greater_is_better, how: as of `Score`.
        removed: which bias is lacking.
        against: what the other models lack: `nothing`, or `query` beside a removed `value`.
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


def contrasts(scores: Sequence[Score]) -> list[Contrast]:
    """Each removal against none, and value against query, of each task, way and metric in the order of the scores."""

    def key(score: Score) -> tuple[str, str, str]:
        return score.task, score.how, score.metric

    order = {name: place for place, name in enumerate(dict.fromkeys(map(key, scores)))}
    made = []
    for _, group in groupby(sorted(scores, key=lambda score: order[key(score)]), key=key):
        some = list(group)
        values: dict[str, dict[int | None, float]] = {}
        for score in some:
            values.setdefault(score.removed, {})[score.seed] = score.value
        for removed, against in _PAIRS:
            if found := _contrast(some[0], removed, against, values):
                made.append(found)
    return made


def _contrast(
    like: Score, removed: str, against: str, values: Mapping[str, Mapping[int | None, float]]
) -> Contrast | None:
    """None if there is no seed that both have."""
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
        statistics.fmean(first),
        _sd(first),
        statistics.fmean(differences),
        _sd(differences),
        _p(first, second),
    )


def _sd(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _p(first: Sequence[float], second: Sequence[float]) -> float | None:
    differences = [a - b for a, b in zip(first, second, strict=True)]
    largest = max(map(abs, (*first, *second)))
    if len(differences) < 2 or max(differences) - min(differences) <= _ROUNDING * largest:
        return None
    return float(need("scipy.stats").ttest_rel(first, second).pvalue)
