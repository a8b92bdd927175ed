"""Scores of models trained without a bias: each run in a process and a folder of its own, all of a seed alike.

OUT/fine-tuned/TASK/without-query/seed-1/     a run: see `tuning/folder.py`; of its tensors the model stays
OUT/from-scratch/TASK/without-query/seed-1/   the same
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hf_bias_patch.attention.sites import Projection
from hf_bias_patch.errors import RecipeError, TuneError
from hf_bias_patch.scoring.tasks import load_task
from hf_bias_patch.study.course import Course
from hf_bias_patch.study.found import Score, scores_of
from hf_bias_patch.study.settings import Settings
from hf_bias_patch.tuning.apart import is_done, result_of
from hf_bias_patch.tuning.folder import RunFolder, folder_name
from hf_bias_patch.tuning.kinds import TaskSettings, settings_for
from hf_bias_patch.tuning.settings import AT_THE_END, make_settings

__all__ = ["SCRATCH_RATE", "run_settings", "trained"]

SCRATCH_RATE = 1e-3
"""Peak learning rate from random weights: small transformers are trained with about this much, and with the 5e-5 of
fine-tuning they hardly leave where they begin in the few epochs of a study."""


def trained(
    settings: Settings,
    out: Path,
    how: str,
    projections: Sequence[Projection],
    start: Callable[[int], str],
    course: Course,
) -> Iterator[Score]:
    """Train a model on each task with nothing removed, and without each projection's biases; score it at the end.

    All arms of a seed start from the same model, and have the same data, order, dropout and budget: their differences
    are paired. A removed bias is zero at the start, and frozen.

    Args:
        settings: of the study.
        out: its folder.
        how: `fine-tuned` or `from scratch`.
        projections: those that have a bias.
        start: what the runs of a seed start from: a folder, `embedded:NAME` or a Hub id.
        course: gets a note of each run that broke, and has no score.

    Raises:
        TargetError: a run's folder holds a run of other settings.
        DataError, TaskError, and what the checkpoint raises: nothing can be trained.
    """
    for name in settings.tasks:
        task = load_task(name).name
        for seed in range(1, settings.seeds + 1):
            for removed in ("nothing", *projections):
                run = run_settings(settings, out, how, name, removed, seed, start(seed))
                called = f"{task} {how}, without {removed}, seed {seed}"
                if result := _result(run, called, course):
                    yield from scores_of(task, how, removed, seed, result["metrics"], result["main_metric"])
                course.done += 1


def _result(run: TaskSettings, called: str, course: Course) -> dict[str, Any] | None:
    """None where there is no time for it, or it breaks."""
    if is_done(run):
        return result_of(run)
    if not course.begins(called):
        return None
    try:
        result = result_of(run)
    except (TuneError, RecipeError) as error:  # a loss that is no number, say; the others are run
        course.note(f"{called}: no score. {error}")
        return None
    RunFolder(run.output_dir).forget_tensors()
    return result


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
