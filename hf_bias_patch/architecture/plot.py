"""Draws an inspection: a heat map of bias norms, layers × projections, and per head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_bias_patch.architecture.inspect import Inspection
from hf_bias_patch.architecture.sites import PROJECTIONS, Projection, Site
from hf_bias_patch.errors import TargetError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

__all__ = ["draw"]

_FORMATS = (".png", ".svg", ".pdf")
_HEADS: tuple[Projection, ...] = ("query", "key", "value")


def draw(found: Inspection, path: Path) -> None:
    """Write the figure, in the format its ending names.

    One row of panels per kind of attention site. All share one logarithmic colour scale, so that projections can
    be compared; biases that are zero, absent or not finite are grey.

    Raises:
        TargetError: the ending names no format, matplotlib is missing, or the file cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise TargetError(f"{path} does not end in a picture format", remedy=f"End it in one of {', '.join(_FORMATS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise TargetError("Plots need matplotlib", remedy="pip install 'hf_bias_patch[plot]'") from None
    groups = _groups(found)
    norm = _scale(found)
    heights = [max(2.2, 0.22 * len(sites)) for sites in groups.values()]
    widths = [1.0, *(max(1.0, 0.16 * max(_head_count(found, s, p) for s in groups.values())) for p in _HEADS)]
    figure = Figure(
        figsize=(2.4 * sum(widths) ** 0.7 + 3.5, sum(heights) + 1.0 * len(heights) + 0.8), layout="constrained"
    )
    panels = figure.subplots(
        len(groups), 4, squeeze=False, gridspec_kw={"height_ratios": heights, "width_ratios": widths}
    )
    image: Any = None
    for row, (kind, sites) in zip(panels, groups.items(), strict=True):
        image = _panel(row[0], _by_projection(found, sites), norm, f"{kind}: whole bias")
        row[0].set_xticks(range(len(PROJECTIONS)), PROJECTIONS, rotation=45, ha="right")
        row[0].set_ylabel("layer")
        for axes, projection in zip(row[1:], _HEADS, strict=True):
            _panel(axes, _by_head(found, sites, projection), norm, f"{projection}, per head")
            axes.set_xlabel("head")
    figure.colorbar(image, ax=panels, label="Euclidean norm of the bias\n(grey: zero, absent, or NaN)", pad=0.01)
    figure.suptitle(f"Attention biases of {_short(found.model)}")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise TargetError(f"{path} cannot be written: {error.strerror}") from None


def _groups(found: Inspection) -> dict[str, list[Site]]:
    groups: dict[str, list[Site]] = {}
    for site in found.sites:
        groups.setdefault(f"{site.stack} {site.kind}", []).append(site)
    return groups


def _scale(found: Inspection) -> Normalize:
    from matplotlib.colors import LogNorm

    norms = [norm for value in found.values.values() for norm in (value.norm, *value.head_norms)]
    norms = [norm for norm in norms if 0 < norm < np.inf]
    low, high = (min(norms), max(norms)) if norms else (0.1, 1.0)
    return LogNorm(low, high if high > low else low * 10)


def _head_count(found: Inspection, sites: list[Site], projection: Projection) -> int:
    return max((len(_heads(found, site, projection)) for site in sites), default=0)


def _heads(found: Inspection, site: Site, projection: Projection) -> tuple[float, ...]:
    value = found.values.get((site.name, projection))
    return value.head_norms if value else ()


def _by_projection(found: Inspection, sites: list[Site]) -> np.ndarray:
    table = np.full((len(sites), len(PROJECTIONS)), np.nan)
    for row, site in enumerate(sites):
        for column, projection in enumerate(PROJECTIONS):
            if value := found.values.get((site.name, projection)):
                table[row, column] = value.norm or np.nan
    return table


def _by_head(found: Inspection, sites: list[Site], projection: Projection) -> np.ndarray:
    table = np.full((len(sites), max(1, _head_count(found, sites, projection))), np.nan)
    for row, site in enumerate(sites):
        norms = _heads(found, site, projection)
        table[row, : len(norms)] = [norm or np.nan for norm in norms]
    return table


def _panel(axes: Axes, table: np.ndarray, norm: Normalize, title: str) -> Any:
    axes.set_facecolor("lightgrey")
    image = axes.imshow(np.ma.masked_invalid(table), aspect="auto", norm=norm, cmap="viridis", interpolation="nearest")
    axes.set_title(title, fontsize="medium")
    _ticks(axes.yaxis, table.shape[0])
    _ticks(axes.xaxis, table.shape[1])
    return image


def _ticks(axis: Any, count: int) -> None:
    """Whole numbers only, and not more than fit."""
    axis.set_ticks(range(0, count, max(1, count // 8)))


def _short(model: str) -> str:
    """A Hub id whole, of a long path the last part."""
    return model if len(model) <= 40 else Path(model).name
