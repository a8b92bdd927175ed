"""Sentences follow the numbers, and turn with them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hf_bias_patch.studies.records import ArmRecord, Study
from hf_bias_patch.studies.settings import StudySettings
from hf_bias_patch.studies.summaries.single_study import summary

FLOOR = 1e-7


def _row(stage: str, projection: str, relative: float, loss: float | None = None, numbers: int = 8) -> ArmRecord:
    figures = {"relative": relative} | ({} if loss is None else {"loss_change": loss})
    name = f"{stage} {projection} {numbers}"
    return ArmRecord(name, stage, "encoder self", projection, "zeros", None, None, numbers, "", figures)


def _said(*rows: ArmRecord, loss: bool = True, **changed: object) -> str:
    floor = {"relative": FLOOR} | ({"loss_change": 0.0} if loss else {})
    found = Study(StudySettings("x"), "bert", None, floor, rows, (), 4, 100, 0, ())
    return " ".join(summary(replace(found, **changed)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("relative", "verdict", "says"),
    [
        (3 * FLOOR, "redundant", "does nothing, as the paper says: whatever replaces it (1 way was tried)"),
        (0.2, "needed", "matters: zeros in its place change the last hidden states by 0.2 of their norm"),
    ],
)
def test_the_key_bias(relative: float, verdict: str, says: str) -> None:
    text = _said(replace(_row("whole", "key", relative), verdict=verdict))
    assert says in text and ("the verdict of the table is “needed”" in text) == (verdict == "needed")


@pytest.mark.parametrize(
    ("query", "value", "says"),
    [
        (0.1, 0.2, "more than the query bias, as the paper says"),
        (0.2, 0.1, "less than the query bias, against what the paper says"),
        (0.1, 0.11, "about as much as the query bias, where the paper says more"),
    ],
)
def test_query_and_value(query: float, value: float, says: str) -> None:
    text = _said(_row("whole", "query", query, 0.01), _row("whole", "value", value, 0.02))
    assert (
        says in text and "and the loss by +0.02 nats a token; removing the query bias" in text and "+0.01 nats" in text
    )
    assert "nats" not in _said(_row("whole", "query", query), _row("whole", "value", value), loss=False)


def test_biases_that_do_nothing_are_in_no_order() -> None:
    text = _said(_row("whole", "query", 0.0, 0.0), _row("whole", "value", FLOOR, 0.0))
    assert "the query bias and the value bias change nothing but rounding" in text and "against what" not in text


def test_float64_has_a_rounding_of_its_own() -> None:
    """Its floor is zero, as it is held against itself; a change in the last digit is none all the same."""
    floor = {"relative": 0.0, "loss_change": 0.0}
    assert "does nothing" in _said(_row("whole", "key", 9e-16), floor=floor)
    assert "matters" in _said(_row("whole", "key", 9e-14), floor=floor)


def test_how_much_can_go() -> None:
    rows = [_row("removal", "", 0.1, loss, numbers) for numbers, loss in ((8, 0.0), (16, 0.004), (24, 0.02))]
    assert "16 of 24 query, key and value bias parameters can be set to zero" in _said(*rows)
    assert "Already the first 24 of 24" in _said(rows[-1])


def test_limits_are_said() -> None:
    text = _said(truncated=2, left_out=("a", "b"), notes=("Something else.",))
    assert "2 of 4 texts" in text and "2 measurements were left out" in text and "Something else." in text
