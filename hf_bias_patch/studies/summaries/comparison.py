"""Studies of several models as one table, and as sentences; made from their records alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.records import NOISE, ArmRecord, Study
from hf_bias_patch.studies.summaries.scores import main_contrasts
from hf_bias_patch.studies.summaries.single_study import ALIKE

__all__ = ["ComparisonRow", "comparison_rows", "comparison_scores", "model_names", "sentences", "short_name"]


@dataclass(frozen=True)
class ComparisonRow:
    """One kind of attention of one model.

    Attributes:
        model: a unique name.
        place: `encoder self`, …
        query, key, value: relative change of the last hidden states with that bias at zero; None without one.
        floor: the same by rounding alone.
        key_worst: the largest of such changes by any replacement of the key bias.
        query_loss, key_loss, value_loss: change of the loss with that bias at zero, in nats a token.
        can_go: bias parameters that can be zero within the bound, least effect first; None if not measured.
        numbers: of all query, key and value biases of the whole model.
        bound: nats a token.
    """

    model: str
    place: str
    query: float | None
    key: float | None
    value: float | None
    floor: float
    key_worst: float | None
    query_loss: float | None
    key_loss: float | None
    value_loss: float | None
    can_go: int | None
    numbers: int | None
    bound: float

    @property
    def rounding(self) -> float:
        """As `Study.rounding`."""
        return max(self.floor, sys.float_info.epsilon)


def short_name(model: str) -> str:
    """The last two parts of a path; a Hub id or an embedded model unchanged."""
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.is_absolute() and len(path.parts) > 2 else model


def model_names(studies: Sequence[Study], folders: Sequence[Path]) -> list[str]:
    """A unique name for each study: that of its model, and of the folder where two studies have one model."""
    short = [short_name(study.settings.model) for study in studies]
    told = [
        f"{name} ({folder.name or folder})" if short.count(name) > 1 else name
        for name, folder in zip(short, folders, strict=True)
    ]
    return [f"{name} {told[: at + 1].count(name)}" if told.count(name) > 1 else name for at, name in enumerate(told)]


def comparison_rows(studies: Mapping[str, Study]) -> list[ComparisonRow]:
    """The table: for each study, by its model's name, the kinds of attention that were measured."""
    return [row for name, study in studies.items() for row in _rows(study, name)]


def comparison_scores(studies: Mapping[str, Study]) -> list[dict[str, Any]]:
    """Each study's contrasts of main metrics as flat records with the model's name, ordered by task."""
    rows = [{"model": name, **asdict(row)} for name, study in studies.items() for row in main_contrasts(study.scores)]
    order = list(dict.fromkeys((row["task"], row["how"]) for row in rows))
    return sorted(rows, key=lambda row: order.index((row["task"], row["how"])))


def _rows(study: Study, name: str) -> Iterator[ComparisonRow]:
    removals = [row for row in study.rows if row.stage == "removal"] if study.measure == "loss_change" else []
    within = [row.numbers for row in removals if row.figures["loss_change"] <= study.settings.loss_bound]
    can_go = max(within, default=0) if removals else None
    total = max(row.numbers for row in removals) if removals else None
    whole = [row for row in study.rows if row.stage == "whole"]
    for place in dict.fromkeys(row.place for row in whole):
        mine = [row for row in whole if row.place == place]
        zeros = {row.projection: row for row in mine if row.fill == "zeros"}
        query, key, value = (_figure(zeros.get(name), "relative") for name in STUDIED)
        losses = {f"{name}_loss": _figure(zeros.get(name), "loss_change") for name in STUDIED}
        worst = max((row.figures["relative"] for row in mine if row.projection == "key"), default=None)
        floor = study.floor["relative"]
        bound = study.settings.loss_bound
        yield ComparisonRow(
            name, place, query, key, value, floor, worst, **losses, can_go=can_go, numbers=total, bound=bound
        )


def _figure(row: ArmRecord | None, name: str) -> float | None:
    return None if row is None else row.figures.get(name)


def sentences(studies: Mapping[str, Study], table: Sequence[ComparisonRow]) -> list[str]:
    """What the table says: value against query, the key, how much can be removed, and what cannot be compared."""
    return [*_order(table), *_keys(table), *_removal(table), *_limits(studies, table)]


def _order(table: Sequence[ComparisonRow]) -> Iterator[str]:
    there = [(line, line.value, line.query) for line in table if line.query is not None and line.value is not None]
    both = [
        (line, value, query)
        for line, value, query in there
        if not (value <= NOISE * line.rounding and query <= NOISE * line.rounding)
    ]
    if silent := [line for line, *_ in there if line not in [one for one, *_ in both]]:
        yield (
            f"Removing the query bias, or the value bias, changes nothing but rounding in {len(silent)} of "
            f"{_kinds(len(there))}: {_where(silent)}."
        )
    sorts: dict[str, list[ComparisonRow]] = {"more than": [], "less than": [], "about as much as": []}
    for line, value, query in both:
        times = value / (query or 1e-30)
        sort = "more than" if times > ALIKE else "less than" if times < 1 / ALIKE else "about as much as"
        sorts[sort].append(line)
    for sort, mine in sorts.items():
        if mine:
            yield (
                f"Removing the value bias changes the last hidden states {sort} removing the query bias in {len(mine)} "
                f"of {_kinds(len(there))}: {_where(mine)}."
            )


def _keys(table: Sequence[ComparisonRow]) -> Iterator[str]:
    there = [line for line in table if line.key_worst is not None]
    nothing = [line for line in there if (line.key_worst or 0.0) <= NOISE * line.rounding]
    matters = [line for line in there if line not in nothing]
    if nothing:
        yield (
            f"The key bias does nothing, whatever replaces it, in {len(nothing)} of {_kinds(len(there))}: "
            f"{_where(nothing)}."
        )
    if matters:
        yield f"The key bias matters in {len(matters)} of {_kinds(len(there))}: {_where(matters)}."


def _removal(table: Sequence[ComparisonRow]) -> Iterator[str]:
    known = list(dict.fromkeys((line.model, line.can_go, line.numbers, line.bound) for line in table))
    for model, can_go, numbers, bound in known:
        if can_go is not None and numbers is not None:
            yield (
                f"{model}: {can_go:,} of {numbers:,} query, key and value bias parameters can be zero for a change of "
                f"the loss of at most {bound:g} nats a token."
            )


def _limits(studies: Mapping[str, Study], table: Sequence[ComparisonRow]) -> Iterator[str]:
    for name in studies:
        if not any(line.model == name for line in table):
            yield f"{name} has no measured arms, and is not in the table."
    settings = [study.settings.identity() for study in studies.values()]
    differing = [name for name in ("texts", "count", "dtype", "seed") if len({str(one[name]) for one in settings}) > 1]
    if differing:
        yield f"The studies differ in {', '.join(differing)} as well as in the model: compare them with care."


def _kinds(count: int) -> str:
    return f"{count} {'kind' if count == 1 else 'kinds'} of attention"


def _where(table: Sequence[ComparisonRow]) -> str:
    models = dict.fromkeys(line.model for line in table)
    return "; ".join(f"{name} ({', '.join(line.place for line in table if line.model == name)})" for name in models)
