"""Models on a GPU: edited, studied, verified and scored there as on the CPU."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from hf_bias_patch import apply, patch, verify
from hf_bias_patch.assets import folder
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.loading import load_scorable
from hf_bias_patch.scoring.score import evaluate_model
from hf_bias_patch.scoring.tasks import load_task
from hf_bias_patch.studies.records import NOISE
from hf_bias_patch.studies.run import study
from hf_bias_patch.studies.settings import StudySettings
from tests.gpu.runs import glue
from tests.models import DTYPES, error, fresh, inputs_of, outputs_of
from tests.tuning.jobs import alone

pytestmark = pytest.mark.gpu


def bits(model: torch.nn.Module) -> dict[str, bytes]:
    """The bytes of every parameter."""
    return {
        name: value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        for name, value in model.named_parameters(remove_duplicate=False)
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
def test_apply_gives_the_same_bytes_as_on_the_cpu(device: str, name: str, dtype: str) -> None:
    here, there = fresh(name, dtype=DTYPES[dtype]), fresh(name, dtype=DTYPES[dtype]).to(device)
    before = bits(here)
    for recipe in (
        {"fold": "query,key,value"},
        {"fold": "query:norm,value:weight"},
        {"drop": "value", "fill": "key=uniform:-1:1"},
    ):
        one, two = apply(here, max_loss=1.0, **recipe), apply(there, max_loss=1.0, **recipe)  # type: ignore[arg-type]
        assert bits(there) == bits(here) != before
        assert {value.device.type for value in there.parameters()} == {torch.device(device).type}
        one.restore()
        two.restore()
        assert bits(there) == bits(here) == before


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
def test_apply_keeps_what_the_model_computes(device: str, name: str) -> None:
    model = fresh(name).to(device)
    given = {key: value.to(device) for key, value in inputs_of(model).items()}
    before = outputs_of(model, given)
    with apply(model, fold="query,key,value"):
        # Hidden states in between may move; what comes out at the end may not.
        assert error({"logits": outputs_of(model, given)["logits"]}, {"logits": before["logits"]}) < 1e-12
    with apply(model, drop="value"):
        assert error({"logits": outputs_of(model, given)["logits"]}, {"logits": before["logits"]}) > 1e-3, "vacuous"


def test_a_model_saved_from_the_device_is_verified(device: str, tmp_path: Path) -> None:
    """Patched where it is, saved from there, and the file patched on disk: one model."""
    from transformers import AutoModelForMaskedLM

    source = folder("bert")
    model = AutoModelForMaskedLM.from_pretrained(source).to(device)
    apply(model, fold="key,value")
    model.save_pretrained(tmp_path / "saved")
    certificate = verify(tmp_path / "saved", source)
    assert certificate.passed, certificate.reasons
    apply(model, drop="query")
    model.save_pretrained(tmp_path / "wrong")
    assert not verify(tmp_path / "wrong", source).passed


def test_a_model_tuned_on_the_device_is_patched_and_verified(device: str, tmp_path: Path) -> None:
    glue(tmp_path / "run", train="query,value", num_train_epochs=1)
    patch(tmp_path / "run" / "model", tmp_path / "variant", fold="key,value,query")
    assert verify(tmp_path / "variant").passed
    assert verify(tmp_path / "variant", layerwise=True).passed


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
def test_a_study_finds_the_same(device: str, name: str, tmp_path: Path) -> None:
    found = {}
    for where in ("cpu", device):
        out = tmp_path / f"of-{where}-{len(found)}"
        alone()
        made = study(StudySettings(f"embedded:{name}", count=4, train_steps=2, device=where), out)
        assert made is not None
        assert json.loads((out / "environment.json").read_text())["device"] == where
        found[out] = made.study
    here, there = found.values()
    assert [row.stage for row in here.rows] == [row.stage for row in there.rows]
    # What is removed first is told by figures, which rounding may put in another order.
    expected = {row.name: row for row in here.rows if row.stage != "removal"}
    rows = {row.name: row for row in there.rows if row.stage != "removal"}
    assert rows.keys() == expected.keys() and len(rows) > 10
    for label, row in rows.items():
        assert row.verdict == expected[label].verdict
        bound = NOISE * max(here.rounding, there.rounding)
        assert row.figures["relative"] == pytest.approx(expected[label].figures["relative"], rel=1e-3, abs=bound), label
    assert max(row.figures["relative"] for row in rows.values()) > 0.01, "vacuous"


@pytest.mark.parametrize(
    ("model", "task", "dtype", "tolerance"),
    [
        ("embedded:gpt2", "embedded:letters", "float32", 1e-4),
        ("embedded:gpt2", "embedded:letters", "bfloat16", 0.02),
        ("embedded:gpt2", "embedded:records", "float32", 1e-4),
        ("embedded:bart", "embedded:summary", "float32", 1e-4),
    ],
)
def test_scores_are_those_of_a_cpu(device: str, model: str, task: str, dtype: str, tolerance: float) -> None:
    known, found = load_task(task), []
    for where in ("cpu", device):
        loaded, tokenizer = load_scorable(model, known.kind, device=where, dtype=dtype)
        found.append(evaluate_model(loaded, tokenizer, known, load_split(known, "validation", limit=8)).metrics)
        assert next(loaded.parameters()).device.type == torch.device(where).type
    assert found[0].keys() == found[1].keys() and all(math.isfinite(value) for value in found[0].values())
    assert found[1] == pytest.approx(found[0], rel=tolerance)
