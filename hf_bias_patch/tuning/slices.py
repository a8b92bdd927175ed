"""Training a part of a parameter, such as the value bias inside GPT-2's fused one, with the rest bit-identical.

Masking the gradient would not do: weight decay moves what has no gradient, and an optimiser keeps state for all of
it. Here the part is a parameter of its own, and the whole is put together from it whenever the module reads it.
"""

from __future__ import annotations

import torch
from torch.nn.utils import parametrize

__all__ = ["join_slices", "train_slice"]


class _Slice(torch.nn.Module):
    """The whole of a vector from its trained part."""

    whole: torch.Tensor
    places: torch.Tensor

    def __init__(self, whole: torch.Tensor, places: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("whole", whole.detach().clone())
        self.register_buffer("places", places)

    def forward(self, part: torch.Tensor) -> torch.Tensor:
        return self.whole.index_copy(0, self.places, part)

    def right_inverse(self, whole: torch.Tensor) -> torch.Tensor:
        return whole.detach()[self.places]


def train_slice(model: torch.nn.Module, name: str, places: torch.Tensor) -> str:
    """Make a part of a vector the only thing of it that trains.

    Args:
        model: owns it; afterwards its parameter is the part alone.
        name: of the parameter, a vector of n elements.
        places: indices of the part, int64, on the parameter's device.

    Returns:
        The name of the parameter that holds the part.
    """
    owner, _, own = name.rpartition(".")
    module = model.get_submodule(owner)
    parametrize.register_parametrization(module, own, _Slice(getattr(module, own), places))
    part = f"{owner}.parametrizations.{own}.original" if owner else f"parametrizations.{own}.original"
    model.get_parameter(part).requires_grad_(True)
    return part


def join_slices(model: torch.nn.Module) -> None:
    """Put every vector together again, with its values as trained; the model is then a stock one."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for own, parametrization in list(module.parametrizations.items()):  # type: ignore[union-attr,operator]
                if isinstance(parametrization[0], _Slice):
                    parametrize.remove_parametrizations(module, own, leave_parametrized=True)
