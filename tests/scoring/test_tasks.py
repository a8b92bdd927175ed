"""Task files: what comes with the package, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.embedded import GENERATORS
from hf_bias_patch.scoring.metric_info import METRICS, metrics_of
from hf_bias_patch.scoring.tasks import Task, dump_task, load_task, read_task, task_names

GLUE = {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax"}
OTHERS = {"wikitext-2", "wikitext-103", "cnn_dailymail", "xsum", "samsum", "e2e_nlg", "dart"}


def test_the_tasks() -> None:
    assert set(task_names()) == GLUE | OTHERS | {f"embedded:{name}" for name in GENERATORS}


@pytest.mark.parametrize("name", task_names())
def test_every_task_says_what_it_is(name: str) -> None:
    task = load_task(name)
    assert task.name == name and task.about and task.version >= 1 and task.splits
    assert (task.hub is None) == name.startswith("embedded:") == (task.generator is not None)
    assert read_task.__doc__ and Task(**task.model_dump()) == task


@pytest.mark.parametrize("name", sorted(GLUE))
def test_glue_has_its_server_files(name: str) -> None:
    task = load_task(name)
    assert set(task.submission) <= set(task.splits) and all(file.endswith(".tsv") for file in task.submission.values())
    assert task.hub is not None and (task.hub.id, task.hub.config) == ("nyu-mll/glue", name)
    # The label words that the server wants; the other tasks are answered by numbers.
    assert task.words == (name in {"mnli", "qnli", "rte", "ax"})


def test_glue_metrics_are_glues() -> None:
    expected = {
        "cola": "matthews",
        "sst2": "accuracy",
        "mrpc": "mean",
        "stsb": "mean",
        "qqp": "mean",
        "mnli": "accuracy",
        "qnli": "accuracy",
        "rte": "accuracy",
        "wnli": "accuracy",
        "ax": "matthews",
    }
    assert {name: load_task(name).main_metric for name in GLUE} == expected
    assert load_task("mrpc").metrics == load_task("qqp").metrics == ("accuracy", "f1")
    assert load_task("stsb").metrics == ("pearson", "spearman")


def test_greater_is_better_but_for_losses() -> None:
    assert load_task("mrpc").greater_is_better and load_task("cola").greater_is_better
    assert not load_task("wikitext-2").greater_is_better
    assert {name for name, measure in METRICS.items() if not measure.greater_is_better} == set(
        metrics_of("language_modelling")
    )


def test_an_unknown_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(TaskError, match=r"no task 'cloa'.*cola, dart"):
        load_task("cloa")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"hubb": {}}, "`hubb` is not a field"),
        ({"hub": {"id": "a/b", "branch": "x"}}, "`hub.branch` is not a field"),
        ({"labels": ("a", True)}, "labels"),
        ({"labels": ("a",)}, "two or more"),
        ({"labels": ("a", "a")}, "each once"),
        ({"labels": ()}, "names its labels"),
        ({"metrics": ("bleu",)}, "'bleu' is not one of accuracy, f1, matthews"),
        ({"main_metric": "f1"}, "'f1' is not one of accuracy, mean"),
        ({"text": ("a", "b", "c")}, "1 or 2 text columns"),
        ({"text": ()}, "1 or 2 text columns"),
        ({"label": None}, "every kind of task but language_modelling"),
        ({"version": "1"}, "version"),
        ({"prompt": "no place"}, "{source} is missing"),
        ({"decode": {"num_beams": 0}}, "num_beams"),
        ({"decode": {"min_new_tokens": 70, "max_new_tokens": 64}}, "min_new_tokens 70 is above"),
    ],
)
def test_wrong_fields_are_named(made: Callable[..., Task], fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(TaskError, match=complaint):
        made("classification", **fields)


def test_a_task_of_ones_own(made: Callable[..., Task], tmp_path: Path) -> None:
    task = made("classification", name="mine", labels=("no", "yes", "null"), files={"train": "a.csv"}, version=3)
    (tmp_path / "mine.yaml").write_text(dump_task(task))
    assert load_task(str(tmp_path / "mine.yaml")) == task


@pytest.mark.parametrize("text", ["- a\n- b\n", "name: x\nname: y\n", "name: [", "name: x\nlabels: [no, yes]\n"])
def test_files_that_are_no_task(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(TaskError):
        load_task(str(tmp_path / "bad.yaml"))
    with pytest.raises(TaskError, match=r"missing\.yaml cannot be read"):
        load_task(str(tmp_path / "missing.yaml"))
