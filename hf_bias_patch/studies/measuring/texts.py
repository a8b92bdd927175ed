"""The texts that a study runs on: of 20 to 100 words, as in the paper, or the user's."""

from __future__ import annotations

from itertools import islice

from hf_bias_patch.assets.stories import stories
from hf_bias_patch.assets.world import make_world

__all__ = ["embedded_texts"]

_SEED = 20_100
"""Of a world and its documents that no embedded checkpoint was trained on."""


def embedded_texts(count: int) -> list[str]:
    """So many documents of a generated world, of 20 to 100 words; the same ones every time."""
    drawn = (document.text for document in stories(make_world(_SEED), 100 * count, _SEED))
    return list(islice((text for text in drawn if 20 <= len(text.split()) <= 100), count))
