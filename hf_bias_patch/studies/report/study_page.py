"""A study as a page: a section for each experiment that was made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_bias_patch.studies.downstream.contrasts import contrasts
from hf_bias_patch.studies.records import Study
from hf_bias_patch.studies.report import plots, texts, training_plots
from hf_bias_patch.studies.report.page import Page, Section, render
from hf_bias_patch.studies.report.tables import number, table_of
from hf_bias_patch.studies.report.verdicts import verdicts
from hf_bias_patch.studies.summaries.comparison import short_name
from hf_bias_patch.studies.summaries.single_study import summary

__all__ = ["page_of", "write_report"]

NAME = "report.html"


def write_report(found: Study, folder: Path) -> list[str]:
    """Write `report.html` into a study's folder; returns the names of the files: this one.

    Raises:
        ExtraError: jinja2 or plotly is missing.
    """
    environment = json.loads((folder / "environment.json").read_text("utf-8"))
    (folder / NAME).write_text(render(page_of(found, environment)), "utf-8")
    return [NAME]


def page_of(found: Study, environment: dict[str, Any]) -> Page:
    """What the page of a study says.

    Args:
        found: the study.
        environment: versions and device, as `environment.json` has them.
    """
    sections = [section for make in _SECTIONS for section in make(found)]
    return Page(
        short_name(found.settings.model),
        "Attention biases: a study",
        _facts(found, environment),
        summary(found),
        sections,
    )


def _facts(found: Study, environment: dict[str, Any]) -> list[tuple[str, str]]:
    packages = environment.get("packages", {})
    versions = {"hf_bias_patch": environment.get("hf_bias_patch"), "Python": environment.get("python")}
    versions |= {name: packages.get(name) for name in ("torch", "transformers")}
    embedded = found.settings.texts in ((), ("embedded",))  # as it was asked for, and as it is read back
    texts = f"{found.texts:,}{' embedded' if embedded else ''}"
    facts = [
        ("model", found.settings.model if short_name(found.settings.model) != found.settings.model else ""),
        ("model type", found.model_type),
        ("commit", found.commit or ""),
        ("texts", f"{texts}, {found.tokens:,} tokens" if found.texts else ""),
        ("computed in", f"{found.settings.dtype} on {found.settings.device}"),
        ("noise floor", f"{number(found.floor['relative'])} of the last states' norm" if found.floor else ""),
        ("seed", str(found.settings.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)),
    ]
    return [(name, value) for name, value in facts if value]


def _verdicts(found: Study) -> Iterator[Section]:
    if any(row.stage == "whole" for row in found.rows):
        yield Section("verdicts", "Verdicts", texts.VERDICTS, (), [verdicts(found)])


def _perturbation(found: Study) -> Iterator[Section]:
    records = [row.plain() for row in found.rows if row.stage == "whole"]
    if records:
        about = [*texts.PERTURBATION, *_undrawn(found, "whole")]
        table = table_of(_without(records, *_SINGLE), "What each fill changes, at all sites of a kind at once")
        yield Section("perturbation", "Biases replaced", about, list(plots.perturbation(found)), [table])


_SINGLE = ("stage", "layer", "head")  # of one site; empty where all are changed


def _where(found: Study) -> Iterator[Section]:
    records = [row.plain() for row in found.rows if row.stage in ("layer", "head")]
    if records:
        about = [*texts.WHERE, *(texts.HEADS if any(row.stage == "head" for row in found.rows) else ())]
        drawn = [*plots.layers(found), *plots.heads(found)]
        table = table_of(_without(records, "stage"), "What one layer's bias, or one head's part of it, does")
        yield Section("where", "Where it matters", [*about, *_undrawn(found, "layer")], drawn, [table])


def _removal(found: Study) -> Iterator[Section]:
    records = [row.plain() for row in found.rows if row.stage == "removal"]
    if records:
        known = _without(records, *_SINGLE, "place", "projection", "fill", "verdict", "reason")
        table = table_of([one | added for one, added in zip(known, _added(found), strict=True)], "Each removal")
        about = texts.REMOVAL if found.measure == "loss_change" else texts.REMOVAL_WITHOUT_LOSS
        yield Section("removal", "How much can go", about, list(plots.removal(found)), [table])


def _added(found: Study) -> Iterator[dict[str, str]]:
    """For each removal the biases that went then, beside those before: in the order of their effect alone."""
    alone = sorted((row for row in found.rows if row.stage == "layer"), key=lambda row: row.effect)
    numbers = 0
    for row in (row for row in found.rows if row.stage == "removal"):
        went = []
        while alone and numbers < row.numbers:
            went.append(alone.pop(0))
            numbers += went[-1].numbers
        yield {"went": ", ".join(f"{one.place} {one.projection} {one.layer}" for one in went)}


def _without(records: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in names} for record in records]


def _undrawn(found: Study, stage: str) -> Iterator[str]:
    changes = [row.figures["relative"] for row in found.rows if row.stage == stage]
    if strange := sum(not abs(change) < float("inf") for change in changes):
        yield f"{strange} of {len(changes)} changes are no finite number: they are in the table, and not in the figure."
    if any(change == 0 for change in changes):
        yield "A change of exactly 0 has no place on a scale of powers of ten, and is drawn at its low end."


def _folds(found: Study) -> Iterator[Section]:
    if found.folds:
        records = [asdict(row) | ({"relative": None} if row.refused else {}) for row in found.folds]
        table = table_of(records, "Each projection's biases moved into their weights")
        yield Section("folds", "Redundancy by weight", texts.FOLDS, (), [table])


def _steps(found: Study) -> Iterator[Section]:
    if found.steps:
        table = table_of([asdict(row) for row in found.steps], "One step of training, per unit of learning rate")
        yield Section("steps", "What a step of training does", texts.STEPS, list(training_plots.steps(found)), [table])


def _lessons(found: Study) -> Iterator[Section]:
    if found.lessons:
        table = table_of([asdict(row) for row in found.lessons], "Each evaluation")
        drawn = list(training_plots.lessons(found))
        yield Section("lessons", "One projection's biases trained", texts.LESSONS, drawn, [table])


def _drift(found: Study) -> Iterator[Section]:
    if found.drifts:
        table = table_of([asdict(row) for row in found.drifts], "How far each projection's biases moved")
        drawn = [*training_plots.drift(found), *training_plots.drift_effect(found)]
        yield Section("drift", "Drift while everything trains", texts.DRIFT, drawn, [table])


def _scores(found: Study) -> Iterator[Section]:
    if found.scores:
        means = table_of([asdict(row) for row in contrasts(found.scores)], "Means over runs", texts.CONTRASTS)
        runs = table_of([asdict(row) for row in found.scores], "Each run")
        yield Section("scores", "Scores on tasks", texts.SCORES, list(training_plots.scores(found)), [means, runs])


_SECTIONS: tuple[Callable[[Study], Iterator[Section]], ...] = (
    _verdicts,
    _perturbation,
    _where,
    _removal,
    _folds,
    _steps,
    _lessons,
    _drift,
    _scores,
)
