"""Scores of a checkpoint, or of a model fine-tuned from it, with each bias set to zero and no training after that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from hf_bias_patch.architecture.sites import Projection
from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.loading import load_scorable
from hf_bias_patch.scoring.score import Scores, ScoringOptions, encode_for, evaluate_model
from hf_bias_patch.scoring.tasks import Task, dump_task, load_task
from hf_bias_patch.studies.biases.arms import STUDIED, Arm, Target
from hf_bias_patch.studies.biases.swap import Biases
from hf_bias_patch.studies.downstream.training_runs import TrainingRun
from hf_bias_patch.studies.records import scores_of
from hf_bias_patch.studies.runner import Experiment, Measurement, PartDone
from hf_bias_patch.studies.settings import StudySettings
from hf_bias_patch.studies.store import MeasurementStore, Outcome

__all__ = ["scores_of_fine_tuned", "scores_without_training"]

_AFTER = "fine-tuned, then removed"


def scores_without_training(settings: StudySettings, projections: Sequence[Projection]) -> list[Experiment]:
    """Score a checkpoint on each task with nothing removed, and with each projection's biases set to zero.

    A task that the checkpoint has no head for gives a note in place of scores: a new head's scores would be random.

    Args:
        settings: of the study; of `task_options` only `max_eval_samples` is used.
        projections: those that have a bias.
    """
    return [
        _Scoring(settings, settings.model, name, "as it is", _digest(settings, name)).experiment(projections)
        for name in settings.tasks
    ]


def scores_of_fine_tuned(settings: StudySettings, out: Path, projections: Sequence[Projection]) -> list[Experiment]:
    """Score each seed's model that was fine-tuned with all its biases, with each projection's biases set to zero.

    Args:
        settings: of the study.
        out: its folder, where those models are.
        projections: those that have a bias.
    """
    experiments = []
    for name in settings.tasks:
        for seed in range(1, settings.seeds + 1):
            run = TrainingRun(settings, out, "fine-tuned", name, "nothing", seed, settings.model)
            trained, path = run.measurement, str(run.model)
            scoring = _Scoring(settings, path, name, _AFTER, trained.depends_on, seed, trained.key)
            experiments.append(scoring.experiment(projections))
    return experiments


def _digest(settings: StudySettings, name: str) -> str:
    """A hash of what a score depends on, apart from the settings that all studies in a folder share."""
    files, limit = settings.files.get(name, {}), settings.task_options.get("max_eval_samples")
    value = [dump_task(load_task(name)), files.get("validation"), limit]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Scoring:
    """Scores a checkpoint on a task, without the biases of each projection; `trained` is the key of its training."""

    settings: StudySettings
    model: str
    name: str
    how: str
    depends_on: str
    seed: int | None = None
    trained: str | None = None

    @property
    def task(self) -> Task:
        return load_task(self.name)

    @property
    def title(self) -> str:
        return f"{self.task.name} {self.how}"

    def experiment(self, projections: Sequence[Projection]) -> Experiment:
        of = "" if self.seed is None else f", seed {self.seed}"
        measurements = [
            Measurement(f"{self.title}, without {removed}{of}", removed, self.depends_on)
            for removed in ("nothing", *projections)
        ]
        count = len(measurements)

        def possible(store: MeasurementStore) -> Sequence[Measurement]:
            return measurements if self.trained is None or self.trained in store else ()

        return Experiment(self.title, "scores", count, possible, self.measure, count)

    def measure(self, arms: Sequence[str], part_done: PartDone) -> list[Outcome]:
        made: list[Outcome] = []
        task = self.task
        try:
            for removed, scores in _scores(self.settings, self.model, self.name, task, arms):
                records = scores_of(task.name, self.how, removed, self.seed, scores.metrics, scores.main_metric)
                made.append(Outcome(list(records), [f"{task.name}: {note}" for note in scores.notes]))
                part_done(len(made) / len(arms))
        except TaskError as error:
            note = f"{task.name} was not scored {self.how}: {error}{_instead(task)}"
            made += [Outcome([], [note])] * (len(arms) - len(made))
        return made


def _instead(task: Task) -> str:
    classifies = task.kind in ("classification", "regression")
    return " A study with --fine-tune trains a head, and scores that." if classifies else ""


def _scores(
    settings: StudySettings, model_name: str, name: str, task: Task, arms: Iterable[str]
) -> Iterator[tuple[str, Scores]]:
    """The scores with each of some projections' biases removed, or `nothing`; the model is loaded once.

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
    """The arm that sets one projection's biases at all sites to zero."""
    (projection,) = (name for name in STUDIED if name == removed)
    targets = [Target(site.name, projection) for site in biases.sites.values() if site.slots[projection].bias]
    return Arm("whole", "", removed, "zeros", tuple(targets))
