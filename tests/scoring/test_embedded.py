"""The embedded tasks: the same rows everywhere, no text in two splits, labels that mean what they say."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from hf_bias_patch.assets.world import make_world
from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring import embedded
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.embedded import GENERATORS, ROWS, generate
from hf_bias_patch.scoring.embedded.facts import SLOTS, change, slots
from hf_bias_patch.scoring.metrics import compute
from hf_bias_patch.scoring.tasks import load_task

CHECKSUMS = {
    "acceptability": 545045608,
    "opinion": 1379746815,
    "paraphrase": 152754037,
    "similarity": 1422242385,
    "entailment": 2620364873,
    "records": 4294332272,
    "summary": 3661331655,
    "letters": 2032543532,
}


@pytest.fixture(scope="module", autouse=True)
def fewer() -> Iterator[None]:
    """A tenth of the rows, which are the first of the whole, so that the tests are quick."""
    before = dict(ROWS)
    generate.cache_clear()
    ROWS.update({split: count // 10 for split, count in before.items()})
    yield
    ROWS.update(before)
    generate.cache_clear()


def rows(name: str) -> dict[str, tuple[dict[str, Any], ...]]:
    return {split: generate(name, split) for split in ROWS}


@pytest.mark.parametrize("name", GENERATORS)
def test_the_same_rows_everywhere(name: str) -> None:
    """Scores of different machines and Python versions are comparable only if this holds; else raise the version."""
    assert zlib.crc32(repr(rows(name)).encode()) == CHECKSUMS[name]


@pytest.mark.parametrize("name", GENERATORS)
def test_no_text_is_in_two_splits(name: str) -> None:
    texts = {
        split: {row[column] for row in found for column in ("text", "text_pair", "source") if column in row}
        for split, found in rows(name).items()
    }
    assert all(len(found) >= ROWS[split] for split, found in texts.items()), "vacuous"
    assert not texts["train"] & texts["validation"]
    assert not texts["train"] & texts["test"] and not texts["validation"] & texts["test"]


@pytest.mark.parametrize("name", GENERATORS)
def test_they_load_like_any_other_task(name: str) -> None:
    task = load_task(f"embedded:{name}")
    dataset = load_split(task, "validation")
    assert len(dataset) == ROWS["validation"]
    if task.kind == "classification":
        assert set(dataset["label"]) == set(range(len(task.labels)))


@pytest.mark.parametrize("name", ["acceptability", "opinion", "paraphrase", "entailment"])
def test_no_label_is_rare(name: str) -> None:
    counts = Counter(row["label"] for row in generate(name, "train"))
    assert min(counts.values()) > 0.25 * sum(counts.values())


def test_a_copied_source_scores_low() -> None:
    for name, most in (("records", 10), ("summary", 30)):
        task = load_task(f"embedded:{name}")
        found = load_split(task, "validation", limit=20)
        copied = compute(task, found["source"][:], found["references"][:])
        perfect = compute(task, [targets[0] for targets in found["references"]], found["references"][:])
        assert copied[task.main_metric] < most and perfect[task.main_metric] == pytest.approx(100)


def test_every_slot_can_be_changed_and_no_other_changes_with_it() -> None:
    import random

    rng, world, seen = random.Random(0), make_world(9), set()
    for fact in world.facts:
        for name in slots(fact):
            changed = slots(change(fact, name, world, rng))
            differing = {other for other, value in slots(fact).items() if changed.get(other) != value}
            # A brother becomes a sister where another person takes his place; new boots have the old colour.
            assert name in differing and differing <= {name, "kind"}
            seen.add((type(fact), name))
    assert {kind for kind, _ in seen} == set(SLOTS)


def test_acceptable_sentences_are_as_the_world_says_them() -> None:
    from hf_bias_patch.assets.stories import sentences

    said = {text for seed in range(2_000_000, 2_000_040) for text in sentences(make_world(seed), 40, seed=1)}
    found = generate("acceptability", "train")
    assert all((row["text"] in said) == bool(row["label"]) for row in found)


def test_unknown_ones_are_refused() -> None:
    with pytest.raises(DataError, match="'opinions'"):
        generate("opinions", "train")


def test_worlds_are_not_those_of_pretraining() -> None:
    # scripts/pretrain_tiny.py trains on worlds from 0 on, and holds out those from 1,000,000 on.
    assert min(embedded._FIRST_WORLD.values()) >= 2_000_000
