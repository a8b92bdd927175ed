"""Which parameters are the task head."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["head_of"]


def head_of(model: PreTrainedModel, new: Collection[str] = ()) -> frozenset[str]:
    """Names of the parameters outside the pretrained trunk, and of those that its checkpoint did not hold.

    A parameter that the trunk has too (a language model's output layer tied to its embeddings) is the trunk's. BERT's
    pooler is inside the trunk, and part of the head only where it is new.

    Args:
        model: a model with a head.
        new: names of the parameters that got random values when the model was loaded.
    """
    trunk = getattr(model, model.base_model_prefix, None)
    own = model.named_parameters()  # each parameter once, by its first name
    if trunk is None or trunk is model:
        return frozenset(name for name, _ in own if name in new)
    inside = {id(parameter) for parameter in trunk.parameters()}
    return frozenset(name for name, parameter in own if name in new or id(parameter) not in inside)
