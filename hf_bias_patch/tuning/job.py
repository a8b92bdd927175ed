"""What the loop needs to know of a task: its samples, its loss, and how well the model does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

__all__ = ["Batch", "TrainingJob"]

Batch = dict[str, torch.Tensor]


class TrainingJob(Protocol):
    """A task, ready for the loop."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each training sample."""
        ...

    @property
    def main(self) -> str:
        """The metric that tells which state is the best."""
        ...

    @property
    def greater_is_better(self) -> bool:
        """Whether more of the main metric is better."""
        ...

    @property
    def validates(self) -> bool:
        """Whether there is data to validate on; if not, the last state is the best."""
        ...

    def batch(self, rows: Sequence[int], seed: Sequence[int]) -> Batch:
        """Training samples as tensors.

        Args:
            rows: indices of the samples.
            seed: of whatever is drawn for them; the same for the same epoch. It must not depend on how samples are
                dealt out to processes.
        """
        ...

    def count(self, batch: Batch) -> int:
        """What the loss of a batch is a sum over: samples, or tokens."""
        ...

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """The loss of a batch, summed."""
        ...

    def evaluate(self, model: Any) -> Mapping[str, float]:
        """Metric → value on the validation data, the main one among them; the same on every process."""
        ...
