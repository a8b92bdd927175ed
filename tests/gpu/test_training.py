"""Training on a GPU: precisions, and that a resumed run is the uninterrupted one."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import pytest
import torch
import transformers

from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.score import evaluate_model
from hf_bias_patch.scoring.tasks import load_task
from tests.gpu.runs import SHORT, StopAt, changed, glue, losses, saved

pytestmark = pytest.mark.gpu
VALUES = {f"bert.encoder.layer.{layer}.attention.self.value.bias" for layer in range(4)}


@pytest.mark.parametrize("train", ["value", "all", "lora", "beft"])
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_the_loss_goes_down_and_what_is_frozen_stays(device: str, tmp_path: Path, precision: str, train: str) -> None:
    if (device, precision) == ("cpu", "fp16"):
        pytest.skip("a CPU trains in float32 and bf16 only")
    out = tmp_path / "run"
    rate = 3e-3 if train == "all" else 1e-2
    result = glue(out, mixed_precision=precision, train=train, num_train_epochs=10, learning_rate=rate)
    told = losses(out)
    # Single losses scatter, by dropout and small batches; the mean of a half goes down by 0.015 or more on any seed.
    assert len(told) == 80 and mean(told[40:]) < mean(told[:40])
    environment = json.loads((out / "environment.json").read_text())
    assert (environment["device"], environment["mixed_precision"]) == (device, precision)
    assert result.plain["peak_bytes"] > 0
    assert all(value.dtype == torch.float32 for value in saved(out).values())
    if train == "all":
        assert len(changed(out)) > 50
    elif train == "lora":
        assert {name.rpartition("self.")[2] for name in changed(out)} == {"query.weight", "value.weight"}
    else:
        assert changed(out) == VALUES


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_the_saved_model_loads_and_scores_the_same_on_a_cpu(device: str, tmp_path: Path, precision: str) -> None:
    if (device, precision) == ("cpu", "fp16"):
        pytest.skip("a CPU trains in float32 and bf16 only")
    result = glue(tmp_path / "run", mixed_precision=precision)
    place = tmp_path / "run" / "model"
    stock, report = transformers.AutoModelForSequenceClassification.from_pretrained(place, output_loading_info=True)
    assert not any(report.values())
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    task = load_task("embedded:opinion")
    again = evaluate_model(stock, tokenizer, task, load_split(task, "validation", limit=SHORT["max_eval_samples"]))
    # bf16 and fp16 decide a text or two otherwise.
    slack = 0.0 if precision == "no" else 2 * 100 / 64
    assert again.metrics["accuracy"] == pytest.approx(result.metrics["accuracy"], abs=slack + 1e-9)
    assert again.metrics["loss"] == pytest.approx(result.metrics["loss"], rel=1e-4 if precision == "no" else 0.05)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_resumed_is_uninterrupted(device: str, tmp_path: Path, precision: str) -> None:
    """With dropout, in the middle of an epoch, the same last bit; fp16's loss scale goes on too."""
    if (device, precision) == ("cpu", "fp16"):
        pytest.skip("a CPU trains in float32 and bf16 only")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    given = {"mixed_precision": precision, "num_train_epochs": 2}
    result = glue(whole, **given)
    assert glue(cut, StopAt(5), **given).ended == "terminated"
    torch.manual_seed(99)  # whatever the new process drew before
    again = glue(cut, **given, resume=True)
    assert losses(cut) == losses(whole) and len(losses(whole)) == 16
    assert again.metrics == result.metrics
    expected, found = saved(whole), saved(cut)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
