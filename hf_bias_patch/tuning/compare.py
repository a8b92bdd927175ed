"""Arms against each other: the same data, order and budget; each arm's learning rate chosen on held-out training data.

Redundant biases train in these arms (`train_redundant`): that of the key shows that nothing comes of it.

OUT/TASK/ARM/rate-0.001/   a run that chooses the rate: trained without a tenth of the training data, scored on it
OUT/TASK/ARM/seed-1/       a run that is reported: trained on all of it, scored once, at the end
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from hf_bias_patch.errors import RecipeError, TuneError
from hf_bias_patch.patching.recipe import as_names
from hf_bias_patch.scoring.tasks import load_task
from hf_bias_patch.tuning.arms import ARMS, grid_of
from hf_bias_patch.tuning.folder import folder_name
from hf_bias_patch.tuning.set_trainable import projections_of
from hf_bias_patch.tuning.settings import AT_THE_END, Positive, as_files, make_settings
from hf_bias_patch.tuning.subprocess_run import result_of
from hf_bias_patch.tuning.task_settings import GlueSettings, TaskSettings, settings_for

__all__ = ["ArmResult", "CompareSettings", "RunStarted", "compare"]

_BROKEN = (TuneError, RecipeError)
"""What ends one arm and not the comparison: a loss that is no number, an adapter or a bias the model cannot have."""


def _arms(value: Any) -> tuple[str, ...]:
    """`value,query+value` as (`value`, `query,value`)."""
    if not (names := as_names(value)):
        raise ValueError("no arm is named")
    return tuple(",".join(projections_of(name)) or name for name in names)


class CompareSettings(BaseModel):
    """What is compared, on what, how often. Each field's description is its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name_or_path: str = Field(description="A folder, embedded:bert|gpt2|bart, or a Hub id.")
    task_name: Annotated[tuple[str, ...], BeforeValidator(as_names)] = Field(description="Tasks: sst2,cola,…")
    output_dir: Path = Field(description="Where the runs and the table go; runs that are there are not run again.")
    arms: Annotated[tuple[str, ...], BeforeValidator(_arms)] = Field(
        ARMS, description="What trains in each arm, redundant biases too; of several projections query+value."
    )
    seeds: Positive = Field(3, description="Reported runs of each arm.")
    learning_rates: Annotated[tuple[float, ...], BeforeValidator(as_names)] = Field(
        (), description="To choose from, in place of each arm's own four."
    )
    new_head: bool = Field(False, description="Begin each run with a new head, whatever the checkpoint holds.")
    max_train_samples: Positive | None = Field(
        None, description="Train on so many samples, drawn by the seed; of generation, pairs."
    )
    max_eval_samples: Positive | None = Field(
        None, description="Evaluate on the first so many samples; of generation, questions."
    )
    skip_bad_rows: bool = Field(False, description="Leave out and list rows that cannot be read.")
    num_train_epochs: Annotated[float, Field(gt=0)] = Field(3.0, description="Passes over the training data.")
    per_device_train_batch_size: Positive = Field(32, description="Samples of a step.")
    mixed_precision: str | None = Field(None, description="no, bf16 or fp16; by default as Accelerate is configured.")
    files: Annotated[dict[str, dict[str, str]], BeforeValidator(as_files)] = Field(
        default_factory=dict, description="Local data: TASK:SPLIT=PATH,…"
    )

    @field_validator("task_name")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("no task is named")
        return value

    @field_validator("learning_rates")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if wrong := [rate for rate in value if rate <= 0]:
            raise ValueError(f"{wrong[0]} is no learning rate")
        return value


