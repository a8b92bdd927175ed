"""GPT-2 as it is on the Hub, without a padding token: what a run settles stands in the model that it saves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers

from hf_bias_patch.assets import folder
from hf_bias_patch.errors import DataError
from hf_bias_patch.models.load import quiet
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.loading import load_scorable
from hf_bias_patch.scoring.score import ScoringOptions, evaluate_model
from hf_bias_patch.scoring.tasks import load_task
from hf_bias_patch.tuning.run import TuneResult, tune
from hf_bias_patch.tuning.settings import make_settings
from hf_bias_patch.tuning.task_settings import KINDS
from tests.tuning.jobs import alone
from tests.tuning.test_heads import Said

END = "<|endoftext|>"


def edit(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file; None takes one away."""
    found = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """GPT-2 without a padding token in any of its files."""
    place = tmp_path / "gpt2"
    shutil.copytree(folder("gpt2"), place)
    edit(place / "tokenizer_config.json", pad_token=None)
    edit(place / "config.json", pad_token_id=None)
    edit(place / "generation_config.json", pad_token_id=None)
    assert transformers.AutoTokenizer.from_pretrained(place).pad_token is None
    return place


def run(kind: str, place: Path, out: Path, said: Said, **fields: Any) -> TuneResult:
    alone()
    short = {"max_train_samples": 16, "max_eval_samples": 8, "max_train_steps": 2, "per_device_train_batch_size": 8}
    given = {"model_name_or_path": str(place), "output_dir": out / "run", **short, **fields}
    return tune(make_settings(KINDS[kind], **given), said)


def check_files(model: Path, generates: bool) -> None:
    """All three files name the end token for padding."""
    config = json.loads((model / "config.json").read_text())
    assert config["pad_token_id"] == config["eos_token_id"] == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == (END, 0)
    if generates:
        assert json.loads((model / "generation_config.json").read_text())["pad_token_id"] == 0


def test_a_classifier(bare: Path, tmp_path: Path) -> None:
    said, task = Said(), load_task("embedded:paraphrase")
    result = run("glue", bare, tmp_path, said, task_name=task.name)
    (line,) = [line for line in said.lines if "padding token" in line or "batches are padded" in line]
    assert f"no padding token; batches are padded with {END} (0), which changes no answer" in line
    assert line in json.loads((tmp_path / "run" / "results.json").read_text())["notes"]
    saved = tmp_path / "run" / "model"
    check_files(saved, generates=False)
    rows = load_split(task, "validation", limit=8)
    for budget in (1, 8000):
        scores = evaluate_model(*load_scorable(str(saved), task.kind), task, rows, ScoringOptions(batch_tokens=budget))
        assert scores.metrics == pytest.approx(dict(result.metrics), abs=1e-3) and scores.notes == ()
    with quiet():
        pipe = transformers.pipeline("text-classification", model=str(saved), device="cpu")
        texts = ["short", "a much longer text that needs rather more tokens than the other"]
        batch, single = pipe(texts, batch_size=2), [pipe(text)[0] for text in texts]
    for one, other in zip(batch, single, strict=True):
        assert one["label"] == other["label"] and one["score"] == pytest.approx(other["score"], abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("lm", {"task_name": "embedded:letters"}),
        ("generation", {"task_name": "embedded:records", "num_beams": 2, "max_new_tokens": 6}),
    ],
)
def test_a_language_model(bare: Path, tmp_path: Path, kind: str, fields: dict[str, Any]) -> None:
    said = Said()
    result = run(kind, bare, tmp_path, said, **fields)
    assert result.metrics and sum("batches are padded" in line for line in said.lines) == 1
    check_files(tmp_path / "run" / "model", generates=True)
    if kind == "generation":
        kept = ("num_beams", "max_new_tokens", "min_new_tokens")
        assert {name: result.plain["decode"][name] for name in kept} == {
            "num_beams": 2, "max_new_tokens": 6, "min_new_tokens": 0,
        }  # fmt: skip
        assert any("num_beams 2, max_new_tokens 6 (asked for)" in line for line in said.lines)


@pytest.mark.parametrize("kind", ["glue", "lm"])
def test_tokens_that_the_model_does_not_know(bare: Path, tmp_path: Path, kind: str) -> None:
    """Added to the tokenizer alone, and then met in a text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(bare)
    tokenizer.add_tokens(["Anna"])
    tokenizer.save_pretrained(bare)
    file = tmp_path / "train.tsv"
    file.write_text("text\tlabel\nTom is here\tyes\nSo Anna is here\tno\n")
    with pytest.raises(DataError, match="gives these texts the token 1024, and the model has only 1,024"):
        run(kind, bare, tmp_path, Said(), train_file=file)
    assert not (tmp_path / "run").exists()


def test_what_is_learnt_as_the_end_ends_answers(bare: Path, tmp_path: Path) -> None:
    """A generation config may name another end token than the tokenizer's, or several."""
    edit(bare / "generation_config.json", eos_token_id=[5, 6])
    run("generation", bare, tmp_path, Said(), task_name="embedded:records", num_beams=1, max_new_tokens=3)
    saved = json.loads((tmp_path / "run" / "model" / "generation_config.json").read_text())
    assert saved["eos_token_id"] == [5, 6, 0]
