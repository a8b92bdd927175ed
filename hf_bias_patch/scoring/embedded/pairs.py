"""Tasks of two texts: do they say the same, how alike are they, does the first imply the second."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hf_bias_patch.assets.lexicon import opposite
from hf_bias_patch.assets.wording import OPINION, Discourse, capital, wordings
from hf_bias_patch.assets.world import (
    Age,
    Colouring,
    Fact,
    Gift,
    Hobby,
    Home,
    Keeping,
    Opinion,
    Purchase,
    Visit,
    Work,
    World,
)
from hf_bias_patch.scoring.embedded.facts import change, say, slots

__all__ = ["entailment", "paraphrase", "similarity"]

_PER_WORLD = 120  # many, for both texts of a pair must fall into the same split
_QUALITY = OPINION[:5]  # those that name the first adjective, or deny its opposite
ENTAILMENT, NEUTRAL, CONTRADICTION = range(3)

_ONLY: dict[type, str] = {
    Home: "where",
    Work: "job",
    Age: "years",
    Hobby: "day",
    Colouring: "colour",
    Keeping: "spot",
    Purchase: "price",
    Gift: "day",
    Visit: "day",
    Opinion: "positive",
}
"""Kind of fact → the slot that can have one value only, so that another one contradicts."""


def paraphrase(world: World, rng: random.Random) -> Iterator[dict[str, Any]]:
    """A fact in two wordings; or another fact about the same person, or the fact with some of its details changed.

    The kind of fact alone tells three pairs in four; details must be compared for the rest.
    """
    facts: list[Any] = [fact for fact in world.facts if slots(fact)]
    for _ in range(_PER_WORLD):
        other = fact = rng.choice(facts)
        same = rng.random() < 0.5
        if not same and rng.random() < 0.5:
            other = rng.choice([some for some in facts if some.who == fact.who and type(some) is not type(fact)])
        elif not same:
            names = list(slots(fact))
            other = _changed(fact, rng.sample(names, rng.randint(1, len(names))), world, rng)
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
        if rng.random() < 0.25:
            other, kept = rng.choice([some for some in facts if type(some) is not type(fact)]), 0
        else:
            gone = rng.sample(names, rng.randint(0, len(names)))
            other, kept = _changed(fact, gone, world, rng), len(names) - len(gone)
        first, wording = say(fact, rng)
        yield {"text": first, "text_pair": say(other, rng, wording)[0], "label": 5 * kept / len(names)}


def entailment(world: World, rng: random.Random) -> Iterator[dict[str, Any]]:
    """A sentence or two about somebody, and one more: what they said, its opposite, or something else.

    Nobody has two homes, jobs, ages or hobbies in a world, nor a thing two colours, prices or places; so a fact with
    another value contradicts. Nor does anybody find a thing both useful and useless.
    """
    for _ in range(_PER_WORLD):
        about = [fact for fact in world.about(rng.choice(world.people)) if type(fact) in _ONLY]
        opinions = [fact for fact in about if isinstance(fact, Opinion)]
        known = [rng.choice(opinions if rng.random() < 0.5 else about)]
        known += rng.sample([fact for fact in about if fact not in known], rng.randint(0, 1))
        rng.shuffle(known)
        label = rng.choice((ENTAILMENT, NEUTRAL, CONTRADICTION))
        premise, used = _story(known, rng)
        at = rng.randrange(len(known))
        fact, avoid = known[at], used[at]
        if label == NEUTRAL:
            fact, avoid = rng.choice([fact for fact in about if fact not in known]), ""
        elif label == CONTRADICTION:
            fact = _opposite(fact) if isinstance(fact, Opinion) else change(fact, _ONLY[type(fact)], world, rng)
        yield {"text": premise, "text_pair": _said(fact, Discourse(rng), avoid, rng)[0], "label": label}


def _opposite(fact: Opinion) -> Opinion:
    first, second = map(opposite, fact.adjectives)
    return replace(fact, positive=not fact.positive, adjectives=(first, second))


def _said(fact: Fact, discourse: Discourse, avoid: str, rng: random.Random) -> tuple[str, str]:
    """A sentence and its wording; of opinions only such that name the same quality."""
    offered = _QUALITY if isinstance(fact, Opinion) else wordings(fact)
    wording = rng.choice([wording for wording in offered if wording != avoid])
    return capital(discourse.say(fact, wording)), wording


def _story(facts: list[Fact], rng: random.Random) -> tuple[str, list[str]]:
    """Sentences about facts, one after the other as in the documents of pretraining, and their wordings."""
    discourse = Discourse(rng)
    told = [_said(fact, discourse, "", rng) for fact in facts]
    return " ".join(sentence for sentence, _ in told), [wording for _, wording in told]
