"""Tasks as data: what a model is asked, where the data comes from, and how answers are scored.

A task is one small YAML file in `scoring/tasks/`; see docs/scoring.md.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hf_bias_patch.errors import TaskError
from hf_bias_patch.patching.strict_yaml import read_fields
from hf_bias_patch.patching.wording import problems
from hf_bias_patch.scoring.metric_info import MEAN, TaskKind, greater_is_better, metrics_of

__all__ = ["GenerationOptions", "Hub", "Task", "dump_task", "load_task", "make_task", "read_task", "task_names"]

_FOLDER = Path(__file__).parent / "tasks"

# Strict of all else: YAML reads `no` as false, and a label or column of that name must be quoted. Only sequences are
# lenient, because YAML and JSON have lists where a frozen model wants tuples.
Names = Annotated[tuple[str, ...], Field(strict=False)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Hub(_Facts):
    """Where a task's data is on the Hub.

    Attributes:
        id: `owner/name` of the data set.
        config: its configuration, such as `sst2` of GLUE.
        revision: branch, tag or commit; its main branch if None.
    """

    id: str
    config: str | None = None
    revision: str | None = None


class GenerationOptions(_Facts):
    """How texts are generated: beam search and length settings, as `generate` of transformers takes them.

    What is None is the task's, or the model's own: see `scoring.generation`.
    """

    num_beams: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Generation: number of beams. By default the task's, else the model's; so are the options below.",
    )
    max_new_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Generation: longest answer, in tokens."
    )
    min_new_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Generation: shortest answer, in tokens."
    )
    length_penalty: float | None = Field(None, description="Generation: above 0 favours long answers.")
    no_repeat_ngram_size: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Generation: no n-gram of this size occurs twice; 0 allows all."
    )
    early_stopping: bool | Literal["never"] | None = Field(
        None,
        description="Generation: true ends a beam search when as many answers as beams are complete; false continues "
        "while a better one is likely; never continues while one is possible.",
    )

    @model_validator(mode="after")
    def _possible(self) -> GenerationOptions:
        least, most = self.min_new_tokens, self.max_new_tokens
        if least is not None and most is not None and least > most:
            raise ValueError(f"min_new_tokens {least} is above max_new_tokens {most}")
        return self


class Task(_Facts):
    """What a model is asked.

    Attributes:
        name: as the user types it.
        version: goes up when scores stop being comparable with those of before.
        kind: classification, regression, language modelling or generation.
        about: the task in a few words.
        hub: where its data is on the Hub; None of tasks from files or of generated rows.
        generator: name of the generator of an embedded task (`scoring/embedded/`).
        files: split → local file, of a task made from the user's own data.
        text: columns of the input: one, or two of a pair.
        label: column of the label, or of the reference texts; `a.b` means field b of each item in a.
        labels: names of the labels, in the order of their numbers; classification only.
        splits: name of a split here → its name on the Hub.
        metrics: what is computed; see scoring/metric_info.py.
        main_metric: the one that the best checkpoint is chosen by; `mean` is the mean of `metrics`.
        aliases: column of the original files → the name that it has here.
        headerless: the columns of original files that have no header line.
        grouped: whether rows with the same source are one question with several references (generation).
        joined: whether all rows are one running text (language modelling), or else each a document of its own.
        prompt: what a decoder-only model reads; `{source}` is the input (generation).
        decode: beam search and length settings that the task asks for (generation).
        submission: split → name of the file that the GLUE server wants.
        words: whether that file holds label names rather than numbers.
    """

    name: str
    version: Annotated[int, Field(ge=1)] = 1
    kind: TaskKind
    about: str = ""
    hub: Hub | None = None
    generator: str | None = None
    files: dict[str, str] = Field(default_factory=dict)
    text: Names
    label: str | None = None
    labels: Names = ()
    splits: dict[str, str] = Field(default_factory=dict)
    metrics: Names
    main_metric: str
    aliases: dict[str, str] = Field(default_factory=dict)
    headerless: Names = ()
    grouped: bool = False
    joined: bool = False
    prompt: str = "{source}\n"
    decode: GenerationOptions = Field(default_factory=GenerationOptions)
    submission: dict[str, str] = Field(default_factory=dict)
    words: bool = False

    @property
    def greater_is_better(self) -> bool:
        """Whether a larger main metric is the better one."""
        return greater_is_better(self.main_metric)

    @property
    def outputs(self) -> int:
        """Numbers that a head for this task gives out: one a label; 1 for regression."""
        return len(self.labels) if self.kind == "classification" else 1

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        most = 2 if self.kind in ("classification", "regression") else 1
        if not 1 <= len(self.text) <= most:
            raise ValueError(f"text: a {self.kind} task has {' or '.join('12'[:most])} text columns")
        if (self.kind == "language_modelling") != (self.label is None):
            raise ValueError("label: every kind of task but language_modelling has one")
        if (self.kind == "classification") != bool(self.labels) or len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: a classification task names its labels, each once, and no other kind has any")
        if len(self.labels) == 1:
            raise ValueError("labels: there must be two or more")
        if wrong := sorted(set(self.metrics) - set(metrics_of(self.kind))):
            raise ValueError(f"metrics: {wrong[0]!r} is not one of {', '.join(metrics_of(self.kind))}")
        if self.main_metric not in (*self.metrics, MEAN):
            raise ValueError(f"main_metric: {self.main_metric!r} is not one of {', '.join((*self.metrics, MEAN))}")
        if "{source}" not in self.prompt:
            raise ValueError("prompt: {source} is missing")
        return self


def make_task(**fields: Any) -> Task:
    """A task from its fields.

    Raises:
        TaskError: a field is unknown, missing or wrong; the message lists every such field.
    """
    try:
        return Task(**fields)
    except ValidationError as error:
        raise TaskError(
            f"The task {fields.get('name', '')!r} is wrong: {'; '.join(problems(error))}",
            remedy=f"Fields: {', '.join(Task.model_fields)}",
        ) from None


def read_task(path: str | Path) -> Task:
    """A task from a YAML file.

    Raises:
        TaskError: the file cannot be read, is not a mapping, has a key twice, or has a wrong field.
    """
    return make_task(**read_fields(path, "The task", TaskError, "See docs/scoring.md"))


def task_names() -> tuple[str, ...]:
    """The names of all tasks that come with the package, sorted."""
    return tuple(sorted(_files()))


def load_task(name: str) -> Task:
    """The task of that name, or in that YAML file.

    Raises:
        TaskError: there is none, or the file is malformed.
    """
    if name.endswith((".yaml", ".yml")):
        return read_task(name)
    if name not in _files():
        raise TaskError(
            f"There is no task {name!r}",
            remedy=f"Tasks are: {', '.join(task_names())}; or give the path of a task's YAML file",
        )
    return _known(name)


@cache
def _known(name: str) -> Task:
    return read_task(_files()[name])


@cache
def _files() -> dict[str, Path]:
    """Name → file. The folder `embedded` makes the prefix `embedded:`, as in the names of embedded checkpoints."""
    return {
        path.relative_to(_FOLDER).with_suffix("").as_posix().replace("/", ":"): path for path in _FOLDER.rglob("*.yaml")
    }


def dump_task(task: Task) -> str:
    """A task as YAML that `read_task` reads back."""
    return str(yaml.safe_dump(task.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True))
