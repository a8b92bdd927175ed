"""A figure as plain data that names its colours and marks; how they look is up to Plotly and matplotlib.

Colours are `query`, `key`, `value`, `ink` and `muted`. A line break in a text is a line break in the figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.number_formats import number, percent, signed

__all__ = ["MARKS", "RELATIVE", "Axis", "Figure", "HeatMap", "Key", "Panel", "ReferenceLine", "Series", "colour_of",
           "log_axis", "projection_keys", "slug", "tooltip"]  # fmt: skip

RELATIVE = "relative change of the last hidden states"
"""Norm of the change over the norm of the hidden states."""

MARKS = {"query": "circle", "key": "diamond", "value": "square"}
"""Each projection has a mark as well as a colour, for readers who cannot tell the colours apart."""


@dataclass(frozen=True)
class Axis:
    """One direction of a panel.

    Attributes:
        title: what it shows, with the unit.
        categories: names, from the top or from the left; empty on an axis of numbers.
        span: the least and the largest value shown, on a scale of powers of ten; None for a linear scale, which shows
            all values.
    """

    title: str = ""
    categories: Sequence[str] = ()
    span: tuple[float, float] | None = None

    def place(self, value: float) -> float:
        """Where a value is drawn: on a scale of powers of ten, values below its low end are drawn at that end."""
        return value if self.span is None or not value < self.span[0] else self.span[0]


@dataclass(frozen=True)
class Series:
    """Marks that belong together.

    Attributes:
        kind: what is drawn at each x and y; bars of several series stand side by side.
        x, y: numbers, or names of the axis's categories.
        colours: of each mark of points, or one for all.
        tooltips: text for each mark, with its title in the first line.
        mark: `circle`, `diamond`, `square`, `cross`, `open` (a circle) or `stroke` (across x).
        dotted: whether a line is.
        errors: half the length of each mark's error bar along x.
    """

    kind: Literal["points", "line", "bars"]
    x: Sequence[Any]
    y: Sequence[Any]
    colours: str | Sequence[str]
    tooltips: Sequence[str]
    mark: str = "circle"
    dotted: bool = False
    errors: Sequence[float] = ()


@dataclass(frozen=True)
class HeatMap:
    """Values shown as colours, on a scale of powers of ten.

    Attributes:
        values: a number for each category of y and of x, or None; rows from the top.
        tooltips: of each cell.
        low, high: what the darkest and the brightest colour stand for; all that is less is as dark.
    """

    values: Sequence[Sequence[float | None]]
    tooltips: Sequence[Sequence[str]]
    low: float
    high: float


class ReferenceLine(NamedTuple):
    """A dashed line across a panel, at a value of one of its axes."""

    axis: Literal["x", "y"]
    at: float


class Key(NamedTuple):
    """An entry of the legend; `mark` is one of a series, or `line`, `dash` or `dot`."""

    name: str
    mark: str
    colour: str


@dataclass(frozen=True)
class Panel:
    """One pair of axes; `name` is its place in the page."""

    name: str
    title: str
    x: Axis
    y: Axis
    series: Sequence[Series] = ()
    heat_map: HeatMap | None = None
    lines: Sequence[ReferenceLine] = ()
    keys: Sequence[Key] = ()


@dataclass(frozen=True)
class Figure:
    """The panels of one experiment; none if it was not made."""

    name: str
    panels: Sequence[Panel]


def log_axis(title: str, values: Iterable[float]) -> Axis:
    """An axis of powers of ten that shows all values that are finite and above 0."""
    seen = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
    low, high = math.log10(min(seen)), math.log10(max(seen))
    edge = max(0.15, 0.04 * (high - low))
    return Axis(title, span=(10 ** (low - edge), 10 ** (high + edge)))


def projection_keys(names: Iterable[str]) -> list[Key]:
    """Legend entries of some projections."""
    present = set(names)
    return [Key(name, MARKS[name], name) for name in STUDIED if name in present]


def colour_of(name: str) -> str:
    """The colour of a projection; ink for anything else."""
    return name if name in MARKS else "ink"


def slug(text: str) -> str:
    """Text as part of a name: letters, digits and dashes."""
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def tooltip(title: str, figures: Mapping[str, Any]) -> str:
    """Plain text: a title, and a line for each figure that is not None."""
    lines = [f"{name.replace('_', ' ')}: {_text(name, value)}" for name, value in figures.items() if value is not None]
    return "\n".join([title, *lines])


def _text(name: str, value: Any) -> str:
    if isinstance(value, float):
        return {"loss_change": signed, "agreement": percent}.get(name, number)(value)
    return f"{value:,}" if isinstance(value, int) else str(value)
