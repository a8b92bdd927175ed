"""Folds biases that stand after a layer norm into their weights, and measures that nothing changes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from hf_bias_patch.errors import CheckpointError, PlanError
from hf_bias_patch.patching.in_memory import apply
from hf_bias_patch.studies.biases.arms import BiasGroup
from hf_bias_patch.studies.biases.swap import Biases
from hf_bias_patch.studies.measuring.effects import Effect, run
from hf_bias_patch.studies.measuring.inputs import TokenisedTexts
from hf_bias_patch.studies.records import FoldRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["fold"]


def fold(model: PreTrainedModel, inputs: TokenisedTexts, batch_tokens: int, group: BiasGroup) -> list[FoldRecord]:
    """Fold a group's biases into their weights, in a copy of the model (identity 3 of docs/theory.md): one record.

    Args:
        model: is not changed.
        inputs: the texts that both are run on.
        batch_tokens: tokens in a batch.
        group: whose biases.
    """
    folded, biases = copy.deepcopy(model), Biases(model)
    numbers = sum(map(biases.numbers, group.targets))
    stack, _, attention = group.place.partition(" ")
    try:
        apply(folded, fold={group.projection: "weight"}, stack=stack, attention=attention)
    except (PlanError, CheckpointError) as error:  # the latter of values that are not finite
        return [FoldRecord(group.place, group.projection, numbers, _reason(error), 0.0)]
    effect = Effect()
    for batch in inputs.batches(batch_tokens, str(model.device)):
        effect.add(run(model, batch), run(folded, batch))
    return [FoldRecord(group.place, group.projection, numbers, "", effect.figures()["relative"])]


def _reason(error: PlanError | CheckpointError) -> str:
    """The first reason under the error's heading, if it has one: the others differ in the layer only."""
    first, *lines = error.what.splitlines()
    return lines[0].strip() if lines else first
