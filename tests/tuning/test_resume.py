"""A resumed run is the uninterrupted one to the last bit, with dropout, at whatever moment it was stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from hf_bias_patch.errors import TuneError
from hf_bias_patch.tuning.settings import TuneSettings, make_settings
from hf_bias_patch.tuning.task_settings import GlueSettings
from hf_bias_patch.tuning.watcher import Watcher
from tests.tuning.jobs import alone, classifier, settings_for, trained
from tests.tuning.stopped import Stop, killed, killed_whole, lines, ran, ran_by_two

SHORT = {"train": "all", "learning_rate": 0.06, "max_train_steps": 8, "save_steps": 4, "eval_steps": 3}


def resumed(settings: TuneSettings) -> TuneSettings:
    return settings.model_copy(update={"resume": True})


class Began(Watcher):
    """Keeps after which step a run began."""

    at = -1

    def begin(self, selection: Any, steps: int, first: int) -> None:
        self.at = first


def terminated_everywhere(whole: TuneSettings, cut: TuneSettings, last: int, **more: Any) -> None:
    """SIGTERM in every step, and in every evaluation."""
    expected = ran(whole, **more)
    assert expected["step"] == last
    evaluations = [line["step"] for line in expected["lines"] if "eval_loss" in line]
    moments = [("step", step) for step in range(1, last + 1)] + [("evaluation", step) for step in evaluations]
    for moment, number in moments:
        shutil.rmtree(cut.output_dir, ignore_errors=True)
        stopped = ran(cut, Stop(signal.SIGTERM, moment, number), **more)
        assert (stopped["ended"], stopped["step"]) == ("terminated", number), (moment, number)
        began = Began()
        assert ran(resumed(cut), began, **more) == expected, (moment, number)
        assert began.at == number, "not resumed"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"save_steps": None, "eval_steps": 4},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
    ],
)
def test_sigterm_at_every_moment(tmp_path: Path, fields: dict[str, Any]) -> None:
    whole, cut = (settings_for(tmp_path / name, **{**SHORT, **fields}) for name in ("whole", "cut"))
    terminated_everywhere(whole, cut, 8)


def test_sigterm_at_every_moment_where_a_part_of_a_bias_trains(tmp_path: Path) -> None:
    whole, cut = (settings_for(tmp_path / name, **{**SHORT, "train": "value"}) for name in ("whole", "cut"))
    terminated_everywhere(whole, cut, 8, name="gpt2")


def test_sigterm_at_every_moment_of_a_run_that_stops_early(tmp_path: Path) -> None:
    fields = {**SHORT, "max_train_steps": 20, "eval_steps": 1, "early_stopping_patience": 2, "learning_rate": 0.1}
    whole, cut = (settings_for(tmp_path / name, **fields) for name in ("whole", "cut"))
    terminated_everywhere(whole, cut, ran(whole.model_copy(update={"output_dir": tmp_path / "first"}))["step"])
    assert ran(resumed(whole))["ended"] == "early"


def test_sigterm_of_a_compiled_run(tmp_path: Path) -> None:
    whole, cut = (settings_for(tmp_path / name, **SHORT) for name in ("whole", "cut"))
    expected = ran(whole, compiler="eager")
    ran(cut, Stop(signal.SIGTERM, "step", 5), compiler="eager")
    assert ran(resumed(cut), compiler="eager") == expected


def test_sigkill_before_every_change_of_a_file(tmp_path: Path) -> None:
    """Each run goes on where the one before was killed: a kill comes often, and early on, too."""
    expected = ran(settings_for(tmp_path / "whole", **SHORT))
    assert expected["best_step"] not in (0, 8), "vacuous"
    cut = settings_for(tmp_path / "cut", **SHORT)
    number, kills = 0, 0
    while True:
        number += 4
        shutil.rmtree(cut.output_dir, ignore_errors=True)
        codes = [killed(cut, Stop(signal.SIGKILL, "change", number))]
        codes.append(killed(resumed(cut), Stop(signal.SIGKILL, "change", 1 + number % 7)))
        assert set(codes) <= {0, -signal.SIGKILL}
        assert ran(resumed(cut)) == expected, number
        kills += codes.count(-signal.SIGKILL)
        if codes[0] == 0:
            break
    assert kills > 10, "vacuous"


@pytest.mark.parametrize(("number", "workers"), [(5, 0), (23, 0), (23, 2)])
def test_an_interrupt(tmp_path: Path, number: int, workers: int) -> None:
    fields = {**SHORT, "dataloader_num_workers": workers}
    expected = ran(settings_for(tmp_path / "whole", **SHORT))
    cut = settings_for(tmp_path / "cut", **fields)
    assert killed(cut, Stop(signal.SIGINT, "change", number)) == 1
    assert ran(resumed(cut)) == expected


def test_sigterm_of_a_whole_group_with_workers(tmp_path: Path) -> None:
    """As a scheduler sends it: the workers get it, too, and the training process still saves its state."""
    fields = {**SHORT, "dataloader_num_workers": 2}
    expected = ran(settings_for(tmp_path / "whole", **SHORT))
    cut = settings_for(tmp_path / "cut", **fields)
    assert killed(cut, Stop(signal.SIGTERM, "inside", 3, group=True)) == 0
    assert json.loads((cut.output_dir / "state" / "progress.json").read_text())["step"] == 3
    assert ran(resumed(cut)) == expected


def test_two_processes(tmp_path: Path) -> None:
    expected = ran_by_two(settings_for(tmp_path / "whole", **SHORT))
    assert expected is not None and expected["best_step"] not in (0, 8)
    for number, stop in enumerate(
        [
            *(Stop(signal.SIGTERM, "inside", step) for step in (2, 3, 8)),
            Stop(signal.SIGKILL, "inside", 6),
            *(Stop(signal.SIGKILL, "change", change) for change in (11, 17)),
        ]
    ):
        cut = settings_for(tmp_path / f"cut-{number}", **SHORT)
        assert ran_by_two(cut, stop) is None
        assert ran_by_two(resumed(cut)) == expected, stop


def whole_run(folder: Path) -> Any:
    given = {"max_train_samples": 24, "max_eval_samples": 10, "per_device_train_batch_size": 8, "learning_rate": 0.03}
    given |= {"model_name_or_path": "embedded:bert", "task_name": "embedded:opinion", "num_train_epochs": 2}
    return make_settings(GlueSettings, output_dir=folder, train="all", **given)


def test_killed_while_its_results_are_written(tmp_path: Path) -> None:
    from hf_bias_patch.tuning.run import tune

    alone()
    tune(whole_run(tmp_path / "whole"))
    expected = result_of(tmp_path / "whole")
    cut = tmp_path / "cut"
    assert killed_whole(whole_run(cut), Stop(signal.SIGKILL, "opened", 1, name="model/config.json")) == -signal.SIGKILL
    assert not (cut / "results.json").exists()
    # Killed again, and this time when all but the last word is written.
    again = resumed(whole_run(cut))
    assert killed_whole(again, Stop(signal.SIGKILL, "opened", 1, name="results.json")) == -signal.SIGKILL
    alone()
    tune(again)
    assert result_of(cut) == expected
    # A run that has ended and is resumed is no run that has ended while its model is written anew.
    assert killed_whole(again, Stop(signal.SIGKILL, "opened", 1, name="model/config.json")) == -signal.SIGKILL
    assert not (cut / "results.json").exists()


def result_of(folder: Path) -> dict[str, Any]:
    """What a whole run leaves: its results without times, its lines, and its models' bytes."""
    found = json.loads((folder / "results.json").read_text())
    plain = {name: value for name, value in found.items() if name not in ("seconds", "peak_bytes")}
    models = [(folder / name).read_bytes() for name in ("model/model.safetensors", "trained.safetensors")]
    return {**plain, "lines": lines(folder), "models": [hashlib.sha256(model).hexdigest() for model in models]}


