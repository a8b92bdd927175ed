"""Whole runs on the embedded checkpoints: every kind of task, every kind of thing that trains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import hf_bias_patch
from hf_bias_patch.assets import folder
from hf_bias_patch.errors import CheckpointError, DataError, ExtraError, RecipeError, TargetError, TaskError, TuneError
from hf_bias_patch.tuning.run import TuneResult, tune
from hf_bias_patch.tuning.settings import make_settings
from hf_bias_patch.tuning.task_settings import GenerationSettings, GlueSettings, LanguageSettings
from hf_bias_patch.tuning.watcher import Watcher
from tests.tuning.jobs import alone

_SHORT = {"max_train_samples": 24, "max_eval_samples": 10, "num_train_epochs": 1, "per_device_train_batch_size": 8}
_OPINION = {"model_name_or_path": "embedded:bert", "task_name": "embedded:opinion"}


class Said(Watcher):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def run(kind: Any, out: Path, watcher: Watcher | None = None, **fields: Any) -> TuneResult:
    alone()
    return tune(make_settings(kind, **{"output_dir": out, **_SHORT, **fields}), watcher)


def glue(out: Path, **fields: Any) -> TuneResult:
    return run(GlueSettings, out, **{**_OPINION, **fields})


def moved(out: Path, name: str) -> set[str]:
    """Parameters of the model in a run folder that differ from the embedded checkpoint's."""
    before = load_file(folder(name) / "model.safetensors")
    after = load_file(out / "model" / "model.safetensors")
    shared = before.keys() & after.keys()
    assert len(shared) > 20, "vacuous"
    return {key for key in shared if not torch.equal(before[key], after[key])}


def test_glue_leaves_a_whole_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = glue(out)
    assert result.ended == "done" and 0 <= result.metrics["accuracy"] <= 100 and result.main == "accuracy"
    results = json.loads((out / "results.json").read_text())
    assert results == json.loads(json.dumps(result.plain))
    assert (results["step"], results["samples"]) == (3, 24)
    trained = json.loads((out / "trained.json").read_text())
    assert trained["trained"] == results["trained"] == sum(tensor["elements"] for tensor in trained["tensors"])
    environment = json.loads((out / "environment.json").read_text())
    assert environment["processes"] == 1 and environment["packages"]["torch"] == torch.__version__
    assert moved(out, "bert") == {f"bert.encoder.layer.{layer}.attention.self.value.bias" for layer in range(4)}


