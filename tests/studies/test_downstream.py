"""Scores without each bias: the right one is away, it stays away while the rest trains, and nothing else differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from transformers import LlamaConfig
from typer.testing import CliRunner, Result

from hf_bias_patch import patch
from hf_bias_patch.architecture.inspect import inspect
from hf_bias_patch.architecture.sites import Projection
from hf_bias_patch.cli import app
from hf_bias_patch.errors import (
    ArgumentError,
    BiasPatchError,
    DataError,
    PlanError,
    RecipeError,
    TargetError,
    TaskError,
    TuneError,
)
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.loading import load_scorable
from hf_bias_patch.scoring.score import evaluate_model
from hf_bias_patch.scoring.tasks import load_task
from hf_bias_patch.studies.downstream.training_runs import TrainingRun, training_experiments
from hf_bias_patch.studies.downstream.without_training import scores_of_fine_tuned, scores_without_training
from hf_bias_patch.studies.processes import Processes
from hf_bias_patch.studies.records import ScoreRecord
from hf_bias_patch.studies.run import study
from hf_bias_patch.studies.runner import Experiment, Runner
from hf_bias_patch.studies.settings import StudySettings
from hf_bias_patch.studies.store import MeasurementStore

ALL: tuple[Projection, ...] = ("query", "key", "value")
SHORT = {"max_train_samples": 96, "max_eval_samples": 16, "num_train_epochs": 1.0, "learning_rate": 1e-3}
"""Three steps: the first one warms up, at a rate of 0."""


def asked(model: str, task: str, **fields: Any) -> StudySettings:
    return StudySettings(
        model, **{"count": 2, "device": "cpu", "tasks": (task,), "seeds": 1, "task_options": SHORT, **fields}
    )


def ran(experiments: Sequence[Experiment], out: Path, ends: float | None = None) -> tuple[list[ScoreRecord], Runner]:
    runner = Runner(MeasurementStore(out / "measured.jsonl"), Processes("cpu"), ends)
    return list(runner.run(experiments)["scores"]), runner


def main(scores: Sequence[ScoreRecord]) -> dict[str, float]:
    """The first metric of each arm."""
    values: dict[str, float] = {}
    for score in scores:
        values.setdefault(score.removed, score.value)
    return values


def biases(model: Path) -> dict[str, float]:
    """Projection → the largest number of its biases, over all sites; of fused ones, of their own part."""
    tensors = load_file(model / "model.safetensors")
    found = inspect(str(model))
    return {
        name: max(float(abs(slot.view.take(tensors[slot.bias])).max())
                  for site in found.sites if (slot := site.slots[name]).bias)
        for name in ALL
    }  # fmt: skip


@pytest.mark.parametrize(("model", "task"), [("gpt2", "embedded:letters"), ("bart", "embedded:records")])
def test_as_it_is_equals_a_checkpoint_patched_on_disk(tmp_path: Path, model: str, task: str) -> None:
    scores = ran(scores_without_training(asked(f"embedded:{model}", task), ALL), tmp_path)[0]
    rows = load_split(load_task(task), "validation", limit=16)
    for removed in ("nothing", *ALL):
        place = f"embedded:{model}"
        if removed != "nothing":
            place = str(tmp_path / removed)
            patch(f"embedded:{model}", tmp_path / removed, drop=removed)
        expected = evaluate_model(*load_scorable(place, load_task(task).kind), load_task(task), rows)
        mine = {score.metric: score.value for score in scores if score.removed == removed}
        assert mine == expected.metrics and next(iter(mine)) == expected.main_metric
    if model == "gpt2":
        values = main(scores)
        assert values["key"] == pytest.approx(values["nothing"], rel=1e-6)
        assert len({round(value) for value in values.values()}) == 3  # vacuous, if query and value did nothing either
    assert all(score.seed is None and score.how == "as it is" for score in scores)


def test_a_plain_encoder_is_not_scored_as_it_is(tmp_path: Path) -> None:
    """A new head would be random, and so would its scores."""
    scores, runner = ran(scores_without_training(asked("embedded:bert", "embedded:opinion"), ALL), tmp_path)
    assert not scores and len(runner.notes) == 1
    assert "has a head for MaskedLM" in runner.notes[0] and "--fine-tune trains a head" in runner.notes[0]
    assert not (tmp_path / "measured.jsonl").exists()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ScoreRecord]]:
    """GPT-2, whose query, key and value biases are one parameter, fine-tuned without each."""
    out = tmp_path_factory.mktemp("tuned")
    experiments = training_experiments(asked("embedded:gpt2", "embedded:letters"), out, "fine-tuned", ALL, _gpt2)
    return out, ran(experiments, out)[0]


def _gpt2(seed: int) -> str:
    return "embedded:gpt2"


def test_what_is_removed_stays_zero_while_the_rest_trains(tuned: tuple[Path, list[ScoreRecord]]) -> None:
    out, scores = tuned
    before = load_file(inspect_folder("gpt2") / "model.safetensors")
    for removed in ("nothing", *ALL):
        run = out / "fine-tuned" / "embedded-letters" / f"without-{removed}" / "seed-1"
        largest = biases(run / "model")
        assert {name for name, value in largest.items() if value == 0} == {removed} - {"nothing"}
        after = load_file(run / "model" / "model.safetensors")
        moved = [name for name in before if (before[name] != after[name]).any()]
        assert len(moved) == len(before), "all of it trains"
        assert {path.name for path in run.glob("*.safetensors")} == set() and not (run / "state").exists()
    assert len(scores) == 4 * 3 and {score.seed for score in scores} == {1}


def inspect_folder(name: str) -> Path:
    from hf_bias_patch.assets import folder

    return folder(name)


def test_the_key_bias_changes_nothing_in_training_either(tuned: tuple[Path, list[ScoreRecord]]) -> None:
    values = main(tuned[1])
    assert values["key"] == pytest.approx(values["nothing"], rel=1e-5)
    assert all(abs(values[name] / values["nothing"] - 1) > 1e-4 for name in ("query", "value"))


def test_what_was_fine_tuned_is_scored_without_each_bias(tuned: tuple[Path, list[ScoreRecord]]) -> None:
    out, scores = tuned
    wanted = asked("embedded:gpt2", "embedded:letters")
    after, runner = ran(scores_of_fine_tuned(wanted, out, ALL), out)
    assert {score.how for score in after} == {"fine-tuned, then removed"} and {score.seed for score in after} == {1}
    values, trained_with = main(after), main(scores)["nothing"]
    assert values["nothing"] == pytest.approx(trained_with, rel=1e-6)
    assert values["key"] == pytest.approx(trained_with, rel=1e-6) and not runner.notes
    model = out / "fine-tuned" / "embedded-letters" / "without-nothing" / "seed-1" / "model"
    patch(str(model), out / "dropped", drop="value")
    rows = load_split(load_task("embedded:letters"), "validation", limit=16)
    expected = evaluate_model(
        *load_scorable(str(out / "dropped"), "language_modelling"), load_task("embedded:letters"), rows
    )
    assert values["value"] == expected.main and abs(values["value"] / trained_with - 1) > 1e-4


def test_what_was_not_trained_is_not_scored(tmp_path: Path) -> None:
    after, runner = ran(scores_of_fine_tuned(asked("embedded:gpt2", "embedded:letters"), tmp_path, ALL), tmp_path)
    assert not after and not runner.left_out


@pytest.mark.parametrize("how", ["fine-tuned", "from scratch"])
def test_arms_of_a_seed_differ_in_nothing_but_the_bias(tmp_path: Path, how: str) -> None:
    wanted = asked("embedded:gpt2", "embedded:letters")
    runs = [TrainingRun(wanted, tmp_path, how, "embedded:letters", name, 3, "embedded:gpt2").settings
            for name in ("nothing", *ALL)]  # fmt: skip
    same = [run.model_dump(exclude={"drop", "freeze", "output_dir"}) for run in runs]
    assert all(each == same[0] for each in same) and same[0]["seed"] == 3
    assert [run.drop for run in runs] == [run.freeze for run in runs] == [(), ("query",), ("key",), ("value",)]
    assert len({run.output_dir for run in runs}) == 4
    assert {(run.train, run.train_head) for run in runs} == {("all", True)}, "a language model's own head, too"
    assert {run.eval_steps for run in runs} == {10**9}


def test_rates_unless_one_is_given(tmp_path: Path) -> None:
    wanted = asked("embedded:gpt2", "embedded:letters", task_options={})
    rates = {how: TrainingRun(wanted, tmp_path, how, "embedded:letters", "key", 1, "embedded:gpt2").settings.rate
             for how in ("fine-tuned", "from scratch")}  # fmt: skip
    assert rates == {"fine-tuned": 5e-5, "from scratch": 1e-3}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A classifier and a language model of BERT's config from random weights, two seeds; and what was printed."""
    out = tmp_path_factory.mktemp("fresh") / "out"
    tasks = ("--task", "embedded:opinion", "--seeds", 2, "--max-train-samples", 96, "--max-eval-samples", 16)
    done = _run("embedded:bert", "--output", out, "--from-scratch", *tasks, "--epochs", 1)
    assert done.exit_code == 0, done.output
    return out, " ".join(done.output.split())


