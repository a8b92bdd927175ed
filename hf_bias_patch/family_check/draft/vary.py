"""What changes with the config: the facts of one config, and when those of others hold instead."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hf_bias_patch.architecture.condition import MISSING, lookup
from hf_bias_patch.family_check.draft.config_keys import Flips, blocker_tables, toml_values
from hf_bias_patch.family_check.draft.family_file import counts_kv_heads, entry, layout
from hf_bias_patch.family_check.draft.group import SiteKind
from hf_bias_patch.family_check.variations import Change

__all__ = ["VariedModel", "entries"]


@dataclass(frozen=True)
class VariedModel:
    """A model with one config value changed.

    Attributes:
        change: which.
        groups: its kinds of sites.
        parameters: names of its parameters.
    """

    change: Change
    groups: tuple[SiteKind, ...]
    parameters: frozenset[str]


def entries(
    default: Sequence[SiteKind],
    parameters: frozenset[str],
    varied_models: Sequence[VariedModel],
    config: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], list[str]]:
    """The `[[attention]]` tables, and what could not be told.

    Args:
        default: kinds of sites at the default config.
        parameters: names of its parameters.
        varied_models: the same with one config value changed.
        config: the default one, as plain values.
    """
    tables: list[dict[str, Any]] = []
    doubts: list[str] = []
    for one in default:
        found = _Kind(one, parameters, varied_models, config)
        tables += found.tables()
        doubts += found.doubts
    tables += _only_there(default, varied_models, config)
    return [_ordered(table) for table in tables], list(dict.fromkeys(doubts))


class _Kind:
    """One kind of site under several configs."""

    def __init__(
        self, one: SiteKind, parameters: frozenset[str], varied_models: Sequence[VariedModel], config: Mapping[str, Any]
    ) -> None:
        pairs = [(varied, next((g for g in varied.groups if _alike(one, g)), None)) for varied in varied_models]
        self.others = [(varied, other) for varied, other in pairs if other is not None]
        self.config, self.parameters = config, parameters
        self.one = self._completed(self._named(one))
        self.doubts: list[str] = []

    def tables(self) -> list[dict[str, Any]]:
        """Its tables: one, or one for each value of a flag that decides what is read."""
        blockers = blocker_tables(self.one.blockers, self._flips(), self.config)
        elsewhere = [(varied, other) for varied, other in self.others if self._reads_else(varied, other)]
        flags = {varied.change.key for varied, _ in elsewhere}
        if len(flags) == 1 and all(isinstance(varied.change.value, bool) for varied, _ in elsewhere):
            found = [self._table(facts, blockers, when) for facts, when in self._by_flag(*elsewhere[0])]
        else:
            blockers += [self._norm_elsewhere(key, [v for v, _ in elsewhere if v.change.key == key]) for key in flags]
            found = [self._table(self.one, blockers, {})]
        return found + [self._in_files(table) for table in found if self.one.in_files]

    def _table(self, facts: SiteKind, blockers: Sequence[Mapping[str, Any]], when: Mapping[str, Any]) -> dict[str, Any]:
        table = {**entry(facts, self.config), **({"when": dict(when)} if when else {})}
        table.pop("traps", None)
        layouts = self._layouts()
        return table | ({"traps": list(blockers)} if blockers else {}) | ({"layouts": layouts} if layouts else {})

    def _named(self, one: SiteKind) -> SiteKind:
        """With the names that its maps have under other configs: the tensor names tell which a checkpoint has."""
        for _, other in self.others:
            pairs = zip(one.maps.items(), other.maps, strict=True)
            one = replace(one, maps={_both(name, renamed): made for (name, made), renamed in pairs})
        return one

    def _completed(self, one: SiteKind) -> SiteKind:
        """With norms that another config has, where the tensor names tell which of them a checkpoint has."""
        for varied, other in self.others:
            for name, norm in other.reads.items():
                mine = one.reads.get(name, "")
                if not mine and not _there(norm, self.parameters):
                    first = {name: other.reads_first[name]} if name in other.reads_first else {}
                    one = replace(one, reads={**one.reads, name: norm}, reads_first={**one.reads_first, **first})
                elif mine != norm and not _there(norm, self.parameters) and not _there(mine, varied.parameters):
                    one = replace(one, reads={**one.reads, name: _both(norm, mine)})
        return one

    def _reads_else(self, varied: VariedModel, other: SiteKind) -> bool:
        """Whether other norms are read, and the tensor names do not tell."""
        for name in {*self.one.reads, *other.reads}:
            mine, norm = self.one.reads.get(name, ""), other.reads.get(name, "")
            first, other_first = self.one.reads_first.get(name, ""), other.reads_first.get(name, "")
            told = mine and set(norm.split("|")) <= set(mine.split("|"))
            if (not norm and not _there(mine, varied.parameters)) or (told and norm and first == other_first):
                continue
            if mine != norm or first != other_first:
                return True
        return False

    def _flips(self) -> Flips:
        """Blocker → key → values, and whether it is there."""
        flips: Flips = {}
        names = [*self.one.blockers, *(name for _, other in self.others for name in other.blockers)]
        for blocker in dict.fromkeys(names):
            by_key = flips.setdefault(blocker, {})
            for varied, other in self.others:
                found = other.blockers.get(blocker)
                by_key.setdefault(varied.change.key, []).append((varied.change.value, found))
        return flips

    def _layouts(self) -> list[dict[str, Any]]:
        """How fused maps are ordered, by the keys that decide it: those that are not the default first."""
        if all(len(made) == 1 for made in self.one.maps.values()):
            return []
        own = layout(self.one, self.config)
        found, keys = [], set()
        for varied, other in self.others:
            if self.one.order not in other.orders:
                made = layout(other, self.config) or {"order": "blocks"}
                keys.add(varied.change.key)
                found.append({**made, "when": {varied.change.key: [varied.change.value]}})
        if len(keys) > 1:
            self.doubts.append(f"{' and '.join(sorted(keys))} decide how a map is laid out: see what both do together")
        return [*found, own or {"order": "blocks"}] if found else [own] if own else []

    def _by_flag(self, varied: VariedModel, other: SiteKind) -> list[tuple[SiteKind, dict[str, Any]]]:
        key, value = varied.change.key, varied.change.value
        return [(self.one, {key: [not value, "null"]}), (other, {key: [value]})]

    def _norm_elsewhere(self, key: str, bad: Iterable[VariedModel]) -> dict[str, Any]:
        """A blocker for all values of a key with which another norm, or none, is read."""
        values = [varied.change.value for varied in bad]
        tried = [v.change.value for v, _ in self.others if v.change.key == key and v.change.value not in values]
        mine = lookup(self.config, key)
        good = [None if mine is MISSING else mine, *tried]
        self.doubts.append(f"with {key} = {', '.join(map(json.dumps, values))} another norm is read, or none")
        return {"trap": "norm_elsewhere", "when": {key: {"not": [*toml_values(good), "missing"]}}}

    def _in_files(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """The same sites by the files' names, which fuse maps that are apart in memory."""
        grouped = {"layouts": [{"order": "grouped blocks"}]} if counts_kv_heads(self.one, self.config) else {}
        return {
            **{key: value for key, value in table.items() if key != "layouts"},
            **grouped,
            "maps": self.one.in_files,
        }


