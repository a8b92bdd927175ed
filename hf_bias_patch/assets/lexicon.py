"""The words every generated world shares: names, jobs, activities, possessions and adjectives.

They stay the same from world to world, so a model can learn for good that bakers bake bread and that what is
reliable is not unreliable.
"""

from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@dataclass(frozen=True)
class Pronoun:
    """The forms of a third-person pronoun."""

    subject: str
    object: str
    possessive: str


@dataclass(frozen=True)
class Occupation:
    """What someone does: ``baker``, ``bakes``, ``bread``, ``bakery``."""

    title: str
    verb: str
    product: str
    workplace: str


@dataclass(frozen=True)
class Activity:
    """Something done for fun: ``plays``, ``play``, ``chess``."""

    singular: str
    plural: str
    what: str


SHE = Pronoun("she", "her", "her")
HE = Pronoun("he", "him", "his")
WOMEN = _words(
    """Alice Anna Bella Clara Dora Edith Ella Emma Flora Grace Hanna Ida
    Jane Kate Laura Lucy Maria Nina Olga Paula Rosa Sara Tina Vera"""
)
MEN = _words(
    """Adam Albert Ben Carl David Edgar Felix Frank George Henry Hugo Ivan
    Jack Karl Leo Martin Max Noah Oscar Paul Peter Robert Simon Tom"""
)
PLACE_NAMES = _words(
    """Harwick Millbrook Eastby Norvale Oakham Stonely Westmoor Redford
    Larkfield Ashton Fernhill Brackley Kingsport Summerby Greyford Ravenley"""
)
PLACE_KINDS = _words("village town city port")
SETTINGS = (
    "by the sea",
    "in the mountains",
    "on the river",
    "near the forest",
    "in the south",
    "in the north",
)
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
COLOURS = _words("red blue green yellow black white brown grey orange purple")
NOUNS = _words("bicycle lamp scarf table chair clock hat umbrella guitar coat kettle boat basket camera")
PLURAL_NOUNS = _words("boots gloves shoes skis curtains trousers")
SPOTS = (
    "in the kitchen",
    "in the garden",
    "in the cellar",
    "under the bed",
    "under the stairs",
    "behind the door",
    "on the shelf",
    "next to the window",
)
JOBS = (
    Occupation("baker", "bakes", "bread", "bakery"),
    Occupation("teacher", "teaches", "children", "school"),
    Occupation("doctor", "treats", "patients", "hospital"),
    Occupation("farmer", "grows", "potatoes", "farm"),
    Occupation("gardener", "plants", "roses", "park"),
    Occupation("writer", "writes", "books", "library"),
    Occupation("tailor", "sews", "dresses", "shop"),
    Occupation("mechanic", "repairs", "cars", "garage"),
    Occupation("cook", "prepares", "soup", "restaurant"),
    Occupation("actor", "plays", "kings", "theatre"),
    Occupation("judge", "reads", "laws", "court"),
    Occupation("carpenter", "makes", "doors", "workshop"),
)
ACTIVITIES = (
    Activity("plays", "play", "chess"),
    Activity("plays", "play", "football"),
    Activity("sings", "sing", "old songs"),
    Activity("paints", "paint", "pictures"),
    Activity("bakes", "bake", "cakes"),
    Activity("watches", "watch", "birds"),
    Activity("reads", "read", "poems"),
    Activity("catches", "catch", "fish"),
)
# Pairs of (positive, negative): each adjective stands next to its opposite.
THING_ADJECTIVES = (
    ("wonderful", "terrible"),
    ("beautiful", "ugly"),
    ("useful", "useless"),
    ("reliable", "unreliable"),
    ("sturdy", "flimsy"),
    ("perfect", "broken"),
)
PLACE_ADJECTIVES = (
    ("wonderful", "terrible"),
    ("beautiful", "ugly"),
    ("quiet", "noisy"),
    ("clean", "dirty"),
    ("friendly", "unfriendly"),
    ("exciting", "boring"),
)


def opposite(adjective: str) -> str:
    """Return the adjective about the same quality with the other polarity; KeyError if no opinion uses it."""
    pairs = THING_ADJECTIVES + PLACE_ADJECTIVES
    return {**dict(pairs), **{bad: good for good, bad in pairs}}[adjective]
