"""Two processes share a study and find what one finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_STUDY = ["hf_bias_patch", "study", "embedded:bert", "--count", "4", "--train-steps", "4", "--device", "cpu"]
_STUDY += ["--task", "embedded:opinion", "--fine-tune", "--seeds", "1", "--max-train-samples", "32", "--epochs", "1"]
_STUDY += ["--max-eval-samples", "16"]


def _run(launcher: list[str], out: Path, *more: str) -> str:
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, *launcher, *_STUDY, "--output", str(out), *more]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of a study by one process, and of the same by two, which was stopped in between."""
    one, two = (tmp_path_factory.mktemp(name) / "out" for name in ("one", "two"))
    _run(["-m"], one)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29519", "-m"]
    assert "lack of time" in _run(launcher, two, "--budget", "0s")
    assert _run(launcher, two, "--resume").count("does nothing") == 1
    return one, two


def test_two_processes_are_one(both: tuple[Path, Path]) -> None:
    one, two = map(_results, both)
    assert two["environment"]["processes"] == 2 and one["environment"]["processes"] == 1
    assert not two["left_out"] and one["floor"] == two["floor"]
    for kind in ("rows", "folds", "steps", "lessons", "drifts", "scores"):
        assert one[kind] == two[kind] and len(one[kind]) > 2, kind


def test_each_measures_its_share(both: tuple[Path, Path]) -> None:
    """No measurement is kept twice, and the order is that of one process."""
    first, second = ((out / "measured.jsonl").read_text().splitlines() for out in both)
    assert first == second
