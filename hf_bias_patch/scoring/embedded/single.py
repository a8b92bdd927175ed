"""Tasks of one text: is it acceptable, is its opinion good."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from hf_bias_patch.assets.stories import sentences
from hf_bias_patch.assets.wording import Discourse, capital, wordings
from hf_bias_patch.assets.world import Colouring, Opinion, Setting, World, item

__all__ = ["acceptability", "opinion"]

_PER_WORLD = 40


def _words(text: str) -> list[str]:
    return text.split()


_FORMS = (
    ("is", "are"),
    ("was", "were"),
    ("has", "have"),
    ("likes", "like"),
    ("wants", "want"),
    ("stays", "stay"),
    ("belongs", "belong"),
    ("lives", "live"),
    ("works", "work"),
    ("owns", "own"),
    ("keeps", "keep"),
    ("plays", "play"),
    ("reads", "read"),
    ("bakes", "bake"),
    ("sings", "sing"),
    ("paints", "paint"),
    ("watches", "watch"),
    ("catches", "catch"),
    ("finds", "find"),
    ("says", "say"),
    ("hopes", "hope"),
    ("a", "an"),
    ("his", "him"),
    ("she", "her"),
)
_OTHER = {first: second for pair in _FORMS for first, second in (pair, pair[::-1])}
_SMALL = frozenset(_words("a an the in to of at for is are was were and by from that very with every"))


def acceptability(world: World, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Sentences, two in five of them with a word in the wrong form, place or number of times."""
    for sentence in sentences(world, _PER_WORLD, seed=1):
        wrong = rng.random() < 0.4
        text = _spoilt(sentence, rng) if wrong else sentence
        if text is not None:
            yield {"text": text, "label": int(not wrong)}


def _spoilt(sentence: str, rng: random.Random) -> str | None:
    """The sentence with one mistake; None where the mistake drawn cannot be made in it."""
    words = sentence[:-1].split()
    kind = rng.choice(("form", "form", "swap", "drop", "twice"))
    if kind == "swap":
        # Two names or nouns in a row, or "is now", could change places without a mistake.
        places = [i for i in range(1, len(words) - 1) if (words[i] in _SMALL) != (words[i + 1] in _SMALL)]
        places = [i for i in places if "now" not in words[i : i + 2]]
    else:
        known = _OTHER if kind == "form" else _SMALL - {"very", "every", "that"}
        places = [i for i in range(1, len(words)) if words[i].strip(",") in known]
    if not places:
        return None
    at = rng.choice(places)
    if kind == "form":
        words[at] = words[at].replace(words[at].strip(","), _OTHER[words[at].strip(",")])
    elif kind == "swap":
        words[at], words[at + 1] = words[at + 1], words[at]
    elif kind == "drop":
        del words[at]
    else:
        words.insert(at, words[at].strip(","))
    return " ".join(words) + sentence[-1]


def opinion(world: World, rng: random.Random) -> Iterator[dict[str, Any]]:
    """An opinion: alone, behind something neutral, denied, or against an opposite one, where the last word counts.

    Good adjectives stand in bad opinions too ("anything but useful"), and denial turns each round; so words alone do
    not tell.
    """
    opinions = [fact for fact in world.facts if isinstance(fact, Opinion)]
    for _ in range(_PER_WORLD):
        fact = rng.choice(opinions)
        discourse = Discourse(rng)
        lead = rng.random()
        denied = rng.random() < 0.3
        before = ""
        if lead < 0.3:
            before = _neutral(world, fact, discourse, rng)
        elif lead < 0.65:
            against = rng.choice([other for other in opinions if other.positive != fact.positive])
            before = _sentence(against, discourse, rng)[:-1] + ", but "
        last = "it is not true that " * denied + _sentence(fact, discourse, rng)
        text = before + (last if before.endswith("but ") else capital(last))
        yield {"text": capital(text), "label": int(fact.positive != denied)}


def _sentence(fact: Opinion, discourse: Discourse, rng: random.Random) -> str:
    return discourse.say(fact, rng.choice([wording for wording in wordings(fact) if not wording.startswith("how")]))


def _neutral(world: World, fact: Opinion, discourse: Discourse, rng: random.Random) -> str:
    about = [other for other in world.facts if item(other) == item(fact) and isinstance(other, Colouring | Setting)]
    known = rng.choice(about)
    return discourse.say(known, rng.choice(wordings(known))) + " "
