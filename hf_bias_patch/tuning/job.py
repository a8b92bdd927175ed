"""What the training loop needs of a task: its samples, its loss, and how well the model does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

__all__ = ["Batch", "TrainingJob"]

Batch = dict[str, torch.Tensor]


class TrainingJob(Protocol):
    """A task with its data, ready for the training loop."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each training sample."""

    @property
    def main(self) -> str:
        """The metric that tells which state is the best."""

    @property
    def greater_is_better(self) -> bool:
        """Whether more of the main metric is better."""

    @property
    def validates(self) -> bool:
        """Whether there is validation data; if not, the last state is the best."""

    def batch(self, rows: Sequence[int], seed: Sequence[int]) -> Batch:
        """Training samples as tensors.

        Args:
            rows: indices of the samples.
            seed: of random draws for them; the same within an epoch, however samples are dealt out to processes.
        """

    def count(self, batch: Batch) -> int:
        """What the loss of a batch is a sum over: samples, or tokens."""

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """The loss of a batch, summed."""

    def evaluate(self, model: Any) -> Mapping[str, float]:
        """Metric → value on the validation data, the main one among them; the same on every process."""
