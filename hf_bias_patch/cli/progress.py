"""A training run on the terminal: a table of what trains, a bar with loss and speed, a line for each evaluation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from hf_bias_patch.cli.console import stderr, stdout, table
from hf_bias_patch.tuning.trainable import Trainable, TrainableTensor
from hf_bias_patch.tuning.watcher import Watcher

__all__ = ["Bar", "trained_table"]

_SMOOTH = 0.9  # of the loss that is shown: one batch says little


class Bar(Watcher):
    """Prints what a run tells: results on stdout, the bar on stderr."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:,.0f} samples/s"),
            console=stderr(),
            transient=True,
        )
        self._task: TaskID | None = None
        self._steps = 0
        self._loss: float | None = None
        self._samples, self._start = 0, 0.0

    def begin(self, selection: Trainable, steps: int, first: int) -> None:
        """Print what trains, and show the bar."""
        stdout().print(trained_table(selection))
        self._steps, self._start = steps, time.monotonic()
        self._task = self._progress.add_task("training", total=steps, completed=first, loss=0.0, speed=0.0)
        self._progress.start()

    def step(self, step: int, loss: float, samples: int, tokens: int) -> None:
        """Move the bar."""
        self._loss = loss if self._loss is None else _SMOOTH * self._loss + (1 - _SMOOTH) * loss
        self._samples += samples
        speed = self._samples / max(time.monotonic() - self._start, 1e-9)
        if self._task is not None:
            self._progress.update(self._task, completed=step, loss=self._loss, speed=speed)
        if step == self._steps:
            self._progress.stop()

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """Print a line."""
        said = ", ".join(f"{name} {value:,.2f}" for name, value in metrics.items())
        stdout().print(f"step {step}: {said}" + ("  [green]best so far[/]" if best else ""))

    def say(self, text: str) -> None:
        """Print a line."""
        stdout().print(text, markup=False)

    def end(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def trained_table(selection: Trainable) -> Table:
    """Every tensor that trains; those that differ only in their layer share a row."""
    made = table("what trains", "role", "tensors", "parameters", numbers=("tensors", "parameters"))
    groups: dict[tuple[str, str, str], list[TrainableTensor]] = {}
    for tensor in selection.trained:
        groups.setdefault((_pattern(tensor.name), tensor.part, tensor.role), []).append(tensor)
    for (pattern, part, role), tensors in groups.items():
        name = pattern if part == "all" else f"{pattern} ({part})"
        made.add_row(name, role, str(len(tensors)), f"{sum(tensor.elements for tensor in tensors):,}")
    made.caption = _sum(selection)
    return made


def _sum(selection: Trainable) -> str:
    share = 100 * selection.elements / selection.total
    head = selection.elements - selection.without_head
    return (
        f"{selection.elements:,} of {selection.total:,} parameters train ({share:.3g} %)"
        + (f", {head:,} of them the head's" if head else "")
    )  # fmt: skip


def _pattern(name: str) -> str:
    """A parameter's name with `*` for layer numbers, such as `encoder.layer.*.value.bias`."""
    parts: Sequence[str] = name.split(".")
    return ".".join("*" if part.isdigit() else part for part in parts)
