"""`study` as a user types it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from typer.testing import CliRunner, Result

from hf_bias_patch import StudySettings, patch, study
from hf_bias_patch.assets import folder
from hf_bias_patch.cli import app
from hf_bias_patch.errors import ArgumentError, BiasPatchError, DataError, PlanError, SourceError, TargetError
from tests.models import randomise

_TABLES = ("csv", "parquet")
_FIGURES = ("perturbation", "layers", "removal", "steps", "lessons", "drift")
FILES = {
    "results.json", "measured.jsonl", "settings.json", "environment.json", "report.html",
    *(f"{name}.{ending}" for name in ("perturbation", "folds", "steps", "lessons", "drift") for ending in _TABLES),
    *(f"{name}.{ending}" for name in _FIGURES for ending in ("png", "svg")),
}  # fmt: skip


SMALL = ("--count", 4, "--train-steps", 4)


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["study", *map(str, arguments)])


def _ok(*arguments: object) -> str:
    done = _run(*arguments)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def _rows(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "results.json").read_text())["rows"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study of the embedded GPT-2, and what it printed."""
    out = tmp_path_factory.mktemp("study") / "out"
    return out, _ok("embedded:gpt2", "--output", out, *SMALL)


def test_it_says_what_each_bias_does(done: tuple[Path, str]) -> None:
    out, printed = done
    assert "The key bias of decoder self attention does nothing" in printed
    assert "value bias changes the last hidden states" in printed and "can be set to zero" in printed
    assert {path.name for path in out.iterdir()} == FILES and "noise floor" in printed
    found = json.loads((out / "results.json").read_text())
    assert found["texts"] == 4 and found["tokens"] > 100 and found["environment"]["packages"]["torch"]
    assert found["settings"]["texts"] == "embedded" and not found["left_out"]
    rows = found["rows"]
    keys = [row for row in rows if row["projection"] == "key"]
    assert keys and all(row["figures"]["relative"] < 8 * found["floor"]["relative"] for row in keys)
    assert {row["verdict"] for row in keys} == {"redundant"}
    stages = [row["stage"] for row in rows]
    assert list(dict.fromkeys(stages)) == ["whole", "layer", "removal"]
    assert {step["direction"] for step in found["steps"]} == {"gradient", "AdamW", "random signs"}
    assert {lesson["step"] for lesson in found["lessons"]} == set(range(5)) and len(found["folds"]) == 3
    assert len({drift["precision"] for drift in found["drifts"]}) == 3 and "lowers the loss" in printed
    assert [row["numbers"] for row in rows if row["stage"] == "whole"][:3] == [256, 256, 256]
    table = pq.read_table(out / "perturbation.parquet")
    assert table.num_rows == len(rows) and {"relative", "loss_change", "layer", "verdict"} <= set(table.column_names)
    assert len((out / "perturbation.csv").read_text().splitlines()) == len(rows) + 1
    page = (out / "report.html").read_text("utf-8")
    assert "report.html" in printed and "The key bias of decoder self attention does nothing" in page


def test_what_matters_least_goes_first(done: tuple[Path, str]) -> None:
    """The first removal is an arm of one layer, too, and has its figures; the last one has all numbers."""
    rows = _rows(done[0])
    alone = sorted((row for row in rows if row["stage"] == "layer"), key=lambda row: abs(row["figures"]["loss_change"]))
    first, *_, last = (row for row in rows if row["stage"] == "removal")
    assert first["figures"] == alone[0]["figures"] and first["numbers"] == alone[0]["numbers"]
    assert last["numbers"] == sum(row["numbers"] for row in alone) == 768
    assert abs(alone[-1]["figures"]["loss_change"]) > 1000 * abs(alone[0]["figures"]["loss_change"])


