"""Detects tensor names with the prefix of a wrapper: torch.compile, DDP, Lightning, PEFT, or other code.

A family finds its modules under any prefix; stock transformers does not. It loads none of a wrapped model's tensors,
and fills the model with random values instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from hf_bias_patch.architecture.as_read import as_read
from hf_bias_patch.architecture.family import Family, family_of
from hf_bias_patch.architecture.name_patterns import Scope, places
from hf_bias_patch.architecture.stock import entry, named_in
from hf_bias_patch.checkpoint.shorten import listed
from hf_bias_patch.errors import CheckpointError, FamilyError

__all__ = ["refuse_wrapped", "stock_prefixes", "wrapper"]

_TABLE = "stock_parts"
"""Model type → what may stand first in the tensor names of its stock classes."""

_MOST = 20
"""Prefixes whose tensors are counted: a file may have one for every tensor."""


def refuse_wrapped(config: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse a checkpoint whose tensor names have a prefix that stock transformers does not take off.

    Args:
        config: a parsed config.json.
        names: of the checkpoint's tensors.

    Raises:
        CheckpointError: they have one; the message names it.
    """
    names = list(names)
    prefix = wrapper(config, names)
    if not prefix:
        return
    count = sum(name.startswith(prefix) for name in names)
    other = prefix.rstrip(".").replace("_", "-")
    prefix = listed([prefix])
    if other in named_in(_TABLE):
        raise CheckpointError(
            f"{count} of {len(names)} tensor names begin with `{prefix}`, which stock transformers does not remove",
            why=f"A {other} model names its tensors so, and config.json says {config.get('model_type')}",
            remedy="Use the config.json that was saved with these weights",
        )
    raise CheckpointError(
        f"{count} of {len(names)} tensor names begin with `{prefix}`, which stock transformers does not remove",
        why="They were saved from a wrapper (torch.compile, DDP or other code around the model), and from_pretrained "
        "loads none of them: it initialises them at random",
        remedy=f"Save the model inside the wrapper with save_pretrained, or rename its tensors without `{prefix}`",
    )


def wrapper(config: Mapping[str, Any], names: Iterable[str]) -> str:
    """The prefix that a wrapper put before the names of the attention modules, dot included; empty if none did.

    Each part of a prefix is compared with the parts that the type's stock classes have: what stands before the first
    of these is the wrapper's.
    """
    stock = _parts_of(config.get("model_type"))
    names = list(names)
    found: Counter[str] = Counter()
    for prefixes in _prefixes(as_read(config), names, Scope()):
        strange = [_strange(prefix, stock) for prefix in prefixes]
        if "" not in strange:  # else the model is there as well, and what has the prefix is beside it
            found.update(strange)
    often = [prefix for prefix, _ in found.most_common(_MOST)]
    return max(often, key=lambda prefix: sum(name.startswith(prefix) for name in names), default="")


def stock_prefixes(prefixes: Collection[str], model_types: Iterable[str]) -> set[str]:
    """Of several prefixes of the same modules, those that stock classes have; all, if there is no such.

    Stock transformers leaves out what is under the others (`mtp.`, the heads that predict several tokens).

    Args:
        prefixes: what stands before a family's names.
        model_types: of the model, and of the tower that is looked for.
    """
    known = frozenset().union(*map(_parts_of, model_types))
    stock = {prefix for prefix in prefixes if all(part in known for part in prefix.split(".")[:-1])}
    return stock or set(prefixes)


def _strange(prefix: str, stock: frozenset[str]) -> str:
    parts = prefix.split(".")[:-1]
    known = next((number for number, part in enumerate(parts) if part in stock), len(parts))
    # A wrapper may have called the model as it calls its own base: `model.model.layers` of Llama.
    while (
        known + 1 < len(parts) and parts[known] == parts[known + 1] and ".".join(parts[known : known + 2]) not in stock
    ):
        known += 1
    return "".join(f"{part}." for part in parts[:known])


def _prefixes(config: Mapping[str, Any], names: list[str], scope: Scope) -> Iterator[Collection[str]]:
    """Prefixes before the attention modules of a config's family and of its towers, one set for each module."""
    try:
        family = family_of(config)
    except FamilyError:
        return
    for attention in family.attention:
        for module in next(iter(attention.maps)).split("|"):
            yield places(module, names, scope)
    for key, tower in family.towers.items():
        part = config.get(tower.config)
        if isinstance(part, Mapping):
            yield from _prefixes({"model_type": tower.model_type, **part}, names, _scope(family, key, scope))


def _scope(family: Family, tower: str, outer: Scope) -> Scope:
    others = (part for key, other in family.towers.items() if key != tower for part in other.under if part)
    return Scope(family.towers[tower].under, (*outer.apart, *others))


@cache
def _parts_of(model_type: object) -> frozenset[str]:
    """What may stand first in a stock model's tensor names; of a type that transformers lacks, in that of any."""
    own = entry(_TABLE, model_type)
    known = [own] if own else [entry(_TABLE, name) for name in named_in(_TABLE)]
    return frozenset(part for parts in known for part in parts.split())
