"""The summary of one study, as sentences made from the records alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hf_bias_patch.studies.records import NOISE, ArmRecord, Study
from hf_bias_patch.studies.summaries.scores import score_summary
from hf_bias_patch.studies.summaries.training import training_summary

__all__ = ["ALIKE", "summary"]

ALIKE = 1.25
"""Ratio of two changes up to which they are called alike."""


def summary(study: Study) -> list[str]:
    """Sentences: the key bias, value against query, how much can be removed, training, and scores on tasks."""
    return [
        *_keys(study),
        *_order(study),
        *_removal(study),
        *training_summary(study),
        *score_summary(study.scores),
        *_limits(study),
    ]


def _keys(study: Study) -> Iterator[str]:
    rows = [row for row in study.rows if row.stage == "whole" and row.projection == "key"]
    worst = {
        place: max((row for row in rows if row.place == place), key=lambda row: row.figures["relative"])
        for place in dict.fromkeys(row.place for row in rows)
    }
    floor = study.rounding
    silent = [place for place, row in worst.items() if row.figures["relative"] <= NOISE * floor]
    if silent:
        count = len({row.fill for row in rows})
        ways = "1 way was" if count == 1 else f"{count} ways were"
        most = max(worst[place].figures["relative"] for place in silent)
        yield (
            f"The key bias of {_all_of(silent)} attention does nothing, as the paper says: whatever replaces it "
            f"({ways} tried), the last hidden states change by at most {most:.1e} of their norm; rounding alone "
            f"changes them by {floor:.1e}."
        )
    for place, row in worst.items():
        if place not in silent:
            verdict = f"the verdict of the table is “{row.verdict}”" if row.verdict else "its sites differ"
            why = f": {row.reason}" if row.reason else ""
            yield (
                f"The key bias of {place} attention matters: {row.fill} in its place change the last hidden states by "
                f"{row.figures['relative']:.2g} of their norm, and rounding alone by {floor:.1e} ({verdict}{why}). "
                "The paper's claim is for attention whose scores are plain products of queries and keys."
            )


def _all_of(places: Sequence[str]) -> str:
    *others, last = places
    return f"{', '.join(others)} and {last}" if others else last


def _order(study: Study) -> Iterator[str]:
    for place in dict.fromkeys(row.place for row in study.rows if row.stage == "whole"):
        query, value = (_dropped(study, place, name) for name in ("query", "value"))
        if query is None or value is None:
            continue
        if all(row.figures["relative"] <= NOISE * study.rounding for row in (query, value)):
            most = max(row.figures["relative"] for row in (query, value))
            yield (
                f"In {place} attention the query bias and the value bias change nothing but rounding: without one of "
                f"them the last hidden states change by at most {most:.1e} of their norm; rounding alone changes them "
                f"by {study.rounding:.1e}."
            )
            continue
        times = value.figures["relative"] / (query.figures["relative"] or 1e-30)
        much, agrees = "about as much as", "where the paper says more"
        if times > ALIKE:
            much, agrees = "more than", "as the paper says"
        elif times < 1 / ALIKE:
            much, agrees = "less than", "against what the paper says"
        effects = [
            f"removing the {row.projection} bias changes them by {row.figures['relative']:.2g} of their norm"
            + (
                f" and the loss by {row.figures['loss_change']:+.2g} nats a token"
                if "loss_change" in row.figures
                else ""
            )
            for row in (value, query)
        ]
        yield (
            f"In {place} attention the value bias changes the last hidden states {much} the query bias, {agrees}: "
            f"{'; '.join(effects)}."
        )


def _removal(study: Study) -> Iterator[str]:
    rows = [row for row in study.rows if row.stage == "removal"]
    if not rows or study.measure != "loss_change":
        return
    bound = study.settings.loss_bound
    passing = [row for row in rows if row.figures["loss_change"] <= bound]
    total = rows[-1].numbers
    if not passing:
        yield f"Already the first {rows[0].numbers:,} of {total:,} bias parameters cost more than {bound} nats a token."
        return
    most = max(passing, key=lambda row: row.numbers)
    yield (
        f"{most.numbers:,} of {total:,} query, key and value bias parameters can be set to zero, in the order of least "
        f"effect, for a change of the loss of {most.figures['loss_change']:+.2g} nats a token (bound: {bound})."
    )


def _limits(study: Study) -> Iterator[str]:
    if study.truncated:
        yield f"{study.truncated} of {study.texts} texts were longer than the model takes, and were cut."
    if study.left_out:
        yield f"{len(study.left_out)} measurements were left out, for lack of time: the first is “{study.left_out[0]}”."
    yield from study.notes


def _dropped(study: Study, place: str, projection: str) -> ArmRecord | None:
    return next(
        (
            row
            for row in study.rows
            if (row.stage, row.place, row.projection, row.fill) == ("whole", place, projection, "zeros")
        ),
        None,
    )
