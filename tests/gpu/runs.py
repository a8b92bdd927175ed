"""Whole runs of `tune` on the embedded BERT, and what they left."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from hf_bias_patch.assets import folder
from hf_bias_patch.tuning.run import TuneResult, tune
from hf_bias_patch.tuning.settings import make_settings
from hf_bias_patch.tuning.task_settings import GlueSettings
from hf_bias_patch.tuning.watcher import Watcher
from tests.tuning.jobs import alone

SHORT = {
    "model_name_or_path": "embedded:bert",
    "task_name": "embedded:opinion",
    "max_train_samples": 128,
    "max_eval_samples": 64,
    "num_train_epochs": 4,
    "per_device_train_batch_size": 16,
    "learning_rate": 3e-3,
    "logging_steps": 1,
}


class StopAt(Watcher):
    """Sends SIGTERM to this process at a step, as a cluster's scheduler does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: int, loss: float, samples: int, tokens: int) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def glue(out: Path, watcher: Watcher | None = None, **fields: Any) -> TuneResult:
    """A short run on the embedded task."""
    alone()
    torch._dynamo.reset()  # compiled code of the run before, which counts against this one's limit
    return tune(make_settings(GlueSettings, **{"output_dir": out, **SHORT, **fields}), watcher)


def losses(out: Path) -> list[float]:
    """The loss of every step."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def saved(out: Path) -> dict[str, torch.Tensor]:
    """The model of a run folder."""
    return load_file(out / "model" / "model.safetensors")


def changed(out: Path) -> set[str]:
    """Names of the tensors that are not, bit for bit, what they are in the embedded checkpoint."""
    before, after = load_file(folder("bert") / "model.safetensors"), saved(out)
    shared = before.keys() & after.keys()
    assert len(shared) > 20, "vacuous"
    return {name for name in shared if not torch.equal(before[name], after[name])}
