"""Scores of a model on a task, without any training."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.collate import Collator
from hf_bias_patch.scoring.encode import Encoded, check_vocabulary, encode
from hf_bias_patch.scoring.generation import resolve_generation
from hf_bias_patch.scoring.heads import HeadKind, head_kind_of, input_limit, require_head, unwrapped
from hf_bias_patch.scoring.labels import decide, label_order
from hf_bias_patch.scoring.metrics import compute, perplexity
from hf_bias_patch.scoring.padding import Side, choose_padding, padded
from hf_bias_patch.scoring.predict import Predictions, gather, likelihoods, predict_classes, predict_texts
from hf_bias_patch.scoring.tasks import GenerationOptions, Task
from hf_bias_patch.scoring.windows import EACH, Masked

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "Answers",
    "Scores",
    "ScoringOptions",
    "answers",
    "batches_by_length",
    "encode_for",
    "evaluate_model",
    "score",
]


@dataclass(frozen=True)
class ScoringOptions:
    """How to evaluate.

    Attributes:
        batch_tokens: tokens in a batch, padding included; of a generating model, tokens of the input times beams.
            Changes scores by rounding only.
        max_length: tokens an input may have; what the model takes if None, and never more.
        stride: tokens that each window after the first scores (causal language modelling); half a window if None.
        masked: share of the tokens a masked language model is scored on, or `each`, one at a time.
        decode: beam search and length settings that are asked for; the others are the task's, or the model's own.
    """

    batch_tokens: int = 4096
    max_length: int | None = None
    stride: int | None = None
    masked: Masked = 0.15
    decode: GenerationOptions | None = None


@dataclass(frozen=True)
class Answers:
    """The answers of a model to a data set.

    Attributes:
        predictions: by the number of the encoded row; complete, in order.
        encoded: the inputs, and what was cut of them.
        head: kind of the model's head.
        notes: for the reader.
        seconds: wall time.
        decode: the settings of generation that were used; None of other tasks.
    """

    predictions: Predictions
    encoded: Encoded
    head: HeadKind
    notes: tuple[str, ...]
    seconds: float
    decode: dict[str, Any] | None = None


@dataclass(frozen=True)
class Scores:
    """The scores of a model on a data set.

    Attributes:
        task, version: of the task.
        metrics: name → value; units are those of scoring/metric_info.py.
        main_metric: the metric that sums it up.
        rows: rows of the data set.
        truncated: inputs that were longer than the model takes, and were cut.
        seconds: wall time of prediction.
        notes: for the reader.
        decode: the settings of generation that were used; None of other tasks.
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
    decode: dict[str, Any] | None = None
    predictions: tuple[Any, ...] = field(default=(), repr=False)

    @property
    def main(self) -> float:
        """The value of the main metric."""
        return self.metrics[self.main_metric]

    def plain(self) -> dict[str, Any]:
        """All but the predictions, as JSON values; `decode` of generation alone."""
        left_out = {"predictions", *([] if self.decode else ["decode"])}
        return {name: value for name, value in asdict(self).items() if name not in left_out}


def evaluate_model(
    model: Any,
    tokenizer: Any,
    task: Task,
    dataset: Dataset,
    options: ScoringOptions | None = None,
    *,
    encoded: Encoded | None = None,
    accelerator: Any | None = None,
) -> Scores:
    """Score a model on a data set.

    Args:
        model: of transformers, with a head that suits the task; its mode and device stay as they are.
        tokenizer: its tokenizer.
        task: what is asked.
        dataset: canonical columns with labels or references (`scoring.data.load_split`).
        options: how; the defaults if None.
        encoded: what `encode_for` made of the same arguments, where it is scored more than once.
        accelerator: of Accelerate, where several processes share the work; each gets all scores.

    Raises:
        TaskError: the model's head does not suit the task, or its answers are not finite.
    """
    options = options or ScoringOptions()
    given = answers(model, tokenizer, task, dataset, options, encoded=encoded, accelerator=accelerator)
    return score(task, given, dataset, options)


def encode_for(model: Any, tokenizer: Any, task: Task, dataset: Dataset, options: ScoringOptions) -> Encoded:
    """The data set as the model reads it. Arguments and errors as of `evaluate_model`.

    Raises:
        DataError: there is a token that the model does not know.
    """
    inner = unwrapped(model)
    head = require_head(task.kind, head_kind_of(model), type(inner).__name__)
    answer = resolve_generation(model, task, options.decode, head).max_new_tokens if task.kind == "generation" else 0
    encoded = encode(
        dataset,
        tokenizer,
        task,
        input_limit(tokenizer, inner.config, options.max_length),
        head=head,
        max_target_length=answer,
        stride=options.stride,
        masked=options.masked,
    )
    check_vocabulary(encoded, model)
    return encoded