def test_from_scratch(fresh: tuple[Path, str]) -> None:
    out, printed = fresh
    made = [load_file(out / "from-scratch" / f"seed-{seed}" / "model" / "model.safetensors") for seed in (1, 2)]
    trunk = "bert.encoder.layer.0.attention.self.query.weight"
    assert (made[0][trunk] != made[1][trunk]).any() and abs(made[0][trunk]).max() > 0
    assert (made[0][trunk] != load_file(inspect_folder("bert") / "model.safetensors")[trunk]).any()
    assert set(biases(out / "from-scratch" / "seed-1" / "model").values()) == {0.0}
    for seed in (1, 2):
        for removed in ("nothing", *ALL):
            run = out / "from-scratch" / "embedded-opinion" / f"without-{removed}" / f"seed-{seed}"
            start = Path(json.loads((run / "settings.json").read_text())["model_name_or_path"])
            assert start == out / "from-scratch" / f"seed-{seed}" / "model"
            largest = biases(run / "model")  # the key's moves by rounding, or not at all
            assert removed == "nothing" or largest[removed] == 0
            assert all(largest[name] > 0 for name in {"query", "value"} - {removed})
    found = json.loads((out / "results.json").read_text())
    assert len(found["scores"]) == 2 * 4 * 2 and not found["rows"] and found["settings"]["from_scratch"]
    assert {score["how"] for score in found["scores"]} == {"from scratch"}
    assert "On embedded:opinion, from scratch (accuracy" in printed and "2 seeds" in printed
    assert "last hidden states" not in printed and (out / "contrasts.csv").exists()


