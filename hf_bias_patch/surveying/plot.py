"""Draws a survey: how large the key biases of each family's models are."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from hf_bias_patch.errors import TargetError
from hf_bias_patch.surveying.record import SurveyedModel
from hf_bias_patch.surveying.table import by_family

__all__ = ["draw"]

_MOST = 30
"""Families drawn, those with most removable parameters first."""

_COLOURS = {"redundant": "tab:green", "needed": "tab:orange", "unknown": "tab:red"}


def draw(models: Sequence[SurveyedModel], path: Path) -> bool:
    """Write the figure: a line for each family, and on it for each of its models the median norm of its key biases.

    Returns:
        False if no model has a key bias, and nothing was drawn.

    Raises:
        TargetError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    families = [count.family for count in by_family(models) if count.with_key][:_MOST]
    if not families:
        return False
    figure = Figure(figsize=(8, 1.6 + 0.3 * len(families)), layout="constrained")
    axes = figure.subplots()
    for verdict, colour in _COLOURS.items():
        points = [
            (norm, families.index(model.family))
            for model in models
            if model.family in families and (norm := _median(model, verdict)) is not None
        ]
        if points:
            norms, lines = zip(*points, strict=True)
            axes.scatter(norms, lines, color=colour, alpha=0.7, s=24, label=verdict, clip_on=False, zorder=3)
    axes.set_yticks(range(len(families)), families)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=1e-3)
    axes.set_xlim(left=0)
    axes.set_xlabel("median norm of a model's key biases (a point a model)")
    axes.set_title("Key biases on the Hub, by family")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(title="verdict", loc="best")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise TargetError(f"{path} cannot be written", why=error.strerror or str(error)) from error
    return True


def _median(model: SurveyedModel, verdict: str) -> float | None:
    norms = [
        bias["norm"]
        for bias in model.biases
        if bias["projection"] == "key" and bias["verdict"] == verdict and bias["norm"] is not None
    ]
    return statistics.median(norms) if norms else None
