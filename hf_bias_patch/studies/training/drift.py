"""How far each projection's biases move while the whole model trains with AdamW, and what that does.

A key bias has no true gradient where it is redundant. What is computed for it is rounding, and AdamW divides a gradient
by its own size: it steps as far for noise as for anything else. Weight decay adds its share.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_bias_patch.studies.biases.arms import BiasGroup, Target, groups_of
from hf_bias_patch.studies.biases.swap import Biases, norm
from hf_bias_patch.studies.measuring.effects import Effect, run
from hf_bias_patch.studies.measuring.inputs import TokenisedTexts
from hf_bias_patch.studies.records import DriftRecord
from hf_bias_patch.studies.runner import PartDone
from hf_bias_patch.studies.training.loop import train

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["DECAY", "PRECISIONS", "RATE", "drift"]

PRECISIONS = ("float32", "bfloat16 mixed", "bfloat16")
"""Of weights and products: both in float32; products in bfloat16 (as Accelerate's `bf16`); both in bfloat16."""

RATE = 5e-5
"""The usual one of full fine-tuning."""

DECAY = 0.01
"""AdamW's own default, on every parameter: many recipes exempt biases from it, and then `decay` is 0."""


def drift(
    model: PreTrainedModel,
    inputs: TokenisedTexts,
    batch_tokens: int,
    precision: str,
    *,
    steps: int,
    part_done: PartDone = lambda _: None,
) -> list[DriftRecord]:
    """Train a copy of the model; one record for each group of biases.

    Args:
        model: a language model; copies of it are made, in float32 unless `precision` says otherwise.
        inputs: the texts that it trains on, and that the effect of each group's move is measured on.
        batch_tokens: tokens in a batch.
        precision: one of `PRECISIONS`.
        steps: of AdamW.
        part_done: called with the share that is done.
    """
    import torch

    start = copy.deepcopy(model).float()
    learning = copy.deepcopy(start)
    if precision == "bfloat16":
        learning = learning.bfloat16()
    learning.requires_grad_(True)
    biases, batches = Biases(learning), list(inputs.batches(batch_tokens, str(model.device)))
    paths = {group.name: _Path(biases, group) for group in groups_of(biases.sites.values())}
    optimiser = torch.optim.AdamW(learning.parameters(), lr=RATE, weight_decay=DECAY)
    autocast = torch.bfloat16 if precision == "bfloat16 mixed" else None
    for step in train(learning, batches, optimiser, steps, autocast=autocast):
        part_done(step / steps)
        for path in paths.values():
            path.look(gradient=step < steps)
    return [
        DriftRecord(
            precision=precision,
            place=path.group.place,
            projection=path.group.projection,
            numbers=sum(values.size for values in path.start.values()),
            learning_rate=RATE,
            weight_decay=DECAY,
            steps=steps,
            gradient=float(np.mean(path.gradients)),
            moved=norm(path.moved),
            start=norm(path.start),
            decay=(1 - (1 - RATE * DECAY) ** steps) * norm(path.start),
            straight=norm(path.moved) / path.length if path.length else 0.0,
            relative=_effect(start, path.moved, batches),
        )
        for path in paths.values()
    ]


@dataclass
class _Path:
    """The path of a group's biases during training."""

    biases: Biases
    group: BiasGroup
    gradients: list[float] = field(default_factory=list)
    length: float = 0.0

    def __post_init__(self) -> None:
        self.start = self.last = self.biases.values(self.group.targets)

    def look(self, *, gradient: bool) -> None:
        """Record their values now, and their gradient if there is a new one."""
        now = self.biases.values(self.group.targets)
        self.length += norm(_difference(now, self.last))
        self.last = now
        if gradient:
            self.gradients.append(norm(self.biases.gradients(self.group.targets)))

    @property
    def moved(self) -> dict[Target, np.ndarray]:
        return _difference(self.last, self.start)


def _difference(now: dict[Target, np.ndarray], before: dict[Target, np.ndarray]) -> dict[Target, np.ndarray]:
    return {target: values - before[target] for target, values in now.items()}


def _effect(model: PreTrainedModel, moved: dict[Target, np.ndarray], batches: list[Any]) -> float:
    effect, biases = Effect(), Biases(model)
    for batch in batches:
        base = run(model, batch)
        with biases.moved(moved):
            effect.add(base, run(model, batch))
    return effect.figures()["relative"]
