"""A few steps of training in memory, on the texts of the study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from hf_bias_patch.studies.measuring.effects import outputs
from hf_bias_patch.studies.measuring.inputs import TextBatch, TokenisedTexts

if TYPE_CHECKING:
    import torch

__all__ = ["split_held_out", "train"]

_HELD_OUT = 0.25


def split_held_out(inputs: TokenisedTexts) -> tuple[TokenisedTexts, TokenisedTexts]:
    """The texts to train on, and the last quarter, which is held out."""
    kept = len(inputs.rows) - max(1, round(_HELD_OUT * len(inputs.rows)))
    return replace(inputs, rows=inputs.rows[:kept]), replace(inputs, rows=inputs.rows[kept:])


def train(
    model: Any,
    batches: list[TextBatch],
    optimiser: torch.optim.Optimizer,
    steps: int,
    *,
    autocast: torch.dtype | None = None,
) -> Iterator[int]:
    """Train on the mean loss of one batch after the other, without dropout.

    Args:
        model: a language model; what trains is what the optimiser holds.
        batches: with labels.
        optimiser: steps at a constant rate.
        steps: how many.
        autocast: dtype of the products, where it is not the weights'.

    Yields:
        The number of each step when its gradients are there, before they are used; and `steps` at the end.
    """
    import torch

    for step, batch in enumerate(islice(cycle(batches), steps)):
        optimiser.zero_grad()
        with torch.autocast(model.device.type, autocast, enabled=autocast is not None):
            losses = outputs(model, batch).losses
        assert losses is not None, "a study trains models that have a loss"
        torch.autograd.backward(losses.mean())
        yield step
        optimiser.step()
    yield steps
