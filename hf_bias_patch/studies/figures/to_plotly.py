"""A panel as data for Plotly, which draws it in the page.

A colour is written `$query`; the page puts in what is legible on its paper, light or dark. Text that comes from data
goes through `_safe`: Plotly reads labels as a kind of HTML.
"""

from __future__ import annotations

import html
import math
from typing import Any

from hf_bias_patch.studies.figures.description import Axis, HeatMap, Panel, ReferenceLine, Series

__all__ = ["height", "plotly_panel"]

_SYMBOLS = {"open": "circle-open", "stroke": "line-ns-open", "cross": "x"}
_FRAME = 84  # pixels around the lines of a panel


def plotly_panel(panel: Panel) -> dict[str, Any]:
    """`data` and `layout` of a panel."""
    layout: dict[str, Any] = {"xaxis": _axis(panel.x), "yaxis": _axis(panel.y)}
    if panel.heat_map:
        # The first row is at the top. More names than have room are left out.
        layout = {"xaxis": _map_axis(panel.x), "yaxis": {**_map_axis(panel.y), "autorange": "reversed"}}
        return {"data": [_heat_map(panel.heat_map, panel.x, panel.y)], "layout": layout}
    if panel.y.categories:
        layout["yaxis"]["categoryarray"].reverse()  # Plotly begins below
    if panel.lines:
        layout["shapes"] = list(map(_line, panel.lines))
    if any(series.kind == "bars" for series in panel.series):
        layout["barmode"] = "group"
    return {"data": [_series(series) for series in panel.series if series.x], "layout": layout}


def height(panel: Panel) -> int:
    """Height of a panel in pixels."""
    lines = len(panel.y.categories)
    if panel.heat_map:
        return _FRAME + lines * (38 if lines <= 3 else 28 if lines <= 8 else 20)
    line = 44 if any("\n" in name for name in panel.y.categories) else 28
    return _FRAME + line * lines if lines else 330


def _axis(axis: Axis) -> dict[str, Any]:
    made: dict[str, Any] = {"automargin": True}
    if axis.title:
        made["title"] = {"text": _safe(axis.title)}
    if axis.categories:
        return {**made, "type": "category", "categoryarray": list(map(_safe, axis.categories))}
    if axis.span is None:
        return made
    low, high = map(math.log10, axis.span)
    # Whole powers of ten, not more than fit; below two of them also what lies between.
    every = max(1, round((high - low) / 6)) if high - low > 2 else "D2" if high - low > 0.7 else "D1"
    ticks = {"dtick": every, "exponentformat": "power", "tickfont": {"size": 11}}
    return {**made, "type": "log", "range": [low, high], **ticks}


def _map_axis(axis: Axis) -> dict[str, Any]:
    return {"type": "category", "title": {"text": axis.title}, "nticks": 13, "tickangle": 0}


def _series(series: Series) -> dict[str, Any]:
    hover = {"hovertext": list(series.tooltips), "hoverinfo": "none"}
    colour = f"${series.colours}" if isinstance(series.colours, str) else [f"${name}" for name in series.colours]
    points = {"x": list(map(_value, series.x)), "y": list(map(_value, series.y)), **hover}
    if series.kind == "bars":
        return {"type": "bar", **points, "marker": {"color": colour}}
    line = series.kind == "line"
    marker: dict[str, Any] = {
        "color": colour,
        "symbol": _SYMBOLS.get(series.mark, series.mark),
        "size": 7 if line else 10,
    }
    if series.mark in ("stroke", "open"):
        marker |= {"size": 14 if series.mark == "stroke" else 10, "line": {"width": 2}}
    made = {"type": "scatter", "mode": "lines+markers" if line else "markers", **points, "marker": marker}
    if line:
        made["line"] = {"color": colour, "dash": "dot" if series.dotted else "solid", "width": 2}
    if series.errors:
        made["error_x"] = {"type": "data", "array": list(series.errors), "color": colour, "thickness": 1.5, "width": 5}
    return made


def _line(line: ReferenceLine) -> dict[str, Any]:
    across, along = line.axis, "y" if line.axis == "x" else "x"
    ends = {f"{across}0": line.at, f"{across}1": line.at, f"{along}ref": "paper", f"{along}0": 0, f"{along}1": 1}
    return {"type": "line", **ends, "line": {"color": "$muted", "dash": "dash", "width": 1.5}, "layer": "below"}


def _heat_map(found: HeatMap, x: Axis, y: Axis) -> dict[str, Any]:
    low, high = math.log10(found.low), math.log10(found.high)
    return {
        "type": "heatmap",
        "x": list(x.categories),
        "y": list(y.categories),
        "z": [[None if v is None else math.log10(max(v, found.low)) for v in line] for line in found.values],
        "zmin": low,
        "zmax": high,
        "colorscale": "Viridis",
        "xgap": 2,
        "ygap": 2,
        "text": [["" if v is None else f"{v:.1g}".replace("e-0", "e-") for v in line] for line in found.values],
        "texttemplate": "%{text}" if len(x.categories) <= 8 else "",
        "hovertext": [list(line) for line in found.tooltips],
        "hoverinfo": "none",
        "showscale": False,
    }


def _value(value: Any) -> Any:
    return _safe(value) if isinstance(value, str) else value


def _safe(text: str) -> str:
    """Text for a label, with its tags escaped."""
    return html.escape(text, quote=False).replace("\n", "<br>")
