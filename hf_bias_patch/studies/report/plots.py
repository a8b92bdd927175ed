"""Figures of what a changed bias does, as Plotly takes them: plain data, with colours named and not chosen.

A colour is written `$query`; the page puts in what is legible on its paper, light or dark. Text that comes from data
goes through `safe`: Plotly reads labels as a kind of HTML.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.records import NOISE, ArmRecord, Study
from hf_bias_patch.studies.report.tables import number, percent, signed

__all__ = [
    "RELATIVE",
    "SYMBOLS",
    "Key",
    "Plot",
    "floor_line",
    "heads",
    "hover",
    "layers",
    "log_axis",
    "low_end",
    "perturbation",
    "projections",
    "removal",
    "safe",
    "slug",
]

RELATIVE = "relative change of the last states"
"""Norm of the change over the norm of the states."""
SYMBOLS = {"query": "circle", "key": "diamond", "value": "square"}
"""Beside a colour each projection has a shape, for readers who do not tell the colours apart."""

_ROW = 26  # pixels a line of a dot plot takes
_FRAME = 84  # and what stands around them
_MAP_FRAME = 74


class Key(NamedTuple):
    """What a mark stands for. Plotly's own legend takes room from the figure, on a phone most of it.

    Attributes:
        name: what it stands for.
        mark: `circle`, `diamond`, `square`, `triangle`, `cross`, `open`, `stroke`, `line` or `dash`.
        colour: as in a figure, without the `$`.
    """

    name: str
    mark: str
    colour: str


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        name: of its place in the page.
        title: stands above it.
        data, layout: as Plotly takes them.
        height: in pixels.
        keys: what marks stand for.
        scale: of a heat map, what its darkest and its brightest colour stand for; empty for other figures.
    """

    name: str
    title: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    height: int
    keys: Sequence[Key] = ()
    scale: tuple[str, ...] = ()


def slug(text: str) -> str:
    """Text as part of a name: letters, digits and dashes."""
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def safe(text: object) -> str:
    """Text from data, for a label: no tag in it is one."""
    return html.escape(str(text), quote=False)


def log_axis(title: str, values: Iterable[float]) -> dict[str, Any]:
    """An axis of powers of ten that shows all of some values; those that are not above 0 have no place on it."""
    seen = _finite(list(values)) or [1.0]
    low, high = math.log10(min(seen)), math.log10(max(seen))
    edge = max(0.15, 0.04 * (high - low))
    low, high = low - edge, high + edge
    # Whole powers of ten, not more than fit; below two of them also what lies between.
    every = max(1, round((high - low) / 6)) if high - low > 2 else "D2" if high - low > 0.7 else "D1"
    ticks = {"dtick": every, "exponentformat": "power", "tickfont": {"size": 11}}
    return {"type": "log", "title": {"text": title}, "range": [low, high], "automargin": True, **ticks}


def low_end(axis: Mapping[str, Any]) -> float:
    """The least value on an axis of powers of ten: what is not above 0 is drawn there."""
    return 10 ** axis["range"][0]


def projections(names: Iterable[str]) -> list[Key]:
    """Keys of some projections."""
    there = set(names)
    return [Key(name, SYMBOLS[name], name) for name in STUDIED if name in there]


def hover(title: str, figures: Mapping[str, Any]) -> str:
    """What is shown when one points at something: a title, and a line for each figure. Plain text, shown as such."""
    reads = {"loss_change": signed, "agreement": percent}
    lines = [f"{name.replace('_', ' ')}: {_read(reads, name, value)}" for name, value in figures.items()]
    return "\n".join([title, *lines])


def _read(reads: Mapping[str, Any], name: str, value: Any) -> str:
    if isinstance(value, float):
        return reads.get(name, number)(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _hover(row: ArmRecord) -> str:
    return hover(row.name, {"numbers": row.numbers, **row.figures})


def _of(found: Study, stage: str) -> list[ArmRecord]:
    return [row for row in found.rows if row.stage == stage]


def _places(rows: Sequence[ArmRecord]) -> list[str]:
    return list(dict.fromkeys(row.place for row in rows))


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value) and value > 0]


def perturbation(found: Study) -> Iterator[Plot]:
    """For each place: what each fill of each projection changes, beside the noise floor. All on the same scale."""
    rows = _of(found, "whole")
    floor = found.floor["relative"]
    axis = log_axis(RELATIVE, [floor, *(row.figures["relative"] for row in rows)])
    for place in _places(rows):
        mine = [row for row in rows if row.place == place]
        fills = list(dict.fromkeys(row.fill for row in mine))
        data = [_dots([row for row in mine if row.projection == name], name, low_end(axis)) for name in STUDIED]
        layout = {
            "xaxis": axis,
            "yaxis": {"categoryarray": [safe(fill) for fill in reversed(fills)], "type": "category"},
            "shapes": [floor_line("x", floor)] if floor > 0 else [],
        }
        name = f"perturbation-{slug(place)}"
        keys = [*projections(row.projection for row in mine), Key(f"noise floor, {number(floor)}", "dash", "muted")]
        shown = [trace for trace in data if trace["x"]]
        yield Plot(name, place, shown, layout, _FRAME + _ROW * len(fills), keys)


def _dots(rows: Sequence[ArmRecord], projection: str, least: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": projection,
        "x": [max(row.figures["relative"], least) for row in rows],
        "y": [safe(row.fill) for row in rows],
        "hovertext": [_hover(row) for row in rows],
        "hoverinfo": "none",
        "marker": {"color": f"${projection}", "symbol": SYMBOLS[projection], "size": 10, "opacity": 0.9},
    }


