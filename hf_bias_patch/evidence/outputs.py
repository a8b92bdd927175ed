"""What models give out from between their layers: hidden states, attention weights, cached keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["CACHES", "INNER_GROUPS", "NOTHING", "Inner", "cached"]

CACHES = ("past_key_values", "cache")
"""What outputs call their cache: until transformers 5.23, and since."""
INNER_GROUPS = frozenset({"hidden_states", "attentions", "cache"})


@dataclass(frozen=True)
class Inner:
    """Which outputs between the layers to look at as well, on probes that allow it."""

    hidden_states: bool = False
    attentions: bool = False
    cache: bool = False


NOTHING = Inner()


def cached(cache: Any) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Keys and values of a transformers cache: name, `self` or `cross`, and values, (rows, tokens, heads, …)."""
    parts = [("self", getattr(cache, "self_attention_cache", cache))]
    if hasattr(cache, "cross_attention_cache"):
        parts.append(("cross", cache.cross_attention_cache))
    for kind, part in parts:
        for index, layer in enumerate(part.layers):
            if layer.keys is not None and layer.keys.numel():
                yield f"cache.{kind}.{index}.keys", kind, layer.keys.transpose(1, 2)
                yield f"cache.{kind}.{index}.values", kind, layer.values.transpose(1, 2)
