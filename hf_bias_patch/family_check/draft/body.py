"""A family's facts as the tables of its TOML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_bias_patch.family_check.draft.counts import head_size_key, heads_key, kv_heads_key
from hf_bias_patch.family_check.draft.group import SiteKind
from hf_bias_patch.family_check.draft.order import GROUPED

__all__ = ["counts_kv_heads", "entry", "layout", "stacks"]


def stacks(groups: Sequence[SiteKind], config: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The stacks' tables, and what could not be told.

    Args:
        groups: kinds of sites.
        config: plain values.
    """
    found: dict[str, dict[str, Any]] = {}
    doubts = []
    for one in groups:
        facts = found.setdefault(one.stack, {})
        heads = heads_key(config, one.heads, one.stack)
        if not heads:
            doubts.append(f"{one.stack} {one.kind}: no config key counts its {one.heads} heads")
        elif facts.setdefault("heads", heads) != heads:
            doubts.append(
                f"{one.stack}: its sites have heads by {facts['heads']} and by {heads}; one stack can say one"
            )
        if one.order.name in GROUPED or (one.in_files and counts_kv_heads(one, config)):
            key = kv_heads_key(config, one.kv_heads, one.stack)
            if key:
                facts["kv_heads"] = key
            elif one.kv_heads != 1:
                doubts.append(f"{one.stack}: no config key counts its {one.kv_heads} key-value heads")
    return found, doubts


def counts_kv_heads(one: SiteKind, config: Mapping[str, Any]) -> bool:
    """Whether a config key counts the key-value heads of a kind of site."""
    return bool(kv_heads_key(config, one.kv_heads, one.stack))


def entry(one: SiteKind, config: Mapping[str, Any]) -> dict[str, Any]:
    """One `[[attention]]` table: what is not said has its default."""
    facts: dict[str, Any] = {"stack": one.stack, "kind": one.kind}
    chance = next((key for key in (f"{one.stack}_layerdrop", "layerdrop") if key in config), "")
    if chance and any("{before}" in name or "{last}" in name for name in one.reads.values()):
        facts["layerdrop"] = chance
    for name, reads in (("reads", one.reads), ("reads_first", one.reads_first)):
        if reads:
            facts[name] = _short(reads, one)
    facts |= {name: True for name in ("dropout_after", "dropout_after_first", "conv1d") if getattr(one, name)}
    if not one.reads:
        facts.pop("dropout_after", None)
        facts.pop("dropout_after_first", None)
    if layout(one, config):
        facts["layouts"] = [layout(one, config)]
    if one.biases:
        facts["biases"] = dict(one.biases)
    if one.traps:
        facts["traps"] = [{"trap": name, **more} for name, more in one.traps.items()]
    facts["maps"] = {name: list(made) for name, made in one.maps.items()}
    return facts


def layout(one: SiteKind, config: Mapping[str, Any]) -> dict[str, Any]:
    """How a fused map is ordered, as a table of `layouts`; empty for blocks."""
    found: dict[str, Any] = {"order": one.order.name} if one.order.name != "blocks" else {}
    if one.order.name in GROUPED and one.kv_heads == 1 and not kv_heads_key(config, 1, one.stack):
        found["kv_heads"] = 1
    if one.order.sizes:
        found["sizes"] = {name: head_size_key(config, name, size) for name, size in one.order.sizes}
    return found


def _short(reads: Mapping[str, str], one: SiteKind) -> str | dict[str, str]:
    """One name where query, key and value of self-attention all read the same."""
    made = {projection for several in one.maps.values() for projection in several} - {"output"}
    same = len(set(reads.values())) == 1 and made <= reads.keys()
    return next(iter(reads.values())) if same and one.kind == "self" else dict(reads)
