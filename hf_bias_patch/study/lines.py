"""A file that grows by a line a measurement, and is read again after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["Lines"]


class Lines:
    """JSON objects, one a line. A last line that was cut is no measurement, and is taken away."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[dict[str, Any]]:
        """What is there."""
        lines = self._path.read_text("utf-8").splitlines(keepends=True) if self._path.exists() else []
        whole = [line for line in lines if line.endswith("}\n")]
        if len(whole) < len(lines):
            self._path.write_text("".join(whole), "utf-8")
        return [json.loads(line) for line in whole]

    def add(self, value: dict[str, Any]) -> None:
        """Add one."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
