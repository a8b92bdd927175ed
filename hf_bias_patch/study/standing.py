"""Scores of several runs as one: mean, standard deviation, and the difference to the run of the same seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from hf_bias_patch.study.found import Score

__all__ = ["REMOVED", "Standing", "group", "spread", "standings"]

REMOVED = ("nothing", "query", "key", "value")
"""What may be removed, in the order in which it is shown."""


@dataclass(frozen=True)
class Standing:
    """Of one task, metric, way of training, and removal.

    Attributes:
        task, metric, how, removed: as of a `Score`.
        runs: how many scores.
        mean, sd: of the scores; no `sd` of one.
        pairs: how many of them have a run of the same seed with nothing removed.
        difference, difference_sd: of the scores to those; None without any, and for `nothing`.
    """

    task: str
    metric: str
    how: str
    removed: str
    runs: int
    mean: float
    sd: float | None
    pairs: int
    difference: float | None
    difference_sd: float | None


def group(scores: Sequence[Score]) -> dict[tuple[str, str, str], list[Score]]:
    """Scores that can be held against each other: by task, metric and way of training."""
    groups: dict[tuple[str, str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.task, score.metric, score.how), []).append(score)
    return groups


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation of a sample; NaN where a value is no number."""
    if not all(map(math.isfinite, values)):
        return math.nan, None
    return fmean(values), stdev(values) if len(values) > 1 else None


def standings(scores: Sequence[Score]) -> list[Standing]:
    """Each group's removals, in the order of `REMOVED`."""
    found = []
    for (task, metric, how), rows in group(scores).items():
        whole = {row.seed: row.value for row in rows if row.removed == "nothing"}
        names = dict.fromkeys([*REMOVED, *(row.removed for row in rows)])
        for name in names:
            mine = [row for row in rows if row.removed == name]
            if not mine:
                continue
            apart = [row.value - whole[row.seed] for row in mine if name != "nothing" and row.seed in whole]
            difference, difference_sd = spread(apart) if apart else (None, None)
            mean, sd = spread([row.value for row in mine])
            found.append(Standing(task, metric, how, name, len(mine), mean, sd, len(apart), difference, difference_sd))
    return found