def test_the_model_loads_with_stock_transformers_and_scores_the_same(tmp_path: Path) -> None:
    from hf_bias_patch.scoring.data import load_split
    from hf_bias_patch.scoring.score import evaluate_model
    from hf_bias_patch.scoring.tasks import load_task

    result = glue(tmp_path / "run", num_train_epochs=3)
    stock, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "run" / "model", output_loading_info=True
    )
    assert not any(report.values())
    assert stock.config.id2label == {0: "negative", 1: "positive"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    task = load_task("embedded:opinion")
    scores = evaluate_model(stock, tokenizer, task, load_split(task, "validation", limit=10))
    assert scores.metrics == dict(result.metrics)


@pytest.mark.parametrize("train", ["lora", "beft", "biases", "all", "none"])
def test_everything_that_may_train(tmp_path: Path, train: str) -> None:
    out = tmp_path / "run"
    glue(out, train=train, learning_rate=1e-2)
    changed = moved(out, "bert")
    if train == "all":
        assert len(changed) > 50
    elif train == "none":
        assert changed == set()
    elif train == "biases":
        assert len(changed) > 20 and all(name.endswith("bias") for name in changed)
    else:
        part = "value.bias" if train == "beft" else "weight"
        assert changed and all(name.endswith(part) for name in changed)


def test_parts_of_gpt2_are_joined_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = {"model_name_or_path": "embedded:gpt2", "task_name": "embedded:letters", "weight_decay": 0.1}
    result = run(LanguageSettings, out, **settings)
    assert result.metrics["perplexity"] > 1
    assert moved(out, "gpt2") == {f"transformer.h.{layer}.attn.c_attn.bias" for layer in range(4)}
    before = load_file(folder("gpt2") / "model.safetensors")
    after = load_file(out / "model" / "model.safetensors")
    name = "transformer.h.2.attn.c_attn.bias"
    assert torch.equal(before[name][:128], after[name][:128]) and (before[name] != after[name])[128:].all()


def test_masked_language_model(tmp_path: Path) -> None:
    settings = {"model_name_or_path": "embedded:bert", "task_name": "embedded:letters", "train": "all"}
    result = run(LanguageSettings, tmp_path / "run", **settings)
    assert result.main == "masked_perplexity" and result.metrics["masked_perplexity"] > 1


@pytest.mark.parametrize(("model", "task"), [("bart", "embedded:summary"), ("gpt2", "embedded:records")])
def test_generation(tmp_path: Path, model: str, task: str) -> None:
    settings = {"model_name_or_path": f"embedded:{model}", "task_name": task, "num_beams": 1, "max_new_tokens": 8}
    result = run(GenerationSettings, tmp_path / "run", **settings, max_eval_samples=4)
    assert all(0 <= value <= 100 for value in result.metrics.values())
    assert moved(tmp_path / "run", model)


def test_fold_and_drop_come_before_training(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (tmp_path / f".bias_patch-{'0' * 16}-{'1' * 8}").mkdir()  # of a run that was killed
    glue(out, fold="key,value", drop="query", train="output")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    after = load_file(out / "model" / "model.safetensors")
    names = [f"bert.encoder.layer.0.attention.self.{part}.bias" for part in ("query", "key", "value")]
    assert not any(after[name].any() for name in names)
    assert json.loads((out / "plan.json").read_text())["lossy"] is True


def test_a_fold_that_is_not_proven_stops_the_run_and_leaves_nothing(tmp_path: Path) -> None:
    """Behind a norm whose constant is next to zero, a query bias that goes into its weight suffers a thousandfold."""
    base = tmp_path / "base"
    shutil.copytree(folder("bert"), base)
    tensors = load_file(base / "model.safetensors")
    weight, bias = (tensors[f"bert.encoder.layer.0.output.LayerNorm.{name}"] for name in ("weight", "bias"))
    bias -= (bias / weight).mean() * weight * 0.9995
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TuneError, match="does not pass its certificate"):
        glue(tmp_path / "run", model_name_or_path=str(base), fold="query", train="value")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    said = Said()
    given = {"model_name_or_path": str(base), "fold": "query,value", "where_possible": True, "train": "output"}
    run(GlueSettings, tmp_path / "run", said, **_OPINION | given)
    (line,) = (line for line in said.lines if line.startswith("Left out"))
    assert line.startswith("Left out: query at encoder self 1: fold query:weight is measured to exceed")
    kept = json.loads((tmp_path / "run" / "plan.json").read_text())["recipe"]["left_out"]
    assert list(kept) == ["encoder.1.self.query"]


def test_own_data(tmp_path: Path) -> None:
    rows = [{"comment": f"it is {word} {number}", "mood": word} for number in range(8) for word in ("sad", "glad")]
    file = tmp_path / "moods.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    said = Said()
    given = {"model_name_or_path": "embedded:bert", "train_file": file, "label_column": "mood"}
    result = run(GlueSettings, tmp_path / "run", said, **given)
    assert result.metrics == {} and any("no validation data" in line for line in said.lines)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "run" / "model")
    assert config.id2label == {0: "glad", 1: "sad"}
    again = run(GlueSettings, tmp_path / "again", **given, validation_share=0.25)
    assert "accuracy" in again.metrics and again.plain["samples"] == 12


def test_a_running_text_keeps_its_order(tmp_path: Path) -> None:
    """Lines that are mixed are no text, and their perplexity is none."""
    from hf_bias_patch.checkpoint.source import resolve
    from hf_bias_patch.tuning.task_data import task_data

    file = tmp_path / "a.txt"
    file.write_text("".join(f"line {number}\n" for number in range(40)))
    given = {"model_name_or_path": "embedded:gpt2", "output_dir": tmp_path / "run", "train_file": file}
    settings = make_settings(LanguageSettings, **given, validation_share=0.25, max_train_samples=20)
    data = task_data(settings, resolve("embedded:gpt2"))
    assert data.validation is not None and data.validation["text"][:] == [f"line {n}\n" for n in range(15, 20)]
    read = "".join(data.tokenizer.decode(ids) for ids in data.train.dataset["input_ids"])
    assert read == "".join(f"line {n}\n" for n in range(15))


