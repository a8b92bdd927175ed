"""The README.md of a model: the card that this package writes, and that of the source, which is kept."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import yaml

from hf_bias_patch.checkpoint.sidecar import SIDE_FOLDER
from hf_bias_patch.patching.record import PLAN, TRAINING

__all__ = [
    "BASE_CARD",
    "CARD",
    "base_card",
    "front_matter",
    "is_as_made",
    "is_own_card",
    "mark_of",
    "readme_of_source",
    "sealed",
]

CARD = "README.md"
BASE_CARD = f"{SIDE_FOLDER}/base_card.md"

_MATTER = re.compile(r"\ufeff?\s*---[ \t]*\r?\n(.*?\n)---[ \t]*(?:\r?\n|$)", re.DOTALL)
"""Front matter, with the ends of lines that Windows writes as well."""


def mark_of(folder: Path) -> str:
    """A line that marks a card as this model's own. Copied into a variant, the card is recognised as the base's."""
    what, file = ("plan", PLAN) if (folder / PLAN).is_file() else ("training", TRAINING)
    sha256 = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    return f"<!-- Made by `hf-bias-patch card` from {what} {sha256} -->"


def base_card(folder: Path) -> bytes | None:
    """The README.md of what a variant was made from; None if it had none."""
    if (folder / BASE_CARD).is_file():
        return (folder / BASE_CARD).read_bytes()
    return None if is_own_card(folder) or not (folder / CARD).is_file() else (folder / CARD).read_bytes()


def readme_of_source(folder: Path) -> dict[str, bytes | None]:
    """What a revert puts in the place of a card: README.md → its old content, or None. Empty if no card was written."""
    return {CARD: base_card(folder)} if is_own_card(folder) else {}


def is_own_card(folder: Path) -> bool:
    """Whether the README.md there is the card of this variant or fine-tuned model."""
    card, ours = folder / CARD, any((folder / file).is_file() for file in (PLAN, TRAINING))
    return ours and card.is_file() and mark_of(folder).encode() in card.read_bytes()


def sealed(text: str) -> str:
    """A card with a last line by which it is known whether somebody wrote into it since."""
    return f"{text}\n<!-- As it was made, sha256 of the above: {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_as_made(folder: Path) -> bool:
    """Whether the card is as it was generated, without edits by hand, so that it may be generated again."""
    card = (folder / CARD).read_bytes().decode("utf-8", "replace") if is_own_card(folder) else ""
    text = card.rstrip("\n").rpartition("\n")[0]
    return bool(text) and card == sealed(text)


def front_matter(card: bytes) -> dict[str, Any]:
    """A card's YAML between the first two lines of `---`; empty if there is none, or none that is a mapping.

    Every value is text, or a list of texts; others are left out. So the language `no` stays what it is for the Hub, and
    for PyYAML is not: Norwegian.
    """
    matter = _MATTER.match(card.decode("utf-8", "replace"))
    try:
        found = yaml.load(matter[1], yaml.BaseLoader) if matter else None
    except (yaml.YAMLError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    texts = {
        name: [text for text in value if text and isinstance(text, str)] if isinstance(value, list) else value
        for name, value in found.items()
    }
    return {str(name): value for name, value in texts.items() if value and isinstance(value, str | list)}
