"""A study's results as tables for people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from hf_bias_patch.cli.console import table

if TYPE_CHECKING:
    from rich.table import Table

    from hf_bias_patch.studies.downstream.contrasts import Contrast
    from hf_bias_patch.studies.records import ScoreRecord, Study
    from hf_bias_patch.studies.summaries.comparison import ComparisonRow

__all__ = ["arms_table", "comparison_table", "scores_table"]


def scores_table(scores: Mapping[str, Sequence[ScoreRecord]]) -> Table:
    """Each task's main metric without each bias, of one model or of several.

    Args:
        scores: by the name of the model, which is shown if there are several.
    """
    from hf_bias_patch.studies.summaries.scores import main_contrasts

    numbers = ("score", "difference", "p")
    first = ("model",) if len(scores) > 1 else ()
    made = table(*first, "task", "how", "metric", "seeds", "without", *numbers, numbers=numbers)
    made.title = "Scores without a bias: mean ± standard deviation; differences are paired by seed"
    for name, mine in scores.items():
        for row in main_contrasts(mine):
            if row.against == "nothing":
                made.add_row(*((escape(name),) if first else ()), *_cells(row))
    return made


def _cells(row: Contrast) -> tuple[str, ...]:
    from hf_bias_patch.studies.summaries.scores import as_number

    score = as_number(row, row.mean) + ("" if row.sd is None else f" ± {as_number(row, row.sd)}")
    difference = as_number(row, row.difference, signed=True)
    difference += "" if row.difference_sd is None else f" ± {as_number(row, row.difference_sd)}"
    told = "" if row.removed == "nothing" else difference
    p = "" if row.p is None else f"{row.p:.2g}"
    return row.task, row.how, row.metric, str(row.seeds or ""), row.removed, score, told, p


def arms_table(found: Study) -> Table:
    """What each replacement of a bias changes, at all sites of a kind at once."""
    loss = found.measure == "loss_change"
    numbers = ("relative", "cosine", "KL, nats", "agreement", "loss change")
    made = table("where", "bias", "in its place", *numbers[: None if loss else 2], numbers=numbers)
    made.title = f"Change of the last hidden states{', top-1 agreement and loss' if loss else ''}"
    rows = [(row.place, row.projection, row.fill, row.figures) for row in found.rows if row.stage == "whole"]
    for place, projection, fill, figures in [*rows, ("noise floor", "", "", found.floor)]:
        cells = [_short(figures["relative"]), f"{figures['cosine']:.4f}"]
        if loss:
            cells += [_short(figures["kl"]), f"{figures['agreement']:.2%}", _short(figures["loss_change"], "+")]
        made.add_row(place, projection, fill, *cells)
    return made


def comparison_table(rows: Sequence[ComparisonRow]) -> Table:
    """Studies side by side: a row for each model and kind of attention."""
    biases = ("query", "key", "value")
    losses = tuple(f"loss, {name}" for name in biases)
    with_loss = any(row.query_loss is not None or row.value_loss is not None for row in rows)
    numbers = (*biases, "noise floor", *(losses if with_loss else ()), "can be zero")
    made = table("model", "where", *numbers, numbers=numbers)
    made.title = "Change of the last hidden states with a bias at zero, over their norm"
    for row in rows:
        cells = [_optional(value, ".2g") for value in (row.query, row.key, row.value, row.floor)]
        if with_loss:
            cells += [_optional(value, "+.2g") for value in (row.query_loss, row.key_loss, row.value_loss)]
        can_go = "" if row.can_go is None else f"{row.can_go:,} of {row.numbers:,}"
        made.add_row(escape(row.model), row.place, *cells, can_go)
    return made


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _short(value: float, sign: str = "") -> str:
    """Two digits; `1e-7` for `1e-07`, which a terminal of 80 columns folds after the 0, so that it reads as 1e-0."""
    return re.sub(r"e([+-])0", r"e\1", f"{value:{sign}.2g}")