def test_a_share_to_validate_on(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("sentence\tlabel\n" + "fine\t1\n" * 12)
    given = {"task_name": "sst2", "train_file": file, "validation_share": 0.5}
    said = Said()
    run(GlueSettings, tmp_path / "run", said, model_name_or_path="embedded:bert", **given, max_eval_samples=2)
    assert "sst2: 6 training samples, 2 to validate on" in said.lines
    file.write_text("sentence\tlabel\nfine\t1\n")
    with pytest.raises(DataError, match="1 training samples, and a validation_share"):
        glue(tmp_path / "one", **given)
    with pytest.raises(RecipeError, match="needs data to validate on"):
        glue(tmp_path / "none", task_name="sst2", train_file=file, early_stopping_patience=2)


def test_long_texts_are_counted(tmp_path: Path) -> None:
    said = Said()
    given = {"model_name_or_path": "embedded:bert", "task_name": "embedded:opinion"}
    run(GlueSettings, tmp_path / "run", said, **given, max_length=6)
    for data in ("Training data", "Validation data"):
        assert any(line.startswith(data) and "are longer than 6 tokens" in line for line in said.lines)


def test_lengths_above_what_the_model_takes_are_cut_to_it(tmp_path: Path) -> None:
    rows = [{"source": f"boots {number}", "target": "red boots " * (200 if number else 1)} for number in range(4)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    said = Said()
    given = {"model_name_or_path": "embedded:bart", "train_file": file, "num_beams": 1, "max_new_tokens": 2}
    run(GenerationSettings, tmp_path / "run", said, **given, max_length=5000, max_target_length=5000)
    assert any("3 targets were longer" in line for line in said.lines)


def test_a_refused_run_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    glue(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(TuneError, match="key bias is redundant"):
        glue(out, train="key", overwrite=True)
    with pytest.raises(TargetError, match="--resume"):
        glue(out)
    with pytest.raises(TargetError, match="other settings"):
        glue(out, seed=1)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"task_name": "sst-2"}, TaskError, "no task 'sst-2'"),
        ({"task_name": "embedded:letters"}, RecipeError, "tune glue, tune lm"),
        ({"task_name": "sst2"}, DataError, "cannot be reached"),
        ({"task_name": None}, RecipeError, "nothing to train on"),
        ({"train": "values"}, RecipeError, "'values' is not known"),
        ({"train": "value", "freeze": "value"}, RecipeError, "both train and freeze"),
        ({"train": "none", "train_head": False}, TuneError, "Nothing would train"),
        ({"train_file": "nowhere.csv"}, RecipeError, "nowhere.csv does not exist"),
        ({"learning_rate": 0}, RecipeError, "learning_rate: 0 is not above 0"),
        ({"max_length": 2}, RecipeError, "max_length: 2 is below 4"),
        ({"learning_rat": 1}, RecipeError, "`learning_rat` is not a field"),
        ({"mixed_precision": "fp16"}, TuneError, "fp16 needs a GPU"),
        ({"output_dir": "/dev/null/run"}, TargetError, "Name another folder"),
        ({"output_dir": "/proc/nowhere/run"}, TargetError, "Name another folder"),
    ],
)
def test_bad_input(tmp_path: Path, fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        glue(tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "config", [None, "{", '{"model_type": "nosuch"}', '{"model_type": "nosuch", "auto_map": {"AutoConfig": "x.Y"}}']
)
def test_a_config_that_transformers_cannot_use(tmp_path: Path, config: str | None) -> None:
    from hf_bias_patch.scoring.loading import load_scorable

    model = tmp_path / "model"
    shutil.copytree(folder("bert"), model)
    (model / "config.json").unlink()
    if config is not None:
        (model / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match="no config that transformers can use"):
        glue(tmp_path / "run", model_name_or_path=str(model))
    with pytest.raises(CheckpointError, match="no config that transformers can use"):
        load_scorable(str(model), "classification")


def test_a_head_that_does_not_fit(tmp_path: Path) -> None:
    glue(tmp_path / "two")
    with pytest.raises(TuneError, match="does not fit the task"):
        glue(tmp_path / "three", model_name_or_path=str(tmp_path / "two" / "model"), task_name="embedded:entailment")


def test_a_tuned_model_can_be_tuned_on(tmp_path: Path) -> None:
    """Its head is not new any more, and by default does not train."""
    glue(tmp_path / "first")
    result = glue(tmp_path / "second", model_name_or_path=str(tmp_path / "first" / "model"))
    assert result.plain["trained"] == result.plain["trained_without_head"] == 4 * 64


def test_tuned_models_are_patched_like_any_other(tmp_path: Path) -> None:
    glue(tmp_path / "run")
    hf_bias_patch.patch(tmp_path / "run" / "model", tmp_path / "out", fold="key,value")
    assert hf_bias_patch.verify(tmp_path / "out", tmp_path / "run" / "model").passed


def test_trackers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    glue(tmp_path / "run", report_to="tensorboard")
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


def test_a_tracker_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(ExtraError, match="wandb is not installed"):
        glue(tmp_path / "run", report_to="tensorboard,wandb")


def test_what_accelerate_does_not_take(tmp_path: Path) -> None:
    """One process has one precision."""
    glue(tmp_path / "run")
    with pytest.raises(TuneError, match="AcceleratorState has already been initialized"):
        tune(make_settings(GlueSettings, **_OPINION, output_dir=tmp_path / "again", mixed_precision="bf16"))
    alone()
