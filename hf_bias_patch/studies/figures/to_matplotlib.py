"""Draws figures with matplotlib, as PNG and SVG for papers and slides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import ExtraError
from hf_bias_patch.studies.figures.description import RELATIVE, Axis, Figure, HeatMap, Key, Panel, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

__all__ = ["COLOURS", "draw", "write_pictures"]

COLOURS = {"query": "#c65102", "key": "#1a7f37", "value": "#1f6feb", "ink": "#1b1f26", "muted": "#59616e"}
"""As the page has them on white paper."""

_MARKERS = {"circle": "o", "diamond": "D", "square": "s", "cross": "x", "open": "o", "stroke": "|"}


def write_pictures(figures: Iterable[Figure], folder: Path) -> list[str]:
    """Write each figure that has panels as PNG and SVG; returns the names of the files.

    Raises:
        ExtraError: matplotlib is missing.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise ExtraError("Figures need matplotlib", remedy="pip install 'hf_bias_patch[study]'") from None
    names = []
    with mpl.rc_context({"svg.hashsalt": "study"}):
        for figure in (figure for figure in figures if figure.panels):
            picture = draw(figure)
            for ending in ("png", "svg"):
                metadata = {"Date": None} if ending == "svg" else {}
                picture.savefig(folder / f"{figure.name}.{ending}", dpi=130, metadata=metadata)
                names.append(f"{figure.name}.{ending}")
    return names


def draw(figure: Figure) -> Picture:
    """A figure with up to three panels side by side; flat heat maps stand one below the other."""
    from matplotlib.figure import Figure as Picture

    panels = figure.panels
    flat = all(panel.heat_map and len(panel.y.categories) <= 3 for panel in panels)
    across = 1 if flat else 2 if len(panels) == 4 else min(3, len(panels))
    down = math.ceil(len(panels) / across)
    names = max((len(line) for panel in panels for name in panel.y.categories for line in name.split("\n")), default=10)
    size = (max(6.5, 3.2 * across + 0.075 * names), 0.6 + down * max(map(_height, panels)))
    picture = Picture(figsize=size, layout="constrained")
    one_x, one_y = len({str(panel.x) for panel in panels}) == 1, len({str(panel.y) for panel in panels}) == 1
    grid = picture.subplots(down, across, squeeze=False, sharex=one_x, sharey=one_y)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel)
        axes.label_outer() if one_x and one_y else None
    if maps := [axes.images[0] for axes in grid.flat if axes.images]:
        picture.colorbar(maps[0], ax=list(grid.flat), extend="min", label=RELATIVE.replace(" of the ", "\nof the "))
    if keys := list(dict.fromkeys(key for panel in panels for key in panel.keys)):
        picture.legend(handles=list(map(_handle, keys)), loc="outside upper center", ncols=4, fontsize="small")
    return picture


def _height(panel: Panel) -> float:
    """In inches."""
    line = 0.42 if any("\n" in name for name in panel.y.categories) else 0.3
    return 0.8 + line * len(panel.y.categories) if panel.y.categories else 3.0


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.set_title(_plain(panel.title), fontsize="medium")
    if panel.heat_map:
        _draw_heat_map(axes, panel.heat_map)
    bars = [series for series in panel.series if series.kind == "bars"]
    for number, series in enumerate(bars):
        width = 0.8 / len(bars)
        at = [x + width * (number - (len(bars) - 1) / 2) for x in _numbers(series.x, panel.x)]
        axes.bar(at, _numbers(series.y, panel.y), 0.9 * width, color=COLOURS[str(series.colours)])
    for series in panel.series:
        if series.kind != "bars":
            _draw_series(axes, series, _numbers(series.x, panel.x), _numbers(series.y, panel.y))
    for line in panel.lines:
        (axes.axvline if line.axis == "x" else axes.axhline)(line.at, color=COLOURS["muted"], linestyle="--", zorder=0)
    _set_axis(axes, "x", panel.x)
    _set_axis(axes, "y", panel.y)
    if panel.y.categories:
        axes.set_ylim(len(panel.y.categories) - 0.5, -0.5)
    if not panel.heat_map:
        axes.grid(axis="x" if panel.y.categories else "y" if panel.x.categories else "both", alpha=0.3)


def _draw_series(axes: Axes, series: Series, x: Sequence[float], y: Sequence[float]) -> None:
    marker = _MARKERS[series.mark]
    if series.kind == "line":
        axes.plot(x, y, ":" if series.dotted else "-", marker=marker, markersize=4, color=COLOURS[str(series.colours)])
        return
    names = [series.colours] * len(x) if isinstance(series.colours, str) else series.colours
    colours = [COLOURS[name] for name in names]
    if series.errors:
        axes.errorbar(x, y, xerr=series.errors, fmt="none", ecolor=colours[0], capsize=3)
    filled: dict[str, Any] = {"facecolors": "none", "edgecolors": colours} if series.mark == "open" else {"c": colours}
    axes.scatter(x, y, 120 if series.mark == "stroke" else 36, marker=marker, alpha=0.85, **filled)


def _draw_heat_map(axes: Axes, found: HeatMap) -> None:
    import numpy as np
    from matplotlib.colors import LogNorm

    values = [[math.nan if v is None else max(v, found.low / 2) for v in line] for line in found.values]
    axes.imshow(np.array(values), norm=LogNorm(found.low, found.high), aspect="auto", cmap="viridis")


def _numbers(values: Sequence[Any], axis: Axis) -> list[float]:
    """Values as numbers: names as their place on the axis; values that are not finite as NaN, which is not drawn."""
    if axis.categories:
        return [float(axis.categories.index(value)) for value in values]
    return [value if math.isfinite(value) else math.nan for value in values]


def _set_axis(axes: Axes, which: str, axis: Axis) -> None:
    if axis.span:
        axes.set(**{f"{which}scale": "log", f"{which}lim": axis.span})
    if axis.categories:
        every = math.ceil(len(axis.categories) / 24)
        names = range(0, len(axis.categories), every), list(map(_plain, axis.categories[::every]))
        (axes.set_xticks if which == "x" else axes.set_yticks)(*names, fontsize="small")
    axes.set(**{f"{which}label": _plain(axis.title)})


def _plain(text: str) -> str:
    """Text with dollar signs escaped, since matplotlib reads a formula between two of them."""
    return text.replace("$", r"\$")


def _handle(key: Key) -> Any:
    from matplotlib.lines import Line2D

    style = {"line": "-", "dash": "--", "dot": ":"}.get(key.mark, "none")
    filled = "none" if key.mark == "open" else "full"
    marker, colour = _MARKERS.get(key.mark, ""), COLOURS[key.colour]
    return Line2D([], [], color=colour, linestyle=style, marker=marker, fillstyle=filled, label=_plain(key.name))
