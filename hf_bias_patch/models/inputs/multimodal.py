"""Probes for models that take more than token ids: images, sound, time series, or several of them.

Their inputs come from `probing.feeding`, which knows what every model type wants. Nothing says which of their outputs'
positions are padding, so all are compared: with padding on the right, as here, each of them attends to something.
"""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_bias_patch.evidence.outputs import CACHES, Inner, cached

if TYPE_CHECKING:
    import torch

__all__ = ["Given", "give", "outputs_of_given"]

SETS = 3
"""Of random inputs."""

_INNER = ("hidden_states", "attentions")


@dataclass(frozen=True)
class Given:
    """One set of inputs, as a model type wants them.

    Attributes:
        name: what they are, for the certificate.
        inputs: keyword arguments of the model's forward; floating ones are float64, to be cast, and hold values that
            the storage dtype has too, so that all runs see the very same.
        inner: whether hidden states and attention weights are worth comparing on it.
    """

    name: str
    inputs: dict[str, Any]
    inner: bool = False


def give(model: Any, seed: int, storage: torch.dtype) -> list[Given]:
    """Random inputs of several seeds; texts among them are padded, those of the last set are not, where that can be.

    Args:
        model: in float64.
        seed: of the values.
        storage: dtype that floating values are rounded to.

    Raises:
        VerifyError: the model runs on none that are known.
    """
    import torch
    from torch.utils._pytree import tree_map

    from hf_bias_patch.probing.feeding import feeds

    def rounded(value: Any) -> Any:
        floats = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(storage).double() if floats else value

    found = []
    for index in range(SETS):
        sets = feeds(model, SETS * seed + index)
        inputs = tree_map(rounded, sets[index % len(sets)])  # with optional arguments, and without
        padding = _padded(inputs)
        if index == SETS - 1 and padding:
            inputs, padding = _without_padding(model, inputs)
        what = ", ".join(f"{name} {_shape(value)}" for name, value in inputs.items() if _shape(value))
        name = f"random inputs {index + 1}: {what}{'; texts are padded on the right' if padding else ''}"
        found.append(Given(name, inputs, inner=index == 0))
    return found


def _shape(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " and ".join(filter(None, map(_shape, value)))
    return "x".join(map(str, value.shape)) if hasattr(value, "shape") else ""


def _padded(inputs: Mapping[str, Any]) -> bool:
    mask = inputs.get("attention_mask")
    return mask is not None and "input_ids" in inputs and not bool(mask.all())


def _without_padding(model: Any, inputs: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The inputs and whether they are padded all the same: a few models want the mask to be what it was."""
    import torch

    full = inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])}
    try:
        outputs_of_given(model, Given("", full), Inner())
    except Exception:  # whatever code of any model type comes upon
        return inputs, True
    return full, False


def outputs_of_given(model: Any, probe: Given, look: Inner) -> dict[str, torch.Tensor]:
    """Run one probe, the same random numbers each time where the model draws any.

    Returns:
        Every floating tensor the model gives out, nested ones as `name.0` or `name.key`, and what `look` asks for;
        float64.
    """
    import numpy as np
    import torch
    from torch.utils._pytree import tree_map

    from hf_bias_patch.models.inputs.random_inputs import forget

    def cast(value: Any) -> Any:
        floats = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(model.dtype) if floats else value

    random.seed(0)
    np.random.seed(0)
    forget(model)
    with torch.no_grad(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _computing(model.dtype):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        result = model(**tree_map(cast, probe.inputs) | _asked(model, look))
    return {name: value.double() for name, value in _named("", result, look)}


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

    from hf_bias_patch.models.float64 import in_double

    double = in_double(fused=True) if dtype == torch.float64 else nullcontext()
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


def _named(name: str, value: Any, look: Inner) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors by name; states and weights of all layers under the names of their groups."""
    import torch

    kind = next((kind for kind in _INNER if name.rpartition(".")[2].endswith(kind)), None)
    if name.rpartition(".")[2] in CACHES:
        if look.cache and value is not None:
            yield from ((key, kept) for key, _, kept in cached(value))
    elif isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.numel():
            yield name or "output", value
    elif isinstance(value, (Mapping, list, tuple)):
        if kind and isinstance(value, (list, tuple)) and getattr(look, kind):
            name = f"{kind}.{name}"
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _named(f"{name}.{key}" if name else str(key), item, look)
