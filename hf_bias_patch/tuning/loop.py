"""The training loop: steps, evaluations, saved states, an early end; on any number of processes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from hf_bias_patch.errors import TaskError, TuneError
from hf_bias_patch.tuning.batches import CountedBatch, Schedule, training_batches
from hf_bias_patch.tuning.folder import RunFolder
from hf_bias_patch.tuning.job import TrainingJob
from hf_bias_patch.tuning.optimiser import make_optimiser, make_scheduler, total_steps
from hf_bias_patch.tuning.settings import TuneSettings
from hf_bias_patch.tuning.state import (
    Progress,
    keep_only,
    load_state,
    load_tensors,
    save_state,
    save_tensors,
    trained_tensors,
)
from hf_bias_patch.tuning.stop_signal import StopSignal
from hf_bias_patch.tuning.trainable import Trainable
from hf_bias_patch.tuning.watcher import Watcher

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["LoopOutcome", "TrainingLoop"]


@dataclass(frozen=True)
class LoopOutcome:
    """How a run ended.

    Attributes:
        ended: `done`, `early` (no better evaluation for a while) or `terminated` (SIGTERM: saved, to be resumed).
        progress: how far it came.
    """

    ended: str
    progress: Progress

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of the best evaluation; empty if there was none."""
        return self.progress.metrics

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {"ended": self.ended, **asdict(self.progress)}


