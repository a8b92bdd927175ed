"""The figures of a study, and of several side by side: what each shows, as plain data."""

from __future__ import annotations

import math
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
    HeatMap,
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
from hf_bias_patch.studies.number_formats import number
from hf_bias_patch.studies.records import NOISE, ArmRecord, DriftRecord, ScoreRecord, SingleBiasRecord, Study
from hf_bias_patch.studies.summaries.comparison import ComparisonRow

__all__ = [
    "comparison",
    "drift",
    "figures_of",
    "heads",
    "layers",
    "lessons",
    "perturbation",
    "removal",
    "scores",
    "steps",
]

_PRECISION_MARKS = ("open", "diamond", "square", "cross")
_SCORE_KEYS = (
    Key("a run", "circle", "ink"),
    Key("mean ± standard deviation", "stroke", "ink"),
    Key("mean with nothing removed", "dash", "muted"),
)


def figures_of(study: Study) -> list[Figure]:
    """All figures of a study; those of experiments that were not made have no panels."""
    return [make(study) for make in (perturbation, layers, heads, removal, steps, lessons, drift, scores)]


def perturbation(study: Study) -> Figure:
    """What each fill of each projection changes, beside the noise floor; a panel for each place, all on one scale."""
    rows, floor = _of_stage(study, "whole"), study.floor.get("relative", 0.0)
    axis = log_axis(RELATIVE, [floor, *(row.figures["relative"] for row in rows)])
    panels = []
    for place in _places(rows):
        mine = [row for row in rows if row.place == place]
        keys = [
            *projection_keys(row.projection for row in mine),
            Key(f"noise floor, {number(floor)}", "dash", "muted"),
        ]
        series = [_dots([row for row in mine if row.projection == name], name, axis) for name in STUDIED]
        fills = Axis(categories=list(dict.fromkeys(row.fill for row in mine)))
        lines = [ReferenceLine("x", floor)] if floor > 0 else []
        panels.append(Panel(f"perturbation-{slug(place)}", place, axis, fills, series, None, lines, keys))
    return Figure("perturbation", panels)


def _dots(rows: Sequence[ArmRecord], projection: str, axis: Axis) -> Series:
    changes = [axis.place(row.figures["relative"]) for row in rows]
    fills, tooltips = [row.fill for row in rows], list(map(_arm_tooltip, rows))
    return Series("points", changes, fills, projection, tooltips, MARKS[projection])


def layers(study: Study) -> Figure:
    """Layers × projections, one layer's bias set to zero; a panel for each place."""
    rows = _of_stage(study, "layer")
    panels = []
    for place in _places(rows):
        cells = {(row.projection, row.layer): row for row in rows if row.place == place}
        down = [name for name in STUDIED if any(name == projection for projection, _ in cells)]
        across = sorted({layer for _, layer in cells if layer is not None})
        grid = [[cells.get((name, layer)) for layer in across] for name in down]
        axes = Axis("layer", list(map(str, across))), Axis(categories=down)
        panels.append(Panel(f"layers-{slug(place)}", place, *axes, heat_map=_heat_map(study, rows, grid)))
    return Figure("layers", panels)


def heads(study: Study) -> Figure:
    """Layers × heads, one head's part of a bias set to zero; a panel for each place and projection."""
    rows = _of_stage(study, "head")
    panels = []
    for place, projection in dict.fromkeys((place, name) for place in _places(rows) for name in STUDIED):
        cells = {(row.layer, row.head): row for row in rows if (row.place, row.projection) == (place, projection)}
        down = sorted({layer for layer, _ in cells if layer is not None})
        across = sorted({head for _, head in cells if head is not None})
        grid = [[cells.get((layer, head)) for head in across] for layer in down]
        if cells:
            name, title = f"heads-{slug(place)}-{projection}", f"{place}, {projection}, by head"
            axes = Axis("head", list(map(str, across))), Axis("layer", list(map(str, down)))
            panels.append(Panel(name, title, *axes, heat_map=_heat_map(study, rows, grid)))
    return Figure("heads", panels)


