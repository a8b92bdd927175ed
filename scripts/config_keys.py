"""Which config keys the families, and the table of what stock reads, ask for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from hf_bias_patch.architecture.family import Attention, Family, families
from hf_bias_patch.architecture.stock import entry, named_in
from hf_bias_patch.architecture.unread import NEVER, NOT, TABLE

__all__ = ["keys_asked"]


@cache
def keys_asked() -> frozenset[str]:
    """Every key of a config that a verdict, a layer count or a head count may rest on; `model_type` left out.

    Of a key with dots, which leads into a part, its last part: that is asked of the part's own config.
    """
    of_families = {key for family in families() for key in _asked(family)}
    of_stock = {key for model_type in named_in(TABLE) for key in _keys_read(model_type)}
    return frozenset(key.rpartition(".")[2] for key in of_families | of_stock) - {"", "model_type"}


def _asked(family: Family) -> Iterator[str]:
    yield from family.handled
    for stack in family.stacks.values():
        yield from (stack.layers, stack.heads, stack.decoder_when)
        if isinstance(stack.kv_heads, str):
            yield stack.kv_heads
        for norm in stack.final_norm:
            yield from norm.when
    for attention in family.attention:
        yield from _of_attention(attention)


def _of_attention(attention: Attention) -> Iterator[str]:
    yield from (attention.layerdrop, *attention.when)
    for layout in attention.layouts:
        yield from layout.when
    for blocker in attention.blockers:
        yield from (blocker.layers, blocker.but, blocker.only, *blocker.when)


def _keys_read(model_type: str) -> set[str]:
    """Every key of a config that the table asks for."""
    facts = entry(TABLE, model_type)
    switches = {key.removeprefix(NOT) for names in facts.get("biases", {}).values() for key in names} - {NEVER}
    return switches | set(facts.get("layers", {}).values())
