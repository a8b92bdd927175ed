"""The measurements of a study so far, in a file with a line for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from hf_bias_patch.studies.records import ArmRecord, DriftRecord, FoldRecord, ScoreRecord, SingleBiasRecord, StepRecord

__all__ = ["KINDS", "MeasurementStore", "Outcome"]

KINDS: Mapping[str, Any] = {
    "rows": ArmRecord,
    "folds": FoldRecord,
    "steps": StepRecord,
    "lessons": SingleBiasRecord,
    "drifts": DriftRecord,
    "scores": ScoreRecord,
}
"""Records by the field of `Study` that they are in."""


class Outcome(NamedTuple):
    """The outcome of a measurement: records, none if it failed, and notes for the reader."""

    records: Sequence[Any]
    notes: Sequence[str] = ()


class MeasurementStore:
    """Measurements by their keys.

    Args:
        path: the file. A last line that was cut is taken away.
        writes: whether this process keeps the file; the others only know what is in it.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self._path, self._writes = path, writes
        self.floor: dict[str, float] | None = None
        self._found: dict[str, Outcome] = {}
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("}\n")]
        for line in map(json.loads, whole):
            if line["kind"] == "floor":
                self.floor = line["figures"]
            else:
                records = [KINDS[line["kind"]](**record) for record in line["records"]]
                self._found[line["key"]] = Outcome(records, line["notes"])
        if len(whole) < len(lines) and writes:
            path.write_text("".join(whole), "utf-8")

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def of(self, key: str) -> Outcome:
        """The outcome of a measurement."""
        return self._found[key]

    def add(self, key: str, kind: str, measured: Outcome) -> None:
        """Store a measurement."""
        self._found[key] = measured
        records = [asdict(record) for record in measured.records]
        self._append({"key": key, "kind": kind, "records": records, "notes": list(measured.notes)})

    def add_floor(self, figures: dict[str, float]) -> None:
        """Store the noise floor."""
        self.floor = figures
        self._append({"kind": "floor", "figures": figures})

    def _append(self, value: dict[str, Any]) -> None:
        if self._writes:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(value) + "\n")
