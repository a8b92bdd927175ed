"""Text from a world: sentences that stand alone, and documents whose sentences belong together."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from hf_bias_patch.assets.wording import Discourse, capital, wordings
from hf_bias_patch.assets.world import (
    Age,
    Fact,
    Hobby,
    Home,
    Opinion,
    Owning,
    Person,
    Relation,
    Visit,
    Work,
    World,
    item,
)


@dataclass(frozen=True)
class Story:
    """A few sentences about `topic`; each says the fact of the same index."""

    topic: Person
    facts: tuple[Fact, ...]
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """The sentences, joined by spaces."""
        return " ".join(self.sentences)


def sentences(world: World, count: int, seed: int) -> Iterator[str]:
    """Yield `count` sentences of `world`, each understood on its own; the same for the same `seed`."""
    rng = random.Random(f"sentences {world.seed} {seed}")
    for _ in range(count):
        fact = rng.choice(world.facts)
        yield capital(Discourse(rng).say(fact, rng.choice(wordings(fact))))


def stories(world: World, count: int, seed: int) -> Iterator[Story]:
    """Yield `count` documents of `world`, of one to twelve sentences each; the same for the same `seed`."""
    rng = random.Random(f"documents {world.seed} {seed}")
    for _ in range(count):
        yield _document(world, rng)


def _document(world: World, rng: random.Random) -> Story:
    topic = rng.choice(world.people)
    facts = _story(world, topic, rng)[: rng.randint(1, 11)]
    discourse = Discourse(rng)
    worded: dict[Fact, str] = {}
    lines = []
    for fact in facts:
        worded[fact] = _new_wording(fact, worded, rng)
        lines.append(capital(discourse.say(fact, worded[fact])))
    if rng.random() < 0.4:
        # Said again with names: a reason to look back, and an example of what a paraphrase is.
        facts.append(rng.choice(facts))
        again = Discourse(rng).say(facts[-1], _new_wording(facts[-1], worded, rng))
        lines.append(f"In other words, {again}")
    return Story(topic, tuple(facts), tuple(lines))


def _new_wording(fact: Fact, worded: dict[Fact, str], rng: random.Random) -> str:
    return rng.choice([wording for wording in wordings(fact) if wording != worded.get(fact)])


def _story(world: World, topic: Person, rng: random.Random) -> list[Fact]:
    """Put facts about `topic`, and about those they lead to, in an order that makes sense."""
    about = world.about(topic)
    blocks: list[list[Fact]] = []
    for fact in about:
        opinions = [f for f in about if isinstance(f, Opinion) and f.target == item(fact)]
        if isinstance(fact, Owning):
            others = [f for f in about if item(f) == fact.thing and f not in (fact, *opinions)]
            blocks.append([fact, *rng.sample(others, rng.randint(1, len(others)))])
            blocks[-1] += opinions * rng.randint(0, 2)
        elif isinstance(fact, Visit):
            blocks.append([fact, *world.about(fact.where), *opinions, *opinions])
        elif isinstance(fact, Home):
            blocks.append([fact, *world.about(fact.where)])
        elif isinstance(fact, Relation):
            more = [f for f in world.about(fact.other) if isinstance(f, Home | Work | Age | Hobby)]
            blocks.append([fact, *rng.sample(more, rng.randint(1, 2))])
        elif isinstance(fact, Work | Age | Hobby):
            blocks.append([fact])
    rng.shuffle(blocks)
    return [fact for block in blocks for fact in block]
