"""Scores of a checkpoint as it is, with each bias set to zero and nothing trained after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from hf_bias_patch.attention.sites import Projection
from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.forms import form_of, require_form
from hf_bias_patch.scoring.loading import load_scorable
from hf_bias_patch.scoring.run import Options, Scores, evaluate, prepare
from hf_bias_patch.scoring.tasks import Task, dump_task, load_task
from hf_bias_patch.study.biases.arms import STUDIED, Arm, Target
from hf_bias_patch.study.biases.swap import Biases
from hf_bias_patch.study.found import scores_of
from hf_bias_patch.study.kept import Measured
from hf_bias_patch.study.settings import Settings
from hf_bias_patch.study.stage import Item, Stage, Tell

if TYPE_CHECKING:
    from hf_bias_patch.scoring.measures import Kind

__all__ = ["as_it_is"]

HOW = "as it is"


def as_it_is(settings: Settings, projections: Sequence[Projection]) -> list[Stage]:
    """Score a checkpoint on each task with nothing removed, and with each projection's biases set to zero.

    A task that the checkpoint has no head for gives a note in place of scores: a new head's would be random.

    Args:
        settings: of the study; of `task_options` only `max_eval_samples` is asked.
        projections: those that have a bias.
    """
    checkpoint = _Checkpoint(settings)
    return [_stage(checkpoint, settings, name, ("nothing", *projections)) for name in settings.tasks]


def _stage(checkpoint: _Checkpoint, settings: Settings, name: str, arms: Sequence[str]) -> Stage:
    task, asked = load_task(name), _asked(settings, name)
    items = [Item(f"{task.name} {HOW}, without {removed}", removed, asked) for removed in arms]
    measure = partial(_measured, checkpoint, name, task)
    return Stage(f"{task.name} {HOW}", "scores", len(items), lambda _: items, measure, at_once=len(items))


def _asked(settings: Settings, name: str) -> str:
    """Of what a score depends on beside the settings that all studies in a folder share."""
    files, limit = settings.files.get(name, {}), settings.task_options.get("max_eval_samples")
    value = [dump_task(load_task(name)), files.get("validation"), limit]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _measured(checkpoint: _Checkpoint, name: str, task: Task, arms: Sequence[str], tell: Tell) -> list[Measured]:
    made: list[Measured] = []
    try:
        for removed, scores in checkpoint.scored(name, task, arms):
            records = list(scores_of(task.name, HOW, removed, None, scores.metrics, scores.main_metric))
            made.append(Measured(records, [f"{task.name}: {note}" for note in scores.notes]))
            tell(len(made) / len(arms))
    except TaskError as error:
        note = f"{task.name} was not scored on the checkpoint as it is: {error}{_instead(task)}"
        made += [Measured([], [note])] * (len(arms) - len(made))
    return made


def _instead(task: Task) -> str:
    classifies = task.kind in ("classification", "regression")
    return " A study with --fine-tune trains a head, and scores that." if classifies else ""


class _Checkpoint:
    """Loaded once, when it is first asked for, and unchanged after each call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded: tuple[Any, Any] | None = None

    def scored(self, name: str, task: Task, arms: Iterable[str]) -> Iterator[tuple[str, Scores]]:
        """The scores without each of some projections' biases, or without `nothing`; the data is encoded once.

        Raises:
            TaskError: the checkpoint has no head for the task.
        """
        model, tokenizer = self._for(task.kind)
        limit = self._settings.task_options.get("max_eval_samples")
        rows = load_split(task, "validation", self._settings.files.get(name), limit)
        encoded, biases = prepare(model, tokenizer, task, rows, Options()), Biases(model)
        for removed in arms:
            with nullcontext() if removed == "nothing" else biases.swapped(_without(biases, removed), 0):
                yield removed, evaluate(model, tokenizer, task, rows, encoded=encoded)

    def _for(self, kind: Kind) -> tuple[Any, Any]:
        wanted = self._settings
        if self._loaded is None:
            self._loaded = load_scorable(wanted.model, kind, device=wanted.device, dtype=wanted.dtype)
        else:
            require_form(kind, form_of(self._loaded[0]), wanted.model)
        return self._loaded


def _without(biases: Biases, removed: str) -> Arm:
    """Zeros in place of one projection's biases in all sites."""
    (projection,) = (name for name in STUDIED if name == removed)
    targets = [Target(site.name, projection) for site in biases.sites.values() if site.slots[projection].bias]
    return Arm("whole", "", removed, "zeros", tuple(targets))
