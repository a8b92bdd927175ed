"""The embedded tasks: rows made by code from the generated worlds that the embedded checkpoints were trained on.

No world is one that pretraining or its evaluation saw. Every input text belongs to one split, by a checksum of it, so
that no text of the training split is in another: a world shares its words with all others, and short sentences recur.
The same rows come out on every machine.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from typing import Any

from hf_bias_patch.assets.world import World, make_world
from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.embedded import pairs, single, texts

__all__ = ["GENERATORS", "ROWS", "generate"]

Row = dict[str, Any]

GENERATORS: dict[str, Callable[[World, random.Random], Iterator[Row]]] = {
    "acceptability": single.acceptability,
    "opinion": single.opinion,
    "paraphrase": pairs.paraphrase,
    "similarity": pairs.similarity,
    "entailment": pairs.entailment,
    "records": texts.records,
    "summary": texts.summary,
    "letters": texts.letters,
}

ROWS = {"train": 3000, "validation": 500, "test": 500}
"""Rows of each split."""

_FIRST_WORLD = {"train": 2_000_000, "validation": 3_000_000, "test": 4_000_000}
_SHARES = ("train",) * 6 + ("validation",) * 2 + ("test",) * 2
_INPUTS = ("text", "text_pair", "source")


@cache
def generate(name: str, split: str) -> tuple[Row, ...]:
    """The rows of a split of an embedded task; the same every time.

    Raises:
        DataError: there is no such generator or split.
    """
    if name not in GENERATORS or split not in ROWS:
        raise DataError(f"There is no split {split!r} of an embedded task {name!r}")
    found: list[Row] = []
    seen: set[tuple[str, ...]] = set()
    for seed in count(_FIRST_WORLD[split]):
        world = make_world(seed)
        for row in GENERATORS[name](world, random.Random(f"{name} {seed}")):
            inputs = tuple(row[column] for column in _INPUTS if column in row)
            if inputs in seen or any(_split_of(text) != split for text in inputs):
                continue
            seen.add(inputs)
            found.append(row)
            if len(found) == ROWS[split]:
                return tuple(found)
    raise AssertionError("worlds never end")


def _split_of(text: str) -> str:
    return _SHARES[zlib.crc32(text.encode()) % len(_SHARES)]
