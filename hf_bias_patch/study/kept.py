"""What a study has measured so far, in a file that grows by a line a measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_bias_patch.study.found import Drift, Fold, Lesson, Row, Score, Step

__all__ = ["KINDS", "Kept"]

KINDS: Mapping[str, Any] = {
    "rows": Row,
    "folds": Fold,
    "steps": Step,
    "lessons": Lesson,
    "drifts": Drift,
    "scores": Score,
}
"""Records by the field of `Study` that they are in."""


class Kept:
    """Measurements by name, each with its records.

    Args:
        path: the file. A last line that was cut is taken away.
        writes: whether this process keeps the file; the others only know what is in it.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self._path, self._writes = path, writes
        self.floor: dict[str, float] | None = None
        self._found: dict[str, tuple[str, list[Any]]] = {}
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("}\n")]
        for line in map(json.loads, whole):
            if line["kind"] == "floor":
                self.floor = line["figures"]
            else:
                self._found[line["name"]] = line["kind"], [KINDS[line["kind"]](**record) for record in line["records"]]
        if len(whole) < len(lines) and writes:
            path.write_text("".join(whole), "utf-8")

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def __len__(self) -> int:
        return len(self._found)

    def of(self, name: str) -> list[Any]:
        """The records of a measurement."""
        return self._found[name][1]

    def all(self, kind: str) -> tuple[Any, ...]:
        """All records of a kind, in the order in which they were measured."""
        return tuple(record for which, records in self._found.values() if which == kind for record in records)

    def add(self, name: str, kind: str, records: Sequence[Any]) -> None:
        """Keep a measurement."""
        self._found[name] = kind, list(records)
        self._append({"name": name, "kind": kind, "records": [asdict(record) for record in records]})

    def add_floor(self, figures: dict[str, float]) -> None:
        """Keep the noise floor."""
        self.floor = figures
        self._append({"kind": "floor", "figures": figures})

    def _append(self, value: dict[str, Any]) -> None:
        if self._writes:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(value) + "\n")
