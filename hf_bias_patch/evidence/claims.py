"""Measures in float64 what a plan says stays equal: hidden states, attention weights, training, LoRA, old caches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.evidence.certificate import Claim
from hf_bias_patch.evidence.compare import Meter, collect, meter_for
from hf_bias_patch.evidence.outputs import AnyBatch, Inner, Outputs
from hf_bias_patch.models.inputs.multimodal import MultimodalBatch
from hf_bias_patch.patching.in_memory import ModelTensors, apply
from hf_bias_patch.patching.preserved import Preserved
from hf_bias_patch.patching.recipe import Recipe

if TYPE_CHECKING:
    import torch

__all__ = ["measure_claims"]

_RANK = 2
_LONGEST = 512  # positions; attention weights take their square, for each head of each layer
_ALL = Inner(hidden_states=True, attentions=True, cache=True)
_GROUPS = {"hidden_states": "hidden_states", "attention_weights": "attentions", "kv_cache": "cache"}
Measured = tuple[float | None, str]
Runs = dict[str, list[Outputs]]
Compare = Callable[[Sequence[Outputs], Sequence[Outputs]], Meter]


def measure_claims(
    model: Any,
    recipe: Recipe,
    claimed: Preserved,
    batches: Sequence[AnyBatch],
    bound: float,
    sites: Sequence[Site] | None = None,
) -> list[Claim]:
    """Measure every flag of `claimed`, whether it is claimed or not.

    Args:
        model: the source in float64, with eager attention; changed while it runs and restored bit for bit.
        recipe: of the plan.
        claimed: the plan's flags.
        batches: short ones; those whose `inner` is false are left out.
        bound: relative error up to which a flag holds.
        sites: of the plan, where a probe found them; by default the family's.
    """
    short = [batch for batch in batches if batch.inner]
    found = sites or find_sites(model.config.to_dict(), ModelTensors(model).tensors)
    adapters, inner = _make_adapters(model, found), _all_inner(model, short)
    before = _run_all(model, short, adapters, inner)
    with apply(model, recipe, sites=sites):
        after = _run_all(model, short, adapters, inner)
    compare = partial(_compare, meter_for(short))
    plain = compare(before["plain"], after["plain"])
    measured: dict[str, Measured] = {
        "logits": (plain.main(), "what the model gives out, on the short inputs, with eager attention"),
        **{flag: _group(plain, group, inner) for flag, group in _GROUPS.items()},
        "with_dropout": _dropout(before, after, compare),
        "lora": _lora(before, after, compare),
    }
    return [
        Claim(flag=flag, claimed=getattr(claimed, flag), error=measured[flag][0], bound=bound, how=measured[flag][1])
        for flag in Preserved.model_fields
    ]


def _all_inner(model: Any, batches: Sequence[AnyBatch]) -> Inner:
    """All there is to look at; without what the stock model itself cannot give out."""
    if any(isinstance(batch, MultimodalBatch) for batch in batches):
        return _inner_of_given(model, batches)
    try:
        collect(model, batches[:1], _ALL)
    except (IndexError, ValueError, RuntimeError):
        return replace(_ALL, cache=False)
    return _ALL


def _inner_of_given(model: Any, batches: Sequence[AnyBatch]) -> Inner:
    """The hidden states, cache and attention weights that a model returns; no attention weights if they may not fit."""
    flags = [flag for flag in ("hidden_states", "cache") if _gives(model, batches, Inner(**{flag: True}))]
    inner = Inner(**dict.fromkeys(flags, True))
    with_weights = replace(inner, attentions=True)
    fits = _longest(model, batches, inner) <= _LONGEST
    return with_weights if fits and _gives(model, batches, with_weights) else inner


def _longest(model: Any, batches: Sequence[AnyBatch], inner: Inner) -> int:
    """Positions in the largest of the outputs."""
    outputs = collect(model, batches[:1], inner)
    return max((size for run in outputs for value in run.values() for size in value.shape[1:-1]), default=0)


def _gives(model: Any, batches: Sequence[AnyBatch], inner: Inner) -> bool:
    try:
        collect(model, batches[:1], inner)
    except Exception:  # code of any model type may come upon anything
        return False
    return True


def _run_all(model: Any, batches: Sequence[AnyBatch], adapters: Sequence[_Adapter], inner: Inner) -> Runs:
    with _adapted(model, adapters):
        lora = collect(model, batches)
    plain = collect(model, batches, inner)
    try:
        dropout = _with_dropout(model, batches)
    except Exception:  # speech models mask spans that may be longer than a short input, for example
        if not any(isinstance(batch, MultimodalBatch) for batch in batches):
            raise
        dropout = []
    return {"plain": plain, "dropout": dropout, "lora": lora}


def _compare(kind: type[Meter], before: Sequence[Outputs], after: Sequence[Outputs]) -> Meter:
    meter = kind()
    for old, new in zip(before, after, strict=True):
        for name in old.keys() & new.keys():
            meter.add(name, new[name], old[name])
    return meter


def _group(meter: Meter, group: str, inner: Inner) -> Measured:
    if group not in meter.groups():
        left_out = group == "attentions" and not inner.attentions
        beyond = f"the model gives none out, or of more than {_LONGEST} positions, too much to hold"
        return None, beyond if left_out else "the model gives none out"
    error, worst = meter.worst(group)
    return error, f"worst: {worst}"


def _dropout(before: Runs, after: Runs, compare: Compare) -> Measured:
    if not before["dropout"]:
        return None, "the model cannot be run in training mode on these inputs"
    if compare(before["plain"], before["dropout"]).main() == 0:
        return None, "the model has no dropout"
    return compare(before["dropout"], after["dropout"]).main(), "training mode, the same dropout masks in both"


def _lora(before: Runs, after: Runs, compare: Compare) -> Measured:
    if compare(before["plain"], before["lora"]).main() == 0:
        return None, "no projection could be adapted"
    return compare(before["lora"], after["lora"]).main(), "random low-rank updates on query, key, value and output"


def _with_dropout(model: Any, batches: Sequence[AnyBatch]) -> list[Outputs]:
    import torch

    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()  # training mode would move its statistics, which are no parameters to be put back
    try:
        outputs = []
        for index, batch in enumerate(batches):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(index)
                outputs += collect(model, [batch])
        return outputs
    finally:
        model.eval()


@dataclass(frozen=True)
class _Adapter:
    """A random low-rank map beside a module's own, as LoRA trains it: x → x · down · up."""

    module: str
    down: torch.Tensor
    up: torch.Tensor


