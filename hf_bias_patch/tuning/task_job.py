"""A task as the training loop sees it: batches of its training data, their loss, scores on its validation data.

Losses are sums over what they count, so that a mean is right however a step is cut into batches and processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, mse_loss

from hf_bias_patch.scoring.collate import IGNORED, KEPT_ASIDE, Collator, mask_tokens
from hf_bias_patch.scoring.encode import Encoded
from hf_bias_patch.scoring.heads import readable
from hf_bias_patch.scoring.score import ScoringOptions, evaluate_model
from hf_bias_patch.tuning.job import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hf_bias_patch.tuning.task_data import TaskData

__all__ = ["TaskJob", "label_loss", "score_loss", "token_loss"]


@dataclass(frozen=True)
class TaskJob:
    """A task with its data, ready for the loop.

    Attributes:
        data: the task, its training data encoded, and its validation data; without any, the last state is the best.
        encoded: the validation data encoded.
        options: how to evaluate.
        accelerator: of Accelerate; its processes share an evaluation.
        order: for each label of the task the output of the head that stands for it; the same order if None.
    """

    data: TaskData
    encoded: Encoded | None
    options: ScoringOptions
    accelerator: Accelerator
    order: Sequence[int] | None = None

    @property
    def main(self) -> str:
        """The task's main metric; of a masked model, which has no perplexity of a text, its own."""
        return "masked_perplexity" if self.data.head == "masked" else self.data.task.main_metric

    @property
    def greater_is_better(self) -> bool:
        """Whether more of it is better."""
        return self.data.task.greater_is_better

    @property
    def validates(self) -> bool:
        """Whether there is data to validate on."""
        return self.data.validation is not None

    @cached_property
    def lengths(self) -> Sequence[int]:
        """Tokens of each training sample."""
        return list(self.data.train.dataset["length"][:])

    def batch(self, rows: Sequence[int], seed: Sequence[int]) -> Batch:
        """Padded samples; of a masked model, masked anew in each epoch, each sample by a draw of its own."""
        samples = [self.data.train.dataset[row] for row in rows]
        if self.data.head == "masked":
            samples = [self._masked(sample, (*seed, row)) for sample, row in zip(samples, rows, strict=True)]
        batch = self._collator(samples)
        if self.order is not None:
            batch["labels"] = torch.tensor(self.order)[batch["labels"]]
        return {name: value for name, value in batch.items() if name not in KEPT_ASIDE}

    def count(self, batch: Batch) -> int:
        """Samples of a classifier, tokens of a language model."""
        labels = batch["labels"]
        if self.data.head == "classifier":
            return len(labels)
        return int(((labels[:, 1:] if self.data.head == "causal" else labels) != IGNORED).sum())

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Cross-entropy in nats, or squared error, summed over what `count` counts."""
        inputs = readable(model, {name: value for name, value in batch.items() if name != "labels"})
        labels = batch["labels"]
        if self.data.head == "seq2seq":
            bare = self.accelerator.unwrap_model(model)
            inputs["decoder_input_ids"] = bare.prepare_decoder_input_ids_from_labels(labels)
        logits = model(**inputs).logits
        if self.data.head == "causal":
            return token_loss(logits[:, :-1], labels[:, 1:])
        if self.data.head != "classifier":
            return token_loss(logits, labels)
        return score_loss(logits, labels) if self.data.task.kind == "regression" else label_loss(logits, labels)

    def evaluate(self, model: Any) -> Mapping[str, float]:
        """The task's metrics on the validation data."""
        assert self.data.validation is not None
        scores = evaluate_model(
            self.accelerator.unwrap_model(model),
            self.data.tokenizer,
            self.data.task,
            self.data.validation,
            self.options,
            encoded=self.encoded,
            accelerator=self.accelerator,
        )
        return scores.metrics

    @cached_property
    def _collator(self) -> Collator:
        multiple = 8 if self.accelerator.device.type == "cuda" else 1
        left = self.data.head == "classifier" and self.data.tokenizer.padding_side == "left"
        return Collator(self.data.tokenizer.pad_token_id, "left" if left else "right", multiple)

    def _masked(self, sample: dict[str, Any], seed: Sequence[int]) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        inputs, labels = mask_tokens(torch.tensor([sample["input_ids"]]), self.data.tokenizer, generator)
        return {**sample, "input_ids": inputs[0].tolist(), "labels": labels[0].tolist()}


def label_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, in nats, summed over samples.

    Args:
        logits: (samples, classes).
        labels: (samples), int64.
    """
    return cross_entropy(logits.float(), labels, reduction="sum")


def score_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Squared error, summed over samples.

    Args:
        logits: (samples, 1).
        labels: (samples), floating.
    """
    return mse_loss(logits.float().squeeze(-1), labels.float(), reduction="sum")


def token_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, in nats, summed over the tokens that count.

    Args:
        logits: (samples, tokens, vocabulary); of each token that is to be told, not of the one before it.
        labels: (samples, tokens), int64; `IGNORED` where a token does not count.
    """
    return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORED)
