"""Tasks of two texts: do they say the same, how alike are they, does the first imply the second."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from hf_bias_patch.assets.wording import Discourse, capital, wordings
from hf_bias_patch.assets.world import Age, Fact, Gift, Hobby, Home, Keeping, Look, Purchase, Visit, Work, World
from hf_bias_patch.scoring.embedded.facts import change, say, slots

__all__ = ["entailment", "paraphrase", "similarity"]

_PER_WORLD = 120  # many, for both texts of a pair must fall into the same split
ENTAILMENT, NEUTRAL, CONTRADICTION = range(3)

_ONLY: dict[type, str] = {
    Home: "where",
    Work: "job",
    Age: "years",
    Hobby: "day",
    Look: "colour",
    Keeping: "spot",
    Purchase: "price",
    Gift: "day",
    Visit: "day",
}
"""Kind of fact → the slot that can have one value only, so that another one contradicts."""


def paraphrase(world: World, rng: random.Random) -> Iterator[dict[str, Any]]:
    """A fact in two wordings, or with one or more details changed in the second."""
    facts = [fact for fact in world.facts if slots(fact)]
    for _ in range(_PER_WORLD):
        fact = rng.choice(facts)
        same = rng.random() < 0.5
        names = list(slots(fact))
        other = fact if same else _changed(fact, rng.sample(names, rng.randint(1, len(names))), world, rng)
        first, wording = say(fact, rng)
        yield {"text": first, "text_pair": say(other, rng, wording)[0], "label": int(same)}


def _changed(fact: Fact, names: list[str], world: World, rng: random.Random) -> Fact:
    for name in names:
        fact = change(fact, name, world, rng)
    return fact


def similarity(world: World, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Two sentences, and five times the share of details that they have in common; 0 for other kinds of facts."""
    facts = [fact for fact in world.facts if slots(fact)]
    for _ in range(_PER_WORLD):
        fact = rng.choice(facts)
        names = list(slots(fact))
        if rng.random() < 0.15:
            other, kept = rng.choice([some for some in facts if type(some) is not type(fact)]), 0
        else:
            gone = rng.sample(names, rng.randint(0, len(names)))
            other, kept = _changed(fact, gone, world, rng), len(names) - len(gone)
        first, wording = say(fact, rng)
        yield {"text": first, "text_pair": say(other, rng, wording)[0], "label": 5 * kept / len(names)}


def entailment(world: World, rng: random.Random) -> Iterator[dict[str, Any]]:
    """A few sentences about somebody, and one more: what they said, its opposite, or something else.

    Nobody has two homes, jobs, ages or hobbies in a world, nor a thing two colours, prices or places; so a fact with
    another value contradicts.
    """
    for _ in range(_PER_WORLD):
        about = [fact for fact in world.about(rng.choice(world.people)) if type(fact) in _ONLY]
        *known, unknown = rng.sample(about, rng.randint(3, 4))
        label = rng.choice((ENTAILMENT, NEUTRAL, CONTRADICTION))
        premise, used = _story(known, rng)
        at = rng.randrange(len(known))
        fact, avoid = (unknown, "") if label == NEUTRAL else (known[at], used[at])
        if label == CONTRADICTION:
            fact = change(fact, _ONLY[type(fact)], world, rng)
        yield {"text": premise, "text_pair": say(fact, rng, avoid)[0], "label": label}


def _story(facts: list[Fact], rng: random.Random) -> tuple[str, list[str]]:
    """Sentences about facts, one after the other as in the documents of pretraining, and their wordings."""
    discourse = Discourse(rng)
    used = [rng.choice(wordings(fact)) for fact in facts]
    told = [capital(discourse.say(fact, wording)) for fact, wording in zip(facts, used, strict=True)]
    return " ".join(told), used
