"""A small random model of a config: every parameter random and of a size that lets it be seen."""

from __future__ import annotations

import copy
import math
import re
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hf_bias_patch.errors import VerifyError
from hf_bias_patch.family_check.small_models.classes import class_of
from hf_bias_patch.models.float64 import EXPERTS, attention_of
from hf_bias_patch.models.inputs.random_inputs import inputs_of
from hf_bias_patch.models.run import run

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["randomise", "small_instance", "small_model"]


def small_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A model with all towers of a config, in float64 and eval mode, random, with attention that a probe can follow.

    Args:
        config: see small_config; left as it is.
        seed: of the parameters.

    Raises:
        FamilyError: no class of the installed transformers belongs to the config.
    """
    model = small_instance(class_of(config), config, seed)
    calibrate(model, seed)
    return model


def small_instance(cls: Any, config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """An instance of a class, in float64 and eval mode, every parameter random; it need not be able to run.

    Args:
        cls: of transformers.
        config: that the class takes; left as it is.
        seed: of the parameters.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model: PreTrainedModel = _build(cls, config).double().eval()
    randomise(model, seed)
    return model


def _build(cls: Any, config: PreTrainedConfig) -> Any:
    """An instance whose attention and experts a probe can follow."""
    if hasattr(cls, "_from_config"):
        how = {"attn_implementation": attention_of(config.model_type), "experts_implementation": EXPERTS}
        return cls._from_config(config, dtype=torch.float64, **how)
    return cls(copy.deepcopy(config))


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


def calibrate(model: PreTrainedModel, seed: int = 0) -> None:
    """Run a model and set every batch norm's running statistics near those it meets; nothing without batch norms.

    Args:
        model: changed in place.
        seed: of the inputs and of the distance.
    """
    norms = [module for module in model.modules() if _is_batch_norm(module)]
    if not norms:
        return
    try:
        inputs = inputs_of(model, seed)
    except VerifyError:  # the caller will hear of it when asking for inputs
        return
    generator = torch.Generator().manual_seed(seed)

    def fit(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        values = arguments[0].double().transpose(0, 1).flatten(1)
        mean, variance = values.mean(1), values.var(1, unbiased=False)
        away = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        spread = torch.rand(mean.shape, generator=generator, dtype=torch.float64)
        module.running_mean.copy_(mean + 0.3 * variance.sqrt() * away)  # type: ignore[operator]
        module.running_var.copy_((0.5 + spread) * variance + 1e-3)  # type: ignore[operator]

    with ExitStack() as stack:
        for norm in norms:
            stack.callback(norm.register_forward_pre_hook(fit).remove)
        run(model, inputs)


def _is_batch_norm(module: nn.Module) -> bool:
    """Also the frozen ones, which are no subclass of torch's."""
    found = (getattr(module, name, None) for name in ("running_mean", "running_var"))
    return all(isinstance(value, torch.Tensor) for value in found)
