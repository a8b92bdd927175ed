"""Scores of models trained without a bias: each run has its own process and folder; runs of a seed are paired.

OUT/fine-tuned/TASK/without-query/seed-1/     a run: see `tuning/folder.py`; of its tensors the model stays
OUT/from-scratch/TASK/without-query/seed-1/   the same
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_bias_patch.architecture.sites import Projection
from hf_bias_patch.errors import RecipeError, TuneError
from hf_bias_patch.scoring.tasks import load_task
from hf_bias_patch.studies.records import scores_of
from hf_bias_patch.studies.runner import Experiment, Measurement
from hf_bias_patch.studies.settings import StudySettings
from hf_bias_patch.studies.store import Outcome
from hf_bias_patch.tuning.folder import RunFolder, folder_name
from hf_bias_patch.tuning.settings import AT_THE_END, make_settings
from hf_bias_patch.tuning.subprocess_run import result_of
from hf_bias_patch.tuning.task_settings import TaskSettings, settings_for

__all__ = ["SCRATCH_RATE", "TrainingRun", "training_experiments"]

SCRATCH_RATE = 1e-3
"""Peak learning rate from random weights: usual for small transformers. With the 5e-5 of fine-tuning they hardly learn
in the few epochs of a study."""


def training_experiments(
    settings: StudySettings, out: Path, how: str, projections: Sequence[Projection], start: Callable[[int], str]
) -> list[Experiment]:
    """Train a model on each task with nothing removed, and without each projection's biases; score it at the end.

    All arms of a seed start from the same model, and have the same data, order, dropout and budget: their differences
    are paired. A removed bias is zero at the start, and frozen. A run that breaks gives a note in place of scores.

    Args:
        settings: of the study.
        out: its folder.
        how: `fine-tuned` or `from scratch`.
        projections: those that have a bias.
        start: the model that the runs of a seed start from: a folder, `embedded:NAME` or a Hub id.
    """
    return [
        _experiment(
            f"{load_task(name).name} {how}",
            [
                TrainingRun(settings, out, how, name, removed, seed, start(seed)).measurement
                for seed in range(1, settings.seeds + 1)
                for removed in ("nothing", *projections)
            ],
        )
        for name in settings.tasks
    ]


def _experiment(title: str, runs: Sequence[Measurement]) -> Experiment:
    return Experiment(title, "scores", len(runs), lambda _: runs, lambda some, _: [run.outcome() for run in some])


@dataclass(frozen=True)
class TrainingRun:
    """A training run of one arm and seed.

    Attributes:
        study: settings of the study.
        out: the folder of the study.
        how: `fine-tuned` or `from scratch`.
        task: its name, as the study's settings have it.
        removed: whose biases are zero all the time, or `nothing`.
        seed: of all that is random.
        start: the model that it starts from.
    """

    study: StudySettings
    out: Path
    how: str
    task: str
    removed: str
    seed: int
    start: str

    @property
    def settings(self) -> TaskSettings:
        """The settings for `tune`; those of a seed's runs differ only in what is removed.

        Raises:
            RecipeError: a field of `task_options`, or a file, is wrong.
        """
        files, removed = self.study.files.get(self.task, {}), () if self.removed == "nothing" else (self.removed,)
        own: dict[str, Any] = {"learning_rate": SCRATCH_RATE} if self.how == "from scratch" else {}
        folder = self.out / self.how.replace(" ", "-") / folder_name(self.task)
        return make_settings(
            settings_for(load_task(self.task).kind),
            model_name_or_path=self.start,
            task_name=self.task,
            output_dir=folder / f"without-{self.removed}" / f"seed-{self.seed}",
            train="all",
            train_head=True,  # a language model's too, which `tune` leaves as it is otherwise
            drop=removed,
            freeze=removed,
            seed=self.seed,
            eval_steps=AT_THE_END,
            train_file=files.get("train"),
            validation_file=files.get("validation"),
            **{**own, **self.study.task_options},
        )

    @property
    def measurement(self) -> Measurement:
        """The measurement of its scores."""
        name = f"{load_task(self.task).name} {self.how}, without {self.removed}, seed {self.seed}"
        return Measurement(name, self, hashlib.sha256(json.dumps(self.settings.plain()).encode()).hexdigest()[:16])

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return RunFolder(self.settings.output_dir).model

    def outcome(self) -> Outcome:
        """Its scores: trained for, or read where they are in its folder."""
        try:
            result = result_of(self.settings)
        except (TuneError, RecipeError) as error:  # such as a loss that is not finite; the other runs go on
            return Outcome([], [f"{self.measurement.name}: no score. {error}"])
        RunFolder(self.settings.output_dir).forget_tensors()
        task, metrics, main = load_task(self.task).name, result["metrics"], result["main_metric"]
        return Outcome(list(scores_of(task, self.how, self.removed, self.seed, metrics, main)))
