"""The training record: what it says of a run is so, and what it must not let pass does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_bias_patch import patch, patch_in_place, verify
from hf_bias_patch.assets import folder
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import CheckpointError, VerifyError
from hf_bias_patch.evidence.training import read_training
from hf_bias_patch.evidence.verify_training import compare_with_source
from hf_bias_patch.publish.contents import contents_of
from hf_bias_patch.publish.facts import read_facts
from hf_bias_patch.tuning.run import tune
from hf_bias_patch.tuning.settings import make_settings
from hf_bias_patch.tuning.task_settings import GlueSettings, LanguageSettings
from tests.tuning.jobs import alone

SHORT = {"max_train_samples": 32, "max_eval_samples": 8, "per_device_train_batch_size": 8, "num_train_epochs": 1}
QUERY = "bert.encoder.layer.1.attention.self.query.bias"
KEY = "bert.encoder.layer.1.attention.self.key.bias"
DENSE = "bert.encoder.layer.0.output.dense.weight"
Edit = Callable[[dict[str, torch.Tensor]], None]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT without key and value biases, whose query biases were trained."""
    place = tmp_path_factory.mktemp("tuned")
    patch("embedded:bert", place / "variant", fold="key,value")
    verify(place / "variant", "embedded:bert")
    _tune(GlueSettings, place / "run", model_name_or_path=place / "variant", train="query")
    return place


def _tune(kind: type, out: Path, task: str = "embedded:opinion", **fields: object) -> None:
    alone()
    named = {name: str(value) if name == "model_name_or_path" else value for name, value in fields.items()}
    tune(make_settings(kind, output_dir=out, task_name=task, **SHORT, **named))


def _copy(tuned: Path, to: Path, edit: Edit | None = None) -> Path:
    """The model elsewhere, some of its tensors changed."""
    shutil.copytree(tuned / "run" / "model", to)
    if edit is not None:
        tensors = load_file(to / "model.safetensors")
        edit(tensors)
        save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


def test_it_says_what_was_done(tuned: Path) -> None:
    record = read_training(tuned / "run" / "model")
    assert record is not None and record.passed and record.kept is not None
    before, after = (load_file(tuned / place / "model.safetensors") for place in ("variant", "run/model"))
    differing = {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}
    assert (
        set(record.kept.changed) == differing == {f"bert.encoder.layer.{n}.attention.self.query.bias" for n in range(4)}
    )
    assert record.kept.identical == len(before.keys() & after.keys()) - len(differing)
    assert len(record.kept.removed) == 8 and set(record.kept.new) == after.keys() - before.keys()
    assert record.source.name == "variant" and record.base.name == "embedded:bert"
    trained = {tensor.name: tensor.elements for tensor in record.tensors}
    assert sum(trained.values()) == record.parameters["trained"] and trained.keys() == differing | set(record.kept.new)
    assert str(tuned) not in record.dumps()  # the folders of this machine are nobody's business


def test_verify_compares_again(tuned: Path, tmp_path: Path) -> None:
    assert verify(tuned / "run" / "model").passed
    moved = _copy(tuned, tmp_path / "moved")
    for source in (tuned / "variant", "embedded:bert"):  # from the base, the patch is made again
        assert verify(moved, source).passed
    with pytest.raises(VerifyError, match="Another checkpoint was fine-tuned"):
        verify(moved, "embedded:gpt2")
    with pytest.raises(VerifyError, match="cannot be found"):
        verify(moved)


def _zero(name: str) -> Edit:
    return lambda tensors: tensors.update({name: torch.zeros_like(tensors[name])})


def _nudge(name: str) -> Edit:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        flat = tensors[name].view(-1)
        flat[3] = torch.nextafter(flat[3], torch.tensor(9.0))

    return edit


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_nudge(DENSE), DENSE),
        (_zero(DENSE), DENSE),
        (_nudge(KEY), "there again"),
        (lambda tensors: tensors.pop(DENSE), DENSE),
        (lambda tensors: tensors.update({DENSE: tensors[DENSE.replace("layer.0", "layer.2")].clone()}), DENSE),
    ],
    ids=["last bit", "zeros", "a removed bias", "missing", "another layer's"],
)
def test_what_strayed_is_found(tuned: Path, tmp_path: Path, edit: Edit, reason: str) -> None:
    """By the tensors themselves, whatever the record says of files."""
    record = read_training(tuned / "run" / "model")
    assert record is not None
    model = _copy(tuned, tmp_path / "model", edit)
    found = record.model_copy(update={"kept": compare_with_source(model, resolve(tuned / "variant"), record.free)})
    assert not found.passed and reason in " ".join(found.reasons)
    with pytest.raises(VerifyError, match="changed since it was trained"):
        verify(model, tuned / "variant")
    with pytest.raises(CheckpointError, match="training record is of another"):
        contents_of(model, read_facts(model))


def test_of_a_fused_bias_the_other_parts_must_stay(tmp_path: Path) -> None:
    _tune(LanguageSettings, tmp_path / "run", "embedded:letters", model_name_or_path="embedded:gpt2", train="value")
    model = tmp_path / "run" / "model"
    record = read_training(model)
    assert record is not None and record.passed
    name = "transformer.h.0.attn.c_attn.bias"
    width = len(load_file(folder("gpt2") / "model.safetensors")[name]) // 3
    assert record.free[name] == ((2 * width, 3 * width),)
    tensors = load_file(model / "model.safetensors")
    tensors[name][width] += 1.0  # the key's
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    assert compare_with_source(model, resolve("embedded:gpt2"), record.free).strayed == (name,)


def test_a_record_of_another_run_is_refused(tuned: Path, tmp_path: Path) -> None:
    _tune(GlueSettings, tmp_path / "other", model_name_or_path=tuned / "variant", train="query", seed=7)
    model = _copy(tuned, tmp_path / "model")
    shutil.copyfile(tmp_path / "other/model/bias_patch/training.json", model / "bias_patch/training.json")
    with pytest.raises(CheckpointError, match="training record is of another"):
        contents_of(model, read_facts(model))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_patch_must_begin_with_what_was_trained(tuned: Path, tmp_path: Path, in_place: bool) -> None:
    def patched(model: Path) -> Path:
        out = model if in_place else tmp_path / f"{model.name} patched"
        patch_in_place(model, fold="query") if in_place else patch(model, out, fold="query")
        verify(out)
        return out

    good = patched(_copy(tuned, tmp_path / "good"))
    assert "bias_patch/training.json" in contents_of(good, read_facts(good))
    bad = patched(_copy(tuned, tmp_path / "bad", _zero(DENSE)))
    with pytest.raises(CheckpointError, match="not made from the weights that its training record names"):
        contents_of(bad, read_facts(bad))


@pytest.mark.parametrize(("name", "match"), [("certificate.json", "has no certificate of the patch before"), ("", "")])
def test_the_patch_before_needs_a_certificate(tuned: Path, tmp_path: Path, name: str, match: str) -> None:
    model = _copy(tuned, tmp_path / "model")
    if not name:
        assert contents_of(model, read_facts(model))
        return
    (model / "bias_patch" / "before_training" / name).unlink()
    with pytest.raises(CheckpointError, match=match):
        contents_of(model, read_facts(model))


def test_a_damaged_record_is_refused(tuned: Path, tmp_path: Path) -> None:
    model = _copy(tuned, tmp_path / "model")
    place = model / "bias_patch" / "training.json"
    place.write_text(json.dumps({"format": 1}))
    with pytest.raises(CheckpointError, match="cannot be read as a training record of this version"):
        read_facts(model)
    place.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as a training record"):
        verify(model)
