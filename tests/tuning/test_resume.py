"""A resumed run is the uninterrupted one to the last bit, with dropout, at whatever moment it was stopped."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from hf_bias_patch.errors import TuneError
from hf_bias_patch.tuning.kinds import GlueSettings
from hf_bias_patch.tuning.settings import Settings, make_settings
from tests.tuning.jobs import alone, classifier, settings_for, trained
from tests.tuning.stopped import DrawingJob, Stop, changes_a_file, killed, killed_whole, lines, ran, ran_by_two

SHORT = {"train": "all", "learning_rate": 0.03, "max_train_steps": 8, "save_steps": 4, "eval_steps": 3}


def resumed(settings: Settings) -> Settings:
    return settings.model_copy(update={"resume": True})


def terminated_everywhere(whole: Settings, cut: Settings, last: int, **more: Any) -> None:
    """SIGTERM in every step, and in every evaluation."""
    expected = ran(whole, **more)
    assert expected["step"] == last
    evaluations = [line["step"] for line in expected["lines"] if "eval_loss" in line]
    moments = [("step", step) for step in range(1, last + 1)] + [("evaluation", step) for step in evaluations]
    for moment, number in moments:
        shutil.rmtree(cut.output_dir, ignore_errors=True)
        stopped = ran(cut, Stop(signal.SIGTERM, moment, number), **more)
        assert (stopped["ended"], stopped["step"]) == ("terminated", number), (moment, number)
        assert ran(resumed(cut), **more) == expected, (moment, number)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"eval_steps": 4},
        {"save_steps": None, "eval_steps": 2},
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
    fields = {**SHORT, "max_train_steps": 20, "eval_steps": 2, "early_stopping_patience": 2, "learning_rate": 0.1}
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
        number += 2
        shutil.rmtree(cut.output_dir, ignore_errors=True)
        codes = [killed(cut, Stop(signal.SIGKILL, "change", number))]
        codes.append(killed(resumed(cut), Stop(signal.SIGKILL, "change", 1 + number % 7)))
        assert set(codes) <= {0, -signal.SIGKILL}
        assert ran(resumed(cut)) == expected, number
        kills += codes.count(-signal.SIGKILL)
        if codes[0] == 0:
            break
    assert kills > 30, "vacuous"


@pytest.mark.parametrize("number", [5, 11, 23])
def test_an_interrupt(tmp_path: Path, number: int) -> None:
    expected = ran(settings_for(tmp_path / "whole", **SHORT))
    cut = settings_for(tmp_path / "cut", **SHORT)
    assert killed(cut, Stop(signal.SIGINT, "change", number)) == 1
    assert ran(resumed(cut)) == expected


def test_sigterm_of_a_whole_group_with_workers(tmp_path: Path) -> None:
    """As a scheduler sends it: the workers get it, too, and the training process still saves its state."""
    fields = {**SHORT, "dataloader_num_workers": 2}
    expected = ran(settings_for(tmp_path / "whole", **SHORT))
    cut = settings_for(tmp_path / "cut", **fields)
    assert killed(cut, Stop(signal.SIGTERM, "step", 3, group=True)) == 0
    assert json.loads((cut.output_dir / "state" / "progress.json").read_text())["step"] == 3
    assert ran(resumed(cut)) == expected


def test_two_processes(tmp_path: Path) -> None:
    expected = ran_by_two(settings_for(tmp_path / "whole", **SHORT))
    assert expected is not None and expected["best_step"] not in (0, 8)
    for number, stop in enumerate(
        [
            Stop(signal.SIGTERM, "step", 2),
            Stop(signal.SIGTERM, "step", 3),
            Stop(signal.SIGTERM, "step", 8),
            Stop(signal.SIGKILL, "step", 6),
            *(Stop(signal.SIGKILL, "change", change) for change in (11, 17)),
        ]
    ):
        cut = settings_for(tmp_path / f"cut-{number}", **SHORT)
        assert ran_by_two(cut, stop) is None
        assert ran_by_two(resumed(cut)) == expected, stop
