"""Figures of what training does to biases, and of scores on tasks without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.downstream.contrasts import REMOVED, comparable, spread
from hf_bias_patch.studies.figures.description import (
    MARKS,
    RELATIVE,
    Axis,
    Figure,
    Key,
    Panel,
    ReferenceLine,
    Series,
    colour_of,
    log_axis,
    projection_keys,
    slug,
    tooltip,
)
from hf_bias_patch.studies.records import DriftRecord, ScoreRecord, SingleBiasRecord, Study

__all__ = ["drift", "lessons", "scores", "steps"]

_PRECISION_MARKS = ("open", "diamond", "square", "cross")
_SCORE_KEYS = (
    Key("a run", "circle", "ink"),
    Key("mean ± standard deviation", "stroke", "ink"),
    Key("mean with nothing removed", "dash", "muted"),
)


def steps(study: Study) -> Figure:
    """What a step along each direction changes, a panel for each place; no bar where it is rounding."""
    moving = study.moving_steps
    low, high = log_axis("", [step.change for step in moving]).span or (0.1, 1.0)
    # A bar begins at the end of the axis, and the least of them must be seen.
    axis = Axis("change of a token's last hidden states,\nper unit of learning rate", span=(low / 10, high))
    directions = Axis(categories=list(dict.fromkeys(step.direction for step in study.steps)))
    panels = []
    for place in dict.fromkeys(step.place for step in study.steps):
        series = []
        for projection in STUDIED:
            mine = [step for step in moving if (step.place, step.projection) == (place, projection)]
            x, y = [step.direction for step in mine], [step.change for step in mine]
            told = [_tooltip(step, "place", "projection", "direction") for step in mine]
            series.append(Series("bars", x, y, projection, told))
        keys = projection_keys(step.projection for step in moving if step.place == place)
        squares = [key._replace(mark="square") for key in keys]
        panels.append(Panel(f"steps-{slug(place)}", place, directions, axis, series, keys=squares))
    return Figure("steps", panels)


def lessons(study: Study) -> Figure:
    """What losses changed by while one projection trained: a line for held-out texts, a dotted one for its own."""
    series, keys = [], []
    for trained in dict.fromkeys(row.trained for row in study.lessons):
        mine = [row for row in study.lessons if row.trained == trained]
        series += [_curve(mine, trained, "loss"), _curve(mine, trained, "fitted")]
        keys.append(Key(trained, "line", colour_of(trained)))
    keys += [Key("held-out texts", "line", "ink"), Key("texts it trains on", "dash", "ink")]
    axes = Axis("steps"), Axis("change of the loss\n(nats a token)")
    return Figure("lessons", [Panel("lessons", "", *axes, series, keys=keys)] if series else [])


def _curve(rows: Sequence[SingleBiasRecord], trained: str, loss: str) -> Series:
    x, y = [row.step for row in rows], [getattr(row, loss) - getattr(rows[0], loss) for row in rows]
    told, mark = [_tooltip(row, "trained") for row in rows], MARKS.get(trained, "circle")
    return Series("line", x, y, colour_of(trained), told, mark, dotted=loss == "fitted")


def drift(study: Study) -> Figure:
    """How far biases moved, beside how long they were, a panel for each precision; and what these moves alone do."""
    rows = study.drifts
    sizes = log_axis("Euclidean norm", [size for row in rows for size in (row.start, row.moved, row.decay)])
    effects = log_axis(RELATIVE, [row.relative for row in rows])
    lines = Axis(categories=list(dict.fromkeys(map(_line_of, rows))))
    moved = [
        *(
            Key(f"moved by, {key.name}", "circle", key.colour)
            for key in projection_keys(row.projection for row in rows)
        ),
        Key("by decay alone", "open", "muted"),
        Key("at the start", "stroke", "muted"),
    ]
    panels, of_effects, keys = [], [], []
    for number, precision in enumerate(dict.fromkeys(row.precision for row in rows)):
        mine = [row for row in rows if row.precision == precision]
        series = [
            _sizes(mine, "start", sizes, "stroke"),
            _sizes(mine, "decay", sizes, "open"),
            _sizes(mine, "moved", sizes),
        ]
        panels.append(Panel(f"drift-{number}", precision, sizes, lines, series, keys=moved))
        keys.append(Key(precision, _PRECISION_MARKS[number % len(_PRECISION_MARKS)], "ink"))
        of_effects.append(_sizes(mine, "relative", effects, keys[-1].mark))
    title = "what these moves alone do"
    panels += [Panel("drift-effect", title, effects, lines, of_effects, keys=keys)] if rows else []
    return Figure("drift", panels)


def _sizes(rows: Sequence[DriftRecord], figure: str, axis: Axis, mark: str = "circle") -> Series:
    sizes = [axis.place(getattr(row, figure)) for row in rows]
    colours = "muted" if figure in ("start", "decay") else [row.projection for row in rows]
    told = [_tooltip(row, "precision", "place", "projection") for row in rows]
    return Series("points", sizes, list(map(_line_of, rows)), colours, told, mark)


def _line_of(row: DriftRecord) -> str:
    return f"{row.place}, {row.projection}"


def scores(study: Study) -> Figure:
    """Each run's score, and their mean ± standard deviation; a panel for each task and way of training."""
    panels = []
    for at, mine in enumerate(comparable(study.scores)):
        first, values = (
            mine[0],
            {row.removed: [one.value for one in mine if one.removed == row.removed] for row in mine},
        )
        names = [name for name in (*REMOVED, *sorted(set(values).difference(REMOVED))) if name in values]
        better = "more" if first.greater_is_better else "less"
        title = f"{first.task}, {first.how}:\n{first.metric} ({better} is better)"
        lines = [ReferenceLine("x", spread(values["nothing"])[0])] if "nothing" in values else []
        series, axes = [_means(values, names), _runs(mine)], (Axis(first.metric), Axis(categories=names))
        panels.append(Panel(f"scores-{at}", title, *axes, series, None, lines, _SCORE_KEYS))
    return Figure("scores", panels)


def _means(values: dict[str, list[float]], names: Sequence[str]) -> Series:
    found = [spread(values[name]) for name in names]
    errors = [sd or 0.0 for _, sd in found]
    told = [
        tooltip(f"{name} removed", {"mean": mean, "standard deviation": sd or 0.0})
        for name, (mean, sd) in zip(names, found, strict=True)
    ]
    return Series("points", [mean for mean, _ in found], names, "ink", told, "stroke", errors=errors)


def _runs(rows: Sequence[ScoreRecord]) -> Series:
    told, colours = [_tooltip(row, "task", "how", "removed") for row in rows], [colour_of(row.removed) for row in rows]
    return Series("points", [row.value for row in rows], [row.removed for row in rows], colours, told)


def _tooltip(record: Any, *title: str) -> str:
    """All of a record; the fields that say which it is as the title."""
    figures = asdict(record)
    return tooltip(", ".join(str(figures.pop(name)) for name in title), figures)
