"""Given the weights, a bias behind a layer norm says nothing that they cannot say: it is moved into them, exactly."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from hf_bias_patch.errors import CheckpointError, PlanError
from hf_bias_patch.patching.memory import apply
from hf_bias_patch.study.biases.groups import Group
from hf_bias_patch.study.found import Fold
from hf_bias_patch.study.measuring.effects import Effect, run
from hf_bias_patch.study.measuring.inputs import Inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["fold"]


def fold(model: PreTrainedModel, inputs: Inputs, batch_tokens: int, group: Group, numbers: int) -> Fold:
    """Fold a group's biases into their weights, in a copy of the model (identity 3 of docs/theory.md).

    Args:
        model: stays as it is.
        inputs: what both are run on.
        batch_tokens: in a batch.
        group: whose biases.
        numbers: how many they are.
    """
    folded = copy.deepcopy(model)
    stack, _, attention = group.place.partition(" ")
    try:
        apply(folded, fold={group.projection: "weight"}, stack=stack, attention=attention)
    except (PlanError, CheckpointError) as error:  # the latter of values that are no numbers
        return Fold(group.place, group.projection, numbers, _reason(error), 0.0)
    effect = Effect()
    for batch in inputs.batches(batch_tokens, str(model.device)):
        effect.add(run(model, batch), run(folded, batch))
    return Fold(group.place, group.projection, numbers, "", effect.figures()["relative"])


def _reason(error: PlanError | CheckpointError) -> str:
    """The first of the reasons that stand under the heading, where there is one: they differ in the layer alone."""
    first, *lines = error.what.splitlines()
    return lines[0].strip() if lines else first