def test_what_was_stopped_goes_on_to_the_same(done: tuple[Path, str], tmp_path: Path) -> None:
    whole, _ = done
    shutil.copytree(whole, tmp_path / "again")
    lines = (whole / "measured.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "again" / "measured.jsonl").write_text("".join(lines[:20]) + lines[20][:30])
    printed = _ok("embedded:gpt2", "--output", tmp_path / "again", *SMALL, "--resume")
    assert _rows(tmp_path / "again") == _rows(whole) and "does nothing" in printed
    lines = (tmp_path / "again" / "measured.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        for row in record["records"] if record["kind"] == "rows" else ():
            row["figures"]["distance"] = 123.0  # which no measurement gives
    (tmp_path / "again" / "measured.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    _ok("embedded:gpt2", "--output", tmp_path / "again", *SMALL, "--resume")
    assert {row["figures"]["distance"] for row in _rows(tmp_path / "again")} == {123.0}, "nothing is measured twice"


def test_a_folder_is_not_written_over(done: tuple[Path, str], tmp_path: Path) -> None:
    whole, _ = done
    for arguments, says in (
        (SMALL, "holds a run of these settings already"),
        (("--count", 5, "--train-steps", 4, "--resume"), "count was 4, now 5"),
    ):
        failed = _run("embedded:gpt2", "--output", whole, *arguments)
        assert isinstance(failed.exception, TargetError) and says in str(failed.exception)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    assert isinstance(_run("embedded:gpt2", "--output", tmp_path / "mine").exception, TargetError)


def test_a_budget_leaves_out_what_tells_least(tmp_path: Path) -> None:
    small = ("--count", 2, "--train-steps", 4)
    printed = _ok("embedded:bert", "--output", tmp_path / "out", *small, "--budget", "0s")
    assert "60 measurements were left out, for lack of time: the first is “encoder self, query, zeros”" in printed
    assert not _rows(tmp_path / "out")
    printed = _ok("embedded:bert", "--output", tmp_path / "out", *small, "--resume", "--budget", "1h", "--heads")
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["stage"] for row in found["rows"]} == {"whole", "layer", "removal", "head"}
    assert all(found[kind] for kind in ("folds", "steps", "lessons", "drifts"))
    assert "left out" not in printed


def test_own_texts_are_cut_and_counted(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a short text\n" + "word " * 3000 + "\n")
    printed = _ok("embedded:bert", "--output", tmp_path / "out", "--texts", texts, "--train-steps", 0)
    assert "1 of 2 texts were longer than the model takes, and were cut" in printed
    assert "word word" not in (tmp_path / "out" / "results.json").read_text()


def test_without_a_head_there_is_no_loss(tmp_path: Path) -> None:
    headless = tmp_path / "headless"
    AutoModel.from_pretrained(folder("bert")).save_pretrained(headless)
    AutoTokenizer.from_pretrained(folder("bert")).save_pretrained(headless)
    printed = _ok(headless, "--output", tmp_path / "out", "--count", 2)
    assert "no loss: BertModel has no language modelling head" in printed and "A step of the same length" in printed
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {step["direction"] for step in found["steps"]} == {"random signs"} and "lowers" not in printed
    assert found["folds"] and not found["lessons"] and not found["drifts"]


@pytest.mark.parametrize("missing", [False, True])
def test_only_what_is_missing_stands_in_the_way_of_a_loss(missing: bool, tmp_path: Path) -> None:
    """A pooler and a second head that the class does not use, as in BERT's own checkpoint, do not."""
    model = tmp_path / "model"
    shutil.copytree(folder("bert"), model)
    values = load_file(model / "model.safetensors")
    values |= {"bert.pooler.dense.bias": torch.ones(64), "cls.seq_relationship.bias": torch.ones(2)}
    if missing:
        del values["cls.predictions.transform.dense.bias"]
    save_file(values, model / "model.safetensors", {"format": "pt"})
    made = study(StudySettings(str(model), count=2, train_steps=0, budget=0.0), tmp_path / "out")
    assert made is not None and {"results.json", "report.html"} <= set(made.files) and not made.missing
    said = [note for note in made.study.notes if note.startswith("Hidden states only, no loss")]
    lacks = "lacks 1 of the parameters of BertForMaskedLM (cls.predictions.transform.dense.bias)"
    assert [lacks in note for note in said] == [True] * missing


def test_a_classifier_has_no_loss_of_tokens(tmp_path: Path) -> None:
    classifier = tmp_path / "classifier"
    AutoModelForSequenceClassification.from_pretrained(folder("bert"), num_labels=2).save_pretrained(classifier)
    AutoTokenizer.from_pretrained(folder("bert")).save_pretrained(classifier)
    printed = _ok(classifier, "--output", tmp_path / "out", "--count", 2)
    assert (
        "no loss: BertForSequenceClassification has no language modelling head" in printed
        and "A step of the same length" in printed
    )


def test_a_tokenizer_without_a_mask_has_no_loss(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(folder("bert"), model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"mask_token": None}))
    made = study(StudySettings(str(model), count=2, train_steps=0, budget=0.0), tmp_path / "out")
    assert made is not None and any("the tokenizer has no mask token" in note for note in made.study.notes)


def test_of_one_text_nothing_is_held_out(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a\nthe old man saw the ship and went to the sea\n")
    printed = _ok("embedded:gpt2", "--output", tmp_path / "out", "--texts", texts, "--train-steps", 2)
    assert "1 of 2 texts were left out: they have fewer than two tokens" in printed
    assert "No bias was trained alone" in printed
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["drifts"] and not found["lessons"]


def test_why_a_fold_is_refused_in_bfloat16(tmp_path: Path) -> None:
    said = _ok("embedded:gpt2", "--output", tmp_path, "--count", 2, "--train-steps", 0, "--dtype", "bfloat16")
    assert "to BF16 would cost" in said and "edits asked for" not in said


def test_a_key_bias_that_matters_is_told_with_the_reason(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder("gpt2"))
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, vocab_size=len(tokenizer),
        attention_bias=True,
    )  # fmt: skip
    randomise(LlamaForCausalLM(config)).save_pretrained(tmp_path / "rotary")
    tokenizer.save_pretrained(tmp_path / "rotary")
    printed = _ok(tmp_path / "rotary", "--output", tmp_path / "out", "--count", 2, "--train-steps", 0)
    assert "The key bias of decoder self attention matters" in printed
    assert "rotary positions turn the key after its bias was added" in printed
    assert "Not folded into the weights: decoder self" in printed and "it can be trained" in printed
    assert "rotary positions turn the key" in (tmp_path / "out" / "report.html").read_text("utf-8")


def _without_biases(tmp_path: Path) -> Path:
    patch("embedded:bert", tmp_path / "absent", fold="key,value,query", storage="absent")
    return tmp_path / "absent"


def _without_tokenizer(tmp_path: Path) -> Path:
    shutil.copytree(folder("bert"), tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    return tmp_path / "bare"


def _with_a_strange_tokenizer(tmp_path: Path) -> Path:
    config = BertConfig(
        vocab_size=20, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path / "strange")
    AutoTokenizer.from_pretrained(folder("bert")).save_pretrained(tmp_path / "strange")
    return tmp_path / "strange"


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (_without_biases, PlanError, "has no query, key or value biases"),
        (_without_tokenizer, SourceError, "has no tokenizer"),
        (_with_a_strange_tokenizer, DataError, "the model's vocabulary has 20 tokens"),
        (lambda _: "nowhere/at/all", SourceError, "does not exist"),
    ],
)
def test_what_cannot_be_studied(
    tmp_path: Path, make: Callable[[Path], object], error: type[BiasPatchError], says: str
) -> None:
    failed = _run(make(tmp_path), "--output", tmp_path / "out")
    assert isinstance(failed.exception, error) and says in str(failed.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--budget", "soon"), ("--dtype", "int4"), ("--device", "toaster"), ("--device", "cuda:99")]
)
def test_options_that_mean_nothing(tmp_path: Path, option: str, value: str) -> None:
    failed = _run("embedded:bert", "--output", tmp_path / "out", option, value)
    assert isinstance(failed.exception, ArgumentError) and failed.exception.remedy
