"""What training does to biases, as sentences made from the records alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hf_bias_patch.studies.records import NOISE, SingleBiasRecord, StepRecord, Study

__all__ = ["training_summary"]

_NOTHING = 1e-6
"""Nats a token, and of a loss above 1 that share: a change of the loss up to here is rounding in float32."""

_ZERO = 1e-10
"""Of the other gradients: a gradient in float64 up to here is rounding."""


def training_summary(study: Study) -> Iterator[str]:
    """Sentences: whether the weights can replace the biases, which biases training uses, and how far it moves them."""
    yield from _folds(study)
    yield from _steps(study)
    yield from _lessons(study.lessons)
    yield from _drift(study)


def _folds(study: Study) -> Iterator[str]:
    done = [fold for fold in study.folds if not fold.refused]
    if done:
        worst, numbers = max(fold.relative for fold in done), sum(fold.numbers for fold in done)
        exact = worst <= NOISE * study.rounding
        needed = "do not need these biases" if exact else "hardly need these biases"
        yield (
            f"The weights {needed}: with the biases folded into them ({numbers:,} parameters, one kind at a time), the "
            f"last hidden states change by at most {worst:.1e} of their norm; rounding alone changes them by "
            f"{study.rounding:.1e}."
        )
    if refused := [fold for fold in study.folds if fold.refused]:
        named = "; ".join(f"{fold.place}, {fold.projection}" for fold in refused)
        why = ". ".join(dict.fromkeys(fold.refused.rstrip(".") for fold in refused))
        yield f"Not folded into the weights: {named}. {why}."


def _steps(study: Study) -> Iterator[str]:
    ways = [way for way in _WAYS if any(step.direction == way for step in study.steps)]
    steps = {(step.place, step.projection): step for step in study.steps if step.direction == ways[0]} if ways else {}
    parts = []
    for place in dict.fromkeys(place for place, _ in steps):
        query, value = steps.get((place, "query")), steps.get((place, "value"))
        if query and value:
            parts.append(f"{_times(value.change, query.change)} as far in {place} attention{_loss(value, query)}")
    if parts:
        compared = "on the value bias, compared with one on the query bias, moves the last hidden states"
        yield f"{_WAYS[ways[0]]} {compared} {'; '.join(parts)}."
    yield from _gradients(study)


_WAYS = {
    "AdamW": "A step of AdamW at the same learning rate",
    "random signs": "A step of the same length in a random direction",
}


def _gradients(study: Study) -> Iterator[str]:
    """Zero is judged by the gradients of the other biases: rounding in float64 is at least thirteen digits below."""
    steps = [step for step in study.steps if step.direction == "gradient"]
    others = max((step.gradient for step in steps if step.projection != "key"), default=0.0)
    keys = [step for step in steps if step.projection == "key"] if others else []
    zero = [key for key in keys if key.gradient <= _ZERO * others]
    if zero:
        places = ", ".join(key.place for key in zero)
        largest = max(key.gradient for key in zero)
        yield (
            f"The gradient of the key bias of {places} attention is zero, so training does not move it (in float64 its "
            f"norm is {largest:.0e}; the largest of the other biases is {others:.0e})."
        )
    for key in keys:
        if key not in zero:
            yield f"The gradient of the key bias of {key.place} attention is {key.gradient:.1e}: it can be trained."


def _loss(value: StepRecord, query: StepRecord) -> str:
    if value.loss_change is None or query.loss_change is None:
        return ""
    if value.loss_change < 0 and query.loss_change < 0:
        return f" (and lowers the loss {_times(value.loss_change, query.loss_change)} as much)"
    return f" (and changes the loss by {value.loss_change:+.2g}, against {query.loss_change:+.2g} nats per unit of it)"


def _times(one: float, other: float) -> str:
    times = one / other if other else float("inf")
    return f"{times:.1f} times" if times < 10 else f"{times:.0f} times"


def _lessons(lessons: Sequence[SingleBiasRecord]) -> Iterator[str]:
    parts = []
    for trained in dict.fromkeys(lesson.trained for lesson in lessons):
        first, *_, last = (lesson for lesson in lessons if lesson.trained == trained)
        fitted, held = last.fitted - first.fitted, last.loss - first.loss
        if max(abs(fitted), abs(held)) < _NOTHING * max(1.0, first.fitted, first.loss):
            parts.append(f"the {trained} bias alone changes nothing")
        else:
            parts.append(
                f"the {trained} bias alone ({last.numbers:,} parameters) changes the loss by {fitted:+.2g} on its "
                f"training texts and by {held:+.2g} nats a token on others"
            )
    if parts:
        yield f"In {lessons[-1].step} steps of AdamW at {lessons[-1].learning_rate:g}, {'; '.join(parts)}."


def _drift(study: Study) -> Iterator[str]:
    """Shows the largest figures over all kinds of attention."""
    keys = [drift for drift in study.drifts if drift.projection == "key"]
    if not keys:
        return
    moved = ", ".join(
        f"{max(drift.moved for drift in keys if drift.precision == precision):.1e} in {precision}"
        f"{_against(study, precision)}"
        for precision in dict.fromkeys(drift.precision for drift in keys)
    )
    rounds = f" ({study.rounding:.1e} is rounding)" if study.settings.dtype == "float32" else ""
    yield (
        f"While the whole model trained for {keys[0].steps} steps, its key biases moved by {moved}; weight decay alone "
        f"would move them by {max(drift.decay for drift in keys):.1e}. The effect of their move on the last hidden "
        f"states is {max(drift.relative for drift in keys):.1e} of their norm{rounds}."
    )


def _against(study: Study, precision: str) -> str:
    """How far the value biases moved, for comparison."""
    values = [drift.moved for drift in study.drifts if (drift.precision, drift.projection) == (precision, "value")]
    return f" (value: {max(values):.1e})" if values else ""
