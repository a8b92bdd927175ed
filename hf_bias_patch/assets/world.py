"""A small generated world: people, places, things, and facts about them.

What the embedded checkpoints read in pretraining was a fact here before it was a sentence, so text can be
labelled from, or checked against, the facts behind it. :mod:`hf_bias_patch.assets.wording` puts facts into
English, :mod:`hf_bias_patch.assets.stories` tells stories of them.

Who lives where, owns what and likes it is drawn anew for each seed, so a model must read it in
the text before. Standard library only; a seed gives the same world on every Python from 3.10 on.
"""

import itertools
import random
from dataclasses import dataclass
from typing import TypeAlias

from hf_bias_patch.assets import lexicon
from hf_bias_patch.assets.lexicon import Activity, Occupation, Pronoun


@dataclass(frozen=True)
class Location:
    """Somewhere people live or go: ``Harwick``, ``village``, ``by the sea``."""

    name: str
    kind: str
    setting: str


@dataclass(frozen=True)
class Person:
    """Someone; names are unique within a world."""

    name: str
    pronoun: Pronoun


@dataclass(frozen=True)
class Belonging:
    """A possession; `plural` says that its noun takes plural verbs (``boots``)."""

    noun: str
    plural: bool
    colour: str


@dataclass(frozen=True)
class Setting:
    """`where` is what and where it is."""

    where: Location


@dataclass(frozen=True)
class Home:
    """`who` lives in `where`."""

    who: Person
    where: Location


@dataclass(frozen=True)
class Work:
    """`who` has the job `job`."""

    who: Person
    job: Occupation


@dataclass(frozen=True)
class Age:
    """`who` is `years` old."""

    who: Person
    years: int


@dataclass(frozen=True)
class Relation:
    """`other` is the `kind` of `who`: a friend, sister, brother, neighbour or colleague."""

    who: Person
    kind: str
    other: Person


@dataclass(frozen=True)
class Hobby:
    """`who`, together with `other` if there is one, spends each `day` on `activity`."""

    who: Person
    activity: Activity
    other: Person | None
    day: str


@dataclass(frozen=True)
class Owning:
    """`thing` belongs to `who`."""

    who: Person
    thing: Belonging


@dataclass(frozen=True)
class Colouring:
    """`thing`, which belongs to `who`, has its colour."""

    who: Person
    thing: Belonging


@dataclass(frozen=True)
class Keeping:
    """`who` keeps `thing` at `spot`, a phrase such as ``in the kitchen``."""

    who: Person
    thing: Belonging
    spot: str


@dataclass(frozen=True)
class Purchase:
    """`who` paid `price` crowns for `thing`."""

    who: Person
    thing: Belonging
    price: int


@dataclass(frozen=True)
class Gift:
    """`who` was given `thing` by `other` on `day`."""

    who: Person
    thing: Belonging
    other: Person
    day: str


@dataclass(frozen=True)
class Visit:
    """`who`, together with `other` if there is one, went (`past`) or will go to `where` on `day`."""

    who: Person
    where: Location
    other: Person | None
    day: str
    past: bool


@dataclass(frozen=True)
class Opinion:
    """What `who` thinks of `target`; both `adjectives` agree with `positive`."""

    who: Person
    target: Belonging | Location
    positive: bool
    adjectives: tuple[str, str]


Possession: TypeAlias = Owning | Colouring | Keeping | Purchase | Gift
Fact: TypeAlias = Setting | Home | Work | Age | Relation | Hobby | Possession | Visit | Opinion


def item(fact: Fact) -> Belonging | Location | None:
    """Return the thing or the place that `fact` is about, if it is about one."""
    if isinstance(fact, Opinion):
        return fact.target
    if isinstance(fact, Possession):
        return fact.thing
    return fact.where if isinstance(fact, Setting | Home | Visit) else None


@dataclass(frozen=True)
class World:
    """People, places and all facts about them; no fact contradicts another."""

    seed: int
    people: tuple[Person, ...]
    places: tuple[Location, ...]
    facts: tuple[Fact, ...]

    def about(self, subject: Person | Location) -> tuple[Fact, ...]:
        """Return the facts whose subject is `subject`."""
        return tuple(f for f in self.facts if (f.where if isinstance(f, Setting) else f.who) == subject)


