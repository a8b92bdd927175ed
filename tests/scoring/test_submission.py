"""Files with predictions, as the GLUE server wants them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_bias_patch.errors import TargetError
from hf_bias_patch.scoring.submission import file_name, write_predictions
from hf_bias_patch.scoring.tasks import Task, load_task

FILES = {
    ("cola", "test"): ("CoLA.tsv", [1, 0], "1", "0"),
    ("sst2", "test"): ("SST-2.tsv", [1, 0], "1", "0"),
    ("mrpc", "test"): ("MRPC.tsv", [1, 0], "1", "0"),
    ("stsb", "test"): ("STS-B.tsv", [5.25, 1.23456], "5.000", "1.235"),
    ("qqp", "test"): ("QQP.tsv", [1, 0], "1", "0"),
    ("mnli", "test_matched"): ("MNLI-m.tsv", [0, 2], "entailment", "contradiction"),
    ("mnli", "test_mismatched"): ("MNLI-mm.tsv", [1, 2], "neutral", "contradiction"),
    ("qnli", "test"): ("QNLI.tsv", [0, 1], "entailment", "not_entailment"),
    ("rte", "test"): ("RTE.tsv", [0, 1], "entailment", "not_entailment"),
    ("wnli", "test"): ("WNLI.tsv", [0, 1], "0", "1"),
    ("ax", "test"): ("AX.tsv", [1, 2], "neutral", "contradiction"),
}


@pytest.mark.parametrize(("name", "split"), FILES)
def test_glue_files(name: str, split: str, tmp_path: Path) -> None:
    file, predictions, first, second = FILES[name, split]
    path = write_predictions(load_task(name), split, predictions, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / file
    assert path.read_bytes().decode() == f"index\tprediction\n0\t{first}\n1\t{second}\n"


def test_other_files(tmp_path: Path) -> None:
    path = write_predictions(load_task("embedded:summary"), "test", ["A ü.", "B\nC."], tmp_path)
    assert path.name == "embedded-summary.test.jsonl" == file_name(load_task("embedded:summary"), "test")
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [
        {"index": 0, "prediction": "A ü."},
        {"index": 1, "prediction": "B\nC."},
    ]
    path = write_predictions(load_task("mnli"), "validation_matched", [2], tmp_path)
    assert json.loads(path.read_text()) == {"index": 0, "prediction": "contradiction"}


def test_a_place_that_cannot_be_written(made: Callable[..., Task], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetError, match="cannot be written"):
        write_predictions(made("classification"), "test", [0], tmp_path / "file")
