"""Trains the biases of one projection and nothing else, in memory, and measures what that does to the loss."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from hf_bias_patch.architecture.sites import Projection
from hf_bias_patch.studies.measuring.effects import Effect, run
from hf_bias_patch.studies.measuring.inputs import TextBatch, TokenisedTexts
from hf_bias_patch.studies.records import SingleBiasRecord
from hf_bias_patch.studies.runner import PartDone
from hf_bias_patch.studies.training.loop import split_held_out, train
from hf_bias_patch.tuning.set_trainable import set_trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["RATE", "train_single_bias"]

RATE = 3e-3
"""Of AdamW: high, for there are few steps; the same for each projection, so that a step is as long."""

_LOOKS = 8
"""How often losses are measured, evenly spread, beside the measurement before the first step."""


def train_single_bias(
    model: PreTrainedModel,
    inputs: TokenisedTexts,
    batch_tokens: int,
    trained: Projection,
    *,
    steps: int,
    part_done: PartDone = lambda _: None,
) -> list[SingleBiasRecord]:
    """Train the biases of one projection at all sites; a record for each time that the losses are measured.

    Args:
        model: a language model; a copy of it in float32 is trained.
        inputs: three quarters are trained on, the rest is held out.
        batch_tokens: tokens in a batch.
        trained: whose biases.
        steps: of AdamW.
        part_done: called with the share that is done.

    Raises:
        RecipeError: the model has no such bias.
    """
    import torch

    learning, device = copy.deepcopy(model).float(), str(model.device)
    selection = set_trainable(learning, trained, head=False, redundant=True)
    texts, held = split_held_out(inputs)
    fitted, shown = list(texts.batches(batch_tokens, device)), list(held.batches(batch_tokens, device))
    before = [run(learning, batch) for batch in shown]
    parameters = [parameter for parameter in learning.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    found = []
    for step in train(learning, fitted, optimiser, steps):
        part_done(step / steps)
        if step in _looks(steps):
            effect = Effect()
            for batch, base in zip(shown, before, strict=True):
                effect.add(base, run(learning, batch))
            now, loss = effect.figures(), _loss(learning, fitted)
            found.append(SingleBiasRecord(trained, selection.elements, RATE, step, loss, now["loss"], now["relative"]))
    return found


def _loss(model: PreTrainedModel, batches: list[TextBatch]) -> float:
    """Mean over all predicted tokens, in nats a token."""
    losses = [losses for batch in batches if (losses := run(model, batch).losses) is not None]
    return sum(float(part.double().sum()) for part in losses) / sum(map(len, losses))


def _looks(steps: int) -> set[int]:
    return {round(look * steps / _LOOKS) for look in range(_LOOKS + 1)}
