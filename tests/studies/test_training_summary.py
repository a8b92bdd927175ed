"""What is said of training follows the numbers, and turns with them."""

from __future__ import annotations

from dataclasses import replace

from hf_bias_patch.studies.records import DriftRecord, FoldRecord, SingleBiasRecord, StepRecord, Study
from hf_bias_patch.studies.settings import StudySettings
from hf_bias_patch.studies.summaries.training import training_summary

FLOOR = 1e-7
PLACE = "encoder self"
EMPTY = Study(StudySettings("x"), "bert", None, {"relative": FLOOR, "loss_change": 0.0}, (), (), 4, 100, 0, ())


def _said(**changed: object) -> str:
    return " ".join(training_summary(replace(EMPTY, **changed)))  # type: ignore[arg-type]


def _step(projection: str, direction: str, gradient: float, change: float, loss: float | None) -> StepRecord:
    return StepRecord(PLACE, projection, 8, direction, gradient, change, loss)


def test_nothing_made_nothing_said() -> None:
    assert _said() == ""


def test_folds() -> None:
    done = FoldRecord(PLACE, "value", 8, "", 3e-7)
    refused = FoldRecord(PLACE, "key", 8, "Its norm has no bias.", 0.0)
    assert "(8 parameters, one kind at a time), the last hidden states change by at most 3.0e-07" in _said(
        folds=(done,)
    )
    said = _said(folds=(done, refused))
    assert "Not folded into the weights: encoder self, key. Its norm has no bias." in said
    assert "do not need these biases" not in _said(folds=(refused,))
    assert "hardly need these biases" in _said(folds=(replace(done, relative=1e-3),))
    two = (refused, replace(refused, projection="query", refused="It reads no layer norm"))
    assert "key; encoder self, query. Its norm has no bias. It reads no layer norm." in _said(folds=two)


def test_steps() -> None:
    steps = (
        _step("query", "AdamW", 1.0, 2.0, -0.1),
        _step("value", "AdamW", 2.0, 10.0, -0.4),
        _step("query", "gradient", 1.0, 2.0, -0.1),
        _step("key", "gradient", 1e-17, 0.0, 0.0),
    )
    said = _said(steps=steps)
    assert (
        "A step of AdamW at the same learning rate on the value bias, compared with one on the query bias, moves"
        in said
    )
    assert "5.0 times as far in encoder self attention (and lowers the loss 4.0 times as much)" in said
    assert "is zero, so training does not move it (in float64 its norm is 1e-17; " in said
    said = _said(steps=(*steps[:3], _step("key", "gradient", 0.1, 0.1, -0.1)))
    assert "The gradient of the key bias of encoder self attention is 1.0e-01: it can be trained" in said
    assert "changes the loss by +0.4, against -0.1" in _said(steps=(steps[0], replace(steps[1], loss_change=0.4)))
    signs = tuple(replace(step, direction="random signs", loss_change=None) for step in steps[:2])
    assert "5.0 times as far in encoder self attention." in _said(steps=signs)
    assert "lowers" not in _said(
        steps=signs
    ) and "A step of the same length in a random direction on the value" in _said(steps=signs)


def test_lessons() -> None:
    def lesson(trained: str, step: int, fitted: float, loss: float) -> SingleBiasRecord:
        return SingleBiasRecord(trained, 8, 3e-3, step, fitted, loss, 0.1)

    lessons = (
        lesson("key", 0, 1.0, 1.1),
        lesson("key", 40, 1.0 + 1e-8, 1.1),
        lesson("value", 0, 1.0, 1.1),
        lesson("value", 20, 0.9, 1.2),
        lesson("value", 40, 0.8, 1.15),
    )
    said = _said(lessons=lessons)
    assert "In 40 steps of AdamW at 0.003, the key bias alone changes nothing" in said
    assert "the value bias alone (8 parameters) changes the loss by -0.2 on its training texts and by +0.05" in said


def test_drift() -> None:
    def drift(precision: str, projection: str, moved: float, relative: float) -> DriftRecord:
        return DriftRecord(precision, PLACE, projection, 8, 5e-5, 0.01, 40, 1e-9, moved, 1.0, 2e-5, 0.5, relative)

    said = _said(drifts=(drift("float32", "key", 1e-4, 1e-7), drift("float32", "value", 1e-2, 0.1)))
    assert "moved by 1.0e-04 in float32 (value: 1.0e-02); weight decay alone would move them by 2.0e-05" in said
    assert "The effect of their move on the last hidden states is 1.0e-07 of their norm (1.0e-07 is rounding)" in said
    half = _said(drifts=(drift("float32", "key", 1e-4, 1e-7),), settings=StudySettings("x", dtype="bfloat16"))
    assert (
        "1.0e-07 of their norm." in half and "is rounding" not in half
    )  # measured in float32: the floor is not its own


def test_rounding_of_a_large_loss_is_no_lesson() -> None:
    lessons = tuple(SingleBiasRecord("key", 8, 3e-3, step, 9.0 + 3e-6 * step, 9.0, 1e-7) for step in (0, 1))
    assert "the key bias alone changes nothing" in _said(lessons=lessons)
    small = tuple(replace(lesson, fitted=lesson.fitted - 8, loss=1.0) for lesson in lessons)
    assert "changes the loss by +3e-06" in _said(lessons=small)
