"""Which of the training data trains: so many samples drawn by the seed, and what is held out of them to validate on.

A sample of a generation task is a pair of a source and one reference. All pairs of one source stay together: none of
them trains where another is held out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.extra import need

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["count", "draw", "hold_out"]


def count(dataset: Dataset) -> int:
    """Samples of canonical training data: pairs of a source and a reference, or rows."""
    if "references" not in dataset.column_names:
        return len(dataset)
    return sum(map(len, dataset["references"]))


def draw(dataset: Dataset, number: int, seed: int, *, mixed: bool) -> Dataset:
    """So many samples, or all if there are no more.

    Args:
        dataset: canonical columns.
        number: of samples.
        seed: of the draw.
        mixed: whether any may be drawn; else the first are taken, as of a running text.
    """
    if number >= count(dataset):
        return dataset
    pairs = "references" in dataset.column_names
    samples = _pairs(dataset) if pairs else dataset
    drawn = (samples.shuffle(seed=seed) if mixed else samples).select(range(number))
    return _by_source(drawn) if pairs else drawn


def hold_out(dataset: Dataset, share: float, seed: int, *, mixed: bool) -> tuple[Dataset, Dataset]:
    """What is left to train on, and the share to validate on: drawn by the seed, or the end of a running text.

    Raises:
        DataError: nothing would be left.
    """
    if math.ceil(share * len(dataset)) >= len(dataset):
        raise DataError(
            f"There are {len(dataset)} training samples, and a validation_share of {share} leaves none to train on",
            remedy="Give more training data, a smaller share, or a --validation-file",
        )
    parts = dataset.train_test_split(test_size=share, seed=seed, shuffle=mixed)
    return parts["train"], parts["test"]


def _pairs(dataset: Dataset) -> Dataset:
    found = [(source, [text]) for source, texts in zip(dataset["source"], dataset["references"], strict=True)
             for text in texts]  # fmt: skip
    return _generation(dataset, found)


def _by_source(pairs: Dataset) -> Dataset:
    grouped: dict[str, list[str]] = {}
    for source, texts in zip(pairs["source"], pairs["references"], strict=True):
        grouped.setdefault(source, []).extend(texts)
    return _generation(pairs, list(grouped.items()))


def _generation(like: Dataset, rows: list[tuple[str, list[str]]]) -> Dataset:
    columns = {"source": [source for source, _ in rows], "references": [texts for _, texts in rows]}
    return need("datasets").Dataset.from_dict(columns, features=like.features)
