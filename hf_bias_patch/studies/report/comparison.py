"""Studies of several models as one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.report import texts
from hf_bias_patch.studies.report.page import Page, Section, render
from hf_bias_patch.studies.report.plots import RELATIVE, SYMBOLS, Key, Plot, hover, log_axis, low_end, projections, safe
from hf_bias_patch.studies.report.tables import Column, table_of
from hf_bias_patch.studies.summaries.comparison import Line

__all__ = ["write_comparison_page"]

_COLUMNS = {
    "place": Column("attention"),
    **{name: Column(name, "number", f"{RELATIVE}, with the {name} bias at zero") for name in STUDIED},
    "floor": Column("noise floor", "number", "the same by rounding alone"),
    "key_worst": Column("key, at most", "number", "the largest change, whatever stood in the key bias's place"),
    **{
        f"{name}_loss": Column(f"loss, {name}", "signed", f"change with the {name} bias at zero, nats a token")
        for name in STUDIED
    },
    "can_go": Column("can go", "count", "bias numbers of the whole model that can be zeros within the bound"),
    "numbers": Column("of", "count", "all query, key and value bias numbers of the whole model"),
    "bound": Column("bound", "number", "nats a token"),
}


def write_comparison_page(
    table: Sequence[Line], scores: Sequence[Mapping[str, Any]], said: Sequence[str], folder: Path
) -> str:
    """Write `comparison.html`; returns the name of the file.

    Args:
        table: kinds of attention of each model.
        scores: records of `scores_side_by_side`.
        said: sentences.
        folder: where it goes.

    Raises:
        ExtraError: jinja2 or plotly is missing.
    """
    models = list(dict.fromkeys(line.model for line in table))
    records = [asdict(line) for line in table]
    made = table_of(records, "A row for each model and kind of attention", _COLUMNS)
    sections = [Section("comparison", "Each bias at zero", texts.COMPARISON, list(_plots(table)), [made])]
    if scores:
        means = table_of(scores, "Means over runs, of each task's main metric", texts.CONTRASTS)
        sections.append(Section("scores", "Scores on tasks", texts.SCORES_SIDE_BY_SIDE, (), [means]))
    facts = [("models", ", ".join(models) or "none")]
    page = Page("Models side by side", "Attention biases: a comparison", facts, said, sections)
    (folder / "comparison.html").write_text(render(page), "utf-8")
    return "comparison.html"


def _plots(table: Sequence[Line]) -> Iterator[Plot]:
    if not table:
        return
    axis = log_axis(RELATIVE, [change for line in table for change in (line.floor, *_changes(line).values())])
    least = low_end(axis)
    rows = [_row(line) for line in table]
    data = [_dots(table, name, least) for name in STUDIED]
    floors: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": "noise floor",
        "x": [max(line.floor, least) for line in table],
        "y": rows,
        "hovertext": [hover(line.model, {"place": line.place, "noise floor": line.floor}) for line in table],
        "hoverinfo": "none",
        "marker": {"color": "$muted", "symbol": "line-ns-open", "size": 16, "line": {"width": 2}},
    }
    layout = {
        "xaxis": axis,
        "yaxis": {"type": "category", "categoryarray": list(reversed(rows))},
    }
    shown = [trace for trace in [floors, *data] if trace["x"]]
    keys = [*projections(trace["name"] for trace in shown), Key("noise floor", "stroke", "muted")]
    yield Plot("comparison-plot", "", shown, layout, 84 + 44 * len(rows), keys)


def _row(line: Line) -> str:
    return f"{safe(line.model)}<br>{safe(line.place)}"


def _changes(line: Line) -> dict[str, float]:
    changes = {"query": line.query, "key": line.key, "value": line.value}
    return {name: change for name, change in changes.items() if change is not None}


def _dots(table: Sequence[Line], projection: str, least: float) -> dict[str, Any]:
    mine = [(line, _changes(line)[projection]) for line in table if projection in _changes(line)]
    figures = [
        {
            "place": line.place,
            f"{projection} bias at zero": change,
            "loss_change": getattr(line, f"{projection}_loss"),
            "noise floor": line.floor,
        }
        for line, change in mine
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": projection,
        "x": [max(change, least) for _, change in mine],
        "y": [_row(line) for line, _ in mine],
        "hovertext": [
            hover(line.model, {name: value for name, value in one.items() if value is not None})
            for (line, _), one in zip(mine, figures, strict=True)
        ],
        "hoverinfo": "none",
        "marker": {"color": f"${projection}", "symbol": SYMBOLS[projection], "size": 11, "opacity": 0.9},
    }