def _make_adapters(model: Any, sites: Sequence[Site]) -> list[_Adapter]:
    """One for every query, key, value and output map, a third of its size; made before the fold changes it."""
    import torch

    random = torch.Generator().manual_seed(0)
    slots = {slot.weight: slot for site in sites for slot in site.slots.values() if slot.weight}
    adapters = []
    modules = dict(model.named_modules())
    for name, slot in slots.items():
        weight = model.get_parameter(name).detach()
        if weight.ndim != 2 or name.removesuffix(".weight") not in modules:
            continue  # a convolution, or one parameter of a module that computes all of attention
        inputs, outputs = weight.shape if slot.conv1d else weight.shape[::-1]
        down = torch.randn(inputs, _RANK, generator=random, dtype=weight.dtype)
        up = torch.randn(_RANK, outputs, generator=random, dtype=weight.dtype)
        scale = float(weight.square().mean().sqrt()) / (3 * math.sqrt(_RANK))
        adapters.append(_Adapter(name.removesuffix(".weight"), down, up * scale))
    return adapters


@contextmanager
def _adapted(model: Any, adapters: Sequence[_Adapter]) -> Iterator[None]:
    handles = [model.get_submodule(item.module).register_forward_hook(_beside(item)) for item in adapters]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _beside(adapter: _Adapter) -> Callable[..., Any]:
    def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        return output + inputs[0] @ adapter.down @ adapter.up

    return hook
