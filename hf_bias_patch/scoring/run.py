"""Scores of a model on a task, without any training."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.collate import Collator, pad_id
from hf_bias_patch.scoring.encode import Encoded, encode
from hf_bias_patch.scoring.forms import Form, form_of, longest_input, require_form
from hf_bias_patch.scoring.metrics import compute
from hf_bias_patch.scoring.predict import Predictions, gather, predict_classes
from hf_bias_patch.scoring.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Options", "Scores", "answers", "batches_by_length", "decide", "evaluate", "score"]


@dataclass(frozen=True)
class Options:
    """How to evaluate. None of it but `stride`, `masked` and `max_length` may change a score by more than rounding.

    Attributes:
        batch_tokens: tokens in a batch, padding included.
        max_length: tokens an input may have; what the model takes if None.
    """

    batch_tokens: int = 4096
    max_length: int | None = None


@dataclass(frozen=True)
class Scores:
    """What came out.

    Attributes:
        task, version: of the task.
        metrics: name → value; units are those of scoring/measures.py.
        main_metric: the metric that sums it up.
        rows: rows scored.
        truncated: inputs that were longer than the model takes, and were cut.
        seconds: wall time of prediction.
        notes: what a reader should know.
        predictions: in the order of the rows: label numbers, floats or texts; empty for language modelling.
    """

    task: str
    version: int
    metrics: dict[str, float]
    main_metric: str
    rows: int
    truncated: int
    seconds: float
    notes: tuple[str, ...] = ()
    predictions: tuple[Any, ...] = field(default=(), repr=False)

    @property
    def main(self) -> float:
        """The value of the main metric."""
        return self.metrics[self.main_metric]

    def plain(self) -> dict[str, Any]:
        """All but the predictions, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "predictions"}


def evaluate(
    model: Any,
    tokenizer: Any,
    task: Task,
    dataset: Dataset,
    options: Options | None = None,
    *,
    accelerator: Any | None = None,
) -> Scores:
    """Score a model on a data set.

    Args:
        model: of transformers, with a head that suits the task; its mode and device stay as they are.
        tokenizer: its tokenizer.
        task: what is asked.
        dataset: canonical columns with labels or references (`scoring.data.load_split`).
        options: how; the defaults if None.
        accelerator: of Accelerate, where several processes share the work; each gets all scores.

    Raises:
        TaskError: the model's head does not suit the task, or its answers are not finite.
    """
    started = time.perf_counter()
    found, encoded = answers(model, tokenizer, task, dataset, options or Options(), accelerator=accelerator)
    return score(task, found, dataset, encoded, time.perf_counter() - started)


def answers(
    model: Any,
    tokenizer: Any,
    task: Task,
    dataset: Dataset,
    options: Options,
    *,
    accelerator: Any | None = None,
) -> tuple[Predictions, Encoded]:
    """Predictions by row, from all processes, and what was cut. The data set needs no labels."""
    form = require_form(task.kind, form_of(model), type(model).__name__)
    length = options.max_length or longest_input(tokenizer, model.config)
    encoded = encode(dataset, tokenizer, task, length, form=form)
    pad = pad_id(tokenizer)
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = pad  # classifiers refuse batches without one
    batches = _batches(encoded.dataset, Collator(pad), options.batch_tokens, accelerator)
    return gather(predict_classes(model, batches, task), accelerator, len(encoded.dataset)), encoded


def score(task: Task, found: Predictions, dataset: Dataset, encoded: Encoded, seconds: float = 0.0) -> Scores:
    """Scores from gathered predictions."""
    decided = decide(task, [found[row] for row in range(len(dataset))])
    metrics = compute(task, decided, dataset["label"][:])
    return Scores(
        task.name, task.version, metrics, task.main_metric, len(dataset), encoded.truncated, seconds,
        predictions=tuple(decided),
    )  # fmt: skip


def decide(task: Task, logits: Sequence[Sequence[float]]) -> list[Any]:
    """Label numbers (the largest logit; of equal ones the first) or floats, from rows of logits.

    Raises:
        TaskError: a logit is NaN.
    """
    if any(value != value for row in logits for value in row):
        raise TaskError(f"The model gives out NaN on {task.name}")
    if task.kind == "regression":
        return [row[0] for row in logits]
    return [max(range(len(row)), key=row.__getitem__) for row in logits]


def batches_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Rows in batches of nearly equal length, the longest first, so that a batch that does not fit shows at once.

    Args:
        lengths: tokens of each row.
        budget: rows times longest row of a batch; a row longer than it is a batch of its own.
    """
    made: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if made and (len(made[-1]) + 1) * lengths[made[-1][0]] <= budget:
            made[-1].append(row)
        else:
            made.append([row])
    return made


def _batches(encoded: Any, collator: Any, budget: int, accelerator: Any | None) -> Iterator[Any]:
    """This process's batches: every n-th of those by length."""
    rank, ranks = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    for rows in batches_by_length(encoded["length"][:], budget)[rank::ranks]:
        part = encoded[rows]
        yield collator([{name: part[name][i] for name in part} for i in range(len(rows))])