def _heat_map(study: Study, rows: Sequence[ArmRecord], grid: Sequence[Sequence[ArmRecord | None]]) -> HeatMap:
    """On a scale for all rows. All rounding has one colour: it would take up most of the scale, and leave no difference
    between what matters."""
    rounding = NOISE * study.rounding
    above = [change for row in rows if rounding < (change := row.figures["relative"]) < math.inf]
    low = min(above, default=rounding)
    values = [[_finite(row) for row in line] for line in grid]
    tooltips = [[_arm_tooltip(row) if row else "" for row in line] for line in grid]
    return HeatMap(values, tooltips, low, max(2 * low, *above, low))


def _finite(row: ArmRecord | None) -> float | None:
    return row.figures["relative"] if row and math.isfinite(row.figures["relative"]) else None


def removal(study: Study) -> Figure:
    """How the loss, or without one the hidden states, change as biases are removed one after the other."""
    rows, loss = _of_stage(study, "removal"), study.measure == "loss_change"
    parameters, changes = [0, *(row.numbers for row in rows)], [0.0, *(row.figures[study.measure] for row in rows)]
    curve = Series("line", parameters, changes, "ink", ["nothing removed", *map(_arm_tooltip, rows)])
    bound = study.settings.loss_bound
    keys = [Key("loss", "line", "ink"), Key(f"bound, {bound:g} nats a token", "dash", "muted")] if loss else []
    x = Axis("bias parameters at zero, least effect first")
    y = Axis("change of the loss\n(nats a token)" if loss else RELATIVE)
    lines = [ReferenceLine("y", bound)] if loss else []
    return Figure("removal", [Panel("removal", "", x, y, [curve], None, lines, keys)] if rows else [])


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
            tooltips = [_tooltip(step, "place", "projection", "direction") for step in mine]
            series.append(Series("bars", x, y, projection, tooltips))
        keys = projection_keys(step.projection for step in moving if step.place == place)
        squares = [key._replace(mark="square") for key in keys]
        panels.append(Panel(f"steps-{slug(place)}", place, directions, axis, series, keys=squares))
    return Figure("steps", panels)


def lessons(study: Study) -> Figure:
    """Change of the loss while one projection trains: on held-out texts, and dotted on its training texts."""
    series, keys = [], []
    for trained in dict.fromkeys(row.trained for row in study.lessons):
        mine = [row for row in study.lessons if row.trained == trained]
        series += [_curve(mine, trained, "loss"), _curve(mine, trained, "fitted")]
        keys.append(Key(trained, "line", colour_of(trained)))
    keys += [Key("held-out texts", "line", "ink"), Key("texts it trains on", "dot", "ink")]
    axes = Axis("steps"), Axis("change of the loss\n(nats a token)")
    return Figure("lessons", [Panel("lessons", "", *axes, series, keys=keys)] if series else [])


def _curve(rows: Sequence[SingleBiasRecord], trained: str, loss: str) -> Series:
    x, y = [row.step for row in rows], [getattr(row, loss) - getattr(rows[0], loss) for row in rows]
    tooltips, mark = [_tooltip(row, "trained") for row in rows], MARKS.get(trained, "circle")
    return Series("line", x, y, colour_of(trained), tooltips, mark, dotted=loss == "fitted")


def drift(study: Study) -> Figure:
    """How far biases moved, beside their norm, a panel for each precision; and what these moves alone do."""
    rows = study.drifts
    sizes = log_axis("Euclidean norm", [size for row in rows for size in (row.start, row.moved, row.decay)])
    effects = log_axis(RELATIVE, [row.relative for row in rows])
    lines = Axis(categories=list(dict.fromkeys(map(_line_of, rows))))
    moved = [
        *(
            Key(f"{key.name}: moved by training", "circle", key.colour)
            for key in projection_keys(row.projection for row in rows)
        ),
        Key("moved by weight decay alone", "open", "muted"),
        Key("norm at the start", "stroke", "muted"),
    ]
    panels, of_effects, keys = [], [], []
    for at, precision in enumerate(dict.fromkeys(row.precision for row in rows)):
        mine = [row for row in rows if row.precision == precision]
        series = [
            _sizes(mine, "start", sizes, "stroke"),
            _sizes(mine, "decay", sizes, "open"),
            _sizes(mine, "moved", sizes),
        ]
        panels.append(Panel(f"drift-{at}", precision, sizes, lines, series, keys=moved))
        keys.append(Key(precision, _PRECISION_MARKS[at % len(_PRECISION_MARKS)], "ink"))
        of_effects.append(_sizes(mine, "relative", effects, keys[-1].mark))
    title = "what these moves alone do"
    panels += [Panel("drift-effect", title, effects, lines, of_effects, keys=keys)] if rows else []
    return Figure("drift", panels)


