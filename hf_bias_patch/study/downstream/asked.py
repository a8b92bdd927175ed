"""Scores on tasks without each bias: of a checkpoint as it is, after training without it, and from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hf_bias_patch.attention.sites import Projection, Site
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import ArgumentError, PlanError, RecipeError
from hf_bias_patch.models.source_files import load_config
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.heads import head_kind_of_class, require_head
from hf_bias_patch.scoring.tasks import load_task
from hf_bias_patch.study.biases.arms import STUDIED
from hf_bias_patch.study.downstream.as_it_is import as_it_is, removed_after
from hf_bias_patch.study.downstream.trained import run_settings, trained
from hf_bias_patch.study.settings import Settings
from hf_bias_patch.study.stage import Stage

__all__ = ["biased", "check_tasks", "downstream"]


def downstream(settings: Settings, out: Path, projections: Sequence[Projection]) -> list[Stage]:
    """Scores of a checkpoint without each bias: as it is; with `fine_tune` also trained without it, and before that.

    Args:
        settings: of the study.
        out: its folder.
        projections: those that have a bias.
    """
    found = as_it_is(settings, projections)
    if settings.fine_tune:
        found += trained(settings, out, "fine-tuned", projections, lambda _: settings.model)
        found += removed_after(settings, out, projections)
    return found


def biased(sites: Iterable[Site], name: str) -> tuple[Projection, ...]:
    """The projections that have a bias anywhere.

    Raises:
        PlanError: none has.
    """
    found = tuple(each for each in STUDIED if any(site.slots[each].bias is not None for site in sites))
    if not found:
        raise PlanError(
            f"{name} has no query, key or value biases",
            why="There is nothing to take away",
            remedy="`hf-bias-patch inspect` shows what it has; a norm's or an output map's bias is not part of a study",
        )
    return found


def check_tasks(settings: Settings, source: Source) -> None:
    """Look at all that is asked of tasks before hours are spent on the first.

    Raises:
        ArgumentError: the settings contradict each other.
        TaskError: a task is unknown or malformed, or the model has no head for it and gets none by training.
        DataError: a task's data cannot be had.
        RecipeError: a field of `task_options` is unknown or wrong, or a file is not there.
        CheckpointError: the model has no config that can be used.
    """
    _check_combination(settings)
    trains = settings.fine_tune or settings.from_scratch
    for name in settings.tasks:
        task = load_task(name)
        run = run_settings(settings, Path("out"), "from scratch", name, "nothing", 1, settings.model)
        if trains and run.validates_on_nothing:
            raise RecipeError(
                f"{name} is given data to train on, and none to score on",
                remedy=f"Add {name}:validation=PATH to the files",
            )
        if trains and task.kind not in ("classification", "regression"):  # a classifier's head comes by training
            require_head(task.kind, head_kind_of_class((load_config(source).architectures or [""])[0]), source.name)
        for split in ("train", "validation") if trains else ("validation",):
            load_split(task, split, settings.files.get(name), limit=1)


def _check_combination(settings: Settings) -> None:
    if settings.fine_tune and settings.from_scratch:
        raise ArgumentError(
            "A study fine-tunes, or trains from scratch",
            why="From scratch there are no trained weights",
            remedy="Make two studies, with one of --fine-tune and --from-scratch each, in folders of their own",
        )
    if settings.from_scratch and (settings.heads or settings.texts):
        raise ArgumentError(
            f"{'--heads' if settings.heads else '--texts'} is asked for, and --from-scratch",
            why="A fresh model's biases are zero: changing them tells nothing, and only tasks are scored",
            remedy="Leave it out, or make a study of a trained checkpoint",
        )
    wanted = "--fine-tune" if settings.fine_tune else "--from-scratch" if settings.from_scratch else ""
    if wanted and not settings.tasks:
        raise ArgumentError(
            f"{wanted} is asked for, and no task",
            why="Models are trained and scored on tasks",
            remedy="Add --tasks, such as --tasks sst2,wikitext-2",
        )
    if settings.task_options and not settings.tasks:
        raise ArgumentError(
            f"{next(iter(settings.task_options))} is given, and no task", remedy="Add --tasks, or leave it out"
        )
    if unused := sorted(set(settings.files) - set(settings.tasks)):
        raise ArgumentError(
            f"--files names {unused[0]}, which is no task of this study",
            remedy=f"The tasks are: {', '.join(settings.tasks) or 'none; add --tasks'}",
        )
    if len({load_task(name).name for name in settings.tasks}) < len(settings.tasks):
        raise ArgumentError("--tasks names a task twice", remedy="Name each once")
