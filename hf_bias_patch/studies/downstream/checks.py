"""What a study refuses before hours are spent: no biases, contradicting settings, tasks that cannot be scored."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hf_bias_patch.architecture.sites import Projection, Site
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import ArgumentError, PlanError, RecipeError
from hf_bias_patch.models.source_files import load_config
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.heads import head_kind_of_class, require_head
from hf_bias_patch.scoring.tasks import load_task
from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.downstream.training_runs import TrainingRun
from hf_bias_patch.studies.settings import StudySettings

__all__ = ["biased_projections", "check_tasks"]


def biased_projections(sites: Iterable[Site], name: str) -> tuple[Projection, ...]:
    """The projections that have a bias anywhere.

    Raises:
        PlanError: none has.
    """
    found = tuple(each for each in STUDIED if any(site.slots[each].bias is not None for site in sites))
    if not found:
        raise PlanError(
            f"{name} has no query, key or value biases",
            why="There is nothing to remove",
            remedy="`hf-bias-patch inspect` shows what it has; a norm's or an output map's bias is not part of a study",
        )
    return found


def check_tasks(settings: StudySettings, source: Source) -> None:
    """Check everything that tasks need, before hours are spent on the first.

    Raises:
        ArgumentError: the settings contradict each other.
        TaskError: a task is unknown or malformed, or the model has no head for it and training gives it none.
        DataError: a task's data cannot be read.
        RecipeError: a field of `task_options` is unknown or wrong, or a file is missing.
        CheckpointError: the model has no usable config.
    """
    _check_combination(settings)
    trains = settings.fine_tune or settings.from_scratch
    for name in settings.tasks:
        task = load_task(name)
        run = TrainingRun(settings, Path("out"), "from scratch", name, "nothing", 1, settings.model).settings
        if trains and run.validates_on_nothing:
            raise RecipeError(
                f"{name} has data to train on and none to score on",
                remedy=f"Add {name}:validation=PATH to the files",
            )
        if trains and task.kind not in ("classification", "regression"):  # a classifier's head comes by training
            require_head(task.kind, head_kind_of_class((load_config(source).architectures or [""])[0]), source.name)
        for split in ("train", "validation") if trains else ("validation",):
            load_split(task, split, settings.files.get(name), limit=1)


def _check_combination(settings: StudySettings) -> None:
    if settings.fine_tune and settings.from_scratch:
        raise ArgumentError(
            "A study either fine-tunes or trains from scratch",
            why="Training from scratch starts without trained weights",
            remedy="Make two studies, with one of --fine-tune and --from-scratch each, in folders of their own",
        )
    if settings.from_scratch and (settings.heads or settings.texts):
        raise ArgumentError(
            f"{'--heads' if settings.heads else '--texts'} cannot be combined with --from-scratch",
            why="The biases of a new model are zero: changing them shows nothing, and only tasks are scored",
            remedy="Leave it out, or make a study of a trained checkpoint",
        )
    wanted = "--fine-tune" if settings.fine_tune else "--from-scratch" if settings.from_scratch else ""
    if wanted and not settings.tasks:
        raise ArgumentError(
            f"{wanted} needs a task",
            why="Models are trained and scored on tasks",
            remedy="Add --task, such as --task sst2,wikitext-2",
        )
    if settings.task_options and not settings.tasks:
        raise ArgumentError(f"{next(iter(settings.task_options))} needs a task", remedy="Add --task, or leave it out")
    if unused := sorted(set(settings.files) - set(settings.tasks)):
        raise ArgumentError(
            f"--files names {unused[0]}, which is not a task of this study",
            remedy=f"The tasks are: {', '.join(settings.tasks) or 'none; add --task'}",
        )
    if len({load_task(name).name for name in settings.tasks}) < len(settings.tasks):
        raise ArgumentError("--task names a task twice", remedy="Name each once")
