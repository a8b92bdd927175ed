"""A variant's README.md: ours once a card was written, and then that of its source is kept aside."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hf_bias_patch.checkpoint.side import SIDE_FOLDER
from hf_bias_patch.patching.record import PLAN

__all__ = ["BASE_CARD", "CARD", "base_card", "is_as_made", "is_own_card", "mark_of", "readme_of_source", "sealed"]

CARD = "README.md"
BASE_CARD = f"{SIDE_FOLDER}/base_card.md"


def mark_of(folder: Path) -> str:
    """The line by which a card is known as that of this variant: a copy in another variant is that one's base's."""
    return f"<!-- Made by `hf-bias-patch card` from plan {hashlib.sha256((folder / PLAN).read_bytes()).hexdigest()} -->"


def base_card(folder: Path) -> bytes | None:
    """The README.md of what a variant was made from; None if it had none."""
    if (folder / BASE_CARD).is_file():
        return (folder / BASE_CARD).read_bytes()
    return None if is_own_card(folder) or not (folder / CARD).is_file() else (folder / CARD).read_bytes()


def readme_of_source(folder: Path) -> dict[str, bytes | None]:
    """What a revert puts in the place of a card: README.md → its old content, or None. Empty if no card was written."""
    return {CARD: base_card(folder)} if is_own_card(folder) else {}


def is_own_card(folder: Path) -> bool:
    """Whether the README.md there is the card of this variant."""
    card = folder / CARD
    return (folder / PLAN).is_file() and card.is_file() and mark_of(folder).encode() in card.read_bytes()


def sealed(text: str) -> str:
    """A card with a last line by which it is known whether somebody wrote into it since."""
    return f"{text}\n<!-- As it was made, sha256 of the above: {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_as_made(folder: Path) -> bool:
    """Whether nobody wrote into the card of this variant, so that it can be made anew from facts that changed."""
    card = (folder / CARD).read_bytes().decode("utf-8", "replace") if is_own_card(folder) else ""
    text = card.rstrip("\n").rpartition("\n")[0]
    return bool(text) and card == sealed(text)
