"""Arms against each other: the rate is chosen on training data, what is there is not run again, the table adds up."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hf_bias_patch.errors import RecipeError, TaskError, TuneError
from hf_bias_patch.scoring.tasks import dump_task, load_task
from hf_bias_patch.tuning.compare import CompareSettings, RunStarted, compare
from hf_bias_patch.tuning.compare_table import ArmResult, plot
from hf_bias_patch.tuning.settings import make_settings
from hf_bias_patch.tuning.subprocess_run import result_of
from hf_bias_patch.tuning.task_settings import GlueSettings, TaskSettings


def settings(out: Path, **fields: Any) -> CompareSettings:
    given = {"model_name_or_path": "embedded:bert", "task_name": "embedded:opinion", "output_dir": out}
    short = {"arms": "value,none", "seeds": 2, "learning_rates": "1e-3,1e-2", "max_train_samples": 40}
    return make_settings(CompareSettings, **{**given, **short, "max_eval_samples": 20, "num_train_epochs": 1, **fields})


def results(score: float, **metrics: float) -> dict[str, Any]:
    """What a run leaves in its results.json."""
    plain = {"trained_without_head": 256, "seconds": 2.0, "peak_bytes": 10, "trained_bytes": 5}
    return {"metrics": {"accuracy": score, **metrics}, "main_metric": "accuracy", **plain}


class Runs(list[TaskSettings]):
    """Runs that are noted instead of run; the score of one is its learning rate's place in (1, 1e-2, 1e-3)."""

    def __call__(self, wanted: TaskSettings) -> dict[str, Any]:
        self.append(wanted)
        return results({1e-2: 70.0, 1e-3: 60.0}[wanted.rate] + wanted.seed)


@pytest.fixture
def runs() -> Runs:
    return Runs()


def arms(wanted: CompareSettings, run: Any = result_of) -> list[ArmResult]:
    """The arms of a comparison, in the order in which they are done."""
    events: list[Any] = []
    compare(wanted, events.append, run)
    return [event for event in events if isinstance(event, ArmResult)]


def test_rates_are_chosen_on_training_data(tmp_path: Path, runs: Runs) -> None:
    done = arms(settings(tmp_path), runs)
    assert [(arm.arm, arm.rate, dict(arm.chosen)) for arm in done] == [
        ("value", 1e-2, {1e-3: 60.0, 1e-2: 70.0}),
        ("none", 1e-2, {1e-3: 60.0, 1e-2: 70.0}),
    ]
    choosing = [run for run in runs if run.output_dir.name.startswith("rate-")]
    reported = [run for run in runs if run.output_dir.name.startswith("seed-")]
    assert len(choosing) == len(reported) == 4
    assert all(run.validation_share == 0.1 and run.seed == 0 for run in choosing)
    assert all(run.validation_share is None and run.rate == 1e-2 for run in reported)
    # Scored once, at the end: a state chosen on the reported data would be a better one than it is.
    assert all(run.eval_steps == 10**9 for run in runs)
    assert [run.seed for run in reported] == [1, 2, 1, 2]


def test_rates_that_score_the_same_are_told_apart_by_loss(tmp_path: Path) -> None:
    """As where no rate leaves the majority class."""
    loss = {1e-4: 0.7, 1e-3: 0.6, 1e-2: 0.9, 1e-1: 0.1}

    def run(wanted: TaskSettings) -> dict[str, Any]:
        return results(40.0 if wanted.rate == 1e-1 else 50.0, loss=loss[wanted.rate])

    (done,) = arms(settings(tmp_path, arms="none", learning_rates="1e-4,1e-3,1e-2,1e-1"), run)
    assert done.rate == 1e-3


def test_arms_differ_in_nothing_else(tmp_path: Path, runs: Runs) -> None:
    arms(settings(tmp_path, arms="value,query+value,all"), runs)
    differing = {"train", "output_dir"}
    reported = [run.model_dump(exclude=differing) for run in runs if run.output_dir.name == "seed-1"]
    assert len(reported) == 3 and all(run == reported[0] for run in reported)
    assert {run.train for run in runs} == {"value", "query,value", "all"}


def test_what_begins_is_counted(tmp_path: Path, runs: Runs) -> None:
    events: list[Any] = []
    compare(settings(tmp_path), events.append, runs)
    begun = [event for event in events if isinstance(event, RunStarted)]
    assert [(event.number, event.total) for event in begun] == [(number, 8) for number in range(1, 9)]


def test_table_and_csv(tmp_path: Path, runs: Runs) -> None:
    table = compare(settings(tmp_path), run=runs)
    assert (table[0].mean, table[0].std) == (71.5, pytest.approx(0.5**0.5))
    (first, second) = csv.DictReader((tmp_path / "compare.csv").read_text().splitlines())
    assert (first["arm"], second["arm"], first["seeds"], first["mean"]) == ("value", "none", "2", "71.5")


def test_for_real_and_again(tmp_path: Path) -> None:
    """One arm in processes of its own; a second call reads what is there, and a lost result is run again."""
    wanted = settings(tmp_path, arms="none", seeds=1, learning_rates="1e-3")
    (first,) = arms(wanted)
    assert first.results[0]["peak_bytes"] > 50_000_000 and 0 <= first.results[0]["metrics"]["accuracy"] <= 100
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    assert len(files) == 2
    (again,) = arms(wanted)
    assert again == first and files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}


