"""From a peft model to a stock model with the adapter merged, where peft's own merging does not do.

A model in shards: peft would merge one process's part; here the tensors that were gathered from all are merged.
BEFT on maps without a bias: the model's own option for biases is switched on, such as Llama's `attention_bias`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_bias_patch.scoring.adapters import PEFT_PREFIX

if TYPE_CHECKING:
    import torch

__all__ = ["WithBiases", "merged_by_option", "merged_state", "stock_state"]

_ROUNDING = 1e-4
"""Of the largest logit. A bias added by the layer and one added behind it differ by float32's rounding (6e-8 each time,
1e-6 after some layers); an option that changes more than the biases differs by orders of magnitude more."""
_LENGTH = 16  # tokens of the comparison


def stock_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a model around which peft put an adapter, under their own names and without the adapter's.

    Args:
        state: of the peft model, or of the model inside of it.
    """
    names = {name: name.removeprefix(PEFT_PREFIX).replace(".base_layer.", ".") for name in state}
    return {own: state[name] for name, own in names.items() if not own.endswith(".default") and ".default." not in own}


def merged_state(wrapped: Any, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of the stock model into which LoRA, or BEFT on maps that have a bias, is merged.

    Args:
        wrapped: the peft model; only its structure is read.
        state: all of its tensors, whole.
    """
    merged = stock_state(state)
    for name, layer in wrapped.get_base_model().named_modules():
        if hasattr(layer, "beft_bias"):
            vector = state[f"{PEFT_PREFIX}{name}.beft_bias.default"].flatten()
            merged[f"{name}.bias"] = merged[f"{name}.bias"] + vector
        elif hasattr(layer, "lora_A"):
            down, up = (state[f"{PEFT_PREFIX}{name}.lora_{part}.default.weight"] for part in "AB")
            product = (up @ down) * layer.scaling["default"]
            merged[f"{name}.weight"] = merged[f"{name}.weight"] + (product.T if layer.fan_in_fan_out else product)
    return merged


@dataclass(frozen=True)
class WithBiases:
    """A merged model of a stock class.

    Attributes:
        model: shares its other tensors with the one that it was made of.
        option: of the config, that was switched on; empty if the class has these biases as it is.
        added: names of the biases that it has more: the trained ones, and others, which are zero.
    """

    model: Any
    option: str
    added: tuple[str, ...]


def merged_by_option(wrapped: Any) -> WithBiases | None:
    """The stock model that computes what a peft model with BEFT on maps without a bias does; None if there is none.

    Tried are all options of the config that have `bias` in their name and are off; of those that give the maps their
    biases, the one that adds the fewest. It is taken only if it gives the same logits on random tokens.
    """
    import torch

    inner = wrapped.get_base_model()
    values = stock_state(inner.state_dict()) | _trained(inner)
    candidates = [made for option in _options(inner.config) if (made := _made(inner, option, values)) is not None]
    with torch.no_grad():
        for made in sorted(candidates, key=lambda one: len(one.added)):
            if _same(inner, made.model):
                return made
    return None


def _trained(inner: Any) -> dict[str, torch.Tensor]:
    """Bias name → the layer's own, if it has one, and BEFT's."""
    found = {}
    for name, layer in inner.named_modules():
        if hasattr(layer, "beft_bias"):
            own, vector = layer.get_base_layer().bias, layer.beft_bias["default"].detach().flatten()
            found[f"{name}.bias"] = vector if own is None else own.detach() + vector
    return found


def _options(config: Any) -> Iterator[str]:
    yield ""
    for name, value in config.to_dict().items():
        if value is False and "bias" in name:
            yield name


def _made(inner: Any, option: str, values: Mapping[str, torch.Tensor]) -> WithBiases | None:
    """The stock model with an option on and these values; None if it does not have just these tensors and biases."""
    import torch
    from torch import nn

    config = copy.deepcopy(inner.config)
    if option:
        setattr(config, option, True)
    try:
        with torch.device("meta"):
            model = _stock(inner)(config)
    except Exception:  # whatever an option that was not meant for this does
        return None
    empty = model.state_dict()
    added = sorted(empty.keys() - stock_state(inner.state_dict()).keys())
    linear = {f"{name}.bias" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not values.keys() <= empty.keys() or not linear.issuperset(added):
        return None
    like = next(inner.parameters())
    zeros = {name: torch.zeros(empty[name].shape, dtype=like.dtype, device=like.device) for name in added}
    model.load_state_dict(zeros | dict(values), assign=True)
    for name, buffer in inner.named_buffers():  # those that no file holds are on no device yet
        owner, _, own = name.rpartition(".")
        setattr(model.get_submodule(owner), own, buffer)
    model.tie_weights()
    if getattr(inner, "generation_config", None) is not None:
        model.generation_config = inner.generation_config
    return WithBiases(model, option, tuple(added))


def _stock(inner: Any) -> Any:
    """The class that transformers itself has, also of a model without some biases (storage `absent`)."""
    return next(kind for kind in type(inner).__mro__ if kind.__module__.startswith("transformers."))


def _same(one: Any, other: Any) -> bool:
    import torch

    config, random = one.config, torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (1, _LENGTH), generator=random)
    if isinstance(config.eos_token_id, int):
        ids[0, -1] = config.eos_token_id  # where some classifiers read
    ids = ids.to(next(one.parameters()).device)
    modes = one.training, other.training
    expected, found = one.eval()(input_ids=ids).logits, other.eval()(input_ids=ids).logits
    one.train(modes[0]), other.train(modes[1])
    return bool((expected - found).abs().max() <= _ROUNDING * expected.abs().max())
