"""The arms of a study: each changes some attention biases in one way. Needs neither a model nor values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

from hf_bias_patch.architecture.sites import Projection, Site

__all__ = ["STUDIED", "Arm", "BiasGroup", "Target", "groups_of", "head_arms", "heads_of", "layer_arms", "removal_arms",
           "whole_arms"]  # fmt: skip

Stage = Literal["whole", "layer", "head", "removal"]

STUDIED: tuple[Projection, ...] = ("query", "key", "value")


class Target(NamedTuple):
    """One bias, or one head's part of it."""

    site: str
    projection: Projection
    head: int | None = None


@dataclass(frozen=True)
class Arm:
    """One change, measured as a whole.

    Attributes:
        stage: all sites of a kind at once, one site, one head of it, or removal of the first of an order.
        place: `encoder self`, `decoder cross`, …; empty where sites of several kinds are changed.
        projection: whose bias; empty where several are.
        fill: a key of `fills.FILLS`.
        targets: what is changed.
        layer, head: of a single site, and head.
    """

    stage: Stage
    place: str
    projection: str
    fill: str
    targets: tuple[Target, ...]
    layer: int | None = None
    head: int | None = None

    @property
    def name(self) -> str:
        """Identifies the result, also when a study is resumed."""
        if self.stage == "removal":
            return f"removal of {len(self.targets)}"
        parts = (
            self.place,
            self.projection,
            "" if self.layer is None else f"layer {self.layer}",
            "" if self.head is None else f"head {self.head}",
            self.fill,
        )
        return ", ".join(part for part in parts if part)

    @property
    def sites(self) -> frozenset[str]:
        """Names of the sites it changes."""
        return frozenset(target.site for target in self.targets)


@dataclass(frozen=True)
class BiasGroup:
    """One projection's biases at all sites of a kind.

    Attributes:
        place: `encoder self`, `decoder cross`, …
        projection: whose bias.
        targets: the biases.
    """

    place: str
    projection: Projection
    targets: tuple[Target, ...]

    @property
    def name(self) -> str:
        """As in `encoder self, value`."""
        return f"{self.place}, {self.projection}"


def whole_arms(sites: Sequence[Site], fills: Iterable[str]) -> Iterator[Arm]:
    """Each projection of all sites of a kind at once, with each fill; all with the first fill come first."""
    for fill in fills:
        for place, group in groupby(sorted(sites, key=_place), key=_place):
            members = list(group)
            for projection in STUDIED:
                targets = tuple(Target(site.name, projection) for site in members if _has(site, projection))
                if targets:
                    yield Arm("whole", place, projection, fill, targets)


def groups_of(sites: Iterable[Site]) -> list[BiasGroup]:
    """The groups of some sites."""
    arms = whole_arms(list(sites), ["zeros"])
    return [BiasGroup(arm.place, arm.targets[0].projection, arm.targets) for arm in arms]


def layer_arms(sites: Sequence[Site], fill: str = "zeros") -> Iterator[Arm]:
    """Each projection of each site by itself."""
    for site in sites:
        for projection in STUDIED:
            if _has(site, projection):
                target = Target(site.name, projection)
                yield Arm("layer", _place(site), projection, fill, (target,), site.layer)


def head_arms(sites: Sequence[Site], projections: Sequence[Projection], fill: str = "zeros") -> Iterator[Arm]:
    """Each head of each site by itself."""
    for site in sites:
        for projection in projections:
            for head in range(heads_of(site, projection) if _has(site, projection) else 0):
                target = Target(site.name, projection, head)
                yield Arm("head", _place(site), projection, fill, (target,), site.layer, head)


def removal_arms(order: Sequence[Target], most: int = 16) -> Iterator[Arm]:
    """The first targets of an order, then more of them, until all: at most `most` arms, evenly spread."""
    count = min(most, len(order))
    for step in range(1, count + 1):
        yield Arm("removal", "", "", "zeros", tuple(order[: -(-step * len(order) // count)]))


def heads_of(site: Site, projection: str) -> int:
    """How many heads a projection's bias has parts for: fewer for keys and values where queries share them."""
    return site.heads if projection == "query" else site.kv_heads


def _place(site: Site) -> str:
    return f"{site.stack} {site.kind}"


def _has(site: Site, projection: Projection) -> bool:
    return site.slots[projection].bias is not None
