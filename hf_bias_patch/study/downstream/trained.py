"""Scores of models trained without a bias: each run in a process and a folder of its own, all of a seed alike.

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

from hf_bias_patch.attention.sites import Projection
from hf_bias_patch.errors import RecipeError, TuneError
from hf_bias_patch.scoring.tasks import load_task
from hf_bias_patch.study.found import scores_of
from hf_bias_patch.study.kept import Measured
from hf_bias_patch.study.settings import Settings
from hf_bias_patch.study.stage import Item, Stage
from hf_bias_patch.tuning.folder import RunFolder, folder_name
from hf_bias_patch.tuning.settings import AT_THE_END, make_settings
from hf_bias_patch.tuning.subprocess_run import result_of
from hf_bias_patch.tuning.task_settings import TaskSettings, settings_for

__all__ = ["SCRATCH_RATE", "Run", "run_of", "run_settings", "trained"]

SCRATCH_RATE = 1e-3
"""Peak learning rate from random weights: small transformers are trained with about this much, and with the 5e-5 of
fine-tuning they hardly leave where they begin in the few epochs of a study."""


def trained(
    settings: Settings, out: Path, how: str, projections: Sequence[Projection], start: Callable[[int], str]
) -> list[Stage]:
    """Train a model on each task with nothing removed, and without each projection's biases; score it at the end.

    All arms of a seed start from the same model, and have the same data, order, dropout and budget: their differences
    are paired. A removed bias is zero at the start, and frozen. A run that breaks gives a note in place of scores.

    Args:
        settings: of the study.
        out: its folder.
        how: `fine-tuned` or `from scratch`.
        projections: those that have a bias.
        start: what the runs of a seed start from: a folder, `embedded:NAME` or a Hub id.
    """
    return [_stage(settings, out, how, name, projections, start) for name in settings.tasks]


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        task: its name.
        how: `fine-tuned` or `from scratch`.
        removed: whose biases are zero all the time, or `nothing`.
        seed: of all that is random.
        settings: what `tune` is asked for.
    """

    task: str
    how: str
    removed: str
    seed: int
    settings: TaskSettings

    @property
    def item(self) -> Item:
        """As a measurement of a stage."""
        name = f"{self.task} {self.how}, without {self.removed}, seed {self.seed}"
        asked = hashlib.sha256(json.dumps(self.settings.plain()).encode()).hexdigest()[:16]
        return Item(name, self, asked)

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return RunFolder(self.settings.output_dir).model

    def measured(self) -> Measured:
        """Its scores: read, where they are in its folder."""
        try:
            result = result_of(self.settings)
        except (TuneError, RecipeError) as error:  # a loss that is no number, say; the others are run
            return Measured([], [f"{self.item.name}: no score. {error}"])
        RunFolder(self.settings.output_dir).forget_tensors()
        metrics, main = result["metrics"], result["main_metric"]
        return Measured(list(scores_of(self.task, self.how, self.removed, self.seed, metrics, main)))


def _stage(
    settings: Settings,
    out: Path,
    how: str,
    name: str,
    projections: Sequence[Projection],
    start: Callable[[int], str],
) -> Stage:
    items = [
        run_of(settings, out, how, name, removed, seed, start(seed)).item
        for seed in range(1, settings.seeds + 1)
        for removed in ("nothing", *projections)
    ]
    measure = lambda runs, tell: [run.measured() for run in runs]  # noqa: E731
    return Stage(f"{load_task(name).name} {how}", "scores", len(items), lambda _: items, measure)


def run_of(settings: Settings, out: Path, how: str, name: str, removed: str, seed: int, start: str) -> Run:
    """The run of one arm and seed. Errors: as of `run_settings`."""
    asked = run_settings(settings, out, how, name, removed, seed, start)
    return Run(load_task(name).name, how, removed, seed, asked)


def run_settings(
    settings: Settings, out: Path, how: str, name: str, removed: str, seed: int, start: str
) -> TaskSettings:
    """The settings of one run. What is removed aside, all runs of a seed have the same.

    Raises:
        RecipeError: a field of `task_options`, or a file, is wrong.
    """
    files = settings.files.get(name, {})
    gone = () if removed == "nothing" else (removed,)
    own: dict[str, Any] = {"learning_rate": SCRATCH_RATE} if how == "from scratch" else {}
    return make_settings(
        settings_for(load_task(name).kind),
        model_name_or_path=start,
        task_name=name,
        output_dir=out / how.replace(" ", "-") / folder_name(name) / f"without-{removed}" / f"seed-{seed}",
        train="all",
        train_head=True,  # a language model's too, which `tune` leaves as it is otherwise
        drop=gone,
        freeze=gone,
        seed=seed,
        eval_steps=AT_THE_END,
        train_file=files.get("train"),
        validation_file=files.get("validation"),
        **{**own, **settings.task_options},
    )
