"""Two processes train as one does with batches of twice the size, and their metrics count every sample once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

from hf_bias_patch.assets import folder

# Of 75 samples the last step takes 11, which two processes of 2 × 4 cannot share evenly; of 75 no batch is even.
_COMMON = ["--task_name", "embedded:opinion", "--max_train_samples", "75", "--max_eval_samples", "75"]
_COMMON += ["--num_train_epochs", "2", "--learning_rate", "3e-3", "--logging_steps", "1", "--quiet"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded BERT without dropout: each process would draw its own."""
    path = tmp_path_factory.mktemp("bert")
    config = transformers.AutoConfig.from_pretrained(folder("bert"))
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder("bert"), config=config)
    model.save_pretrained(path)
    transformers.AutoTokenizer.from_pretrained(folder("bert")).save_pretrained(path)
    return path


def run(launcher: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, *launcher, "hf_bias_patch", "tune", "glue", *_COMMON, *more]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_are_one(checkpoint: Path, tmp_path: Path) -> None:
    given = ["--model_name_or_path", str(checkpoint)]
    one, two = tmp_path / "one", tmp_path / "two"
    alone = run(["-m"], *given, "--output_dir", str(one), "--per_device_train_batch_size", "16")
    assert alone.returncode == 0, alone.stderr
    both = run(
        ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517", "-m"],
        *given, "--output_dir", str(two), "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2",
    )  # fmt: skip
    assert both.returncode == 0, both.stderr
    assert json.loads((two / "environment.json").read_text())["processes"] == 2
    expected, found = lines(one), lines(two)
    assert [line["step"] for line in expected] == [line["step"] for line in found] and len(found) == 12
    for first, second in zip(expected, found, strict=True):
        assert first.keys() == second.keys()
        if "loss" in first:
            assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
        else:
            assert second["eval_accuracy"] == first["eval_accuracy"]
    losses = [line["loss"] for line in found if "loss" in line]
    assert max(losses) - min(losses) > 0.01, "vacuous"
    results = [json.loads((path / "results.json").read_text()) for path in (one, two)]
    assert results[0]["samples"] == results[1]["samples"] == 150