def _sizes(rows: Sequence[DriftRecord], figure: str, axis: Axis, mark: str = "circle") -> Series:
    sizes = [axis.place(getattr(row, figure)) for row in rows]
    colours = "muted" if figure in ("start", "decay") else [row.projection for row in rows]
    tooltips = [_tooltip(row, "precision", "place", "projection") for row in rows]
    return Series("points", sizes, list(map(_line_of, rows)), colours, tooltips, mark)


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
    tooltips = [
        tooltip(f"{name} removed", {"mean": mean, "standard deviation": sd or 0.0})
        for name, (mean, sd) in zip(names, found, strict=True)
    ]
    return Series("points", [mean for mean, _ in found], names, "ink", tooltips, "stroke", errors=errors)


def _runs(rows: Sequence[ScoreRecord]) -> Series:
    tooltips, colours = (
        [_tooltip(row, "task", "how", "removed") for row in rows],
        [colour_of(row.removed) for row in rows],
    )
    return Series("points", [row.value for row in rows], [row.removed for row in rows], colours, tooltips)


def _tooltip(record: Any, *title: str) -> str:
    """All fields of a record; those named make the title."""
    figures = asdict(record)
    return tooltip(", ".join(str(figures.pop(name)) for name in title), figures)


def comparison(table: Sequence[ComparisonRow]) -> Figure:
    """What each bias at zero changes, beside the noise floor, for each model and kind of attention."""
    changes = {name: [getattr(row, name) for row in table] for name in STUDIED}
    known = [change for mine in changes.values() for change in mine if change is not None]
    axis = log_axis(RELATIVE, [*known, *(row.floor for row in table)])
    names = [f"{row.model}\n{row.place}" for row in table]
    floors = [tooltip(row.model, {"place": row.place, "noise floor": row.floor}) for row in table]
    series = [Series("points", [axis.place(row.floor) for row in table], names, "muted", floors, "stroke")]
    for projection, mine in changes.items():
        shown = [(row, name, axis.place(x)) for row, name, x in zip(table, names, mine, strict=True) if x is not None]
        tooltips = [_comparison_tooltip(row, projection) for row, _, _ in shown]
        places, lines = [place for *_, place in shown], [name for _, name, _ in shown]
        series.append(Series("points", places, lines, projection, tooltips, MARKS[projection]))
    keys = [*projection_keys(str(one.colours) for one in series[1:] if one.x), Key("noise floor", "stroke", "muted")]
    panel = Panel("comparison-plot", "", axis, Axis(categories=names), series, keys=keys)
    return Figure("comparison", [panel] if table else [])


def _comparison_tooltip(row: ComparisonRow, projection: str) -> str:
    figures = {"place": row.place, f"{projection} bias at zero": getattr(row, projection)}
    loss = getattr(row, f"{projection}_loss")
    return tooltip(row.model, {**figures, "loss_change": loss, "noise floor": row.floor})


def _arm_tooltip(row: ArmRecord) -> str:
    return tooltip(row.name, {"parameters": row.numbers, **row.figures})


def _of_stage(study: Study, stage: str) -> list[ArmRecord]:
    return [row for row in study.rows if row.stage == stage]


def _places(rows: Sequence[ArmRecord]) -> list[str]:
    return list(dict.fromkeys(row.place for row in rows))
