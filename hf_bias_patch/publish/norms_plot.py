"""Draws how large each bias was, and is."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import groupby
from typing import TYPE_CHECKING

from hf_bias_patch.attention.sites import PROJECTIONS
from hf_bias_patch.checkpoint.sidecar import SIDE_FOLDER
from hf_bias_patch.errors import ExtraError
from hf_bias_patch.publish.norms import Norm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FIGURE", "draw_norms"]

FIGURE = f"{SIDE_FOLDER}/norms.png"


def draw_norms(norms: Sequence[Norm]) -> bytes:
    """A panel a projection, a pair of points an attention site; as PNG.

    Raises:
        ExtraError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ExtraError("A card's figure needs matplotlib", remedy="pip install 'hf_bias_patch[hub]'") from None
    shown = [name for name in PROJECTIONS if any(norm.projection == name for norm in norms)]
    kinds = list(dict.fromkeys(_kind(norm.site) for norm in norms))
    sites = sorted(dict.fromkeys(norm.site for norm in norms), key=lambda site: kinds.index(_kind(site)))
    figure = Figure(figsize=(2.7 * len(shown) + 0.4, 2.7), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for panel, name in zip(panels, shown, strict=True):
        _draw(panel, [norm for norm in norms if norm.projection == name], sites)
        panel.set_title(name)
    panels[0].set_ylabel("norm of the bias")
    figure.supxlabel("attention sites, from the first layer to the last", fontsize="small")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize="small")
    drawn = BytesIO()
    figure.savefig(drawn, dpi=110, metadata={"Software": None})
    return drawn.getvalue()


def _draw(panel: Axes, norms: Sequence[Norm], sites: Sequence[str]) -> None:
    at = [sites.index(norm.site) for norm in norms]
    before, after = [norm.before for norm in norms], [norm.after for norm in norms]
    panel.vlines(at, after, before, color="tab:gray", alpha=0.5, linewidth=1)
    panel.plot(at, before, "o", markerfacecolor="white", color="tab:gray", markersize=5, label="base", clip_on=False)
    panel.plot(at, after, "o", color="tab:blue", markersize=4, label="variant", clip_on=False)
    panel.set_xlim(-0.6, len(sites) - 0.4)
    panel.set_ylim(0, 1.08 * max(*before, *after, 1e-12))
    panel.grid(axis="y", alpha=0.3)
    middles, names, start = [], [], 0
    for name, group in groupby(sites, _kind):
        size = len(list(group))
        middles.append(start + (size - 1) / 2)
        names.append(name.replace(" ", "\n"))
        start += size
        if start < len(sites):
            panel.axvline(start - 0.5, color="tab:gray", linewidth=0.5)
    panel.set_xticks(middles, names, fontsize="small")
    panel.tick_params(axis="x", length=0)


def _kind(site: str) -> str:
    stack, _, kind = site.split(".")
    return f"{stack} {kind}"