def test_resume_without_a_state_begins(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "run", resume=True)
    assert trained(classifier(), settings).progress.step == 12


def test_killed_while_its_folder_is_made(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "run")
    settings.output_dir.mkdir()
    (settings.output_dir / "settings.json.new").write_text("{")
    assert trained(classifier(), settings).ended == "done"


def test_killed_while_it_is_overwritten(tmp_path: Path) -> None:
    """What is left is no half a run that could be gone on with."""
    settings = settings_for(tmp_path / "run", **SHORT)
    expected = ran(settings)
    anew = settings.model_copy(update={"overwrite": True})
    for number in range(1, 12, 3):
        killed_in_the_beginning = Stop(signal.SIGKILL, "change", number)
        assert killed(anew, killed_in_the_beginning) == -signal.SIGKILL
        assert ran(resumed(settings)) == expected, number


def test_a_state_that_was_half_swapped(tmp_path: Path) -> None:
    """Killed between the two renames that put a new state in place of the old one."""
    expected = ran(settings_for(tmp_path / "whole", **SHORT))
    cut = settings_for(tmp_path / "cut", **SHORT)
    ran(cut, Stop(signal.SIGTERM, "step", 5))
    (cut.output_dir / "state").rename(cut.output_dir / "state.old")
    assert killed(resumed(cut), Stop(signal.SIGKILL, "change", 6)) == -signal.SIGKILL
    assert ran(resumed(cut)) == expected


