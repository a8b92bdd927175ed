"""Scores in the form that the Hub shows beside a model, read back by its own client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

import hf_bias_patch as hbp
from hf_bias_patch import patch
from hf_bias_patch.checkpoint.sidecar import EVAL_RESULTS
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.publish.scores import RESULTS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WHOLE = {
    "origin": "hub",
    "name": "nyu-mll/glue",
    "config": "sst2",
    "split": "validation",
    "rows": 872,
    "revision": COMMIT,
    "limited": False,
    "skipped": 0,
}
SCORE = {"task": "sst2", "rows": 872, "main_metric": "accuracy", "metrics": {"accuracy": 79.128, "loss": 0.44}}
OTHERS: dict[str, tuple[dict[str, Any] | None, str]] = {
    "some rows": (
        {**WHOLE, "rows": 100, "limited": True},
        "only 100 rows of nyu-mll/glue sst2, validation, commit 0123456789ab",
    ),
    "bad rows": ({**WHOLE, "skipped": 3}, "commit 0123456789ab, 872 rows, 3 more left out"),
    "no commit": ({**WHOLE, "revision": None}, "nyu-mll/glue sst2, validation, commit unknown, 872 rows"),
    "training data": ({**WHOLE, "split": "train"}, "nyu-mll/glue sst2, train, commit 0123456789ab"),
    "a file": (
        {"origin": "file", "name": "mine.tsv", "split": "validation", "rows": 10, "sha256": "12ab" * 16},
        "file mine.tsv, sha256 12ab12ab12ab, 10 rows",
    ),
    "generated": (
        {"origin": "generated", "name": "opinion", "split": "validation", "rows": 500},
        "generator opinion, validation, 500 rows",
    ),
    "older file": (None, "data unknown, 872 rows"),
}


@pytest.fixture(scope="module")
def patched(saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("patched") / "variant"
    patch(saved("bert"), made, fold="key")
    return made


@pytest.fixture
def variant(patched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(patched, tmp_path / "variant"))


def scored(variant: Path, score: dict[str, Any]) -> str:
    """The card with these scores on it."""
    (variant.parent / "scores.json").write_text(json.dumps(score))
    return hbp.card(variant, results=[variant.parent / "scores.json"]).text


def test_a_whole_public_split_is_the_hubs(variant: Path) -> None:
    card = scored(variant, {**SCORE, "data": WHOLE})
    assert "| sst2 | nyu-mll/glue sst2, validation, commit 0123456789ab, 872 rows | accuracy | 79.13 |" in card
    [entry] = parse_eval_result_entries(yaml.safe_load((variant / EVAL_RESULTS).read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("nyu-mll/glue", "sst2", 79.128)
    assert entry.dataset_revision == COMMIT
    assert entry.notes is not None and entry.notes.startswith("accuracy on validation, 872 rows")

    next((variant / RESULTS).glob("sst2.*.json")).unlink()
    hbp.card(variant)
    assert not (variant / EVAL_RESULTS).exists()


@pytest.mark.parametrize("case", OTHERS)
def test_no_other_data_claims_a_benchmark(case: str, variant: Path) -> None:
    data, said = OTHERS[case]
    card = scored(variant, {**SCORE, "data": data} if data else SCORE)
    assert said in card and not (variant / EVAL_RESULTS).exists()


def test_results_of_a_run_say_what_they_are_of(variant: Path) -> None:
    file = OTHERS["a file"][0]
    card = scored(variant, {**SCORE, "train_data": WHOLE, "validation_data": file})
    assert "| sst2 | file mine.tsv, sha256 12ab12ab12ab, 10 rows |" in card and not (variant / EVAL_RESULTS).exists()


@pytest.mark.parametrize(
    "wrong",
    [
        "nyu-mll/glue",
        {**WHOLE, "origin": "web"},
        {**WHOLE, "rows": -1},
        {**WHOLE, "limited": "no"},
        {**WHOLE, "name": "two\nlines"},
        {**WHOLE, "revision": "main"},
        {"origin": "hub"},
    ],
)
def test_what_is_no_identity_is_refused(wrong: Any, variant: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no scores"):
        scored(variant, {**SCORE, "data": wrong})
    assert not (variant / RESULTS).exists()
