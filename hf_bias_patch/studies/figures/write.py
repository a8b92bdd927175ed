"""Writes each figure of a study that there are records for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_bias_patch.errors import ExtraError
from hf_bias_patch.studies.figures import biases, comparison, training
from hf_bias_patch.studies.records import Study
from hf_bias_patch.studies.summaries.comparison import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_comparison_figure", "write_figures"]

_ENDINGS = ("png", "svg")


def write_figures(found: Study, folder: Path) -> list[str]:
    """Write each figure of a study as PNG and SVG; returns the names of the files.

    Raises:
        ExtraError: matplotlib is missing.
    """
    return _write(_figures(found), folder)


def write_comparison_figure(table: Sequence[Line], folder: Path) -> list[str]:
    """Write the figure of several studies as `comparison.png` and `.svg`; returns the names of the files.

    Raises:
        ExtraError: matplotlib is missing.
    """
    return _write((("comparison", comparison.comparison(table)) for _ in range(1) if table), folder)


def _write(figures: Iterable[tuple[str, Figure]], folder: Path) -> list[str]:
    try:
        import matplotlib as mpl
    except ImportError:
        raise ExtraError("Figures need matplotlib", remedy="pip install 'hf_bias_patch[study]'") from None
    names = []
    with mpl.rc_context({"svg.hashsalt": "study"}):
        for name, figure in figures:
            for ending in _ENDINGS:
                figure.savefig(folder / f"{name}.{ending}", dpi=130, metadata={"Date": None} if ending == "svg" else {})
                names.append(f"{name}.{ending}")
    return names


def _figures(found: Study) -> Iterator[tuple[str, Figure]]:
    stages = {row.stage for row in found.rows}
    if "whole" in stages:
        yield "perturbation", biases.perturbation(found)
    if "layer" in stages:
        yield "layers", biases.layers(found)
    if "removal" in stages and found.measure == "loss_change":
        yield "removal", biases.removal(found)
    if found.steps:
        yield "steps", training.steps(found)
    if found.lessons:
        yield "lessons", training.lessons(found)
    if found.drifts:
        yield "drift", training.drift(found)
    if found.scores:
        yield "scores", training.scores(found)
