"""What one step of training on one projection's biases does to the hidden states and the loss.

With gradient g, plain descent steps along −g and AdamW's first step along −sign(g). A step of the length ε along d
moves a token's last hidden state by ε‖Jd‖, where J is its derivative: that is measured by a finite difference and
divided by ε. Everything is in float64, so that a key bias's true gradient, zero, is not hidden by rounding.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hf_bias_patch.studies.biases.arms import BiasGroup, Target, groups_of
from hf_bias_patch.studies.biases.swap import Biases, norm
from hf_bias_patch.studies.measuring.effects import Effect, ModelOutputs, outputs, run
from hf_bias_patch.studies.measuring.inputs import TextBatch, TokenisedTexts
from hf_bias_patch.studies.records import StepRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Steps"]

_LENGTH = 1e-6
"""Largest change of a number: far above float64's rounding (1e-16), far below where the function bends."""

Direction = dict[Target, np.ndarray]


class Steps:
    """A model in float64, its gradients, and the inputs on which they are taken."""

    def __init__(self, model: PreTrainedModel, inputs: TokenisedTexts, batch_tokens: int, seed: int) -> None:
        self._model, self._biases, self._seed = model, Biases(model), seed
        self._batches = list(inputs.batches(batch_tokens, str(model.device)))

    @cached_property
    def groups(self) -> list[BiasGroup]:
        """The groups that can be measured."""
        return groups_of(self._biases.sites.values())

    def measure(self, group: BiasGroup) -> list[StepRecord]:
        """One record for each direction; without a loss only for random signs."""
        return [self._step(group, name, direction) for name, direction in self._directions(group)]

    def _directions(self, group: BiasGroup) -> Iterator[tuple[str, Direction]]:
        if gradient := self._gradients.get(group.name):
            yield "gradient", gradient
            yield "AdamW", {target: np.sign(values) for target, values in gradient.items()}
        random = np.random.default_rng([self._seed, zlib.crc32(group.name.encode())])
        yield (
            "random signs",
            {target: random.choice([-1.0, 1.0], self._biases.numbers(target)) for target in group.targets},
        )

    def _step(self, group: BiasGroup, name: str, direction: Direction) -> StepRecord:
        largest = max((float(np.abs(values).max()) for values in direction.values()), default=0.0)
        length = _LENGTH / largest if largest else 0.0
        effect = Effect()
        with self._biases.moved({target: -length * values for target, values in direction.items()}):
            for batch, base in zip(self._batches, self._base, strict=True):
                effect.add(base, run(self._model, batch))
        figures, per = effect.figures(), 1 / length if length else 0.0
        numbers = sum(values.size for values in direction.values())
        gradient = 0.0 if name == "random signs" else norm(self._gradients[group.name])
        loss = figures["loss_change"] * per if "loss_change" in figures else None
        return StepRecord(group.place, group.projection, numbers, name, gradient, figures["root_square"] * per, loss)

    @cached_property
    def _base(self) -> list[ModelOutputs]:
        return [run(self._model, batch) for batch in self._batches]

    @cached_property
    def _gradients(self) -> dict[str, Direction]:
        """Gradients of the mean loss over all predicted tokens, by the name of the group; empty without a loss."""
        predicted = sum(len(base.losses) for base in self._base if base.losses is not None)
        if not predicted:
            return {}
        targets = [target for group in self.groups for target in group.targets]
        self._model.requires_grad_(False)
        for parameter in self._biases.parameters(targets):
            parameter.requires_grad_(True)
        for batch in self._batches:
            self._backward(batch, predicted)
        found = {group.name: self._biases.gradients(group.targets) for group in self.groups}
        self._model.zero_grad(set_to_none=True)
        return found

    def _backward(self, batch: TextBatch, predicted: int) -> None:
        import torch

        losses = outputs(self._model, batch).losses
        assert losses is not None
        torch.autograd.backward(losses.sum() / predicted)
