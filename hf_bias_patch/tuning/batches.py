"""Which samples each process trains on, in which order, and their batches, made by workers where there are any.

The order is the same for any number of processes, and after a resume.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader

from hf_bias_patch.tuning.job import Batch, TrainingJob

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["CountedBatch", "MicroBatch", "Schedule", "training_batches"]

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


@dataclass(frozen=True)
class CountedBatch:
    """A micro-batch, the number of terms in its loss, its samples and tokens; all 0 if it only pads the schedule."""

    batch: Batch
    count: int = 0
    samples: int = 0
    tokens: int = 0


def training_batches(
    job: TrainingJob, schedule: Schedule, accelerator: Accelerator, first: int, last: int, workers: int = 0
) -> Iterator[CountedBatch]:
    """The micro-batches of this process, from step `first` to `last` (not included), on its device.

    Args:
        job: makes batches of samples.
        schedule: says which samples.
        accelerator: says which process this is.
        first, last: optimiser steps, counted through all epochs.
        workers: processes that make the batches; 0 for this one.
    """
    steps = schedule.micro_batches(accelerator.process_index, first, last)
    parts = [
        (part, (schedule.seed, number // schedule.steps_per_epoch))
        for number, step in enumerate(steps, first)
        for part in step
    ]
    loader: DataLoader[CountedBatch] = DataLoader(
        parts,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=partial(_counted_batch, job),  # in a worker, if there are any
        num_workers=workers,
        # Python's own choice may be another, which would copy the job to each worker.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        worker_init_fn=_only_the_parent_ends_it,
        generator=torch.Generator(),  # the global one is dropout's: reading ahead must not move it
    )
    for made in loader:
        device = accelerator.device
        yield replace(made, batch={name: value.to(device, non_blocking=True) for name, value in made.batch.items()})


def _counted_batch(job: TrainingJob, part: tuple[MicroBatch, tuple[int, int]]) -> CountedBatch:
    micro_batch, seed = part
    batch = job.batch(micro_batch.rows, seed)
    if not micro_batch.counts:
        return CountedBatch(batch)
    tokens = sum(job.lengths[row] for row in micro_batch.rows)
    return CountedBatch(batch, job.count(batch), len(micro_batch.rows), tokens)


def _only_the_parent_ends_it(worker: int) -> None:
    """Have a worker ignore SIGTERM, unless its training process sends it.

    A scheduler may send it to all processes of a job: the training process still needs its workers then, until its
    state is saved. Where a system cannot tell who sent a signal, workers end by any.
    """
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
