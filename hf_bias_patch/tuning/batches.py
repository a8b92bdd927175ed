"""The order in which samples are trained on: the same for any number of processes, and after a resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["MicroBatch", "Schedule"]

_WINDOW = 50
"""Steps that are sorted by length together: enough that lengths in a batch differ little, few enough that which
samples meet in a batch stays a matter of chance."""


@dataclass(frozen=True)
class MicroBatch:
    """What one process runs at once.

    Attributes:
        rows: indices of the samples.
        counts: False where there was nothing left for this process: it runs one sample all the same, because the
            others wait for it, and the sample does not count.
    """

    rows: tuple[int, ...]
    counts: bool = True


@dataclass(frozen=True)
class Schedule:
    """Which samples each optimiser step takes, and which of them each process runs.

    Every sample is used once an epoch. The last step of an epoch may be smaller than the others, and is dealt out
    evenly.

    Attributes:
        lengths: tokens of each sample.
        seed: of the order.
        per_device: samples in a micro-batch.
        accumulation: micro-batches of a process in a step.
        processes: how many.
        by_length: whether samples of one length go together: less padding. Which samples, and in what order the
            steps come, is random either way.
    """

    lengths: Sequence[int]
    seed: int
    per_device: int
    accumulation: int = 1
    processes: int = 1
    by_length: bool = True

    @property
    def step_samples(self) -> int:
        """Samples of a full step."""
        return self.per_device * self.accumulation * self.processes

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return -(-len(self.lengths) // self.step_samples)

    def epoch(self, number: int) -> list[np.ndarray]:
        """The samples of each step of an epoch, each sorted by length where `by_length`."""
        random = np.random.default_rng((self.seed, number))
        order = random.permutation(len(self.lengths))
        size = self.step_samples
        if self.by_length:
            lengths = np.asarray(self.lengths)
            windows = (order[start : start + _WINDOW * size] for start in range(0, len(order), _WINDOW * size))
            order = np.concatenate([window[np.argsort(lengths[window], kind="stable")] for window in windows])
        steps = [order[start : start + size] for start in range(0, len(order), size)]
        if self.by_length:
            random.shuffle(steps)
        return steps

    def micro_batches(self, process: int, first: int, last: int) -> Iterator[list[MicroBatch]]:
        """What a process runs in steps `first` to `last` (not included), counted through all epochs."""
        epoch, steps = -1, list[np.ndarray]()
        for step in range(first, last):
            number, within = divmod(step, self.steps_per_epoch)
            if number != epoch:
                epoch, steps = number, self.epoch(number)
            yield self._dealt(steps[within])[process :: self.processes]

    def _dealt(self, rows: np.ndarray) -> list[MicroBatch]:
        parts = np.array_split(rows, self.accumulation * self.processes)
        return [
            MicroBatch(tuple(part.tolist())) if len(part) else MicroBatch((int(rows[0]),), counts=False)
            for part in parts
        ]
