"""Measures, in float64, what a plan says stays equal: inner states, attention weights, training, LoRA, old caches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hf_bias_patch.attention.find import find_sites
from hf_bias_patch.attention.sites import Site
from hf_bias_patch.evidence.certificate import Claim
from hf_bias_patch.evidence.compare import Inner, Meter, Outputs, collect
from hf_bias_patch.evidence.probes import Probe
from hf_bias_patch.patching.effects import Equal
from hf_bias_patch.patching.memory import ModelTensors, apply
from hf_bias_patch.patching.recipe import Recipe

if TYPE_CHECKING:
    import torch

__all__ = ["measure_claims"]

_RANK = 2
_ALL = Inner(hidden_states=True, attentions=True, cache=True)
_GROUPS = {"hidden_states": "hidden_states", "attention_weights": "attentions", "kv_cache": "cache"}
Measured = tuple[float | None, str]


def measure_claims(
    model: Any,
    recipe: Recipe,
    claimed: Equal,
    probes: Sequence[Probe],
    bound: float,
    sites: Sequence[Site] | None = None,
) -> list[Claim]:
    """Measure every flag of `claimed`, whether it is claimed or not.

    Args:
        model: the source in float64, with eager attention; changed while it runs and restored bit for bit.
        recipe: of the plan.
        claimed: the plan's flags.
        probes: short ones; those whose `inner` is false are left out.
        bound: relative error up to which a flag holds.
        sites: of the plan, where a probe found them; by default the family's.
    """
    short = [probe for probe in probes if probe.inner]
    found = sites or find_sites(model.config.to_dict(), ModelTensors(model).tensors)
    adapters, inner = _make_adapters(model, found), _all_inner(model, short)
    before = _run_all(model, short, adapters, inner)
    with apply(model, recipe, sites=sites):
        after = _run_all(model, short, adapters, inner)
    plain = _compare(before["plain"], after["plain"])
    measured: dict[str, Measured] = {
        "logits": (plain.main(), "what the model gives out, on the short inputs, with eager attention"),
        **{flag: _group(plain, group) for flag, group in _GROUPS.items()},
        "with_dropout": _dropout(before, after),
        "lora": _lora(before, after),
    }
    return [
        Claim(flag=flag, claimed=getattr(claimed, flag), error=measured[flag][0], bound=bound, how=measured[flag][1])
        for flag in Equal.model_fields
    ]


def _all_inner(model: Any, probes: Sequence[Probe]) -> Inner:
    """All there is to look at; without the cache, if the stock model itself cannot fill one."""
    try:
        collect(model, probes[:1], _ALL)
    except (IndexError, ValueError, RuntimeError):
        return replace(_ALL, cache=False)
    return _ALL


def _run_all(
    model: Any, probes: Sequence[Probe], adapters: Sequence[_Adapter], inner: Inner
) -> dict[str, list[Outputs]]:
    with _adapted(model, adapters):
        lora = collect(model, probes)
    return {"plain": collect(model, probes, inner), "dropout": _with_dropout(model, probes), "lora": lora}


def _compare(before: Sequence[Outputs], after: Sequence[Outputs]) -> Meter:
    meter = Meter()
    for old, new in zip(before, after, strict=True):
        for name in old.keys() & new.keys():
            meter.add(name, new[name], old[name])
    return meter


def _group(meter: Meter, group: str) -> Measured:
    if group not in meter.groups():
        return None, "the model gives none out"
    error, worst = meter.worst(group)
    return error, f"worst: {worst}"


def _dropout(before: dict[str, list[Outputs]], after: dict[str, list[Outputs]]) -> Measured:
    if _compare(before["plain"], before["dropout"]).main() == 0:
        return None, "the model has no dropout"
    return _compare(before["dropout"], after["dropout"]).main(), "training mode, the same dropout masks in both"


def _lora(before: dict[str, list[Outputs]], after: dict[str, list[Outputs]]) -> Measured:
    if _compare(before["plain"], before["lora"]).main() == 0:
        return None, "no projection could be adapted"
    return _compare(before["lora"], after["lora"]).main(), "random low-rank updates on query, key, value and output"


def _with_dropout(model: Any, probes: Sequence[Probe]) -> list[Outputs]:
    import torch

    model.train()
    try:
        outputs = []
        for index, probe in enumerate(probes):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(index)
                outputs += collect(model, [probe])
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
    for name, slot in slots.items():
        weight = model.get_parameter(name).detach()
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
