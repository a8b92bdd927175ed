"""What a process is fed: its micro-batches in the schedule's order, collated where a loader's workers are."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from hf_bias_patch.tuning.batches import MicroBatch, Schedule
from hf_bias_patch.tuning.job import Batch, TrainingJob

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["CountedBatch", "feed"]


@dataclass(frozen=True)
class CountedBatch:
    """A micro-batch; what its loss is a sum over, its samples and tokens, all 0 where it does not count."""

    batch: Batch
    count: int = 0
    samples: int = 0
    tokens: int = 0


def feed(
    job: TrainingJob, schedule: Schedule, accelerator: Accelerator, first: int, last: int, workers: int = 0
) -> Iterator[CountedBatch]:
    """The micro-batches of this process from step `first` to `last` (not included), on its device.

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
    loader = DataLoader(
        _Parts(job, parts),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        # Python's own choice may be another, which would copy the job to each worker.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        worker_init_fn=_only_the_parent_ends_it,
        generator=torch.Generator(),  # the global one is dropout's: reading ahead must not move it
    )
    for fed in loader:
        device = accelerator.device
        yield replace(fed, batch={name: value.to(device, non_blocking=True) for name, value in fed.batch.items()})


def _as_it_is(fed: Any) -> Any:
    return fed


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


class _Parts(Dataset):
    """Micro-batches and the seeds they are made with."""

    def __init__(self, job: TrainingJob, parts: list[tuple[MicroBatch, tuple[int, int]]]) -> None:
        self.job, self.parts = job, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> CountedBatch:
        part, seed = self.parts[index]
        batch = self.job.batch(part.rows, seed)
        if not part.counts:
            return CountedBatch(batch)
        tokens = sum(self.job.lengths[row] for row in part.rows)
        return CountedBatch(batch, self.job.count(batch), len(part.rows), tokens)