def make_world(seed: int) -> World:
    """Return the world of `seed`: 12 people, 6 places and 246 facts."""
    rng = random.Random(f"world {seed}")
    people = [Person(name, lexicon.SHE) for name in rng.sample(lexicon.WOMEN, 6)]
    people += [Person(name, lexicon.HE) for name in rng.sample(lexicon.MEN, 6)]
    rng.shuffle(people)
    places = [
        Location(name, rng.choice(lexicon.PLACE_KINDS), rng.choice(lexicon.SETTINGS))
        for name in rng.sample(lexicon.PLACE_NAMES, 6)
    ]
    homes = [Home(person, rng.choice(places)) for person in people]
    jobs = [Work(person, rng.choice(lexicon.JOBS)) for person in people]
    relations = _relations(homes, jobs, rng)
    facts: list[Fact] = [Setting(place) for place in places]
    facts += [*homes, *jobs, *(Age(person, rng.randint(18, 79)) for person in people), *relations]
    for home in homes:
        known = [relation.other for relation in relations if relation.who == home.who]
        activity, day = rng.choice(lexicon.ACTIVITIES), rng.choice(lexicon.DAYS)
        facts.append(Hobby(home.who, activity, _companion(known, rng), day))
        facts += _possessions(home.who, known, rng)
        where = rng.choice([place for place in places if place != home.where])
        day, past = rng.choice(lexicon.DAYS), rng.random() < 0.6
        facts.append(Visit(home.who, where, _companion(known, rng), day, past))
        facts.append(_opinion(home.who, where, rng))
    return World(seed, tuple(people), tuple(places), tuple(facts))


def _relations(homes: list[Home], jobs: list[Work], rng: random.Random) -> list[Relation]:
    """Relate each person to the next two in a ring, both ways round, so that everyone has four relations."""
    relations = []
    for i, step in itertools.product(range(len(homes)), (1, 2)):
        j = (i + step) % len(homes)
        kinds = ["friend", "sibling"]
        kinds += ["neighbour"] if homes[i].where == homes[j].where else []
        kinds += ["colleague"] if jobs[i].job == jobs[j].job else []
        kind = rng.choice(kinds)
        for who, other in ((homes[i].who, homes[j].who), (homes[j].who, homes[i].who)):
            sibling = "sister" if other.pronoun == lexicon.SHE else "brother"
            relations.append(Relation(who, sibling if kind == "sibling" else kind, other))
    return relations


def _companion(known: list[Person], rng: random.Random) -> Person | None:
    return rng.choice(known) if rng.random() < 0.5 else None


def _possessions(who: Person, known: list[Person], rng: random.Random) -> list[Fact]:
    """Give `who` two things with different nouns, each bought or received, kept somewhere and judged."""
    facts: list[Fact] = []
    for noun in rng.sample(lexicon.NOUNS + lexicon.PLURAL_NOUNS, 2):
        thing = Belonging(noun, noun in lexicon.PLURAL_NOUNS, rng.choice(lexicon.COLOURS))
        facts += [Owning(who, thing), Colouring(who, thing), Keeping(who, thing, rng.choice(lexicon.SPOTS))]
        if rng.random() < 0.5:
            facts.append(Purchase(who, thing, 5 * rng.randint(2, 19)))
        else:
            facts.append(Gift(who, thing, rng.choice(known), rng.choice(lexicon.DAYS)))
        facts.append(_opinion(who, thing, rng))
    return facts


def _opinion(who: Person, target: Belonging | Location, rng: random.Random) -> Opinion:
    pairs = lexicon.THING_ADJECTIVES if isinstance(target, Belonging) else lexicon.PLACE_ADJECTIVES
    positive = rng.random() < 0.5
    first, second = (good if positive else bad for good, bad in rng.sample(pairs, 2))
    return Opinion(who, target, positive, (first, second))