def _alike(one: SiteKind, other: SiteKind) -> bool:
    """Whether two are the same kind of site, some of its maps perhaps under other names."""
    if one.key == other.key:
        return True
    same = (one.stack, one.kind, [*map(sorted, one.maps.values())]) == (
        other.stack, other.kind, [*map(sorted, other.maps.values())],
    )  # fmt: skip
    return same and len(set(one.maps) & set(other.maps)) * 2 > len(one.maps)


def _both(name: str, other: str) -> str:
    """Names with `|` between them, each once."""
    return "|".join(dict.fromkeys([*name.split("|"), *other.split("|")]))


def _there(norm: str, parameters: frozenset[str]) -> bool:
    """Whether some parameter can be the bias of a norm that goes by this pattern."""
    ends = [pattern.rpartition("}")[2] + ".bias" for pattern in norm.split("|")]
    return any(name.endswith(end) for name in parameters for end in ends)


def _only_there(
    default: Sequence[SiteKind], varied_models: Sequence[VariedModel], config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Sites that only some other config has: their names tell whether a checkpoint is of that config."""
    found: dict[Any, dict[str, Any]] = {}
    known = {one.key for one in default}
    for varied in varied_models:
        for other in varied.groups:
            if other.key not in known and not any(set(other.maps) & set(one.maps) for one in default):
                found.setdefault(other.key, entry(other, config))
    return list(found.values())


_ORDER = (
    "stack", "kind", "when", "layerdrop", "reads", "reads_first", "dropout_after", "dropout_after_first", "conv1d",
    "layouts", "biases", "traps", "maps",
)  # fmt: skip


def _ordered(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: table[key] for key in _ORDER if key in table}
