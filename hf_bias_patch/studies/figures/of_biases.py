"""Figures of what a changed bias does: which change, in which layer and head, and how much can go."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hf_bias_patch.studies.biases.arms import STUDIED
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
    log_axis,
    projection_keys,
    slug,
    tooltip,
)
from hf_bias_patch.studies.number_formats import number
from hf_bias_patch.studies.records import NOISE, ArmRecord, Study
from hf_bias_patch.studies.summaries.comparison import ComparisonRow

__all__ = ["comparison", "heads", "layers", "perturbation", "removal"]


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
    fills, told = [row.fill for row in rows], list(map(_tooltip, rows))
    return Series("points", changes, fills, projection, told, MARKS[projection])


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
    told = [[_tooltip(row) if row else "" for row in line] for line in grid]
    return HeatMap(values, told, low, max(2 * low, *above, low))


def _finite(row: ArmRecord | None) -> float | None:
    return row.figures["relative"] if row and math.isfinite(row.figures["relative"]) else None


def removal(study: Study) -> Figure:
    """What is changed when biases go one after the other: the loss, or without one the hidden states."""
    rows, loss = _of_stage(study, "removal"), study.measure == "loss_change"
    parameters, changes = [0, *(row.numbers for row in rows)], [0.0, *(row.figures[study.measure] for row in rows)]
    curve = Series("line", parameters, changes, "ink", ["nothing removed", *map(_tooltip, rows)])
    bound = study.settings.loss_bound
    keys = [Key("loss", "line", "ink"), Key(f"bound, {bound:g} nats a token", "dash", "muted")] if loss else []
    x = Axis("bias parameters at zero, least effect first")
    y = Axis("change of the loss\n(nats a token)" if loss else RELATIVE)
    lines = [ReferenceLine("y", bound)] if loss else []
    return Figure("removal", [Panel("removal", "", x, y, [curve], None, lines, keys)] if rows else [])


def comparison(table: Sequence[ComparisonRow]) -> Figure:
    """What each bias at zero changes, a line for each model and kind of attention, beside its noise floor."""
    changes = {name: [getattr(row, name) for row in table] for name in STUDIED}
    known = [change for mine in changes.values() for change in mine if change is not None]
    axis = log_axis(RELATIVE, [*known, *(row.floor for row in table)])
    names = [f"{row.model}\n{row.place}" for row in table]
    floors = [tooltip(row.model, {"place": row.place, "noise floor": row.floor}) for row in table]
    series = [Series("points", [axis.place(row.floor) for row in table], names, "muted", floors, "stroke")]
    for projection, mine in changes.items():
        shown = [(row, name, axis.place(x)) for row, name, x in zip(table, names, mine, strict=True) if x is not None]
        told = [_comparison_tooltip(row, projection) for row, _, _ in shown]
        places, lines = [place for *_, place in shown], [name for _, name, _ in shown]
        series.append(Series("points", places, lines, projection, told, MARKS[projection]))
    keys = [*projection_keys(str(one.colours) for one in series[1:] if one.x), Key("noise floor", "stroke", "muted")]
    panel = Panel("comparison-plot", "", axis, Axis(categories=names), series, keys=keys)
    return Figure("comparison", [panel] if table else [])


def _comparison_tooltip(row: ComparisonRow, projection: str) -> str:
    figures = {"place": row.place, f"{projection} bias at zero": getattr(row, projection)}
    loss = getattr(row, f"{projection}_loss")
    return tooltip(row.model, {**figures, "loss_change": loss, "noise floor": row.floor})


def _tooltip(row: ArmRecord) -> str:
    return tooltip(row.name, {"parameters": row.numbers, **row.figures})


def _of_stage(study: Study, stage: str) -> list[ArmRecord]:
    return [row for row in study.rows if row.stage == stage]


def _places(rows: Sequence[ArmRecord]) -> list[str]:
    return list(dict.fromkeys(row.place for row in rows))
