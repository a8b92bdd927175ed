"""Scores of a checkpoint, or of what was fine-tuned from it, with each bias set to zero and nothing trained after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hf_bias_patch.attention.sites import Projection
from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.loading import load_scorable
from hf_bias_patch.scoring.score import Scores, ScoringOptions, encode_for, evaluate_model
from hf_bias_patch.scoring.tasks import Task, dump_task, load_task
from hf_bias_patch.study.biases.arms import STUDIED, Arm, Target
from hf_bias_patch.study.biases.swap import Biases
from hf_bias_patch.study.downstream.trained import run_of
from hf_bias_patch.study.found import scores_of
from hf_bias_patch.study.kept import Kept, Measured
from hf_bias_patch.study.settings import Settings
from hf_bias_patch.study.stage import Item, Stage, Tell

__all__ = ["as_it_is", "removed_after"]

_AFTER = "fine-tuned, then removed"


def as_it_is(settings: Settings, projections: Sequence[Projection]) -> list[Stage]:
    """Score a checkpoint on each task with nothing removed, and with each projection's biases set to zero.

    A task that the checkpoint has no head for gives a note in place of scores: a new head's would be random.

    Args:
        settings: of the study; of `task_options` only `max_eval_samples` is asked.
        projections: those that have a bias.
    """
    found = []
    for name in settings.tasks:
        scoring = _Scoring(settings, settings.model, name, "as it is")
        items = scoring.items(("nothing", *projections), _asked(settings, name))
        found.append(Stage(scoring.title, "scores", len(items), partial(_always, items), scoring.measure, len(items)))
    return found


def removed_after(settings: Settings, out: Path, projections: Sequence[Projection]) -> list[Stage]:
    """Score what was fine-tuned with all its biases, each seed's model, with each projection's biases set to zero.

    Args:
        settings: of the study.
        out: its folder, where those models are.
        projections: those that have a bias.
    """
    found = []
    for name in settings.tasks:
        for seed in range(1, settings.seeds + 1):
            run = run_of(settings, out, "fine-tuned", name, "nothing", seed, settings.model)
            scoring = _Scoring(settings, str(run.model), name, _AFTER, seed)
            items = scoring.items(("nothing", *projections), run.item.asked)
            there = partial(_if_kept, run.item.key, items)
            found.append(Stage(scoring.title, "scores", len(items), there, scoring.measure, len(items)))
    return found


def _always(items: Sequence[Item], kept: Kept) -> Sequence[Item]:
    return items


def _if_kept(key: str, items: Sequence[Item], kept: Kept) -> Sequence[Item]:
    """Only what was trained can be scored."""
    return items if key in kept else ()


def _asked(settings: Settings, name: str) -> str:
    """Of what a score depends on beside the settings that all studies in a folder share."""
    files, limit = settings.files.get(name, {}), settings.task_options.get("max_eval_samples")
    value = [dump_task(load_task(name)), files.get("validation"), limit]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Scoring:
    """A checkpoint on a task, without each of some projections' biases."""

    settings: Settings
    model: str
    name: str
    how: str
    seed: int | None = None

    @property
    def task(self) -> Task:
        return load_task(self.name)

    @property
    def title(self) -> str:
        return f"{self.task.name} {self.how}"

    def items(self, arms: Sequence[str], asked: str) -> list[Item]:
        of = "" if self.seed is None else f", seed {self.seed}"
        return [Item(f"{self.title}, without {removed}{of}", removed, asked) for removed in arms]

    def measure(self, arms: Sequence[str], tell: Tell) -> list[Measured]:
        made: list[Measured] = []
        task = self.task
        try:
            for removed, scores in _scores(self.settings, self.model, self.name, task, arms):
                records = scores_of(task.name, self.how, removed, self.seed, scores.metrics, scores.main_metric)
                made.append(Measured(list(records), [f"{task.name}: {note}" for note in scores.notes]))
                tell(len(made) / len(arms))
        except TaskError as error:
            note = f"{task.name} was not scored {self.how}: {error}{_instead(task)}"
            made += [Measured([], [note])] * (len(arms) - len(made))
        return made


def _instead(task: Task) -> str:
    classifies = task.kind in ("classification", "regression")
    return " A study with --fine-tune trains a head, and scores that." if classifies else ""


def _scores(
    settings: Settings, model_name: str, name: str, task: Task, arms: Iterable[str]
) -> Iterator[tuple[str, Scores]]:
    """The scores without each of some projections' biases, or without `nothing`; loaded and encoded once.

    Raises:
        TaskError: the checkpoint has no head for the task.
    """
    model, tokenizer = load_scorable(model_name, task.kind, device=settings.device, dtype=settings.dtype)
    rows = load_split(task, "validation", settings.files.get(name), settings.task_options.get("max_eval_samples"))
    encoded, biases = encode_for(model, tokenizer, task, rows, ScoringOptions()), Biases(model)
    for removed in arms:
        with nullcontext() if removed == "nothing" else biases.swapped(_without(biases, removed), 0):
            yield removed, evaluate_model(model, tokenizer, task, rows, encoded=encoded)


def _without(biases: Biases, removed: str) -> Arm:
    """Zeros in place of one projection's biases in all sites."""
    (projection,) = (name for name in STUDIED if name == removed)
    targets = [Target(site.name, projection) for site in biases.sites.values() if site.slots[projection].bias]
    return Arm("whole", "", removed, "zeros", tuple(targets))
