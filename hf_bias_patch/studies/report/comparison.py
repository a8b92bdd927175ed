"""Studies of several models as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.figures.description import RELATIVE
from hf_bias_patch.studies.figures.study_figures import comparison
from hf_bias_patch.studies.report import texts
from hf_bias_patch.studies.report.page import Page, Section, render
from hf_bias_patch.studies.report.tables import Column, table_of
from hf_bias_patch.studies.summaries.comparison import ComparisonRow

__all__ = ["write_comparison_page"]

_COLUMNS = {
    "place": Column("attention"),
    **{name: Column(name, "number", f"{RELATIVE}, with the {name} bias at zero") for name in STUDIED},
    "floor": Column("noise floor", "number", "the same by rounding alone"),
    "key_worst": Column("key, at most", "number", "the largest change by any replacement of the key bias"),
    **{
        f"{name}_loss": Column(f"loss, {name}", "signed", f"change with the {name} bias at zero, nats a token")
        for name in STUDIED
    },
    "can_go": Column("can be removed", "count", "bias parameters of the model that can be zero within the bound"),
    "numbers": Column("of", "count", "all query, key and value bias parameters of the model"),
    "bound": Column("bound", "number", "nats a token"),
}


def write_comparison_page(
    table: Sequence[ComparisonRow], scores: Sequence[Mapping[str, Any]], summary: Sequence[str], folder: Path
) -> list[str]:
    """Write `comparison.html`; returns the names of the files: this one.

    Args:
        table: kinds of attention of each model.
        scores: records of `scores_side_by_side`.
        summary: sentences.
        folder: to write it into.

    Raises:
        ExtraError: jinja2 or plotly is missing.
    """
    rows = table_of([asdict(row) for row in table], "A row for each model and kind of attention", _COLUMNS)
    means = table_of(scores, "Means over runs, of each task's main metric", texts.CONTRASTS)
    shown = [("comparison", "comparison", comparison(table).panels, rows)]
    shown += [("scores", "scores of models", (), means)] if scores else []
    sections = [Section(name, texts.TITLES[key], texts.ABOUT[key], panels, [made]) for name, key, panels, made in shown]
    facts = [("models", ", ".join(dict.fromkeys(row.model for row in table)) or "none")]
    page = Page("Models side by side", "Attention biases: a comparison", facts, summary, sections)
    (folder / "comparison.html").write_text(render(page), "utf-8")
    return ["comparison.html"]
