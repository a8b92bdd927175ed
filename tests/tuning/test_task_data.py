"""What a run trains and validates on: how many samples, which ones, and what they are said to be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from hf_bias_patch.assets import folder
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import DataError, RecipeError
from hf_bias_patch.tuning.settings import make_settings
from hf_bias_patch.tuning.task_data import TaskData, task_data
from hf_bias_patch.tuning.task_settings import GenerationSettings, GlueSettings

REFERENCES = 5


def loaded(kind: Any, **fields: Any) -> TaskData:
    settings = make_settings(kind, output_dir="run", **fields)
    return task_data(settings, resolve(settings.model_name_or_path))


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Twelve sources with five references each, one after the other."""
    rows = [f"record {number},it is {number} in way {way}" for number in range(12) for way in range(REFERENCES)]
    (tmp_path / "train.csv").write_text("\n".join(["mr,ref", *rows]) + "\n")
    return tmp_path / "train.csv"


def sources(data: TaskData) -> list[str]:
    """The source of each training sample."""
    return [data.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in data.train.dataset["input_ids"]]


def test_so_many_pairs_train(records: Path) -> None:
    given = {"model_name_or_path": "embedded:bart", "task_name": "e2e_nlg", "train_file": records}
    data = loaded(GenerationSettings, **given, max_train_samples=20, seed=1)
    assert len(data.train.dataset) == 20
    assert data.notes[0] == "e2e_nlg: 20 training samples (20 of 60 pairs of a source and a reference)"
    assert data.train_identity.rows == 20 and data.train_identity.limited
    assert len(set(sources(data))) > 20 / REFERENCES, "they are drawn, and not the first"
    again, other = (loaded(GenerationSettings, **given, max_train_samples=20, seed=seed) for seed in (1, 2))
    assert data.train.dataset["labels"] == again.train.dataset["labels"] != other.train.dataset["labels"]
    all_of_them = loaded(GenerationSettings, **given, max_train_samples=60)
    assert len(all_of_them.train.dataset) == 60 and not all_of_them.train_identity.limited


def test_a_source_is_on_one_side_of_a_share(records: Path) -> None:
    given = {"model_name_or_path": "embedded:bart", "task_name": "e2e_nlg", "train_file": records}
    for limit in (None, 30):
        data = loaded(GenerationSettings, **given, max_train_samples=limit, validation_share=0.3)
        assert data.validation is not None and data.validation_identity is not None
        held_out = {source.replace(" ", "") for source in data.validation["source"]}
        trained = {source.replace(" ", "") for source in sources(data)}
        assert held_out and trained and not held_out & trained
        pairs = len(data.train.dataset) + sum(map(len, data.validation["references"]))
        assert pairs == (limit or 60)
        assert data.train_identity.limited and data.validation_identity.limited


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    """Whole numbers, which are classes unless somebody says otherwise."""
    path = tmp_path / "ratings.csv"
    path.write_text("text,label\n" + "".join(f"film {number},{number % 5}\n" for number in range(20)))
    return path


def test_whole_numbers_as_a_regression(ratings: Path) -> None:
    given = {"model_name_or_path": "embedded:bert", "train_file": ratings}
    assert loaded(GlueSettings, **given).task.kind == "classification"
    data = loaded(GlueSettings, **given, regression=True)
    assert data.task.kind == "regression" and data.train.dataset["labels"][:3] == [0.0, 1.0, 2.0]
    with pytest.raises(RecipeError, match="regression is for your own data"):
        loaded(GlueSettings, **given, task_name="stsb", regression=True)


@pytest.mark.parametrize("said", [{"problem_type": "regression"}, {"num_labels": 1}])
def test_a_head_for_regression_goes_on_as_one(said: dict[str, Any], ratings: Path, tmp_path: Path) -> None:
    outputs = {"num_labels": 1, **said}
    config = transformers.AutoConfig.from_pretrained(folder("bert"), **outputs)
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(tmp_path / "model")
    transformers.AutoTokenizer.from_pretrained(folder("bert")).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes((folder("bert") / "model.safetensors").read_bytes())
    data = loaded(GlueSettings, model_name_or_path=str(tmp_path / "model"), train_file=ratings)
    assert data.task.kind == "regression" and "has a regression head" in data.notes[0]


def test_own_data_knows_what_it_is(ratings: Path) -> None:
    data = loaded(GlueSettings, model_name_or_path="embedded:bert", train_file=ratings, validation_file=ratings)
    sha256 = hashlib.sha256(ratings.read_bytes()).hexdigest()
    for identity, split in ((data.train_identity, "train"), (data.validation_identity, "validation")):
        assert identity is not None and not identity.limited
        found = (identity.origin, identity.name, identity.split, identity.rows, identity.sha256)
        assert found == ("file", "ratings.csv", split, 20, sha256)


def test_generated_data_knows_what_it_is() -> None:
    given = {"model_name_or_path": "embedded:bert", "task_name": "embedded:opinion"}
    data = loaded(GlueSettings, **given, max_train_samples=24, max_eval_samples=10)
    assert data.validation_identity is not None
    assert str(data.train_identity) == "only 24 rows of generator opinion, train"
    assert (data.validation_identity.rows, data.validation_identity.limited) == (10, True)
    assert data.notes[0] == "embedded:opinion: 24 training samples (24 of 3,000 rows), 10 to validate on"


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "moods.tsv"
    rows = [f"day {number}\t{mood}" for number in range(6) for mood in ("glad", "sad")]
    path.write_text("\n".join(["text\tlabel", *rows[:4], "half a row", *rows[4:], "no mood\t"]) + "\n")
    given = {"model_name_or_path": "embedded:bert", "train_file": path}
    with pytest.raises(DataError, match=r"line 6: 1 fields between tabs.*--skip-bad-rows"):
        loaded(GlueSettings, **given)
    data = loaded(GlueSettings, **given, skip_bad_rows=True)
    assert len(data.train.dataset) == 12 and data.task.labels == ("glad", "sad")
    assert data.train_identity.skipped == 2 and not data.train_identity.limited
    notes = "\n".join(data.notes)
    assert "moods.tsv: 2 rows that cannot be read were left out" in notes
    assert "line 6: 1 fields" in notes and "line 15: column 'label' holds ''" in notes
    assert json.dumps(data.train_identity.plain())
