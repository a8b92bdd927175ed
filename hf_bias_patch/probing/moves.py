"""Moves parameter elements for a while, and measures how far outputs move with them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_bias_patch.errors import VerifyError
from hf_bias_patch.models.float64 import in_single_steps
from hf_bias_patch.models.run import run
from hf_bias_patch.probing.origin import Elements

__all__ = ["ReferenceRunner", "change", "moved", "part", "require_repeatable"]

Outputs = Mapping[str, Tensor]


def part(parameter: Tensor, elements: Elements) -> Tensor:
    """Elements of a vector, or rows or columns of a weight, as (elements, …): a copy."""
    values = parameter.detach()
    indices = torch.tensor(elements.indices)
    if values.ndim > 1 and elements.axis == 1:
        return values.movedim(1, 0)[indices]
    return (values.reshape(-1) if _is_flat(values, elements) else values)[indices]


def _is_flat(values: Tensor, elements: Elements) -> bool:
    return (values.ndim != 2 and values.ndim < 2) or bool(
        elements.axis == 0 and max(elements.indices) >= values.shape[0]
    )


@contextmanager
def moved(model: nn.Module, elements: Elements, values: Tensor) -> Iterator[None]:
    """Other values for some elements of a parameter; the old ones, bit for bit, when the block ends.

    Args:
        model: the model.
        elements: which elements of which parameter.
        values: new ones, in the shape that `part` gives.
    """
    parameter = model.get_parameter(elements.parameter)
    old = parameter.detach().clone()
    indices = torch.tensor(elements.indices)
    with torch.no_grad():
        if parameter.ndim > 1 and elements.axis == 1:
            parameter[:, indices] = values.movedim(0, 1)
        elif _is_flat(parameter, elements):
            parameter.view(-1)[indices] = values
        else:
            parameter[indices] = values
    try:
        yield
    finally:
        with torch.no_grad():
            parameter.copy_(old)


def change(found: Outputs, expected: Outputs) -> float:
    """Largest difference of any output, relative to that output's largest value.

    Infinite where one has another shape, or is finite where the other is not.
    """
    return max((_change(found[name], value) for name, value in expected.items()), default=0.0)


def _change(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape or not torch.equal(found.isfinite(), expected.isfinite()):
        return math.inf
    a, b = torch.nan_to_num(found.double(), 0, 0, 0), torch.nan_to_num(expected.double(), 0, 0, 0)
    size = float(b.abs().max()) if b.numel() else 0.0
    return float((a - b).abs().max()) / size if size else 0.0


class ReferenceRunner:
    """Runs a model, always the same way, in float64.

    Attributes:
        model: in float64 and evaluation mode.
        reference: what it gives as it is.
        floor: how far outputs move when every parameter is moved by its last bit: below that is rounding.

    Raises:
        VerifyError: when it is made, where an output holds NaN: what moves it cannot be seen.
    """

    def __init__(self, model: nn.Module, run: Callable[[], Outputs], seed: int = 0) -> None:
        self.model, self._run = model, run
        self._random = torch.Generator().manual_seed(seed)
        self.reference = self.outputs()
        _require_no_nan(model, self.reference)
        self.again = change(self.outputs(), self.reference)
        self.floor = max(1e-15, self.again, *(self._shaken() for _ in range(2)))

    def outputs(self) -> Outputs:
        """The outputs now."""
        with in_single_steps():
            return self._run()

    def effect(self) -> float:
        """How far the outputs are from the reference now."""
        return change(self.outputs(), self.reference)

    def draw(self, like: Tensor, size: float) -> Tensor:
        """Random normal values of a given size."""
        return torch.randn(like.shape, generator=self._random, dtype=torch.float64) * size

    def _shaken(self) -> float:
        parameters = list(self.model.parameters())
        old = [parameter.detach().clone() for parameter in parameters]
        with torch.no_grad():
            for parameter in parameters:
                if parameter.is_floating_point():
                    parameter.mul_(1 + self.draw(parameter, 2.0**-52).sign() * 2.0**-52)
        try:
            return self.effect()
        finally:
            with torch.no_grad():
                for parameter, values in zip(parameters, old, strict=True):
                    parameter.copy_(values)


def require_repeatable(model: Any, inputs: Mapping[str, Any], limit: float) -> None:
    """Refuse a model that gives something else each time: a probe runs it from one seed, which would hide that.

    Raises:
        VerifyError: runs on the same inputs differ by more than `limit`, relatively.
    """
    first = run(model, inputs)
    by_itself = max(
        change(run(model, inputs), first), *(change(_run_from(model, inputs, seed), first) for seed in (1, 2))
    )
    if by_itself > limit:
        raise VerifyError(
            f"{type(model).__name__} is not deterministic: two runs on the same inputs differ by {by_itself:.1e}",
            why="The effect of a bias cannot be measured if outputs change at random (active dropout, or sampling)",
            remedy="Switch the randomness off in config.json",
        )


def _run_from(model: Any, inputs: Mapping[str, Any], seed: int) -> Mapping[str, Tensor]:
    """A run whose random numbers, if it draws any, start from another seed than `run` gives it."""

    def reseed(*_: Any) -> None:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    handle = model.register_forward_pre_hook(reseed)
    try:
        return run(model, inputs)
    finally:
        handle.remove()


def _require_no_nan(model: nn.Module, outputs: Outputs) -> None:
    """Refuse outputs that hold NaN: nothing moves one, so that every bias behind it would look as if not reached."""
    counts = {name: int(value.isnan().sum()) for name, value in outputs.items()}
    if not (bad := {name: count for name, count in counts.items() if count}):
        return
    first = next(iter(bad))
    broken = (name for name, value in model.named_parameters() if not value.isfinite().all())
    parameter = next(broken, "")
    raise VerifyError(
        f"{type(model).__name__} gives NaN: {bad[first]} of the {outputs[first].numel()} values in its output {first}",
        why=f"{parameter} holds NaN or infinity"
        if parameter
        else "Its parameters are finite, so its own computation causes this",
        remedy="Give it finite values"
        if parameter
        else "Probe it with inputs, or an attention, for which its outputs are finite",
    )
