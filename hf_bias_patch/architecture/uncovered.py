"""Attention biases of a checkpoint that belong to none of its known sites: found by names and shapes alone.

A family knows the sites that it names. What else looks like an attention bias is counted nowhere, no action changes it,
and no verdict is about it. So it is named.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from hf_bias_patch.architecture.sites import Site, Tensor
from hf_bias_patch.checkpoint.dtypes import FLOATS

__all__ = ["attention_biases", "gathered", "told", "uncovered_biases"]

_ATTENTION = re.compile(r"att(?:ns?|entions?)?(?:_?\d+)?(?=\.|_?$)", re.IGNORECASE)
_ELSEWHERE = re.compile(r"norm|(?<![a-z])ln|mlp|ffn|feed_?forward|pos(?![a-z])|position", re.IGNORECASE)
"""What stands inside attention, or in a layer that is called so, and is none of its projections."""
_LAYERS = re.compile(r"(?:layers?|blocks?|h)\.\d+(?!\d)")

_WORD = re.compile(r"in_proj_|[a-z]+", re.IGNORECASE)
_MAKES = {
    "query": re.compile(r"w?q|query|queries|q(?:content|pos)"),
    "key": re.compile(r"w?k|keys?|k(?:content|pos)"),
    "value": re.compile(r"w?v|values?"),
    "fused": re.compile(r"w?qkv|kv|in_proj_"),
}
_RETURNS = {"o", "wo", "out", "output", "proj", "projection", "dense"}
_SHOWN = 4
"""Places named in a sentence."""
_WEIGHTS = ("weight", "qweight", "weight_packed", "parametrizations.weight.original1")


def uncovered_biases(sites: Iterable[Site], tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The attention biases among some tensors that are at none of some sites, in the order of the tensors.

    Args:
        sites: of the checkpoint.
        tensors: parameter name → dtype and shape.
    """
    covered = {slot.bias for site in sites for slot in site.slots.values()}
    return tuple(name for name in attention_biases(tensors) if name not in covered)


def attention_biases(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The tensors that look like attention biases, in their order.

    Such a one is a vector of a map (norms are none: their weights are vectors, too) that stands in a module called
    attention, or that makes queries, keys or values, or what comes of these, beside others that do.

    Args:
        tensors: parameter name → dtype and shape.
    """
    modules = {name: module for name, info in tensors.items() if (module := _module(name, info, tensors))}
    made: dict[str, set[str]] = {}
    for module in modules.values():
        made.setdefault(_parent(module), set()).update(_made(module))
    return tuple(name for name, module in modules.items() if _inside(module) or _beside(module, made))


def told(names: Collection[str]) -> str:
    """What uncovered biases mean, as a sentence or two; empty if there are none."""
    if not names:
        return ""
    groups = gathered(names)
    beyond = len(groups) - _SHOWN
    more = f" and {beyond} more place{'s' * (beyond > 1)}" if beyond > 0 else ""
    what, they, them = ("bias is", "It is", "it") if len(names) == 1 else ("biases are", "They are", "them")
    return (
        f"{len(names)} attention {what} at no attention site that is known of this model: "
        f"{'; '.join(groups[:_SHOWN])}{more}. {they} not counted and never changed, and no verdict is about {them}."
    )


def gathered(names: Iterable[str]) -> list[str]:
    """Names of biases with `*` for each number, those of one module together: `layers.*.self_attn (k_proj, q_proj)`."""
    places: dict[str, list[str]] = {}
    for name in names:
        pattern = re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)", "*", name.removesuffix(".bias"))
        places.setdefault(_parent(pattern), []).append(pattern.rpartition(".")[2])
    return [f"{place} ({', '.join(dict.fromkeys(own))})" if place else ", ".join(own) for place, own in places.items()]


def _module(name: str, info: Tensor, tensors: Mapping[str, Tensor]) -> str:
    """The map that a bias belongs to (`in_proj_` for `in_proj_bias`); empty if the tensor is no map's bias."""
    if not name.endswith("bias") or len(info.shape) != 1 or info.dtype not in FLOATS:
        return ""
    stem = name.removesuffix("bias")
    module = stem.removesuffix(".")
    starts = (stem, f"{stem.removesuffix('_')}.")  # `dense_bias` beside `dense.weight`
    weight = next((tensors[start + kind] for start in starts for kind in _WEIGHTS if start + kind in tensors), None)
    # Some files hold the weights of several maps fused, and their biases not.
    is_map = len(weight.shape) > 1 if weight is not None else bool(set(_made(module)))
    return module if is_map else ""


def _parent(module: str) -> str:
    return module.rpartition(".")[0]


def _words(module: str) -> list[str]:
    """The words of a module's own name."""
    return _WORD.findall(module.rpartition(".")[2].lower())


def _made(module: str) -> Iterator[str]:
    """What a map makes, by the words of its name."""
    words = _words(module)
    yield from (what for what, pattern in _MAKES.items() if any(pattern.fullmatch(word) for word in words))


def _inside(module: str) -> bool:
    """Whether a map is inside a module called attention, and not in its position encoding or an MLP."""
    ends = [match.end() for match in _ATTENTION.finditer(module)]
    rest = module[ends[-1] :] if ends else ""
    return bool(ends) and not _ELSEWHERE.search(rest) and not _LAYERS.search(rest)


def _beside(module: str, made: Mapping[str, set[str]]) -> bool:
    """Whether the maps beside it are an attention's (a fused one, or values and more) and its own name fits them."""
    beside = made.get(_parent(module), set())
    whole = "fused" in beside or ("value" in beside and len(beside) > 1)
    return whole and bool(set(_made(module)) or _RETURNS & set(_words(module)))
