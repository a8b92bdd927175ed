"""The training loop: steps, evaluations, saved states, an early end; on any number of processes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from hf_bias_patch.errors import TaskError, TuneError
from hf_bias_patch.tuning.batches import MicroBatch, Schedule
from hf_bias_patch.tuning.folder import RunFolder
from hf_bias_patch.tuning.job import Batch, Job
from hf_bias_patch.tuning.optimiser import make_optimiser, make_scheduler, total_steps
from hf_bias_patch.tuning.select import Selection
from hf_bias_patch.tuning.settings import Settings
from hf_bias_patch.tuning.state import (
    Progress,
    keep_only,
    load_state,
    load_tensors,
    save_state,
    save_tensors,
    trained_tensors,
)
from hf_bias_patch.tuning.stopping import StopSignal
from hf_bias_patch.tuning.watch import Watcher

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Loop", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        ended: `done`, `early` (no better evaluation for a while) or `terminated` (SIGTERM: saved, to be resumed).
        progress: how far it came.
        metrics: of the best evaluation; empty if there was none.
    """

    ended: str
    progress: Progress
    metrics: Mapping[str, float]

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {"ended": self.ended, **asdict(self.progress), "metrics": dict(self.metrics)}


class Loop:
    """Trains a model on a job. What trains is decided before, by `select` or `adapters.add`."""

    def __init__(
        self,
        model: Any,
        job: Job,
        selection: Selection,
        settings: Settings,
        accelerator: Accelerator,
        folder: RunFolder,
        watcher: Watcher,
    ) -> None:
        self.job, self.selection, self.settings = job, selection, settings
        self.accelerator, self.folder, self.watcher = accelerator, folder, watcher
        self.schedule = Schedule(
            job.lengths,
            settings.seed,
            settings.per_device_train_batch_size,
            settings.gradient_accumulation_steps,
            accelerator.num_processes,
            settings.group_by_length,
        )
        self.steps = total_steps(settings, self.schedule.steps_per_epoch)
        self.names = frozenset(tensor.live for tensor in selection.trained)
        self.bare = model
        optimiser = make_optimiser(model, settings)
        scheduler = make_scheduler(optimiser, settings, self.steps)
        self.model, self.optimiser = accelerator.prepare(model, optimiser)
        # Not prepared: Accelerate would step it once for every process.
        self.scheduler = scheduler
        accelerator.register_for_checkpointing(scheduler)
        keep_only(accelerator, self.names)
        self.progress = Progress()
        self.metrics: Mapping[str, float] = {}

    def run(self) -> Outcome:
        """Train to the end, or until it is stopped; the model then holds the best state that was evaluated.

        Raises:
            TuneError: the loss is no number any more, or a state cannot be resumed.
        """
        if self.settings.resume:
            self.progress = load_state(self.accelerator, self.folder.state)
            self.metrics = self.folder.best_metrics() if self.progress.best is not None else {}
            if self._main:
                self.folder.forget_after(self.progress.step)
        if self._main:
            self.watcher.begin(self.selection, self.steps, self.progress.step)
        with StopSignal() as stop:
            ended = self._train(stop)
        if ended != "terminated":
            self._take_best()
        return Outcome(ended, self.progress, self.metrics)

    def _train(self, stop: StopSignal) -> str:
        if self._patience_is_over():  # resumed after it was: one more step would be one too many
            return "early"
        self.model.train()
        micro_batches = self._micro_batches(self.progress.step)
        while self.progress.step < self.steps:
            start = time.monotonic()
            done = self._step([next(micro_batches) for _ in range(self.settings.gradient_accumulation_steps)])
            self.progress.seconds += time.monotonic() - start
            self._tell(*done)
            stopped = self._any(stop.asked)
            due = self._due(self.settings.eval_steps)
            if due and not stopped and self.job.validates:
                self._evaluate()
            early = self._patience_is_over()
            if stopped or early or due or self._due(self.settings.save_steps):
                save_state(self.accelerator, self.folder.state, self.progress)
            if stopped or early:
                return "terminated" if stopped else "early"
        return "done"

    def _due(self, every: int | None) -> bool:
        """Whether it is time for something that is done so often; at the end of an epoch and of the run too."""
        step = self.progress.step
        return step == self.steps or step % (every or self.schedule.steps_per_epoch) == 0

    def _step(self, runs: list[_Run]) -> tuple[float, int, int]:
        """One optimiser step over what each process holds of it: its loss, samples and tokens.

        The loss is a sum over samples or tokens; it is divided by how many there are in the whole step, over all
        micro-batches and processes, so that the gradient does not depend on how they are dealt out.
        """
        accelerator = self.accelerator
        local = [sum(run.count for run in runs), sum(run.samples for run in runs), sum(run.tokens for run in runs)]
        count, samples, tokens = self._sum(local)
        # Accelerate divides by the micro-batches, and processes are averaged over.
        scale = len(runs) * accelerator.num_processes / max(count, 1)
        total = torch.zeros((), device=accelerator.device)
        for run in runs:
            with accelerator.accumulate(self.model):
                # Times zero where it does not count: the other processes wait for this one's gradients.
                loss = self.job.loss(self.model, run.batch) * (1.0 if run.count else 0.0)
                accelerator.backward(loss * scale)
                total += loss.detach()
                if accelerator.sync_gradients:
                    mean = self._sum([float(total)])[0] / max(count, 1)
                    self._refuse_nan(mean)
                    accelerator.clip_grad_norm_(self._trained(), self.settings.max_grad_norm)
                self.optimiser.step()
                self.optimiser.zero_grad()
        if not getattr(self.optimiser, "step_was_skipped", False):
            self.scheduler.step()
        self.progress.step += 1
        self.progress.samples += int(samples)
        self.progress.tokens += int(tokens)
        return mean, int(samples), int(tokens)

    def _micro_batches(self, first: int) -> Iterator[_Run]:
        """What this process runs from step `first` on."""
        process = self.accelerator.process_index
        per_epoch = self.schedule.steps_per_epoch
        steps = self.schedule.micro_batches(process, first, self.steps)
        parts = [
            (part, (self.settings.seed, (first + number) // per_epoch))
            for number, step in enumerate(steps)
            for part in step
        ]
        loader = DataLoader(
            _Parts(self.job, parts),
            batch_size=None,
            collate_fn=lambda run: run,
            num_workers=self.settings.dataloader_num_workers,
            generator=torch.Generator(),  # the global one is dropout's: reading ahead must not move it
        )
        for run in loader:
            device = self.accelerator.device
            moved = {name: value.to(device, non_blocking=True) for name, value in run.batch.items()}
            yield replace(run, batch=moved)

    def _tell(self, loss: float, samples: int, tokens: int) -> None:
        step = self.progress.step
        if not self._main:
            return
        self.watcher.step(step, loss, samples, tokens)
        if step % self.settings.logging_steps == 0 or step == self.steps:
            speed = self.progress.samples / max(self.progress.seconds, 1e-9)
            rate = self.scheduler.get_last_lr()[0]
            line = {"step": step, "loss": loss, "learning_rate": rate, "samples_per_second": round(speed, 2)}
            self.folder.log(line)
            self.accelerator.log({name: value for name, value in line.items() if name != "step"}, step=step)

    def _evaluate(self) -> None:
        job, progress = self.job, self.progress
        self.model.eval()
        try:
            metrics = dict(job.evaluate(self.model))
        except TaskError as error:  # the model gives out NaN; said before a state of it is saved over a good one
            raise self._lost(f"The evaluation at step {progress.step} of {self.steps} failed", str(error)) from error
        self.model.train()
        value = metrics[job.main]
        best = progress.best is None or (value > progress.best if job.greater_is_better else value < progress.best)
        tensors = trained_tensors(self.accelerator, self.model, self.names) if best else {}
        progress.since_best = 0 if best else progress.since_best + 1
        if best:
            progress.best, progress.best_step, self.metrics = value, progress.step, metrics
        if not self._main:
            return
        if best:
            save_tensors(tensors, self.folder.best)
            self.folder.write_best(progress.step, metrics)
        self.folder.log({"step": progress.step, **{f"eval_{name}": number for name, number in metrics.items()}})
        self.accelerator.log({f"eval_{name}": number for name, number in metrics.items()}, step=progress.step)
        self.watcher.evaluated(progress.step, metrics, best)

    def _take_best(self) -> None:
        """Put the best state that was evaluated into the model."""
        self.accelerator.wait_for_everyone()
        if self.progress.best is None or not self.names:
            return
        if self.progress.best_step != self.progress.step:
            bare = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            load_tensors(bare, self.folder.best)

    def _patience_is_over(self) -> bool:
        patience = self.settings.early_stopping_patience
        return patience is not None and self.progress.since_best >= patience

    def _refuse_nan(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise self._lost(
                f"The loss is {loss} at step {self.progress.step + 1} of {self.steps}", "Nothing good comes after."
            )

    def _lost(self, what: str, why: str) -> TuneError:
        """An error that says what is left."""
        state = self.folder.state
        kept = f"The state before it is in {state}" if state.exists() else "No state was saved before it"
        return TuneError(
            what, why=f"{why} {kept}", remedy="Begin anew with a smaller --learning_rate, or without mixed precision"
        )

    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _sum(self, numbers: Sequence[float]) -> list[float]:
        """Numbers added up over all processes."""
        if self.accelerator.num_processes == 1:
            return list(numbers)
        added: Any = self.accelerator.reduce(
            torch.tensor(numbers, dtype=torch.float64, device=self.accelerator.device), reduction="sum"
        )
        return added.tolist()

    def _any(self, asked: bool) -> bool:
        """Whether any process is asked: all must stop at the same step."""
        return self._sum([float(asked)])[0] > 0

    @property
    def _main(self) -> bool:
        return self.accelerator.is_main_process


@dataclass(frozen=True)
class _Run:
    """A micro-batch; what its loss is a sum over, its samples and tokens, all 0 where it does not count."""

    batch: Batch
    count: int = 0
    samples: int = 0
    tokens: int = 0


class _Parts(Dataset):
    """Micro-batches, collated where a loader's workers are."""

    def __init__(self, job: Job, parts: list[tuple[MicroBatch, tuple[int, int]]]) -> None:
        self.job, self.parts = job, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> _Run:
        part, seed = self.parts[index]
        batch = self.job.batch(part.rows, seed)
        if not part.counts:
            return _Run(batch)
        tokens = sum(self.job.lengths[row] for row in part.rows)
        return _Run(batch, self.job.count(batch), len(part.rows), tokens)
