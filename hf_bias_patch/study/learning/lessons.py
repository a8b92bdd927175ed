"""Training one projection's biases and nothing else, each from the same checkpoint on the same texts: which helps."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from hf_bias_patch.attention.sites import Projection
from hf_bias_patch.study.found import Lesson
from hf_bias_patch.study.learning.loop import parts, train
from hf_bias_patch.study.measuring.effects import Effect, run
from hf_bias_patch.study.measuring.inputs import Batch, Inputs
from hf_bias_patch.study.stage import Tell
from hf_bias_patch.tuning.set_trainable import set_trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["RATE", "lesson"]

RATE = 3e-3
"""Of AdamW: high, for there are few steps. The same for all, so that a step is as long for each."""

_LOOKS = 8
"""So often losses are measured, evenly spread; and before the first step."""


def lesson(
    model: PreTrainedModel,
    inputs: Inputs,
    batch_tokens: int,
    trained: Projection,
    steps: int,
    tell: Tell = lambda _: None,
) -> list[Lesson]:
    """Train the biases of one projection at all sites.

    Args:
        model: a language model; a copy of it in float32 trains.
        inputs: three quarters are trained on, the rest is held out.
        batch_tokens: in a batch.
        trained: whose biases.
        steps: of AdamW.
        tell: is told how far it is.

    Raises:
        RecipeError: the model has no such bias.
    """
    import torch

    learning, device = copy.deepcopy(model).float(), str(model.device)
    selection = set_trainable(learning, trained, head=False, redundant=True)
    texts, held = parts(inputs)
    fitted, shown = list(texts.batches(batch_tokens, device)), list(held.batches(batch_tokens, device))
    before = [run(learning, batch) for batch in shown]
    parameters = [parameter for parameter in learning.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    found = []
    for step in train(learning, fitted, optimiser, steps):
        tell(step / steps)
        if step in _looks(steps):
            effect = Effect()
            for batch, base in zip(shown, before, strict=True):
                effect.add(base, run(learning, batch))
            now, loss = effect.figures(), _loss(learning, fitted)
            found.append(Lesson(trained, selection.elements, RATE, step, loss, now["loss"], now["relative"]))
    return found


def _loss(model: PreTrainedModel, batches: list[Batch]) -> float:
    """Of all tokens that are asked for, in nats a token."""
    losses = [losses for batch in batches if (losses := run(model, batch).losses) is not None]
    return sum(float(part.double().sum()) for part in losses) / sum(map(len, losses))


def _looks(steps: int, tell: Tell = lambda _: None) -> set[int]:
    return {round(look * steps / _LOOKS) for look in range(_LOOKS + 1)}