def floor_line(axis: str, at: float) -> dict[str, Any]:
    """A dashed line at a value of an axis, across the whole figure."""
    ends = {"x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1}
    if axis == "y":
        ends = {"y0": at, "y1": at, "xref": "paper", "x0": 0, "x1": 1}
    return {"type": "line", **ends, "line": {"color": "$muted", "dash": "dash", "width": 1.5}, "layer": "below"}


def layers(found: Study) -> Iterator[Plot]:
    """For each place: layers × projections, one layer's bias set to zero."""
    rows = _of(found, "layer")
    for place in _places(rows):
        mine = [row for row in rows if row.place == place]
        shown = [name for name in STUDIED if any(row.projection == name for row in mine)]
        numbers = sorted({row.layer for row in mine if row.layer is not None})
        cells = {(row.projection, row.layer): row for row in mine}
        grid = [[cells.get((name, layer)) for layer in numbers] for name in reversed(shown)]
        scale = _scale(found, rows)
        data = _map(grid, [str(layer) for layer in numbers], list(reversed(shown)), scale)
        axes = {"xaxis": _numbers("layer"), "yaxis": {"type": "category"}}
        told = f"layers-{slug(place)}"
        yield Plot(told, place, [data], axes, _MAP_FRAME + 38 * len(shown), scale=_ends(scale))


def heads(found: Study) -> Iterator[Plot]:
    """For each place and projection: layers × heads, one head's part of a bias set to zero."""
    rows = _of(found, "head")
    for place in _places(rows):
        for projection in STUDIED:
            mine = [row for row in rows if row.place == place and row.projection == projection]
            if not mine:
                continue
            numbers = sorted({row.layer for row in mine if row.layer is not None})
            across = sorted({row.head for row in mine if row.head is not None})
            cells = {(row.layer, row.head): row for row in mine}
            grid = [[cells.get((layer, head)) for head in across] for layer in numbers]
            scale = _scale(found, rows)
            data = _map(grid, [str(head) for head in across], [str(layer) for layer in numbers], scale)
            axes = {"xaxis": _numbers("head"), "yaxis": {**_numbers("layer"), "autorange": "reversed"}}
            name = f"heads-{slug(place)}-{projection}"
            height = _MAP_FRAME + (28 if len(numbers) <= 8 else 20) * max(3, len(numbers))
            yield Plot(name, f"{place}, {projection}, by head", [data], axes, height, scale=_ends(scale))


def _numbers(title: str) -> dict[str, Any]:
    return {"type": "category", "title": {"text": title}, "nticks": 13, "tickangle": 0}


def _scale(found: Study, rows: Sequence[ArmRecord]) -> tuple[float, float]:
    """Powers of ten that colours span. What is within rounding takes the first: it has no order to show."""
    seen = _finite([row.figures["relative"] for row in rows])
    above = [value for value in seen if value > NOISE * found.rounding]
    least, most = min(above or seen or [1.0]), max(seen or [1.0])
    return math.log10(min(least, most / 2)), math.log10(most)


def _ends(scale: tuple[float, float]) -> tuple[str, str]:
    return f"{number(10 ** scale[0])} or less", number(10 ** scale[1])


def _map(
    grid: Sequence[Sequence[ArmRecord | None]], across: Sequence[str], down: Sequence[str], scale: tuple[float, float]
) -> dict[str, Any]:
    values = [[row.figures["relative"] if row else math.nan for row in line] for line in grid]
    return {
        "type": "heatmap",
        "x": list(across),
        "y": list(down),
        "z": [[_log(value, scale[0]) for value in line] for line in values],
        "zmin": scale[0],
        "zmax": scale[1],
        "colorscale": "Viridis",
        "xgap": 2,
        "ygap": 2,
        "text": [[f"{value:.1g}".replace("e-0", "e-") if math.isfinite(value) else "" for value in v] for v in values],
        "texttemplate": "%{text}" if len(across) <= 8 else "",
        "hovertext": [[_hover(row) if row else "" for row in line] for line in grid],
        "hoverinfo": "none",
        "showscale": False,
    }


def _log(value: float, least: float) -> float | None:
    if not math.isfinite(value):
        return None
    return max(math.log10(value), least) if value > 0 else least


def removal(found: Study) -> Iterator[Plot]:
    """What is changed when biases go one after the other: the loss, or without one the states."""
    rows = _of(found, "removal")
    if not rows:
        return
    loss = found.measure == "loss_change"
    data = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "loss" if loss else "states",
        "x": [0, *(row.numbers for row in rows)],
        "y": [0.0, *(row.figures[found.measure] for row in rows)],
        "hovertext": ["nothing removed", *(_hover(row) for row in rows)],
        "hoverinfo": "none",
        "marker": {"color": "$ink", "size": 8},
        "line": {"color": "$ink", "width": 2},
    }
    bound = found.settings.loss_bound
    layout = {
        "xaxis": {"title": {"text": "bias numbers at zero, least effect first"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "change of the loss<br>(nats a token)" if loss else RELATIVE}, "zeroline": True},
        "shapes": [floor_line("y", bound)] if loss else [],
    }
    keys = [Key("loss", "line", "ink"), Key(f"bound, {bound:g} nats a token", "dash", "muted")] if loss else []
    yield Plot("removal", "", [data], layout, 320, keys)
