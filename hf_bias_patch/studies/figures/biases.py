"""Draws a study: what each change does, where it matters, and how much can go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.records import NOISE, ArmRecord, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "RELATIVE", "layers", "perturbation", "removal"]

COLOURS = {"query": "tab:orange", "key": "tab:green", "value": "tab:blue"}
RELATIVE = "change of the last states / their norm"


def _of(found: Study, stage: str) -> list[ArmRecord]:
    return [row for row in found.rows if row.stage == stage]


def _places(rows: Sequence[ArmRecord]) -> list[str]:
    return list(dict.fromkeys(row.place for row in rows))


def perturbation(found: Study) -> Figure:
    """What each fill of each projection changes, beside the noise floor; a panel for each place."""
    from matplotlib.figure import Figure

    rows = _of(found, "whole")
    places, fills = _places(rows), list(dict.fromkeys(row.fill for row in rows))
    figure = Figure(figsize=(3.4 * len(places) + 1.8, 1.5 + 0.32 * len(fills)), layout="constrained")
    panels = figure.subplots(1, len(places), sharex=True, sharey=True, squeeze=False)[0]
    for panel, place in zip(panels, places, strict=True):
        for projection in STUDIED:
            mine = [row for row in rows if row.place == place and row.projection == projection]
            changes = [max(row.figures["relative"], 1e-18) for row in mine]
            lines = [fills.index(row.fill) for row in mine]
            panel.plot(changes, lines, "o", color=COLOURS[projection], label=projection, alpha=0.85)
        if found.floor["relative"]:
            panel.axvline(found.floor["relative"], color="tab:gray", linestyle="--", label="noise floor")
        panel.set_xscale("log")
        panel.set_title(place)
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(fills)), fills)
    panels[0].invert_yaxis()
    figure.supxlabel(RELATIVE, fontsize="medium")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small")
    return figure


def layers(found: Study) -> Figure:
    """A heat map for each place: layers × projections, one layer's bias set to zero. All rounding has one colour: it
    would take up most of the scale, and leave no difference between what matters."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    rows = _of(found, "layer")
    places = _places(rows)
    figure = Figure(figsize=(7, 0.9 + 1.35 * len(places)), layout="constrained")
    panels = figure.subplots(len(places), 1, squeeze=False)[:, 0]
    rounding = NOISE * found.rounding
    above = [change for row in rows if rounding < (change := row.figures["relative"]) < math.inf]
    least = min(above, default=rounding)
    norm = LogNorm(least, max(2 * least, *above, least))
    for panel, place in zip(panels, places, strict=True):
        mine = [row for row in rows if row.place == place]
        shown: list[str] = [name for name in STUDIED if any(row.projection == name for row in mine)]
        layers = sorted({row.layer for row in mine if row.layer is not None})
        grid = np.full((len(shown), len(layers)), np.nan)
        for row in mine:
            grid[shown.index(row.projection), layers.index(row.layer or 0)] = max(row.figures["relative"], rounding / 2)
        image = panel.imshow(grid, norm=norm, aspect="auto", cmap="viridis")
        panel.set_yticks(range(len(shown)), shown)
        panel.set_xticks(range(len(layers)), [str(layer) for layer in layers])
        panel.set_title(f"{place}: one layer's bias set to zero", fontsize="medium")
    panels[-1].set_xlabel("layer")
    figure.colorbar(image, ax=panels, extend="min", label=RELATIVE.replace(" / ", "\n/ "))
    return figure


def removal(found: Study) -> Figure:
    """Change of the loss as biases go one after the other, beside the bound."""
    from matplotlib.figure import Figure

    rows = _of(found, "removal")
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    numbers, changes = [row.numbers for row in rows], [row.figures["loss_change"] for row in rows]
    axes.plot([0, *numbers], [0.0, *changes], "o-", color="tab:blue", markersize=4)
    bound = found.settings.loss_bound
    axes.axhline(bound, color="tab:red", linestyle="--", label=f"bound: {bound} nats")
    axes.axhline(0, color="tab:gray", linewidth=0.6)
    axes.set_xlabel("bias numbers set to zero, in the order of least effect")
    axes.set_ylabel("change of the loss (nats a token)")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
