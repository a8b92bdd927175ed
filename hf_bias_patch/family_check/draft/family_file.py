"""A drafted family as its TOML file, and the existing family that says the same."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hf_bias_patch.architecture.family import Attention, Family, families, parsed
from hf_bias_patch.family_check.draft.config_keys import head_size_key, heads_key, kv_heads_key
from hf_bias_patch.family_check.draft.group import SiteKind
from hf_bias_patch.family_check.draft.order import GROUPED

__all__ = ["counts_kv_heads", "entry", "family_text", "joined", "layout", "same_as", "stacks", "types_text"]


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
            facts[name] = _one_norm(reads, one)
    facts |= {name: True for name in ("dropout_after", "dropout_after_first", "conv1d") if getattr(one, name)}
    if not one.reads:
        facts.pop("dropout_after", None)
        facts.pop("dropout_after_first", None)
    if layout(one, config):
        facts["layouts"] = [layout(one, config)]
    if one.biases:
        facts["biases"] = dict(one.biases)
    if one.blockers:
        facts["traps"] = [{"trap": name, **more} for name, more in one.blockers.items()]
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


def _one_norm(reads: Mapping[str, str], one: SiteKind) -> str | dict[str, str]:
    """One name where query, key and value of self-attention all read the same."""
    made = {projection for several in one.maps.values() for projection in several} - {"output"}
    same = len(set(reads.values())) == 1 and made <= reads.keys()
    return next(iter(reads.values())) if same and one.kind == "self" else dict(reads)


_WIDTH = 120
_PHRASES = {
    "rotary": "rotary positions",
    "qk_norm": "a norm on query and key",
    "softcap": "scores soft-capped",
    "sink": "a sink logit for each head",
    "gate": "a gate before the output map",
    "norm_after": "a norm before the output map",
    "clip": "projections clipped",
}


def family_text(model_types: Sequence[str], body: Mapping[str, Any]) -> str:
    """The file: a comment that says what it is, the model types, and the tables.

    Args:
        model_types: who shares it.
        body: `handled`, `towers`, `stacks` and `attention`, as TOML has them; what is empty is left out.
    """
    lines = [*_comment(body), types_text(model_types)]
    if body.get("handled"):
        lines += ["", "[handled]", *(f"{_key(key)} = {_value(value)}" for key, value in body["handled"].items())]
    for kind in ("towers", "stacks"):
        for name, facts in body.get(kind, {}).items():
            lines += ["", f"[{kind}.{name}]", *(f"{key} = {_value(value)}" for key, value in facts.items())]
    for table in body.get("attention", ()):
        lines += ["", "[[attention]]", *_attention(table)]
    return "\n".join(lines) + "\n"


def types_text(model_types: Iterable[str]) -> str:
    """The line, or lines, of the model types."""
    names = [f'"{name}"' for name in sorted(model_types)]
    line = f"model_types = [{', '.join(names)}]"
    if len(line) <= _WIDTH:
        return line
    wrapped = textwrap.wrap(", ".join(names), _WIDTH - 12, break_on_hyphens=False, break_long_words=False)
    return "\n".join(["model_types = [", *(f"    {part}" for part in [*wrapped[:-1], f"{wrapped[-1]},"]), "]"])


def _attention(table: Mapping[str, Any]) -> list[str]:
    lines, nested = [], []
    for key, value in table.items():
        if key in ("traps", "layouts") and len(f"{key} = {_value(value)}") > _WIDTH:
            for one in value:
                nested += [f"[[attention.{key}]]", *(f"{name} = {_value(item)}" for name, item in one.items())]
        elif key in ("maps", "biases"):
            nested += [f"[attention.{key}]", *(f"{_key(name)} = {_value(made)}" for name, made in value.items())]
        else:
            lines.append(f"{key} = {_value(value)}")
    return lines + nested


def _key(key: str) -> str:
    return key if key.isidentifier() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _comment(body: Mapping[str, Any]) -> list[str]:
    kinds: dict[str, None] = {}
    for table in body.get("attention", ()):
        maps = {projection: name for name, made in table["maps"].items() for projection in made}
        inputs = dict.fromkeys(_short(maps[name]) for name in ("query", "key", "value") if name in maps)
        text = f"{table['stack']} {table['kind']}-attention, {', '.join(inputs)}"
        text += f" to {_short(maps['output'])}" if "output" in maps else ""
        blockers = dict.fromkeys(_phrase(blocker) for blocker in table.get("traps", ()) if blocker["trap"] in _PHRASES)
        kinds["; ".join([text, *(", ".join(blockers) for _ in blockers if blockers)][:2])] = None
    said = "; ".join(kinds)
    if body.get("towers"):
        said += ("; m" if said else "M") + f"odels inside a model: {', '.join(body['towers'])}"
    return textwrap.wrap(f"{said[:1].upper()}{said[1:]}.", _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _short(module: str) -> str:
    """The last parts of a module's name that say what it is."""
    name = module.split("|")[0].removesuffix("_")
    parts = [part for part in name.split(".") if not part.startswith("{")]
    return parts[-1] if len(parts[-1]) > 1 and parts[-1] not in ("linear", "dense") else ".".join(parts[-2:])


