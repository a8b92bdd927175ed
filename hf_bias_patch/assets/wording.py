"""English for the facts of a world.

A wording is a format string. `{who}` is a subject, `{who:object}` and `{who:possessive}` are its other forms,
and `{thing:is|are}` is the verb that agrees with it. A pronoun stands only where a reader can tell what it
means, so the words before a gap say what belongs in it.
"""

import random
from dataclasses import dataclass, field

from hf_bias_patch.assets.lexicon import opposite
from hf_bias_patch.assets.world import (
    Age,
    Belonging,
    Colouring,
    Fact,
    Gift,
    Hobby,
    Home,
    Keeping,
    Location,
    Opinion,
    Owning,
    Person,
    Possession,
    Purchase,
    Relation,
    Setting,
    Visit,
    Work,
    item,
)

WORDINGS: dict[type, tuple[str, ...]] = {
    Setting: (
        "{where} is a {kind} {setting}.",
        "there is a {kind} {setting} called {name}.",
        "{where} lies {setting} and is a {kind}.",
    ),
    Home: (
        "{who} lives in {where}.",
        "{who:possessive} home is in {where}.",
        "{where} is where {who} lives.",
        "{who} has a house in {where}.",
    ),
    Work: (
        "{who} works as {job}.",
        "{who} is {job}.",
        "{who} works at the {workplace} and {verb} {product}.",
        "{who} {verb} {product} at the {workplace}.",
    ),
    Age: ("{who} is {years} years old.", "{who} is now {years}.", "{who} turned {years} this year."),
    Relation: (
        "{other} is {who:possessive} {kind}.",
        "{who:possessive} {kind} is called {other}.",
        "{who} has a {kind} called {other}.",
    ),
    Hobby: (
        "every {day}, {group} {group:%(singular)s|%(plural)s} {what}.",
        "{group} {group:%(singular)s|%(plural)s} {what} every {day}.",
        "{group} {group:likes|like} to %(plural)s {what} every {day}.",
        "every {day}, you can see how {group} {group:%(singular)s|%(plural)s} {what}.",
    ),
    Owning: (
        "{who} owns {a}.",
        "{who} has {a}.",
        "{a} {a:belongs|belong} to {who:object}.",
        "{who} is the owner of {a}.",
    ),
    Colouring: (
        "{thing} {thing:is|are} {colour}.",
        "{thing} {thing:has|have} the colour {colour}.",
        "{who} has {own:object} in {colour}.",
    ),
    Keeping: (
        "{who} keeps {own:object} {spot}.",
        "{thing} {thing:is|are} {spot}.",
        "you can find {thing:object} {spot}.",
        "{thing} {thing:stays|stay} {spot}.",
    ),
    Purchase: (
        "{who} bought {own:object} for {price} crowns.",
        "{who} paid {price} crowns for {own:object}.",
        "{thing} {thing:was|were} bought for {price} crowns.",
        "{thing} cost {price} crowns.",
    ),
    Gift: (
        "{who} got {own:object} from {other} on {day}.",
        "on {day}, {other} gave {who:object} the {noun}.",
        "{thing} {thing:was|were} a present from {other} on {day}.",
        "{who} was given {own:object} by {other} on {day}.",
    ),
}
PAST_VISIT = (
    "{group} went to {where} last {day}.",
    "{group} visited {where} last {day}.",
    "last {day}, {group} took the train to {where}.",
    "{group} {group:was|were} in {where} last {day}.",
)
FUTURE_VISIT = (
    "{group} will go to {where} next {day}.",
    "{group} {group:is|are} going to visit {where} next {day}.",
    "next {day}, {group} will take the train to {where}.",
    "{group} {group:wants|want} to go to {where} next {day}.",
)
OPINION = (
    "{who} says that {own} {own:is|are} {first} and {second}.",
    "{target} {target:is|are} {first} and {second}.",
    "{who} finds {own:object} {first}.",
    "{target} {target:is|are} not {against} at all.",
    "{target} {target:is|are} anything but {against}.",
    "how {first} {target} {target:is|are}!",
)
LIKES = ("{who} likes {own:object} very much.", "{who} is happy with {own:object}.")
DISLIKES = ("{who} does not like {own:object} at all.", "{who} is not happy with {own:object}.")
LIKES_THING = (*LIKES, "{who} would never sell {own:object}.")
DISLIKES_THING = (*DISLIKES, "{who} wants to sell {own:object}.")
LIKES_PLACE = (*LIKES, "{who} hopes to see {own:object} again.")
DISLIKES_PLACE = (*DISLIKES, "{who} hopes never to see {own:object} again.")


