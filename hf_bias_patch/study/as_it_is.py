"""Scores of a checkpoint as it is, with each bias set to zero and nothing trained after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.attention.sites import Projection
from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.forms import form_of, require_form
from hf_bias_patch.scoring.loading import load_scorable
from hf_bias_patch.scoring.run import Options, Scores, evaluate, prepare
from hf_bias_patch.scoring.tasks import Task, dump_task, load_task
from hf_bias_patch.study.arms import STUDIED, Arm, Target
from hf_bias_patch.study.course import Course
from hf_bias_patch.study.found import Score, scores_of
from hf_bias_patch.study.lines import Lines
from hf_bias_patch.study.settings import Settings
from hf_bias_patch.study.swap import Biases

if TYPE_CHECKING:
    from hf_bias_patch.scoring.measures import Kind

__all__ = ["as_it_is"]

HOW = "as it is"


def as_it_is(settings: Settings, out: Path, projections: Sequence[Projection], course: Course) -> Iterator[Score]:
    """Score a checkpoint on each task with nothing removed, and with each projection's biases set to zero.

    What was scored is kept in `scores.jsonl`, with a hash of what it depends on, and read from there.

    Args:
        settings: of the study; of `task_options` only `max_eval_samples` is asked.
        out: the study's folder.
        projections: those that have a bias.
        course: gets a note of each task that the checkpoint has no head for: a new one's scores would be random.

    Raises:
        DataError: a task's data cannot be had.
        SourceError, CheckpointError: of the checkpoint.
    """
    lines = Lines(out / "scores.jsonl")
    kept = {(line["asked"], line["removed"]): line for line in lines.read()}
    checkpoint = _Checkpoint(settings)
    for name in settings.tasks:
        task, asked = load_task(name), _asked(settings, name)
        arms = ("nothing", *projections)
        todo = [removed for removed in arms if (asked, removed) not in kept]
        course.done += len(arms) - len(todo)
        for line in _measured(checkpoint, name, task, _begun(course, task, todo), course):
            line["asked"] = asked
            kept[asked, line["removed"]] = line
            lines.add(line)
        for removed in arms:
            if (found := kept.get((asked, removed))) is None:
                continue
            for note in found["notes"]:
                course.note(f"{task.name}: {note}")
            yield from scores_of(task.name, HOW, removed, None, found["metrics"], found["main"])


def _begun(course: Course, task: Task, todo: Iterable[str]) -> Iterator[str]:
    """Each as it is its turn, if there is time for it."""
    for removed in todo:
        if course.begins(f"{task.name} {HOW}, without {removed}"):
            yield removed
        course.done += 1


def _asked(settings: Settings, name: str) -> str:
    """A hash of what a score depends on beside the settings that are the same in all of a study's folder."""
    files, limit = settings.files.get(name, {}), settings.task_options.get("max_eval_samples")
    value = [dump_task(load_task(name)), files.get("validation"), limit]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _measured(
    checkpoint: _Checkpoint, name: str, task: Task, arms: Iterable[str], course: Course
) -> Iterator[dict[str, Any]]:
    try:
        for removed, scores in checkpoint.scored(name, task, arms):
            yield {
                "task": task.name,
                "removed": removed,
                "main": scores.main_metric,
                "metrics": scores.metrics,
                "notes": scores.notes,
            }
    except TaskError as error:
        course.note(f"{task.name} was not scored on the checkpoint as it is: {error}{_instead(task)}")


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
        encoded = None
        for removed in arms:
            if encoded is None:  # only now: there may be none
                model, tokenizer = self._for(task.kind)
                limit = self._settings.task_options.get("max_eval_samples")
                rows = load_split(task, "validation", self._settings.files.get(name), limit)
                encoded = prepare(model, tokenizer, task, rows, Options())
                biases = Biases(model)
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
