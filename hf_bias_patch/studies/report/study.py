"""A study as a page: a section for each experiment that was made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.downstream.contrasts import contrasts
from hf_bias_patch.studies.figures.study_figures import figures_of
from hf_bias_patch.studies.number_formats import number
from hf_bias_patch.studies.records import Study
from hf_bias_patch.studies.report import texts
from hf_bias_patch.studies.report.page import Page, Section, render
from hf_bias_patch.studies.report.tables import Column, Table, table_of
from hf_bias_patch.studies.summaries.comparison import short_name
from hf_bias_patch.studies.summaries.single_study import summary

__all__ = ["page_of", "write_report"]

NAME = "report.html"


def write_report(study: Study, folder: Path) -> list[str]:
    """Write `report.html` into a study's folder; returns the names of the files: this one.

    Raises:
        ExtraError: jinja2 or plotly is missing.
    """
    environment = json.loads((folder / "environment.json").read_text("utf-8"))
    (folder / NAME).write_text(render(page_of(study, environment)), "utf-8")
    return [NAME]


def page_of(study: Study, environment: dict[str, Any]) -> Page:
    """The content of a study's page.

    Args:
        study: the study.
        environment: versions and device, as `environment.json` has them.
    """
    sections = [section for section in _sections(study) if any(table.rows for table in section.tables)]
    return Page(
        short_name(study.settings.model),
        "Attention biases: a study",
        _facts(study, environment),
        summary(study),
        sections,
    )


def _facts(study: Study, environment: dict[str, Any]) -> list[tuple[str, str]]:
    packages = environment.get("packages", {})
    versions = {"hf_bias_patch": environment.get("hf_bias_patch"), "Python": environment.get("python")}
    versions |= {name: packages.get(name) for name in ("torch", "transformers")}
    embedded = study.settings.texts in ((), ("embedded",))  # in new settings, and as read back
    count = f"{study.texts:,}{' embedded' if embedded else ''}"
    facts = [
        ("model", study.settings.model if short_name(study.settings.model) != study.settings.model else ""),
        ("model type", study.model_type),
        ("commit", study.commit or ""),
        ("texts", f"{count}, {study.tokens:,} tokens" if study.texts else ""),
        ("computed in", f"{study.settings.dtype} on {study.settings.device}"),
        (
            "noise floor",
            f"{number(study.floor['relative'])} of the norm of the last hidden states" if study.floor else "",
        ),
        ("seed", str(study.settings.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)),
    ]
    return [(name, value) for name, value in facts if value]


def _sections(study: Study) -> list[Section]:
    """A section for each experiment; those that were not made have empty tables."""
    plain = {name: [row.plain() for row in study.rows if row.stage == name] for name in ("whole", "layer", "head")}
    parts, whole = [*plain["layer"], *plain["head"]], _without(plain["whole"], *_SINGLE)
    removals = _without(list(_removals(study)), *_SINGLE, *_SAME)
    folds = [asdict(row) | ({"relative": None} if row.refused else {}) for row in study.folds]
    contrasted = table_of(map(asdict, contrasts(study.scores)), "Means over runs", texts.CONTRASTS)
    heads = [texts.HEADS] if plain["head"] else []
    loss = study.measure == "loss_change"
    panels = {figure.name: figure.panels for figure in figures_of(study)}
    panels["where"] = [*panels["layers"], *panels["heads"]]
    tables = {
        "verdicts": [_verdict_table(study)],
        "perturbation": [table_of(whole, "What each fill changes, at all sites of a kind at once")],
        "where": [table_of(_without(parts, "stage"), "What one layer's bias, or one head's part of it, does")],
        "removal": [table_of(removals, "Each removal")],
        "folds": [table_of(folds, "Each projection's biases folded into their weights")],
        "steps": [table_of(map(asdict, study.steps), "One step of training, per unit of learning rate")],
        "lessons": [table_of(map(asdict, study.lessons), "Each evaluation")],
        "drift": [table_of(map(asdict, study.drifts), "How far each projection's biases moved")],
        "scores": [contrasted, table_of(map(asdict, study.scores), "Each run")],
    }
    about = dict(texts.ABOUT)
    about["perturbation"] = [*about["perturbation"], *_undrawn(study, "whole")]
    about["where"] = [*about["where"], *heads, *_undrawn(study, "layer")]
    about["removal"] = about["removal"] if loss else [texts.REMOVAL_WITHOUT_LOSS]
    return [
        Section(name, texts.TITLES[name], about[name], panels.get(name, ()), shown) for name, shown in tables.items()
    ]


_SINGLE = ("stage", "layer", "head")  # of one site; empty where all are changed
_SAME = ("place", "projection", "fill", "verdict", "reason")  # of all removals


def _removals(study: Study) -> Iterator[dict[str, Any]]:
    """Each removal, with the biases that it removes beside those before."""
    alone = sorted((row for row in study.rows if row.stage == "layer"), key=lambda row: row.effect)
    parameters = 0
    for row in (row for row in study.rows if row.stage == "removal"):
        went = []
        while alone and parameters < row.numbers:
            went.append(alone.pop(0))
            parameters += went[-1].numbers
        yield row.plain() | {"went": ", ".join(f"{one.place} {one.projection} {one.layer}" for one in went)}


def _without(records: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in names} for record in records]


def _undrawn(study: Study, stage: str) -> Iterator[str]:
    changes = [row.figures["relative"] for row in study.rows if row.stage == stage]
    if strange := sum(not abs(change) < float("inf") for change in changes):
        yield f"{strange} of {len(changes)} changes are not finite: they are in the table and not in the figure."
    if any(change == 0 for change in changes):
        yield "A change of exactly 0 has no place on a scale of powers of ten, and is drawn at its low end."


_VERDICT_COLUMNS = {
    "place": Column("attention"),
    "projection": Column("bias"),
    "verdict": Column("verdict"),
    "numbers": Column("parameters", "count", "of that bias, in all layers"),
    "relative": Column("change", "number", "of the last hidden states over their norm, with that bias at zero"),
    "floors": Column("× noise floor", "number", "how many times the noise floor that is"),
    "loss_change": Column("loss change", "signed", "nats a token; below 0 is better"),
}


def _verdict_table(study: Study) -> Table:
    """A row for each place and projection; where its layers differ, with the number of layers for each verdict."""
    zeros = {(row.place, row.projection): row for row in study.rows if (row.stage, row.fill) == ("whole", "zeros")}
    whole = {(row.place, row.projection): row for row in reversed(study.rows) if row.stage == "whole"}
    floor = study.floor.get("relative")
    records = []
    for place in dict.fromkeys(row.place for row in study.rows if row.stage == "whole"):
        for projection in STUDIED:
            if (place, projection) not in whole:
                continue
            row, measured = whole[place, projection], zeros.get((place, projection))
            verdict = row.verdict or _mixed(study, place, projection)
            record: dict[str, Any] = {"place": place, "projection": projection, "verdict": verdict}
            record |= {"numbers": row.numbers, "relative": None, "floors": None, "reason": row.reason}
            if measured is not None:
                change = measured.figures["relative"]
                record |= {"relative": change, "floors": change / floor if floor else None}
                if "loss_change" in measured.figures:
                    record["loss_change"] = measured.figures["loss_change"]
            records.append(record)
    return table_of(records, "Kinds of bias, and what setting them to zero does", _VERDICT_COLUMNS)


def _mixed(study: Study, place: str, projection: str) -> str:
    layers = [row for row in study.rows if (row.stage, row.place, row.projection) == ("layer", place, projection)]
    counts = Counter(row.verdict for row in layers if row.verdict)
    return ", ".join(f"{verdict} ({count})" for verdict, count in counts.items()) or "differs by layer"