def test_an_arm_that_cannot_be(tmp_path: Path) -> None:
    given = {"model_name_or_path": "embedded:gpt2", "task_name": "embedded:records", "arms": "beft"}
    (done,) = arms(settings(tmp_path, **given, learning_rates="1e-3"))
    assert "Conv1D" in done.problem and not done.results
    assert done.row.mean is None


def test_a_reported_run_that_breaks_ends_its_arm_alone(tmp_path: Path) -> None:
    def run(wanted: TaskSettings) -> Mapping[str, Any]:
        if wanted.train == "key":
            raise RecipeError("train: the model has no key bias")
        if wanted.train == "value" and wanted.seed == 2:
            raise TuneError("The loss is nan at step 3 of 9")
        return results(60.0)

    done = arms(settings(tmp_path, arms="key,value,none"), run)
    assert [(arm.arm, len(arm.results)) for arm in done] == [("key", 0), ("value", 0), ("none", 2)]
    assert "no key bias" in done[0].problem and done[1].problem.startswith("seed-2: The loss is nan")
    assert done[1].row.problem == done[1].problem


def test_all_tasks_are_looked_at_before_the_first_is_run(tmp_path: Path, runs: Runs) -> None:
    with pytest.raises(TaskError, match="no task 'opinoin'"):
        compare(settings(tmp_path, task_name="embedded:opinion,opinoin"), run=runs)
    with pytest.raises(RecipeError, match=r"nowhere\.tsv does not exist"):
        compare(settings(tmp_path, task_name="embedded:opinion,sst2", files="sst2:train=nowhere.tsv"), run=runs)
    assert not runs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": "values"}, "'values' is not known"),
        ({"arms": ""}, "no arm is named"),
        ({"learning_rates": "0"}, "not above 0"),
        ({"files": "sst2=x"}, "not of the form TASK:SPLIT=PATH"),
        ({"files": "cola:train=x"}, "cola is not one of the tasks"),
        ({"task_name": ""}, "no task is named"),
    ],
)
def test_bad_input(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        settings(tmp_path, **fields)


def test_files_of_tasks(tmp_path: Path, runs: Runs) -> None:
    (tmp_path / "a.tsv").touch()
    (tmp_path / "b.tsv").touch()
    files = f"embedded:opinion:train={tmp_path}/a.tsv,embedded:opinion:validation={tmp_path}/b.tsv"
    compare(settings(tmp_path / "out", files=files, arms="none"), run=runs)
    assert {str(run.train_file) for run in runs} == {f"{tmp_path}/a.tsv"}
    reported = {run.validation_file for run in runs if run.validation_share is None}
    assert reported == {tmp_path / "b.tsv"}
    assert {run.validation_file for run in runs if run.validation_share} == {None}


def test_the_runs_of_a_task_in_a_file_lie_in_the_output_folder(tmp_path: Path, runs: Runs) -> None:
    file = tmp_path / "tasks" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(dump_task(load_task("embedded:opinion")), "utf-8")
    compare(settings(tmp_path / "out", task_name=str(file), arms="value", seeds=1), run=runs)
    assert {run.output_dir.parent for run in runs} == {tmp_path / "out" / "mine.yaml" / "value"}
    assert {run.task_name for run in runs} == {str(file)}


def test_plot(tmp_path: Path, runs: Runs) -> None:
    pytest.importorskip("matplotlib")
    table = compare(settings(tmp_path), run=runs)
    assert (tmp_path / "compare.png").exists()
    plot(table, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().count("<use") > 4


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_the_run_ends_with_the_comparison(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    """Nothing is left that trains on, or waits; the same command goes on."""
    arguments = ["--model", "embedded:bert", "--task", "embedded:opinion", "--arms", "none", "--seeds", "1"]
    command = [sys.executable, "-m", "hf_bias_patch", "compare", *arguments, "--output", str(tmp_path)]
    process = subprocess.Popen([*command, "--epochs", "1000"], stderr=subprocess.PIPE)
    run = tmp_path / "embedded-opinion" / "none" / "rate-0.001"
    try:
        while not (run / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(sent)
        # To the end of its error output: the run shares that, so that it has ended too.
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert (run / "state" / "progress.json").exists() and not (run / "results.json").exists()


def test_a_run_that_is_killed_is_named(tmp_path: Path) -> None:
    """As the system kills it when memory is short."""
    given = {"model_name_or_path": "embedded:bert", "task_name": "embedded:opinion", "max_train_samples": 40}
    wanted = make_settings(GlueSettings, **given, output_dir=tmp_path / "run", num_train_epochs=1000)

    def kill() -> None:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            time.sleep(0.05)
        (process,) = multiprocessing.active_children()
        os.kill(process.pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(TuneError, match=rf"was killed \(exit code -{int(signal.SIGKILL)}\).*memory"):
        result_of(wanted)


def test_new_heads_where_there_are_any(tmp_path: Path, runs: Runs) -> None:
    """What a run is chosen and validated on stays the same; a language model has no head to begin anew."""
    file = tmp_path / "dev.tsv"
    file.write_text("text\tlabel\nfine\t1\n")
    given = {"arms": "none", "seeds": 1, "new_head": True, "files": f"embedded:opinion:validation={file}"}
    compare(settings(tmp_path, task_name="embedded:opinion,embedded:letters", **given), run=runs)
    asked = {str(run.task_name): run for run in runs if run.output_dir.name == "seed-1"}
    assert asked["embedded:opinion"].model_dump()["new_head"] is True
    assert asked["embedded:opinion"].validation_file == file
    assert "new_head" not in asked["embedded:letters"].model_dump()
