"""Differences are paired by seed, and the p-value is that of the paired t-test."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import pytest
from scipy import integrate

from hf_bias_patch.studies.downstream.contrasts import Contrast, contrasts
from hf_bias_patch.studies.records import ScoreRecord

NOTHING = (80.0, 70.0, 60.0)
VALUE = (77.0, 66.0, 58.0)
QUERY = (79.0, 70.0, 60.5)


def scores(
    removed: str, values: Sequence[float], how: str = "fine-tuned", metric: str = "accuracy"
) -> list[ScoreRecord]:
    return [ScoreRecord("sst2", metric, True, how, removed, seed, value) for seed, value in enumerate(values, 1)]


def found(made: Sequence[Contrast], removed: str, against: str = "nothing") -> Contrast:
    (one,) = (row for row in made if (row.removed, row.against) == (removed, against))
    return one


def by_hand(differences: Sequence[float]) -> float:
    """Two-sided p: Student's density integrated beyond |t|."""
    n = len(differences)
    t = statistics.fmean(differences) / (statistics.stdev(differences) / math.sqrt(n))
    free = n - 1
    scale = math.gamma((free + 1) / 2) / (math.sqrt(free * math.pi) * math.gamma(free / 2))
    tail, _ = integrate.quad(lambda x: scale * (1 + x * x / free) ** (-(free + 1) / 2), abs(t), math.inf)
    return 2 * tail


def test_numbers_by_hand() -> None:
    made = contrasts([*scores("nothing", NOTHING), *scores("query", QUERY), *scores("value", VALUE)])
    value = found(made, "value")
    assert (value.seeds, value.mean, value.difference) == (3, 67.0, -3.0)
    assert value.difference_sd == pytest.approx(1.0)  # of -3, -4, -2; unpaired it would be ten times that
    assert value.sd == pytest.approx(statistics.stdev(VALUE))
    assert value.p == pytest.approx(by_hand([-3, -4, -2])) and value.p == pytest.approx(0.0351, abs=1e-4)
    assert found(made, "query").difference == pytest.approx(-1 / 6)
    between = found(made, "value", "query")
    assert between.difference == pytest.approx(-17 / 6) and between.p == pytest.approx(by_hand([-2, -4, -2.5]))
    assert found(made, "nothing").difference == 0 and found(made, "nothing").p is None


def test_pairs_are_found_by_seed_and_not_by_place() -> None:
    mixed = [*scores("nothing", NOTHING), *scores("value", VALUE)]
    expected = contrasts(mixed)
    random.Random(0).shuffle(mixed)
    assert {row.removed: row.difference_sd for row in contrasts(mixed)} == {
        row.removed: row.difference_sd for row in expected
    }


def test_a_seed_that_one_lacks_is_no_pair() -> None:
    made = contrasts([*scores("nothing", NOTHING), *scores("value", VALUE[:2])])
    value = found(made, "value")
    assert (value.seeds, value.difference, value.mean) == (2, -3.5, 71.5)
    assert found(made, "nothing").seeds == 3
    assert not contrasts(scores("value", VALUE))


@pytest.mark.parametrize("values", [NOTHING, [value + 1.1 for value in NOTHING], [70.0]])
def test_where_no_test_is_possible(values: Sequence[float]) -> None:
    """Equal differences, also up to rounding (1.1 is no binary fraction), and one seed."""
    made = contrasts([*scores("nothing", NOTHING), *scores("key", values)])
    assert found(made, "key").p is None


def test_without_training_there_is_one_score() -> None:
    rows = [ScoreRecord("sst2", "accuracy", True, "as it is", name, None, value)
            for name, value in (("nothing", 80.0), ("value", 79.0))]  # fmt: skip
    value = found(contrasts(rows), "value")
    assert (value.seeds, value.sd, value.difference_sd, value.p, value.difference) == (0, None, None, None, -1.0)


def test_ways_tasks_and_metrics_are_kept_apart() -> None:
    rows = [
        *scores("nothing", NOTHING), *scores("nothing", (1.0, 2.0), metric="loss"),
        *scores("nothing", (50.0, 51.0), how="from scratch"),
        *scores("key", NOTHING), *scores("key", (1.0, 2.0), metric="loss"),
    ]  # fmt: skip
    assert [(row.how, row.metric, row.removed) for row in contrasts(rows)] == [
        ("fine-tuned", "accuracy", "nothing"), ("fine-tuned", "accuracy", "key"),
        ("fine-tuned", "loss", "nothing"), ("fine-tuned", "loss", "key"), ("from scratch", "accuracy", "nothing"),
    ]  # fmt: skip


def test_what_is_infinite_has_no_spread() -> None:
    scores = [ScoreRecord("t", "perplexity", False, "fine-tuned", name, seed, value)
              for name in ("nothing", "value") for seed, value in ((1, 3.0), (2, math.inf))]  # fmt: skip
    assert all(row.sd is None and row.p is None for row in contrasts(scores))