def _phrase(blocker: Mapping[str, Any]) -> str:
    text = _PHRASES[blocker["trap"]]
    if blocker.keys() & {"layers", "but", "only"}:
        return f"{text} in some layers"
    return f"{text} where the config says so" if "when" in blocker else text


def same_as(text: str) -> Family | None:
    """The existing family with the facts of a drafted one; None if there is none.

    A family may have more names for a map (`|`), which other checkpoints use. Of several such families, the one with
    the fewest is taken.

    Args:
        text: of the drafted file.
    """
    drafted = parsed("draft", text)
    same = [family for family in families() if _covers(family, drafted)]
    return min(same, key=_names, default=None)


def _names(family: Family) -> int:
    """How many names a family has for its maps."""
    return sum(len(name.split("|")) for attention in family.attention for name in attention.maps)


def _covers(family: Family, drafted: Family) -> bool:
    same = (family.stacks, family.towers, family.handled, family.memory, family.bridge) == (
        drafted.stacks, drafted.towers, drafted.handled, drafted.memory, drafted.bridge,
    )  # fmt: skip
    if not same or len(family.attention) != len(drafted.attention):
        return False
    return all(any(_says(mine, one) for mine in family.attention) for one in drafted.attention)


def _says(mine: Attention, one: Attention) -> bool:
    """Whether an entry says what a drafted one does, under the same names and perhaps others."""
    if sorted(map(repr, mine.blockers)) != sorted(map(repr, one.blockers)):
        return False
    bare = [
        replace(each, maps={}, blockers=(), reads="", reads_first="", shift=False, post_norm=False)
        for each in (mine, one)
    ]
    if bare[0] != bare[1] or mine.shift or mine.post_norm:
        return False
    return (
        _named(mine.maps, one.maps) and _named(_all(mine.reads), _all(one.reads))
        and _named(_all(mine.reads_first), _all(one.reads_first))
    )  # fmt: skip


def _all(reads: str | Mapping[Any, str]) -> dict[str, Any]:
    if isinstance(reads, str):
        return {reads: "all"} if reads else {}
    return {f"{norm}": projection for projection, norm in reads.items()}


def _named(mine: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    """Whether two tables have the same entries, the first perhaps under more names."""
    if len(mine) != len(one):
        return False
    return all(
        any(set(name.split("|")) <= set(other.split("|")) and made == mine[other] for other in mine)
        for name, made in one.items()
    )


def joined(existing: str, model_types: Sequence[str]) -> str:
    """An existing file's text with other model types; what stands around them stays.

    Args:
        existing: its text.
        model_types: all of them, old and new.
    """
    before, _, rest = existing.partition("model_types = [")
    return f"{before}{types_text(model_types)}{rest.partition(']')[2]}"