@dataclass(frozen=True)
class ArmResult:
    """An arm on a task, done.

    Attributes:
        task, arm: which.
        rate: the learning rate that was chosen.
        chosen: rate → the main metric on held-out training data.
        results: of the reported runs, as in their results.json.
        problem: why there are none; empty if there are.
    """

    task: str
    arm: str
    rate: float = 0.0
    chosen: Mapping[float, float] = field(default_factory=dict)
    results: tuple[Mapping[str, Any], ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class RunStarted:
    """A run of the comparison that begins.

    Attributes:
        task, arm, name: which; `name` is `rate-R` or `seed-N`.
        number, total: how many began, and how many there are.
    """

    task: str
    arm: str
    name: str
    number: int
    total: int


def compare(settings: CompareSettings) -> Iterator[RunStarted | ArmResult]:
    """Run every arm on every task; what is there already is read, not run.

    Yields:
        What begins, and each arm on a task when it is done. An arm that a model cannot have (BEFT on GPT-2, a bias
        it has not), or one of whose reported runs broke, is done with a problem.

    Raises:
        TaskError, DataError, TargetError, and what the checkpoint raises: nothing can be run.
        RecipeError: a file that is named does not exist.
    """
    for task in settings.task_name:  # all, before hours are spent on the first
        _run(settings, task, settings.arms[0], "seed-1", 1.0, 1)
    arms = {arm: settings.learning_rates or grid_of(arm) for arm in settings.arms}
    total = len(settings.task_name) * sum(len(rates) + settings.seeds for rates in arms.values())
    number = 0
    for task in settings.task_name:
        for arm, rates in arms.items():
            for event in _arm(settings, task, arm, rates):
                if isinstance(event, ArmResult):
                    yield event
                else:
                    number += 1
                    yield RunStarted(task, arm, event, number, total)


def _arm(settings: CompareSettings, task: str, arm: str, rates: Sequence[float]) -> Iterator[str | ArmResult]:
    """The names of an arm's runs, each as it begins; at last the arm."""
    scores: dict[float, dict[str, Any]] = {}
    problem = ""
    for rate in rates:
        yield f"rate-{rate:g}"
        try:
            scores[rate] = result_of(_run(settings, task, arm, f"rate-{rate:g}", rate, 0, validation_share=0.1))
        except _BROKEN as error:  # a rate may be too large; the others may do
            problem = str(error)
    if not scores:
        yield ArmResult(task, arm, problem=problem)
        return
    best = _best(scores, load_task(task).greater_is_better)
    results = []
    for seed in range(1, settings.seeds + 1):
        yield f"seed-{seed}"
        try:
            results.append(result_of(_run(settings, task, arm, f"seed-{seed}", best, seed)))
        except _BROKEN as error:  # the arms after it are run all the same; a mean without it would flatter
            problem = f"seed-{seed}: {error}"
    chosen = {rate: _main(score) for rate, score in scores.items()}
    broken = len(results) < settings.seeds
    yield (
        ArmResult(task, arm, best, chosen, problem=problem)
        if broken
        else ArmResult(task, arm, best, chosen, tuple(results))
    )


def _best(scores: Mapping[float, Mapping[str, Any]], greater: bool) -> float:
    """The rate with the best main metric; of equal ones (none left the majority class, say) that of the least loss."""

    def key(rate: float) -> tuple[float, float]:
        main = _main(scores[rate])
        return (main if greater else -main, -scores[rate]["metrics"].get("loss", 0.0))

    return max(scores, key=key)


def _run(
    settings: CompareSettings, task: str, arm: str, name: str, rate: float, seed: int, **more: Any
) -> TaskSettings:
    """The settings of one run."""
    files, kind = settings.files.get(task, {}), settings_for(load_task(task).kind)
    head = {"new_head": settings.new_head} if issubclass(kind, GlueSettings) else {}
    return make_settings(
        kind,
        model_name_or_path=settings.model_name_or_path,
        task_name=task,
        output_dir=settings.output_dir / folder_name(task) / arm.replace(",", "+") / name,
        train=arm,
        train_redundant=True,  # the key's arm is there to show that it does nothing
        seed=seed,
        learning_rate=rate,
        eval_steps=AT_THE_END,
        max_train_samples=settings.max_train_samples,
        max_eval_samples=settings.max_eval_samples,
        skip_bad_rows=settings.skip_bad_rows,
        num_train_epochs=settings.num_train_epochs,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        mixed_precision=settings.mixed_precision,
        train_file=files.get("train"),
        validation_file=None if more else files.get("validation"),
        **head,
        **more,
    )


def _main(result: Mapping[str, Any]) -> float:
    return float(result["metrics"][result["main_metric"]])
