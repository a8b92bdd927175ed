"""Facts of a world as slots that can be compared and changed one at a time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hf_bias_patch.assets import lexicon
from hf_bias_patch.assets.wording import Discourse, capital, wordings
from hf_bias_patch.assets.world import (
    Age,
    Belonging,
    Colouring,
    Fact,
    Gift,
    Hobby,
    Home,
    Keeping,
    Person,
    Purchase,
    Relation,
    Visit,
    Work,
    World,
)

__all__ = ["SLOTS", "change", "kept_apart", "say", "slots"]

SLOTS: dict[type, tuple[str, ...]] = {
    Home: ("who", "where"),
    Work: ("who", "job"),
    Age: ("who", "years"),
    Relation: ("who", "kind", "other"),
    Hobby: ("who", "activity", "day", "other"),
    Colouring: ("who", "noun", "colour"),
    Keeping: ("who", "noun", "spot"),
    Purchase: ("who", "noun", "price"),
    Gift: ("who", "noun", "other", "day"),
    Visit: ("who", "where", "day", "past", "other"),
}
"""Kind of fact → its slots. Opinions are left out: their wordings do not all say who holds them."""

_DRAW: dict[str, Callable[[World, random.Random], Any]] = {
    "who": lambda world, rng: rng.choice(world.people),
    "other": lambda world, rng: rng.choice(world.people),
    "where": lambda world, rng: rng.choice(world.places),
    "job": lambda _, rng: rng.choice(lexicon.JOBS),
    "years": lambda _, rng: rng.randint(18, 79),
    "kind": lambda _, rng: rng.choice(("friend", "neighbour", "colleague")),
    "activity": lambda _, rng: rng.choice(lexicon.ACTIVITIES),
    "day": lambda _, rng: rng.choice(lexicon.DAYS),
    "noun": lambda _, rng: rng.choice(lexicon.NOUNS + lexicon.PLURAL_NOUNS),
    "colour": lambda _, rng: rng.choice(lexicon.COLOURS),
    "spot": lambda _, rng: rng.choice(lexicon.SPOTS),
    "price": lambda _, rng: 5 * rng.randint(2, 19),
    "past": lambda _, rng: rng.random() < 0.5,
}


def slots(fact: Fact) -> dict[str, Any]:
    """The slots of a fact that are filled; empty for a kind that is not compared."""
    found = {name: _get(fact, name) for name in SLOTS.get(type(fact), ())}
    return {name: value for name, value in found.items() if value is not None}


def change(fact: Fact, slot: str, world: World, rng: random.Random) -> Fact:
    """The fact with another value in one slot."""
    while True:
        value = _DRAW[slot](world, rng)
        changed = _put(fact, slot, value)
        if value != _get(fact, slot) and kept_apart(changed):
            return changed


def kept_apart(fact: Fact) -> bool:
    """Whether a fact about two people is about two."""
    return getattr(fact, "other", None) is None or fact.other != fact.who  # type: ignore[union-attr]


def say(fact: Fact, rng: random.Random, avoid: str | None = None) -> tuple[str, str]:
    """A sentence that says a fact on its own, and its wording; not the wording `avoid`."""
    wording = rng.choice([wording for wording in wordings(fact) if wording != avoid])
    return capital(Discourse(rng).say(fact, wording)), wording


def _get(fact: Any, slot: str) -> Any:
    if slot in ("noun", "colour"):
        return getattr(fact.thing, slot)
    return getattr(fact, slot)


def _put(fact: Any, slot: str, value: Any) -> Any:
    if slot == "noun":
        return replace(fact, thing=Belonging(value, value in lexicon.PLURAL_NOUNS, fact.thing.colour))
    if slot == "colour":
        return replace(fact, thing=replace(fact.thing, colour=value))
    if slot == "other" and isinstance(fact, Relation):
        return replace(fact, other=value, kind=_fitting(fact.kind, value))
    return replace(fact, **{slot: value})


def _fitting(kind: str, other: Person) -> str:
    """A sister becomes a brother with another person in her place."""
    if kind in ("sister", "brother"):
        return "sister" if other.pronoun == lexicon.SHE else "brother"
    return kind
