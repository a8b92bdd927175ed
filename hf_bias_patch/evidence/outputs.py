"""What a model gives out on one batch: everything its head does, and what is between its layers where that is asked."""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_bias_patch.models.inputs.multimodal import MultimodalBatch
from hf_bias_patch.models.inputs.text import TokenBatch

if TYPE_CHECKING:
    import torch

__all__ = ["INNER_GROUPS", "NOTHING", "AnyBatch", "Inner", "Outputs", "outputs_of"]

Outputs = dict[str, "torch.Tensor"]
"""Output name → values at real (not padded) positions, float64. `hidden_states.3` is the third of its group."""

AnyBatch = TokenBatch | MultimodalBatch

INNER_GROUPS = frozenset({"hidden_states", "attentions", "cache"})
_INNER = ("hidden_states", "attentions")


@dataclass(frozen=True)
class Inner:
    """Which outputs between the layers to look at as well, on batches that allow it."""

    hidden_states: bool = False
    attentions: bool = False
    cache: bool = False


NOTHING = Inner()


def outputs_of(model: Any, batch: AnyBatch, inner: Inner = NOTHING) -> Outputs:
    """Run one batch.

    Returns:
        Every floating tensor the model gives out, the last hidden state of each stack, and what `inner` asks for.
    """
    import torch

    look = inner if batch.inner else NOTHING
    if isinstance(batch, MultimodalBatch):
        return _outputs_of_any(model, batch, look)
    given = {
        name: value.to(model.dtype) if value.is_floating_point() else value for name, value in batch.inputs.items()
    }
    # Not filled unless asked for: that takes memory, and a few stock models cannot fill one.
    caching = {"use_cache": look.cache} if "use_cache" in inspect.signature(model.forward).parameters else {}
    with torch.no_grad(), _computing(model.dtype):
        result = model(
            **given,
            **caching,
            output_hidden_states=True,
            output_attentions=look.attentions,
            return_dict=True,
        )
    return {name: _real(values, mask).double() for name, values, mask in _named(result, batch, look)}


def _named(result: Any, batch: TokenBatch, look: Inner) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Names, values with positions in front, and the mask of those positions."""
    import torch

    from hf_bias_patch.models.run import CACHES

    own = batch.mask if batch.decoder_mask is None else batch.decoder_mask
    for name, value in result.items():
        if name.endswith("hidden_states") and value:
            mask = batch.mask if name.startswith("encoder_") else own
            states = [state for state in value if state is not None]  # LUKE's of entities, where there are none
            if name in ("hidden_states", "decoder_hidden_states"):
                yield "last_hidden_state", states[-1], mask
            if look.hidden_states:
                yield from ((f"hidden_states.{name}.{index}", state, mask) for index, state in enumerate(states))
        elif name.endswith("attentions") and value:
            mask = batch.mask if name.startswith("encoder_") else own
            if look.attentions:
                yield from ((f"attentions.{name}.{index}", w.transpose(1, 2), mask) for index, w in enumerate(value))
        elif name in CACHES:
            if look.cache:
                yield from ((name, kept, own if of == "self" else batch.mask) for name, of, kept in _cached(value))
        elif torch.is_tensor(value) and value.is_floating_point() and name != "loss":
            yield name, value, batch.mask if name.startswith("encoder_") else own


def _real(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Values at positions that are no padding; all of them where values are not by position."""
    return values[mask] if values.shape[: mask.ndim] == mask.shape else values


def _outputs_of_any(model: Any, batch: MultimodalBatch, look: Inner) -> dict[str, torch.Tensor]:
    """Run a batch of any model type, the same random numbers each time where the model draws any.

    Returns:
        Every floating tensor the model gives out, nested ones as `name.0` or `name.key`, and what `look` asks for;
        float64.
    """
    import numpy as np
    import torch
    from torch.utils._pytree import tree_map

    from hf_bias_patch.models.run import forget

    def cast(value: Any) -> Any:
        floats = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(model.dtype) if floats else value

    random.seed(0)
    np.random.seed(0)
    forget(model)
    with torch.no_grad(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _computing(model.dtype):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        result = model(**tree_map(cast, batch.inputs) | _asked(model, look))
    return {name: value.double() for name, value in _all_named("", result, look)}


def _asked(model: Any, look: Inner) -> dict[str, Any]:
    """Arguments that make a model give out what is between its layers."""
    parameters = inspect.signature(model.forward).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    wanted = {"output_hidden_states": look.hidden_states, "output_attentions": look.attentions}
    asked = {name: True for name, yes in wanted.items() if yes and (open_ended or name in parameters)}
    if look.cache and "use_cache" in parameters:
        asked["use_cache"] = True
    return asked


@contextmanager
def _computing(dtype: torch.dtype) -> Iterator[None]:
    """A block that computes in float64, if that is the model's dtype, and draws the same numbers in every dtype."""
    import torch

    from hf_bias_patch.models.float64 import in_float64

    double = in_float64() if dtype == torch.float64 else nullcontext()
    with double, _same_draws():
        yield


def _same_draws() -> Any:
    """Random numbers drawn in float64, whatever dtype is asked for: torch draws others for each.

    Some models draw in their forward method (ViT-MAE, which patches it hides). Source and reference would see other
    inputs then, and the noise floor would be no noise.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    draws = {torch.rand, torch.randn, torch.rand_like, torch.randn_like}

    class SameDraws(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = dict(kwargs or {})
            if func not in draws:
                return func(*args, **kwargs)
            like = args[0].dtype if args and isinstance(args[0], torch.Tensor) else torch.get_default_dtype()
            asked = kwargs.pop("dtype", None) or like
            return func(*args, **kwargs, dtype=torch.float64).to(asked)

    return SameDraws()


def _all_named(name: str, value: Any, look: Inner) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors by name; hidden states and attention weights of all layers under the names of their groups."""
    import torch

    from hf_bias_patch.models.run import CACHES

    kind = next((kind for kind in _INNER if name.rpartition(".")[2].endswith(kind)), None)
    if name.rpartition(".")[2] in CACHES:
        if look.cache and value is not None:
            yield from ((key, kept) for key, _, kept in _cached(value))
    elif isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.numel():
            yield name or "output", value
    elif isinstance(value, (Mapping, list, tuple)):
        if kind and isinstance(value, (list, tuple)) and getattr(look, kind):
            name = f"{kind}.{name}"
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _all_named(f"{name}.{key}" if name else str(key), item, look)


def _cached(cache: Any) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Keys and values of a transformers cache: name, `self` or `cross`, and values, (rows, tokens, heads, …)."""
    parts = [("self", getattr(cache, "self_attention_cache", cache))]
    if hasattr(cache, "cross_attention_cache"):
        parts.append(("cross", cache.cross_attention_cache))
    for kind, part in parts:
        for index, layer in enumerate(part.layers):
            if layer.keys is not None and layer.keys.numel():
                yield f"cache.{kind}.{index}.keys", kind, layer.keys.transpose(1, 2)
                yield f"cache.{kind}.{index}.values", kind, layer.values.transpose(1, 2)
