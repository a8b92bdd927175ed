"""Tasks that write, and a text of another style than pretraining's: records, summaries, letters."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from hf_bias_patch.assets.wording import Discourse, capital, wordings
from hf_bias_patch.assets.world import (
    Age,
    Belonging,
    Colouring,
    Fact,
    Hobby,
    Home,
    Keeping,
    Opinion,
    Owning,
    Person,
    Purchase,
    Relation,
    Setting,
    Visit,
    Work,
    World,
)

__all__ = ["letters", "records", "summary"]

_REFERENCES = 4  # of each record
_PER_WORLD = 24


def records(world: World, rng: random.Random) -> Iterator[dict[str, Any]]:
    """A record such as `name[Anna], age[34], home[Oakham]`, and sentences that say it, in several wordings."""
    for _ in range(_PER_WORLD):
        who = rng.choice(world.people)
        facts = rng.sample([fact for fact in world.about(who) if _field(fact)], rng.randint(2, 3))
        source = ", ".join([f"name[{who.name}]", *map(_field, facts)])
        told = {" ".join(_told(facts, rng)) for _ in range(_REFERENCES)}
        yield {"source": source, "references": sorted(told)}


def _field(fact: Fact) -> str:
    """A fact as a field of a record; empty for kinds that no record has."""
    if isinstance(fact, Home):
        return f"home[{fact.where.name}]"
    if isinstance(fact, Work):
        return f"job[{fact.job.title}]"
    if isinstance(fact, Age):
        return f"age[{fact.years}]"
    if isinstance(fact, Relation):
        return f"{fact.kind}[{fact.other.name}]"
    if isinstance(fact, Hobby) and fact.other is None:
        return f"hobby[{fact.activity.plural} {fact.activity.what}, {fact.day}]"
    if isinstance(fact, Colouring):
        return f"colour[{fact.thing.noun}, {fact.thing.colour}]"
    if isinstance(fact, Purchase):
        return f"price[{fact.thing.noun}, {fact.price} crowns]"
    return ""


def summary(world: World, rng: random.Random) -> Iterator[dict[str, Any]]:
    """A document about somebody, and one sentence with what matters of it: job, age, home and belongings, if told."""
    for _ in range(_PER_WORLD):
        who = rng.choice(world.people)
        about = world.about(who)
        things = [fact for fact in about if isinstance(fact, Owning)]
        chosen: list[Fact] = [fact for fact in about if isinstance(fact, Home | Work)]
        chosen += rng.sample([*things, *(fact for fact in about if isinstance(fact, Age))], rng.randint(1, 3))
        chosen += rng.sample([fact for fact in about if isinstance(fact, _ASIDES)], rng.randint(2, 4))
        rng.shuffle(chosen)
        yield {"source": " ".join(_told(chosen, rng)), "references": [_summed_up(who, chosen)]}


_ASIDES = (Hobby, Keeping, Opinion, Purchase, Relation, Visit)


def _summed_up(who: Person, facts: list[Fact]) -> str:
    job = next(fact.job.title for fact in facts if isinstance(fact, Work))
    home = next(fact.where.name for fact in facts if isinstance(fact, Home))
    ages = [f" of {fact.years}" for fact in facts if isinstance(fact, Age)]
    things = [_with_article(fact.thing) for fact in facts if isinstance(fact, Owning)]
    owns = f" and owns {' and '.join(things)}" if things else ""
    return f"{who.name}, {_an(job)}{''.join(ages)}, lives in {home}{owns}."


def letters(world: World, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Letters between friends: facts as of pretraining, in a style that it never saw."""
    for _ in range(_PER_WORLD):
        relation = rng.choice([fact for fact in world.facts if isinstance(fact, Relation)])
        news = rng.choice([person for person in world.people if person not in (relation.who, relation.other)])
        facts = [fact for fact in world.about(news) if not isinstance(fact, Owning | Setting)]
        told = _told(rng.sample(facts, rng.randint(2, 5)), rng)
        lines = [_reported(sentence, rng) for sentence in told]
        greeting = rng.choice(("Dear {},", "My dear {},", "Hello {}!")).format(relation.other.name)
        closing = rng.choice(("Write to me soon!", "I hope to see you soon.", "What do you think of it?"))
        yield {"text": " ".join([greeting, *lines, closing, f"Yours, {relation.who.name}"])}


def _reported(sentence: str, rng: random.Random) -> str:
    frame = rng.choice(
        ("Have you heard? {}", "They told me this: {}", "{} Who would have thought it?", "By the way, {}")
    )
    first, _, rest = sentence.partition(" ")
    if frame.endswith(", {}") and first in _LOWERED:  # names stay capital behind a comma
        sentence = f"{first.lower()} {rest}"
    return frame.format(sentence)


_LOWERED = (
    "She",
    "He",
    "Her",
    "His",
    "The",
    "It",
    "They",
    "Their",
    "There",
    "Every",
    "On",
    "Last",
    "Next",
    "You",
    "A",
    "An",
)


def _told(facts: list[Fact], rng: random.Random) -> list[str]:
    """Sentences about facts, one after the other as in the documents of pretraining."""
    discourse = Discourse(rng)
    return [capital(discourse.say(fact, rng.choice(wordings(fact)))) for fact in facts]


def _an(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _with_article(thing: Belonging) -> str:
    return thing.noun if thing.plural else _an(thing.noun)