def test_a_config_without_biases_leaves_nothing_behind(tmp_path: Path) -> None:
    config = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text(json.dumps({**config.to_dict(), "architectures": ["LlamaModel"]}))
    for path in inspect_folder("gpt2").glob("tokenizer*"):
        shutil.copy(path, tmp_path / "llama")
    failed = _run(tmp_path / "llama", "--output", tmp_path / "out", "--from-scratch", "--task", "embedded:opinion")
    assert isinstance(failed.exception, PlanError), failed.exception
    assert not (tmp_path / "out").exists()


def test_from_scratch_is_read_again(fresh: tuple[Path, str]) -> None:
    out, _ = fresh
    options = {"max_train_samples": 96, "max_eval_samples": 16, "num_train_epochs": 1.0}
    wanted = asked("embedded:bert", "embedded:opinion", count=64, from_scratch=True, seeds=2, task_options=options)
    text = (out / "measured.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    records[0]["records"][0]["value"] = 123.0  # which no run scores
    (out / "measured.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    kept = json.loads((out / "results.json").read_text())["scores"]
    again = study(wanted, out, resume=True)
    assert again is not None and [vars(score) for score in again.study.scores] == [
        {**kept[0], "value": 123.0},
        *kept[1:],
    ]
    (out / "measured.jsonl").write_text(text)
    with pytest.raises(TargetError, match="from_scratch was True, now False"):
        study(asked("embedded:bert", "embedded:opinion", count=64), out, resume=True)
    with pytest.raises(TargetError, match="max_eval_samples was 16, now 8"):
        less = {**options, "max_eval_samples": 8}
        study(asked("embedded:bert", "embedded:opinion", count=64, from_scratch=True, task_options=less),
                           out, resume=True)  # fmt: skip


def test_scores_without_training_are_read_again_and_a_cut_line_is_not(tmp_path: Path) -> None:
    wanted = asked("embedded:gpt2", "embedded:letters")
    first, _ = ran(scores_without_training(wanted, ALL), tmp_path)
    lines = (tmp_path / "measured.jsonl").read_text().splitlines(keepends=True)
    altered = [json.loads(line) for line in lines[:3]]
    for record in altered:
        record["records"][0]["value"] = 123.0  # which no model scores
    text = "".join(json.dumps(record) + "\n" for record in altered)
    (tmp_path / "measured.jsonl").write_text(text + lines[3][:40])
    for _ in range(2):
        again, _ = ran(scores_without_training(wanted, ALL), tmp_path)
        assert list(main(again).values()) == [123.0, 123.0, 123.0, main(first)["value"]]
    fewer = asked("embedded:gpt2", "embedded:letters", task_options={"max_eval_samples": 8})
    assert 123.0 not in main(ran(scores_without_training(fewer, ALL), tmp_path)[0]).values()


def test_a_budget_names_what_it_leaves_out(tmp_path: Path) -> None:
    wanted = asked("embedded:gpt2", "embedded:letters")
    experiments = [
        *scores_without_training(wanted, ALL),
        *training_experiments(wanted, tmp_path, "fine-tuned", ALL, _gpt2),
    ]
    scores, runner = ran(experiments, tmp_path, ends=0.0)
    assert not scores and len(runner.left_out) == 8
    assert runner.left_out[0] == "embedded:letters as it is, without nothing"
    assert runner.left_out[-1] == "embedded:letters fine-tuned, without value, seed 1"
    assert not list(tmp_path.iterdir())


def test_a_run_that_breaks_is_noted_and_the_others_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def result(run: Any) -> dict[str, Any]:
        if run.drop == ("key",):
            raise TuneError("The loss is nan at step 3 of 9")
        return {"metrics": {"perplexity": 5.0}, "main_metric": "perplexity"}

    monkeypatch.setattr("hf_bias_patch.studies.downstream.training_runs.result_of", result)
    wanted = asked("embedded:gpt2", "embedded:letters")
    scores, runner = ran(training_experiments(wanted, tmp_path, "fine-tuned", ALL, _gpt2), tmp_path)
    assert [score.removed for score in scores] == ["nothing", "query", "value"]
    assert runner.notes[0].startswith("embedded:letters fine-tuned, without key, seed 1: no score. The loss is nan")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """BERT with a file of weights that cannot be read: whatever is wrong must be said before that."""
    shutil.copytree(inspect_folder("bert"), tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    return tmp_path / "broken"


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["study", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["--fine-tune"], ArgumentError, "--fine-tune needs a task"),
        (["--from-scratch"], ArgumentError, "--from-scratch needs a task"),
        (["--fine-tune", "--from-scratch", "--task", "sst2"], ArgumentError, "fine-tunes or trains from scratch"),
        (
            ["--from-scratch", "--task", "sst2", "--heads"],
            ArgumentError,
            "--heads cannot be combined with --from-scratch",
        ),
        (["--epochs", 1], ArgumentError, "num_train_epochs needs a task"),
        (["--task", "sst3"], TaskError, "no task 'sst3'"),
        (["--task", "nowhere.yaml"], TaskError, "nowhere.yaml"),
        (["--task", "embedded:opinion,embedded:opinion"], ArgumentError, "names a task twice"),
        (["--task", "embedded:opinion", "--files", "sst2:train=x"], ArgumentError, "sst2, which is not a task of"),
        (["--task", "sst2", "--files", "sst2=x"], ArgumentError, "not of the form TASK:SPLIT=PATH"),
        (["--task", "sst2", "--files", "sst2:validation=x.tsv"], RecipeError, "x.tsv does not exist"),
        (["--task", "embedded:opinion", "--epochs", 0], RecipeError, "num_train_epochs: 0.0 is not above 0"),
        (["--task", "embedded:records", "--fine-tune"], TaskError, "has a head for MaskedLM, and a generation task"),
        (["--task", "embedded:records", "--from-scratch"], TaskError, "has a head for MaskedLM, and a generation"),
        (["--task", "sst2"], DataError, "sst2"),
    ],
)
def test_what_cannot_be_asked(
    tmp_path: Path, broken: Path, arguments: list[Any], error: type[BiasPatchError], says: str
) -> None:
    failed = _run(broken, "--output", tmp_path / "out", *arguments)
    assert isinstance(failed.exception, error), failed.exception
    assert says in str(failed.exception)
    assert not (tmp_path / "out").exists()


def test_training_data_alone_cannot_be_scored_on(tmp_path: Path, broken: Path) -> None:
    (tmp_path / "a.tsv").write_text("sentence\tlabel\ngood\t1\nbad\t0\n")
    given = ("--task", "sst2", "--files", f"sst2:train={tmp_path}/a.tsv", "--fine-tune")
    failed = _run(broken, "--output", tmp_path / "out", *given)
    assert isinstance(failed.exception, RecipeError) and "none to score on" in str(failed.exception)


def test_a_study_with_a_task(tmp_path: Path) -> None:
    """As a user types it; afterwards a task is added."""
    common = ("embedded:gpt2", "--output", tmp_path / "out", "--count", 2, "--max-eval-samples", 8)
    done = _run(*common, "--task", "embedded:letters")
    assert done.exit_code == 0, done.output
    printed = " ".join(done.output.split())
    assert (
        "On embedded:letters, as it is (perplexity" in printed
        and "without its key bias equal up to rounding" in printed
    )
    assert "no test is possible" in printed and "does nothing" in printed and "Scores without a bias" in printed
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(found["scores"]) == 4 * 3 and found["rows"]
    before = (tmp_path / "out" / "measured.jsonl").read_text()
    assert _run(*common, "--resume", "--task", "embedded:letters,embedded:records").exit_code == 0
    text = (tmp_path / "out" / "measured.jsonl").read_text()
    assert text.startswith(before) and text.count("\n") == before.count("\n") + 4