def wordings(fact: Fact) -> tuple[str, ...]:
    """Return every way to word `fact`."""
    if isinstance(fact, Hobby):
        return tuple(wording % vars(fact.activity) for wording in WORDINGS[Hobby])
    if isinstance(fact, Visit):
        return PAST_VISIT if fact.past else FUTURE_VISIT
    if isinstance(fact, Opinion):
        if isinstance(fact.target, Belonging):
            return OPINION + (LIKES_THING if fact.positive else DISLIKES_THING)
        return OPINION + (LIKES_PLACE if fact.positive else DISLIKES_PLACE)
    return WORDINGS[type(fact)]


@dataclass(frozen=True)
class Phrase:
    """A noun phrase in the forms that a wording asks for by format specification."""

    subject: str
    object: str
    possessive: str
    plural: bool = False

    def __format__(self, form: str) -> str:
        if "|" in form:
            return form.split("|")[self.plural]
        return str(getattr(self, form or "subject"))


def _noun_phrase(text: str, plural: bool = False) -> Phrase:
    return Phrase(text, text, f"{text}'s", plural)


IT = Phrase("it", "it", "its")
THEM = Phrase("they", "them", "their", plural=True)


@dataclass
class Discourse:
    """What a text has mentioned so far, which decides between names, pronouns and `the`."""

    rng: random.Random
    recent: set[Person] = field(default_factory=set)  # named in the last sentence about people
    item: Belonging | Location | None = None  # what the last sentence was about
    known: set[Belonging | Location] = field(default_factory=set)

    def say(self, fact: Fact, wording: str) -> str:
        """Return `fact` in `wording`, starting in lower case, and remember what it mentioned."""
        sentence = wording.format_map(self._values(fact))
        if not isinstance(fact, Setting):
            self.recent = {fact.who}
        if isinstance(fact, Relation | Gift | Hobby | Visit) and fact.other:
            self.recent.add(fact.other)
        self.item = item(fact)
        if self.item:
            self.known.add(self.item)
        return sentence

    def _values(self, fact: Fact) -> dict[str, object]:
        """Return what the names in a wording of `fact` stand for."""
        values: dict[str, object] = dict(vars(fact))
        if isinstance(fact, Setting):
            return values | vars(fact.where) | {"where": self._place(fact.where)}
        values["who"] = who = self._person(fact.who)
        if isinstance(fact, Relation | Gift | Hobby | Visit) and fact.other:
            values["other"] = _noun_phrase(fact.other.name)
        if isinstance(fact, Hobby | Visit):
            values["group"] = _noun_phrase(f"{who} and {fact.other.name}", plural=True) if fact.other else who
        if isinstance(fact, Hobby):
            values |= vars(fact.activity)
        if isinstance(fact, Work):
            values |= vars(fact.job) | {"job": _indefinite(fact.job.title)}
        if isinstance(fact, Home | Visit):
            values["where"] = fact.where.name
        if isinstance(fact, Possession):
            values |= vars(fact.thing) | self._thing(fact.thing, fact.who, who) | {"a": self._new(fact.thing)}
        if isinstance(fact, Opinion):
            first, second = fact.adjectives
            values |= {"first": first, "second": second, "against": opposite(first)}
            if isinstance(fact.target, Belonging):
                phrases = self._thing(fact.target, fact.who, who)
                values |= {"own": phrases["own"], "target": phrases["thing"]}
            else:
                values["own"] = values["target"] = self._place(fact.target)
        return values

    def _person(self, who: Person) -> Phrase:
        """A pronoun where it can mean nobody else, else the name."""
        candidates = {person for person in self.recent if person.pronoun == who.pronoun}
        if candidates == {who} and self.rng.random() < 0.75:
            return Phrase(who.pronoun.subject, who.pronoun.object, who.pronoun.possessive)
        return _noun_phrase(who.name)

    def _thing(self, thing: Belonging, owner: Person, who: Phrase) -> dict[str, Phrase]:
        """`thing` where it stands on its own, and `own` where its owner comes first in the same sentence."""
        if thing == self.item and self.rng.random() < 0.5:
            pronoun = THEM if thing.plural else IT
            return {"thing": pronoun, "own": pronoun}
        if thing in self.known and self.rng.random() < 0.5:
            known = _noun_phrase(f"the {thing.noun}", thing.plural)
            return {"thing": known, "own": known}
        return {
            "thing": _noun_phrase(f"{who:possessive} {thing.noun}", thing.plural),
            "own": _noun_phrase(f"{owner.pronoun.possessive} {thing.noun}", thing.plural),
        }

    def _place(self, where: Location) -> Phrase:
        if where == self.item and self.rng.random() < 0.5:
            return IT
        return _noun_phrase(where.name)

    def _new(self, thing: Belonging) -> Phrase:
        """The phrase that brings `thing` into the text, with or without its colour."""
        words = f"{thing.colour} {thing.noun}" if self.rng.random() < 0.5 else thing.noun
        return _noun_phrase(words if thing.plural else _indefinite(words), thing.plural)


def _indefinite(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def capital(sentence: str) -> str:
    """Return `sentence` with a capital first letter and all others as they were."""
    return sentence[0].upper() + sentence[1:]
