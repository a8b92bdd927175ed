"""One small model as a draft sees it: its attention sites, by names of modules, and what the numbers say of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_bias_patch.family_check.draft.blockers import Watch, name_blockers
from hf_bias_patch.family_check.draft.names import wild
from hf_bias_patch.models.float64 import in_single_steps
from hf_bias_patch.probing.findings import Finding
from hf_bias_patch.probing.origin import Elements
from hf_bias_patch.probing.probe import NO_CONSTANT, probe
from hf_bias_patch.probing.sites import ProbedSite, assemble

__all__ = ["SeenProjection", "SeenSite", "see"]


@dataclass(frozen=True)
class SeenProjection:
    """One projection of a site.

    Attributes:
        module: whose weight makes it; joined by `_` to `weight` where it ends in `_`.
        bias: its bias parameter; empty if it has none.
        indices: its part of the map's output axis.
        axis: entries of that axis.
        reads: the layer norm whose output the map reads, where a fold through it is exact; empty if there is none.
        dropout: whether dropout sits between the two.
        conv1d: whether the weight is stored (in, out).
    """

    module: str
    bias: str
    indices: tuple[int, ...]
    axis: int
    reads: str = ""
    dropout: bool = False
    conv1d: bool = False


@dataclass(frozen=True)
class SeenSite:
    """One attention site.

    Attributes:
        parts: projection → which part of which map makes it.
        kind: `self` or `cross`.
        decoder: whether it attends to what came before only, or to another stream.
        heads: query heads; 0 if that is not seen.
        blockers: what closes destinations, by name.
        doubts: what could not be told, a sentence each.
    """

    parts: dict[str, SeenProjection]
    kind: str
    decoder: bool
    heads: int
    blockers: tuple[str, ...]
    doubts: tuple[str, ...] = field(default=())

    @property
    def own(self) -> str:
        """The module of its first map."""
        return next(iter(self.parts.values())).module


def see(
    model: Any, run: Callable[[], Mapping[str, Tensor]], seed: int = 0
) -> tuple[list[SeenSite], tuple[str, ...], set[str]]:
    """The softmax attention sites of a model, what else looks like some, and the parameters that no op read.

    Args:
        model: in float64, with a bias on every map of its attention.
        run: runs it on some inputs, always the same.
        seed: of the probe's moves.
    """
    watch = Watch(dict(model.named_parameters()))
    with in_single_steps(watch.dropped), watch:
        run()
    found = probe(model, run, seed)
    unread = {name for number, name in enumerate(watch.codes.names) if number not in watch.used}
    sites, left_out = [], []
    for site in assemble(watch):
        seen = _seen(model, watch, site, found.findings) if site.softmax else None
        if seen is not None:
            sites.append(seen)
        elif len({projection for projection, _ in site.roles}) > 2:
            why = (
                "its query, key or value is made by no map of its own" if site.softmax else "its scores are no softmax"
            )
            left_out.append(f"{wild(site.name) or 'the model'}: {why}")
    return sites, tuple(dict.fromkeys(left_out)), unread


def _seen(model: nn.Module, watch: Watch, site: ProbedSite, findings: Iterable[Finding]) -> SeenSite | None:
    """A site; None where its maps are no modules, or one of query, key and value is missing."""
    own = [finding for finding in findings if finding.site == site.name and _is_of(finding, site)]
    parts: dict[str, SeenProjection] = {}
    doubts = []
    for projection, elements in site.roles:
        part = _part(model, watch, projection, elements, own)
        if part is None:
            doubts.append(f"its {projection} is made by {wild(elements.parameter)}, which is no map: it is left out")
            continue
        if projection in parts:
            kept, left = sorted((parts[projection], part), key=lambda one: -len(one.indices))
            parts[projection] = kept
            doubts.append(f"a part of its {projection} comes from {wild(left.module)}, too, which the draft leaves out")
        else:
            parts[projection] = part
    if not {"key", "value"} <= parts.keys():
        return None
    parts, shared = _apart(parts)
    width = watch.widths.get(watch.mixings[site.mixings[0]].scores[0].number, 0)
    query = len(parts["query"].indices) if "query" in parts else len(parts["key"].indices)
    whole = {(name, part.bias) for name, part in parts.items()}
    main = [finding for finding in own if (finding.projection, finding.parameter) in whole]
    blockers, more = name_blockers(watch, site, main, shared)
    kind = "self" if "query" not in parts or _same_input(watch, site) else "cross"
    heads = query // width if width and query % width == 0 else 0
    return SeenSite(parts, kind, _looks_back(model, site, kind), heads, blockers, (*doubts, *more))


def _is_of(finding: Finding, site: ProbedSite) -> bool:
    return any(
        slot.projection == finding.projection
        and (slot.bias.parameter, slot.bias.indices) == (finding.parameter, finding.indices)
        for slot in site.slots
    )


def _apart(parts: dict[str, SeenProjection]) -> tuple[dict[str, SeenProjection], str]:
    """Without projections that are the very same part of a map as another; and which one that was."""
    query, key, value = (parts.get(name, parts["key"]) for name in ("query", "key", "value"))
    if "query" in parts and (query.module, query.indices) == (key.module, key.indices):
        return {name: part for name, part in parts.items() if name != "query"}, "query"
    if (value.module, value.indices) == (key.module, key.indices):
        return {name: part for name, part in parts.items() if name != "value"}, "value"
    return parts, ""


def _part(
    model: nn.Module, watch: Watch, projection: str, elements: Elements, own: Iterable[Finding]
) -> SeenProjection | None:
    parameter = model.get_parameter(elements.parameter)
    is_bias = parameter.dim() == 1
    weight = _weight_of(watch, elements) if is_bias else elements
    if weight is None or not weight.parameter.endswith("weight"):
        return None
    stem = weight.parameter.removesuffix("weight").removesuffix(".")
    if model.get_parameter(weight.parameter).dim() == 3 and "conv" not in type(_module(model, stem)).__name__.lower():
        return None  # maps of several experts
    axis = model.get_parameter(weight.parameter).shape[weight.axis]
    finding = next((one for one in own if one.projection == projection and one.parameter == elements.parameter), None)
    reads, dropout = _reads(finding)
    bias = elements.parameter if is_bias else ""
    return SeenProjection(stem, bias, weight.indices, axis, reads, dropout, conv1d=weight.axis == 1)


def _module(model: nn.Module, stem: str) -> nn.Module:
    return model.get_submodule(stem if not stem.endswith("_") else stem.rpartition(".")[0])


def _weight_of(watch: Watch, bias: Elements) -> Elements | None:
    start = watch.codes.start(watch.codes.names.index(bias.parameter))
    rows = [watch.rows[start + index] for index in bias.indices if start + index in watch.rows]
    found = watch.codes.elements(torch.tensor(rows)) if len(rows) == len(bias.indices) else ()
    return found[0] if len(found) == 1 else None


def _reads(finding: Finding | None) -> tuple[str, bool]:
    if finding is None or finding.norm is None:
        return "", False
    refusal = finding.folds.get("weight", "not tried")
    if refusal and not refusal.endswith(NO_CONSTANT):
        return "", False
    return finding.norm.weight.removesuffix("weight").removesuffix("."), finding.norm.dropout


def _same_input(watch: Watch, site: ProbedSite) -> bool:
    """Whether query and key are made of the same hidden states."""
    inputs: dict[str, list[Tensor]] = {"query": [], "key": []}
    for projection, elements in site.roles:
        if projection not in inputs:
            continue
        weight = _weight_of(watch, elements) if elements.axis == 0 and _is_vector(watch, elements) else elements
        number = watch.codes.names.index(weight.parameter) if weight else -1
        inputs[projection] += [call.read for call in watch.calls if call.weight == number]
    same = any(_equal(one, other) for one in inputs["query"] for other in inputs["key"])
    if same or re.search(r"cross|enc_?dec|encoder_attn|src_attn", site.name.lower()):
        return same
    return any(one.shape[:-1] == other.shape[:-1] for one in inputs["query"] for other in inputs["key"])


def _is_vector(watch: Watch, elements: Elements) -> bool:
    return len(watch.codes.shapes[watch.codes.names.index(elements.parameter)]) == 1


def _equal(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and torch.equal(one, other))


def _looks_back(model: Any, site: ProbedSite, kind: str) -> bool:
    """Whether a site is a decoder's: its path says so, or one of the modules around it that it is causal."""
    parts = site.name.split(".")
    words = [part for part in parts if re.search("decoder|encoder", part)]
    if words:
        return "decoder" in words[0]
    around = [model.get_submodule(".".join(parts[: len(parts) - number])) for number in range(2)]
    says = [getattr(module, "is_causal", None) for module in around]
    if kind == "cross" or True in says:
        return True
    return False not in says and _writes_text(str(model.config.model_type))


def _writes_text(model_type: str) -> bool:
    """Whether transformers has a class of a type that writes text, and none that fills gaps in one."""
    from transformers.models.auto import modeling_auto as auto

    writes, fills = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return model_type in writes and model_type not in fills
