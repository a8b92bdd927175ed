"""The user's own files as a task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hf_bias_patch.errors import DataError, TaskError
from hf_bias_patch.scoring.custom import custom_task
from hf_bias_patch.scoring.data import load_split


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


Write = Callable[[str, str], Path]


def test_labels_by_name(write: Write) -> None:
    files = {
        "train": write("a.csv", "id,text,label\n1,x,spam\n2,y,ham\n"),
        "validation": write("b.csv", "text,label\nz,ham\n"),
    }
    task = custom_task(files)
    assert (task.kind, task.text, task.label, task.labels) == ("classification", ("text",), "label", ("ham", "spam"))
    assert task.main_metric == "accuracy" and "f1" in task.metrics
    assert load_split(task, "train")["label"][:] == [1, 0] and load_split(task, "validation")["label"][:] == [0]
    with pytest.raises(DataError, match="no file of the split 'test'"):
        load_split(task, "test")


def test_blanks_around_labels_are_no_part_of_them(write: Write) -> None:
    task = custom_task({"train": write("a.csv", "text,label\nx, spam\ny,ham \nz,spam\n")})
    assert task.labels == ("ham", "spam") and load_split(task, "train")["label"][:] == [1, 0, 1]


def test_nothing_is_not_the_label_none(write: Write) -> None:
    rows = '{"text": "x", "label": "none"}\n{"text": "y", "label": "some"}\n{"text": "z", "label": null}\n'
    task = custom_task({"train": write("a.jsonl", rows)})
    with pytest.raises(DataError, match="line 3: column 'label' holds None"):
        load_split(task, "train")


def test_labels_by_number_in_the_order_of_numbers(write: Write) -> None:
    lines = "".join(f'{{"a": "x", "b": "y", "label": {i}}}\n' for i in (10, 2, 0))
    task = custom_task({"train": write("a.jsonl", lines)})
    assert task.labels == ("0", "2", "10") and task.text == ("a", "b")
    assert load_split(task, "train")["label"][:] == [2, 1, 0]


def test_a_label_that_training_never_saw(write: Write) -> None:
    files = {
        "train": write("a.csv", "text,label\nx,spam\ny,ham\n"),
        "validation": write("b.csv", "text,label\nz,eggs\n"),
    }
    with pytest.raises(DataError, match=r"b\.csv, line 2: column 'label' holds 'eggs'"):
        load_split(custom_task(files), "validation")


@pytest.mark.parametrize("values", ["1.5", "3\n2.25"])
def test_fractions_are_regression(values: str, write: Write) -> None:
    text = "".join(f"x,{value}\n" for value in values.split())
    assert custom_task({"train": write("a.csv", f"text,score\n{text}")}).kind == "regression"
    assert custom_task({"train": write("a.jsonl", '{"text": "x", "score": 3.0}\n')}).kind == "regression"


def test_generation_and_language_modelling(write: Write) -> None:
    task = custom_task({"train": write("a.csv", "article,summary\nlong,short\n")}, kind="generation")
    assert (task.text, task.label) == (("article",), "summary")
    assert load_split(task, "train")[:] == {"source": ["long"], "references": [["short"]]}
    task = custom_task({"train": write("a.txt", "One line.\nAnother.\n")}, kind="language_modelling")
    assert task.joined and load_split(task, "train")["text"][:] == ["One line.\n", "Another.\n"]
    task = custom_task({"train": write("a.jsonl", '{"text": "One document."}\n')}, kind="language_modelling")
    assert not task.joined and task.main_metric == "perplexity"


def test_what_is_given_counts(write: Write) -> None:
    path = write("a.csv", "title,body,extra,class\nt,b,e,1\nu,c,f,0\n")
    task = custom_task(
        {"train": path},
        text=["title"],
        label="class",
        labels=["bad", "good"],
        metrics=("matthews",),
        main_metric="matthews",
    )
    assert task.text == ("title",) and task.labels == ("bad", "good") and task.metrics == ("matthews",)
    assert load_split(task, "train")["label"][:] == [1, 0]


def test_what_makes_no_task(write: Write) -> None:
    with pytest.raises(TaskError, match=r"3 columns that may be the input \(title, body, extra\)"):
        custom_task({"train": write("a.csv", "title,body,extra,label\nt,b,e,1\nu,c,f,0\n")})
    with pytest.raises(DataError, match="no column 'label'; it has 'text', 'kind'"):
        custom_task({"train": write("a.csv", "text,kind\nt,b\n")})
    with pytest.raises(DataError, match="1 different labels"):
        custom_task({"train": write("a.csv", "text,label\nt,1\n")})
    with pytest.raises(DataError, match=r"numbers with a decimal comma, such as 2,5.*Write them with a point"):
        custom_task({"train": write("a.csv", "text;label\nt;3\nu;2,5\n")})
    with pytest.raises(DataError, match="has no rows"):
        custom_task({"train": write("a.csv", "text,label\n")})
    with pytest.raises(DataError, match="No file was given"):
        custom_task({})
    with pytest.raises(TaskError, match="`colour` is not a field"):
        custom_task({"train": write("a.csv", "text,label\nt,1\nu,0\n")}, colour="red")
