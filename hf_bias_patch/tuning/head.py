"""Which parameters are the task head, and a new one in its place."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from hf_bias_patch.errors import TuneError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["head_of", "renew_head"]


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


def renew_head(model: PreTrainedModel, head: Collection[str]) -> None:
    """Give parameters the random values of a new model, as if no checkpoint had held them.

    Args:
        model: changed in place.
        head: names of the parameters.

    Raises:
        TuneError: there are none.
    """
    import torch

    if not head:
        raise TuneError(
            f"The head of {type(model).__name__} cannot be told from its trunk",
            why="The class has no base model inside",
            remedy="Leave --new-head out",
        )
    owners = {name: model.get_submodule(name.rpartition(".")[0]) for name in head}
    for name, owner in owners.items():
        leaf = name.rpartition(".")[2]
        # New objects: transformers marks those that it has loaded, and passes over them.
        setattr(owner, leaf, torch.nn.Parameter(torch.zeros_like(getattr(owner, leaf))))
    with torch.no_grad():
        for owner in dict.fromkeys(owners[name] for name in sorted(head)):
            model._init_weights(owner)