class TrainingLoop:
    """Trains a model on a job. What trains is decided before, by `set_trainable` or `adapters.add`."""

    def __init__(
        self,
        model: Any,
        job: TrainingJob,
        selection: Trainable,
        settings: TuneSettings,
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
        self._saved = (0, 0)  # the step, and the last one evaluated, of the state that is saved

    def run(self) -> LoopOutcome:
        """Train to the end, or until it is stopped; the model then holds the best state that was evaluated.

        Raises:
            TuneError: the loss is not finite, or a state cannot be resumed.
        """
        if self.settings.resume:
            self._resume()
        if self._main:
            self.watcher.begin(self.selection, self.steps, self.progress.step)
            for note in self.selection.notes:
                self.watcher.say(note)
        with StopSignal() as stop:
            ended = self._train(stop)
        if ended != "terminated":
            self._take_best()
        return LoopOutcome(ended, self.progress)

    def _resume(self) -> None:
        progress = self.progress = load_state(self.accelerator, self.folder.state)
        self._saved = (progress.step, progress.evaluated)
        if progress.best is not None and not self.folder.best(progress.best_step).exists():
            raise TuneError(
                f"{self.folder.best(progress.best_step)} is missing",
                why="It holds the best state of the run that is to be resumed",
                remedy="Start again with --overwrite",
            )
        if self._main:
            self.folder.forget_after(progress.step, progress.evaluated)
            self.folder.keep_best(progress.best_step)

    def _train(self, stop: StopSignal) -> str:
        self.model.train()
        workers = self.settings.dataloader_num_workers
        batches = training_batches(self.job, self.schedule, self.accelerator, self.progress.step, self.steps, workers)
        while (ended := self._between_steps(stop)) is None:
            start, rate = time.monotonic(), self.scheduler.get_last_lr()[0]
            done = self._step([next(batches) for _ in range(self.settings.gradient_accumulation_steps)])
            self.progress.seconds += time.monotonic() - start
            self._tell(rate, *done)
        return ended

    def _between_steps(self, stop: StopSignal) -> str | None:
        """Evaluate and save where that is due; how the run ended, or None if it has not.

        This comes before a step, not after it: a run that was stopped before an evaluation starts with that.
        """
        stopped = self._any(stop.received)
        evaluates = self._evaluation_is_due() and not stopped
        if evaluates:
            self._evaluate()
            stopped = self._any(stop.received)
        ended = "terminated" if stopped else self._ended()
        if ended or evaluates or self._is_time(self.settings.save_steps):
            self._save()
        return ended

    def _ended(self) -> str | None:
        patience = self.settings.early_stopping_patience
        if patience is not None and self.progress.since_best >= patience:
            return "early"
        return "done" if self.progress.step == self.steps else None

    def _evaluation_is_due(self) -> bool:
        progress = self.progress
        return self.job.validates and progress.evaluated < progress.step and self._is_time(self.settings.eval_steps)

    def _is_time(self, every: int | None) -> bool:
        """Whether a step is the last of the run or of `every` steps; of an epoch, if `every` is None."""
        step = self.progress.step
        return step == self.steps or step % (every or self.schedule.steps_per_epoch) == 0

    def _save(self) -> None:
        """Save a state, unless it is saved already."""
        now = (self.progress.step, self.progress.evaluated)
        if now == self._saved:
            return
        save_state(self.accelerator, self.folder.state, self.progress)
        self._saved = now
        if self._main:  # only now: the earlier state needed the earlier best tensors
            self.folder.keep_best(self.progress.best_step)

    def _step(self, runs: list[CountedBatch]) -> tuple[float, int, int]:
        """One optimiser step; its loss, samples and tokens, of all processes.

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
                    if not math.isfinite(mean):
                        what = f"The loss is {mean} at step {self.progress.step + 1} of {self.steps}"
                        raise self._lost(what, "Its gradients would make every parameter that trains NaN.")
                    accelerator.clip_grad_norm_(
                        [p for p in self.model.parameters() if p.requires_grad], self.settings.max_grad_norm
                    )
                self.optimiser.step()
                self.optimiser.zero_grad()
        if not getattr(self.optimiser, "step_was_skipped", False):
            self.scheduler.step()
        self.progress.step += 1
        self.progress.samples += int(samples)
        self.progress.tokens += int(tokens)
        return mean, int(samples), int(tokens)

    def _tell(self, rate: float, loss: float, samples: int, tokens: int) -> None:
        step = self.progress.step
        if not self._main:
            return
        self.watcher.step(step, loss, samples, tokens)
        if step % self.settings.logging_steps == 0 or step == self.steps:
            speed = self.progress.samples / max(self.progress.seconds, 1e-9)
            line = {"step": step, "loss": loss, "learning_rate": rate, "samples_per_second": round(speed, 2)}
            self.folder.log(line)
            self.accelerator.log({name: value for name, value in line.items() if name != "step"}, step=step)

    def _evaluate(self) -> None:
        job, progress = self.job, self.progress
        self.model.eval()
        try:
            metrics = dict(job.evaluate(self.model))
        except TaskError as error:  # NaN: raised before such a state is saved over a good one
            raise self._lost(f"The evaluation at step {progress.step} of {self.steps} failed", str(error)) from error
        self.model.train()
        value = metrics[job.main]
        best = progress.best is None or (value > progress.best if job.greater_is_better else value < progress.best)
        progress.evaluated = progress.step
        progress.since_best = 0 if best else progress.since_best + 1
        if best:
            progress.best, progress.best_step, progress.metrics = value, progress.step, metrics
            tensors = trained_tensors(self.accelerator, self.model, self.names)
            if self._main:
                save_tensors(tensors, self.folder.best(progress.step))
        if self._main:
            line = {f"eval_{name}": number for name, number in metrics.items()}
            self.folder.log({"step": progress.step, **line})
            self.accelerator.log(line, step=progress.step)
            self.watcher.evaluated(progress.step, metrics, best)

    def _take_best(self) -> None:
        """Load the best state that was evaluated into the model."""
        self.accelerator.wait_for_everyone()
        progress = self.progress
        if progress.best is not None and progress.best_step != progress.step:
            bare = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            load_tensors(bare, self.folder.best(progress.best_step))

    def _lost(self, what: str, why: str) -> TuneError:
        """An error that says which state is left."""
        state = self.folder.state
        kept = f"The state saved before it is in {state}" if state.exists() else "No state was saved before it"
        return TuneError(
            what, why=f"{why} {kept}", remedy="Start again with a smaller --learning-rate, or without mixed precision"
        )

    def _sum(self, numbers: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        if self.accelerator.num_processes == 1:
            return list(numbers)
        added: Any = self.accelerator.reduce(
            torch.tensor(numbers, dtype=torch.float64, device=self.accelerator.device), reduction="sum"
        )
        return added.tolist()

    def _any(self, received: bool) -> bool:
        """Whether any process received the signal: all must stop at the same step."""
        return self._sum([float(received)])[0] > 0

    @property
    def _main(self) -> bool:
        return self.accelerator.is_main_process
