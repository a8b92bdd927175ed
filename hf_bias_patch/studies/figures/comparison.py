"""Draws several studies side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.figures.biases import COLOURS, RELATIVE
from hf_bias_patch.studies.summaries.comparison import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["comparison"]


def comparison(table: Sequence[Line]) -> Figure:
    """What each bias at zero changes, a line for each model and kind of attention, beside its noise floor."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.4 + 0.42 * len(table)), layout="constrained")
    axes = figure.subplots()
    at = range(len(table))
    axes.plot([line.floor or math.nan for line in table], at, "|", color="tab:gray", markersize=14, label="noise floor")
    for projection in STUDIED:
        changes = [getattr(line, projection) or math.nan for line in table]
        axes.plot(changes, at, "o", color=COLOURS[projection], label=projection, alpha=0.85)
    axes.set_xscale("log")
    axes.set_yticks(at, [f"{line.model}\n{line.place}".replace("$", r"\$") for line in table], fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel(RELATIVE)
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small")
    return figure
