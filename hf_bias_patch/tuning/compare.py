"""Arms against each other: the same data, order and budget; each arm's learning rate chosen on held-out training data.

Redundant biases train in these arms (`train_redundant`): the arm `key` shows that training them does nothing.

OUTPUT/compare.csv, compare.png   the table, and a plot of it where matplotlib is installed
OUTPUT/TASK/ARM/rate-0.001/       a run that chooses the rate: a tenth of the training data is held out to score it on
OUTPUT/TASK/ARM/seed-1/           a run that is reported: trained on all of it, scored once, at the end
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import count, product
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from hf_bias_patch.errors import RecipeError, TuneError
from hf_bias_patch.patching.recipe import as_names
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.tasks import load_task
from hf_bias_patch.tuning.compare_table import ArmResult, CompareRow, as_csv, plot
from hf_bias_patch.tuning.folder import folder_name
from hf_bias_patch.tuning.set_trainable import ADAPTERS, projections_of
from hf_bias_patch.tuning.settings import AT_THE_END, Positive, as_files, make_settings
from hf_bias_patch.tuning.subprocess_run import result_of
from hf_bias_patch.tuning.task_settings import GlueSettings, TaskSettings, settings_for

__all__ = ["ARMS", "CompareSettings", "RunStarted", "compare"]

ARMS = ("all", "lora", "beft", "biases", "query", "key", "value", "query,value", "none")
"""The arms that are compared unless others are named. `none` trains the head alone: what all arms have in common."""

_RATES_OF_ALL = (1e-5, 3e-5, 1e-4, 3e-4)
_RATES_OF_ADAPTERS = (3e-4, 1e-3, 3e-3, 1e-2)
_RATES_OF_BIASES = (1e-3, 3e-3, 1e-2, 3e-2)

_BROKEN = (TuneError, RecipeError)
"""What ends one arm and not the comparison: a loss of NaN, an adapter or a bias that the model cannot have."""


def _arms(value: Any) -> tuple[str, ...]:
    """`value,query+value` as (`value`, `query,value`)."""
    if not (names := as_names(value)):
        raise ValueError("no arm is named")
    return tuple(",".join(projections_of(name)) or name for name in names)


class CompareSettings(BaseModel):
    """What is compared, on what, how often. Each field's description is its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name_or_path: str = Field(description="A folder, embedded:bert|gpt2|bart, or a Hub id.")
    task_name: Annotated[tuple[str, ...], BeforeValidator(as_names)] = Field(
        description="Tasks, such as sst2,cola; or YAML files of tasks."
    )
    output_dir: Path = Field(
        description="Folder of the runs and the table; a run that is in it already is not run again."
    )
    arms: Annotated[tuple[str, ...], BeforeValidator(_arms)] = Field(
        ARMS,
        description="What trains in each arm: values of `tune --train`, joined by +. Redundant biases train too.",
    )
    seeds: Positive = Field(3, description="Runs of each arm that are reported, each with a seed of its own.")
    learning_rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(as_names)] = Field(
        (), description="Learning rates to choose from, in place of the four of each arm."
    )
    new_head: bool = Field(False, description="Begin each run with a new head.")
    max_train_samples: Positive | None = Field(
        None, description="Train on N samples drawn by the seed; of generation, on N source-reference pairs."
    )
    max_eval_samples: Positive | None = Field(
        None, description="Evaluate on the first N samples; of generation, on N sources with all their references."
    )
    skip_bad_rows: bool = Field(False, description="Leave out and list rows that cannot be read.")
    num_train_epochs: Annotated[float, Field(gt=0)] = Field(3.0, description="Passes over the training data.")
    per_device_train_batch_size: Positive = Field(32, description="Samples of an optimiser step.")
    mixed_precision: str | None = Field(None, description="no, bf16 or fp16; by default as Accelerate is configured.")
    files: Annotated[dict[str, dict[str, str]], BeforeValidator(as_files)] = Field(
        default_factory=dict, description="Local files instead of the Hub: TASK:SPLIT=PATH,…"
    )

    @field_validator("task_name")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("no task is named")
        return value

    @model_validator(mode="after")
    def _files_of_its_tasks(self) -> CompareSettings:
        if unused := sorted(self.files.keys() - set(self.task_name)):
            raise ValueError(f"files: {unused[0]} is not one of the tasks, which are {', '.join(self.task_name)}")
        return self


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


