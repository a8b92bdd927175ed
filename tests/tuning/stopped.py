"""Runs of a tiny model that are stopped at a chosen moment, some in processes of their own, and what a run leaves."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hf_bias_patch.tuning.loop import LoopOutcome
from hf_bias_patch.tuning.run import tune
from hf_bias_patch.tuning.settings import TuneSettings
from hf_bias_patch.tuning.watcher import Watcher
from tests.tuning.jobs import RandomJob, classifier, made_loop, values


class DrawingJob(RandomJob):
    """Its main metric is a loss, and its evaluation draws random numbers, as data loaders do."""

    main, greater_is_better = "loss", False

    def evaluate(self, model: Any) -> Mapping[str, float]:
        torch.rand(7)
        batch = self.batch(range(len(self.texts)), ())
        with torch.no_grad():
            loss = float(self.loss(model, batch)) / len(self.texts)
        return {**super().evaluate(model), "loss": loss}


class SignallingJob(DrawingJob):
    """Sends a signal to this process, or to its group, in a step; made for one without accumulation."""

    def __init__(self, stop: Stop) -> None:
        super().__init__()
        self.stop, self.done = stop, 0

    def loss(self, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.done += torch.is_grad_enabled()
        if self.stop.number == self.done:
            self.stop.send()
            self.stop.number = 0
            time.sleep(0.3)  # as long as a real step, in which other processes die of it
        return super().loss(model, batch)


@dataclass
class Stop(Watcher):
    """Sends a signal to this process, or to its group, at a moment.

    Attributes:
        signal: which.
        moment: `step` or `evaluation`: behind that of a step; `inside`: in a step; `change`: before a change of a
            file of the run; `opened`: before a file is opened to be written.
        number: of the step, or of the change, counted from 1.
        name: how the path of that file ends, or of what is written in its place.
        group: to the process group, which must be its own.
        changes: so many there were.
    """

    signal: int
    moment: str
    number: int
    group: bool = False
    name: str = ""
    changes: int = 0

    def watch(self, folder: Path) -> Stop:
        """Hear of changes in a run folder; for as long as this process lives."""

        def hear(event: str, arguments: tuple[Any, ...]) -> None:
            if not (changes_a_file(event, arguments) and str(folder) in str(arguments[0])):
                return
            self.changes += 1
            self._at("change", self.changes)
            if self.name and str(arguments[0]).removesuffix(".new").endswith(self.name):
                self._at("opened", self.number)

        sys.addaudithook(hear)
        return self

    def step(self, step: int, loss: float, samples: int, tokens: int) -> None:
        self._at("step", step)

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        self._at("evaluation", step)

    def _at(self, moment: str, number: int) -> None:
        if (moment, number) == (self.moment, self.number):
            self.send()

    def send(self) -> None:
        """Send it."""
        if self.group:  # from outside: torch's workers ignore what their parent sends while it ends
            assert os.getpgrp() == os.getpid(), "only a group of its own"
            code = f"import os; os.killpg({os.getpid()}, {int(self.signal)})"
            subprocess.run([sys.executable, "-c", code], check=True, start_new_session=True)
        else:
            os.kill(os.getpid(), self.signal)


def changes_a_file(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an audit event comes before a change of a file or a folder."""
    if event == "open":
        return isinstance(arguments[1], str) and arguments[1][0] in "wax"
    return event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


def ran(
    settings: TuneSettings, watcher: Watcher | None = None, job: Any = None, name: str = "bert", **more: Any
) -> dict[str, Any]:
    """A run of a tiny model with dropout, to its end or until it is stopped; what it leaves, times aside."""
    torch.manual_seed(99)  # whatever the process drew before
    model = classifier(name, dropout=0.2)
    outcome = made_loop(model, settings, job=job or DrawingJob(), watcher=watcher, **more).run()
    return left(outcome, model, settings.output_dir)


def left(outcome: LoopOutcome, model: Any, folder: Path) -> dict[str, Any]:
    """How a run ended, what it logged, and a hash of its model."""
    plain = {name: value for name, value in outcome.plain().items() if name != "seconds"}
    hashed = hashlib.sha256(b"".join(value.numpy().tobytes() for value in values(model).values()))
    return {**plain, "lines": lines(folder), "model": hashed.hexdigest()}


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without speeds."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "samples_per_second"} for line in found]


def killed(settings: TuneSettings, stop: Stop) -> int | None:
    """The exit code of a run in a process of its own, which the signal may end."""
    return _codes([(_alone, settings, stop)])[0]


def killed_whole(settings: Any, stop: Stop) -> int | None:
    """The same of `tune`, with all it writes at its end."""
    return _codes([(_whole, settings, stop)])[0]


def ran_by_two(settings: TuneSettings, stop: Stop | None = None) -> dict[str, Any] | None:
    """What a run of two processes leaves; None where a signal ended it.

    In a step the second process gets the signal, which the first one must be told; before a change of a file the
    first.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _codes([(_one_of_two, settings, stop, rank, port) for rank in range(2)])
    found = settings.output_dir.with_suffix(".left")
    if not found.exists():
        return None
    text = found.read_text()
    found.unlink()
    return json.loads(text)


def _codes(calls: list[tuple[Any, ...]]) -> list[int | None]:
    """Exit codes of functions in processes that share the time of importing torch."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tuning.stopped"])
    processes = [context.Process(target=call[0], args=call[1:]) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()  # nothing, where it has ended
        process.join()
    return [process.exitcode for process in processes]


def _alone(settings: TuneSettings, stop: Stop) -> None:
    if stop.group:
        os.setpgid(0, 0)
    ran(settings, stop.watch(settings.output_dir), SignallingJob(stop) if stop.moment == "inside" else None)


def _whole(settings: Any, stop: Stop) -> None:
    tune(settings, stop.watch(settings.output_dir))


def _one_of_two(settings: TuneSettings, stop: Stop | None, rank: int, port: int) -> None:
    torch.set_num_threads(1)
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, ACCELERATE_USE_CPU="true")
    watcher = job = None
    if stop is not None and stop.moment == "change" and rank == 0:
        watcher = stop.watch(settings.output_dir)
    if stop is not None and stop.moment == "inside" and rank == 1:
        job = SignallingJob(stop)
    found = ran(settings, watcher, job)
    if rank == 0 and found["ended"] != "terminated":
        settings.output_dir.with_suffix(".left").write_text(json.dumps(found))