def answers(
    model: Any,
    tokenizer: Any,
    task: Task,
    dataset: Dataset,
    options: ScoringOptions,
    *,
    encoded: Encoded | None = None,
    accelerator: Any | None = None,
) -> Answers:
    """What the model answers, from all processes. The data set needs no labels. Arguments as of `evaluate_model`."""
    started = time.perf_counter()
    encoded = encoded or encode_for(model, tokenizer, task, dataset, options)
    head, padding = head_kind_of(model), choose_padding(model, tokenizer)
    decoding = resolve_generation(model, task, options.decode, head) if task.kind == "generation" else None
    side: Side = "left" if decoding and head == "causal" else padding.side
    budget = options.batch_tokens // (decoding.settings["num_beams"] if decoding else 1)
    batches = process_batches(encoded.dataset, Collator(padding.id, side), budget, accelerator)
    notes: tuple[str, ...] = ()
    if decoding:
        notes = decoding.notes
        found = predict_texts(model, batches, tokenizer, decoding, padding.id, prompted=head == "causal")
    elif task.kind == "language_modelling":
        found = likelihoods(model, batches, shifted=head == "causal")
    else:
        order, notes = label_order(unwrapped(model).config, task)
        notes += (f"{padding.note}.",) if padding.note else ()
        with padded(model, padding):
            found = predict_classes(model, batches, task, order)
    found = gather(found, accelerator, len(encoded.dataset))
    used = decoding.plain() if decoding else None
    return Answers(found, encoded, head, notes, time.perf_counter() - started, used)


def score(task: Task, given: Answers, dataset: Dataset, options: ScoringOptions | None = None) -> Scores:
    """Scores from answers.

    Raises:
        TaskError: an answer is NaN.
    """
    main, decided = task.main_metric, []
    if task.kind == "language_modelling":
        metrics = _likelihood(given, dataset, (options or ScoringOptions()).masked)
        main = main if main in metrics else list(metrics)[-1]
    else:
        decided = decide(task, list(given.predictions.values()))
        truth = dataset["references" if task.kind == "generation" else "label"][:]
        metrics = compute(task, decided, truth)
        if task.kind == "classification":
            metrics["loss"] = _label_loss(list(given.predictions.values()), truth)
    return Scores(
        task=task.name,
        version=task.version,
        metrics=metrics,
        main_metric=main,
        rows=len(dataset),
        truncated=given.encoded.truncated,
        seconds=given.seconds,
        notes=given.notes,
        decode=given.decode,
        predictions=tuple(decided),
    )


def _label_loss(logits: list[list[float]], labels: Sequence[int]) -> float:
    """Mean negative log-likelihood of the right label, in nats: it tells models apart that decide the same."""
    import torch

    return float(torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels)))


def _likelihood(given: Answers, dataset: Dataset, masked: Masked) -> dict[str, float]:
    """Losses in nats a token, and their exponentials; named after what was measured."""
    nll = sum(total for total, _ in given.predictions.values())
    tokens = sum(count for _, count in given.predictions.values())
    if math.isnan(nll):
        raise TaskError("The model gives out NaN", why="No perplexity can be computed from NaN")
    loss, per_token = nll / max(tokens, 1), perplexity(nll, max(tokens, 1))
    if given.head == "masked":
        name = "pseudo_perplexity" if masked == EACH else "masked_perplexity"
        return {"masked_loss": loss, name: per_token}
    words = sum(len(text.split()) for text in dataset["text"])
    return {"loss": loss, "perplexity": per_token, "word_perplexity": perplexity(nll, max(words, 1))}


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


def process_batches(encoded: Any, collator: Any, budget: int, accelerator: Any | None) -> Iterator[Any]:
    """This process's batches: every n-th of those by length.

    Every process gets as many, the last ones repeated: a sharded model computes only where all do. What comes twice is
    told by its row number (`gather`).
    """
    rank, ranks = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    batches = batches_by_length(encoded["length"][:], budget)
    batches += batches[-1:] * (-len(batches) % ranks)
    for rows in batches[rank::ranks]:
        part = encoded[rows]
        yield collator([{name: part[name][i] for name in part} for i in range(len(rows))])