def compare(
    settings: CompareSettings,
    on_event: Callable[[RunStarted | ArmResult], object] = lambda event: None,
    run: Callable[[TaskSettings], Mapping[str, Any]] = result_of,
) -> tuple[CompareRow, ...]:
    """Train every arm on every task and write the table; a run that is in the output folder already is read instead.

    Args:
        settings: what is compared.
        on_event: is told which run begins, and each arm on a task when it is done.
        run: gives the results.json of a run; by default trains in a process of its own.

    Returns:
        A row for each arm and task. An arm that the model cannot have (BEFT on GPT-2, a bias that it does not have),
        or one of whose reported runs broke, has a problem in place of scores.

    Raises:
        TaskError, DataError, TargetError, and what the checkpoint raises: nothing can be run.
        RecipeError: a file that is named does not exist.
        ExtraError: accelerate is not installed.
    """
    need("accelerate")
    for task in settings.task_name:  # all, before hours are spent on the first
        _run_settings(settings, task, settings.arms[0], "seed-1", 1.0, 1)
    arms = {arm: settings.learning_rates or _rates_of(arm) for arm in settings.arms}
    total = len(settings.task_name) * sum(len(rates) + settings.seeds for rates in arms.values())
    numbers, table = count(1), list[CompareRow]()

    def train(task: str, arm: str, name: str, rate: float, seed: int, **more: Any) -> Mapping[str, Any]:
        on_event(RunStarted(task, arm, name, next(numbers), total))
        return run(_run_settings(settings, task, arm, name, rate, seed, **more))

    for task, (arm, rates) in product(settings.task_name, arms.items()):
        done = _arm_result(task, arm, rates, settings.seeds, partial(train, task, arm))
        table.append(done.row)
        settings.output_dir.mkdir(parents=True, exist_ok=True)
        (settings.output_dir / "compare.csv").write_text(as_csv(table), "utf-8")
        on_event(done)
    if find_spec("matplotlib"):
        plot(table, settings.output_dir / "compare.png")
    return tuple(table)


def _rates_of(arm: str) -> tuple[float, ...]:
    """Peak learning rates to choose from: as many for each arm, about its usual one."""
    return _RATES_OF_ALL if arm == "all" else _RATES_OF_ADAPTERS if arm in ADAPTERS else _RATES_OF_BIASES


def _arm_result(
    task: str, arm: str, rates: Sequence[float], seeds: int, train: Callable[..., Mapping[str, Any]]
) -> ArmResult:
    """Choose an arm's learning rate, then train it once for each seed."""
    scores: dict[float, Mapping[str, Any]] = {}
    problem = ""
    for rate in rates:
        try:
            scores[rate] = train(f"rate-{rate:g}", rate, 0, validation_share=0.1)
        except _BROKEN as error:  # a rate may be too large; the others may do
            problem = str(error)
    if not scores:
        return ArmResult(task, arm, problem=problem)
    best = _best(scores, load_task(task).greater_is_better)
    chosen = {rate: _main(score) for rate, score in scores.items()}
    results = []
    for seed in range(1, seeds + 1):
        try:
            results.append(train(f"seed-{seed}", best, seed))
        except _BROKEN as error:  # the arms after it are run all the same
            problem = f"seed-{seed}: {error}"
    if len(results) < seeds:  # a mean without the seed that broke would flatter
        return ArmResult(task, arm, best, chosen, problem=problem)
    return ArmResult(task, arm, best, chosen, tuple(results))


def _best(scores: Mapping[float, Mapping[str, Any]], greater: bool) -> float:
    """The rate with the best main metric; of equal ones (none left the majority class, say) that of the least loss."""

    def key(rate: float) -> tuple[float, float]:
        main = _main(scores[rate])
        return (main if greater else -main, -scores[rate]["metrics"].get("loss", 0.0))

    return max(scores, key=key)


def _run_settings(
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
        train_redundant=True,  # the arm `key` shows that it does nothing
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
