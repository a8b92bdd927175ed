"""Biases where a type's attention has none: a checkpoint derived from it may have some, and needs a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from hf_bias_patch.models.float64 import in_single_steps
from hf_bias_patch.probing.sites import ProbedSite, assemble
from hf_bias_patch.probing.trace import Trace

__all__ = ["give_biases"]

_SIZE = 0.3
"""Of random biases: about that of a small model's others."""


def give_biases(model: nn.Module, run: Callable[[], Any], seed: int = 0) -> tuple[str, ...]:
    """Give random biases to all attention maps that have none, where attention is a softmax.

    Args:
        model: in float64; its modules get the biases.
        run: runs it on inputs that reach its attention.
        seed: of the biases.

    Returns:
        The names of the new biases. A map that is no module which could have one gets none.
    """
    generator = torch.Generator().manual_seed(seed)
    trace = Trace(dict(model.named_parameters()))
    with in_single_steps(trace.dropped), trace:
        run()
    given = []
    held = {trace.codes.names[trace.codes.number_of(row % trace.codes.count)] for row in trace.rows.values()}
    for weight in dict.fromkeys(_weights(model, assemble(trace))):
        if weight in held:  # DeBERTa's map: biases of query and value are added to what it gives
            continue
        module = model.get_submodule(weight.rpartition(".")[0])
        rows = model.get_parameter(weight).shape[0]
        module.bias = nn.Parameter(torch.randn(rows, generator=generator, dtype=torch.float64) * _SIZE)
        given.append(weight.removesuffix("weight") + "bias")
    return tuple(given)


def _weights(model: nn.Module, sites: list[ProbedSite]) -> Iterator[str]:
    """The weights of attention maps that could have a bias and have none."""
    for site in sites:
        if not site.softmax:
            continue
        for _, elements in site.roles:
            path, _, kind = elements.parameter.rpartition(".")
            if kind == "weight" and getattr(model.get_submodule(path), "bias", "none") is None:
                yield elements.parameter
