"""What scores on tasks show, as sentences made from the records alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hf_bias_patch.studies.downstream.contrasts import Contrast, contrasts
from hf_bias_patch.studies.records import ScoreRecord

__all__ = ["as_number", "main_contrasts", "score_summary"]

SIGNIFICANT = 0.05
"""p-value below which a difference is called one."""

ROUNDING = 1e-6
"""Share of a score below which a difference is float32 rounding, also after training."""


def main_contrasts(scores: Sequence[ScoreRecord]) -> list[Contrast]:
    """The contrasts of each task's main metric, which is its first."""
    first: dict[tuple[str, str], str] = {}
    for score in scores:
        first.setdefault((score.task, score.how), score.metric)
    return [row for row in contrasts(scores) if row.metric == first[row.task, row.how]]


def as_number(row: Contrast, value: float, *, signed: bool = False) -> str:
    """A metric's value as text: scores out of 100 with two decimals, or one digit where those are zero."""
    sign = "+" if signed else ""
    if not row.greater_is_better:
        return f"{value:{sign}.4g}"
    return f"{value:{sign}.2f}" if abs(value) >= 0.01 or not value else f"{value:{sign}.1g}"


def score_summary(scores: Sequence[ScoreRecord]) -> Iterator[str]:
    """For each task and way of training: what removing each bias costs, and value against query."""
    rows = main_contrasts(scores)
    for task, how in dict.fromkeys((row.task, row.how) for row in rows):
        mine = {(row.removed, row.against): row for row in rows if (row.task, row.how) == (task, how)}
        whole = mine.get(("nothing", "nothing"))
        removed = [row for (name, against), row in mine.items() if against == "nothing" and name != "nothing"]
        if whole is None or not removed:
            continue
        score = _with_sd(whole, whole.mean, whole.sd)
        of = f", {whole.seeds} seed{'s'[: whole.seeds != 1]}" if whole.seeds else ""
        first, *others = (f"without its {row.removed} bias {{}}{_change(row)}" for row in removed)
        parts = "; ".join((first.format("is "), *(part.format("") for part in others)))
        yield f"On {task}, {how} ({whole.metric} {score} with every bias{of}), the model {parts}.{_untested(whole)}"
        if between := mine.get(("value", "query")):
            yield from _order(between)


def _change(row: Contrast) -> str:
    if abs(row.difference) <= ROUNDING * abs(row.mean):
        return "equal up to rounding"
    size = row.difference if row.greater_is_better else -row.difference
    word = "better" if size > 0 else "worse"
    return f"{word} by {_with_sd(row, abs(size), row.difference_sd)}{_p(row)}"


def _order(row: Contrast) -> Iterator[str]:
    """Whether removing the value bias costs more than removing the query bias, where a test is possible."""
    if row.p is None:
        return
    size = f"{_with_sd(row, abs(row.difference), row.difference_sd)}{_p(row)}"
    if row.p >= SIGNIFICANT:
        yield (
            f"These seeds do not show whether the model needs its value bias or its query bias more on {row.task}, "
            f"{row.how}: without one or the other, its scores differ by {size}."
        )
        return
    worse = (row.difference < 0) == row.greater_is_better
    word, agrees = ("worse", "as the paper says") if worse else ("better", "against what the paper says")
    yield (
        f"Without its value bias the model is {word} on {row.task}, {row.how}, than without its query bias, by {size}: "
        f"{agrees}."
    )


def _untested(whole: Contrast) -> str:
    if whole.seeds == 0:
        return " Nothing was trained: there is one score each, so no test is possible."
    return " With one seed no test is possible; use --seeds 3 or more." if whole.seeds == 1 else ""


def _with_sd(row: Contrast, value: float, sd: float | None) -> str:
    return as_number(row, value) + ("" if sd is None else f" ± {as_number(row, sd)}")


def _p(row: Contrast) -> str:
    return "" if row.p is None else f" (p = {row.p:.2g})"