@pytest.mark.parametrize("file", ["progress.json", "model.safetensors", "optimizer.bin", "random_states_0.pkl"])
def test_a_damaged_state_is_refused(tmp_path: Path, file: str) -> None:
    settings = settings_for(tmp_path / "run", **SHORT)
    ran(settings)
    (settings.output_dir / "state" / file).write_text("{")
    with pytest.raises(TuneError, match=r"cannot be resumed.*--overwrite"):
        ran(resumed(settings))


def test_a_state_whose_best_tensors_are_missing_is_refused(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "run", **SHORT)
    best = ran(settings)["best_step"]
    (settings.output_dir / f"best-{best:08}.safetensors").unlink()
    with pytest.raises(TuneError, match=r"best-0+6\.safetensors is missing.*--overwrite"):
        ran(resumed(settings))


def test_a_state_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "run", **SHORT)
    ran(settings)
    progress = {"step": 8, "best": 0.7, "best_step": 6, "since_best": 1, "samples": 30, "tokens": 200, "seconds": 1.0}
    (settings.output_dir / "state" / "progress.json").write_text(json.dumps(progress))
    with pytest.raises(TuneError, match=r"another version of hf_bias_patch.*evaluated, metrics.*--overwrite"):
        ran(resumed(settings))


def test_a_state_keeps_the_best_tensors_it_was_saved_with(tmp_path: Path) -> None:
    """Killed when newer ones are written and the state is not: a run that cannot repeat itself must not mix the two."""
    settings = settings_for(tmp_path / "run", **SHORT)
    ran(settings, Stop(signal.SIGTERM, "step", 5))
    best = settings.output_dir / "best-00000003.safetensors"
    before = best.read_bytes()
    assert killed(resumed(settings), Stop(signal.SIGKILL, "evaluation", 6)) == -signal.SIGKILL
    assert json.loads((settings.output_dir / "state" / "progress.json").read_text())["best_step"] == 3
    assert best.read_bytes() == before
    assert best.with_name("best-00000006.safetensors").read_bytes() != before


def test_only_the_best_tensors_are_kept(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "run", **SHORT)
    best = ran(settings)["best_step"]
    assert [path.name for path in settings.output_dir.glob("best*")] == [f"best-{best:08}.safetensors"]
