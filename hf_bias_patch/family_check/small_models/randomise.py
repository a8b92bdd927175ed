"""Random parameters of a size that makes every one of them matter."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn

__all__ = ["randomise"]

_BIAS = 0.3
_NORM = 0.2
_GAIN = 1.2
"""Times 1/sqrt(fan in): enough for attention that is far from uniform, little enough for a few layers."""
_KEPT = re.compile(
    r"A_log|dt_bias|time_(decay|first|mix.*)|decay|temperature|logit_scale|logit_bias|inv_freq|D|.*_log|A"
)
_GATES = re.compile(r"gamma.*|lambda.*|.*layer_?scale.*|.*gate|alpha|.*scale.*|.*_weight_?[12]?|weight")
_TOKENS = re.compile(r".*(token|embed|query|queries|pos|latent|prompt|table|mask).*")


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Set every parameter, and every buffer that is learned, at random.

    Args:
        model: changed in place.
        seed: of the values.
    """
    generator = torch.Generator().manual_seed(seed)
    done: set[int] = set()
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in done and parameter.is_floating_point() and parameter.numel():
                    done.add(id(parameter))
                    parameter.copy_(_value(module, name, parameter, generator))
            _buffers(module, generator)


def _normal(shape: Any, std: float, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64) * std


def _value(module: nn.Module, name: str, old: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """What a parameter becomes, judged by its module, its name and the value it was born with."""
    shape = old.shape
    if "bias" in name and not name.endswith(("bias_table", "relative_attention_bias", "dt_bias", "logit_bias")):
        return _normal(shape, _BIAS, generator)
    if _KEPT.fullmatch(name) or old.dim() == 0:
        born = old.double()
        return (born if born.abs().max() > 0 else born + 0.5) + _normal(shape, 0.05, generator)
    if name == "original0":  # the length of a weight-normed weight; its direction comes after it
        return torch.full(shape, _GAIN, dtype=torch.float64) * (1 + _normal(shape, _NORM, generator))
    if _is_norm(module) or old.dim() == 1:
        return _scale(name, old, generator)
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return _normal(shape, 1.0, generator)
    if _TOKENS.fullmatch(name) and name != "weight":
        return _normal(shape, 0.7, generator)
    if min(shape) == 1 and old.dim() >= 2 and bool((old == old.flatten()[0]).all()) and name != "weight":
        return _scale(name, old, generator)
    return _normal(shape, _GAIN / math.sqrt(_fan_in(module, name, old)), generator)


def _scale(name: str, old: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Vectors that multiply: about 1 where born as 1, about 0 where one is added to them, else of real size."""
    mean = float(old.double().mean())
    if abs(mean - 1) < 0.5:
        return 1 + _normal(old.shape, _NORM, generator)
    if _GATES.fullmatch(name) and name != "weight":
        return 0.5 + 0.5 * torch.rand(old.shape, generator=generator, dtype=torch.float64)
    return _normal(old.shape, _BIAS, generator)


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() and not any(True for _ in module.children())


def _fan_in(module: nn.Module, name: str, weight: torch.Tensor) -> int:
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return max(1, weight.numel() // weight.shape[1] // max(1, math.prod(module.stride)))
    if type(module).__name__ == "Conv1D":
        return weight.shape[0]
    if weight.dim() == 3 and not isinstance(module, nn.Conv1d) and name != "original1":
        return max(weight.shape[1:])
    return max(1, weight.numel() // weight.shape[0])


def _buffers(module: nn.Module, generator: torch.Generator) -> None:
    """Statistics of batch norms and codebooks: learned, though no parameters."""
    for name, buffer in module.named_buffers(recurse=False):
        if name == "running_mean":
            buffer.copy_(_normal(buffer.shape, _BIAS, generator))
        elif name == "running_var":
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator, dtype=torch.float64))
        elif re.search("codebook|^embed", name) and buffer.is_floating_point() and buffer.dim() >= 2:
            buffer.copy_(_normal(buffer.shape, 1.0, generator))
