"""What is tried: which biases, and what stands in their place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.checkpoint.checkpoint import open_model
from hf_bias_patch.studies.biases.arms import Target, head_arms, layer_arms, removal_arms, whole_arms
from hf_bias_patch.studies.biases.fills import FILLS, filled
from hf_bias_patch.studies.measuring.inputs import embedded_texts


def test_every_bias_is_tried(saved: Callable[..., Path]) -> None:
    checkpoint = open_model(saved("bart"))
    sites = find_sites(checkpoint.config, checkpoint.tensors)
    whole, layers = list(whole_arms(sites, FILLS)), list(layer_arms(sites))
    assert len(whole) == 3 * 3 * len(FILLS) and len(layers) == 3 * len(sites) == 3 * (2 + 3 + 3)
    assert {arm.place for arm in whole} == {"encoder self", "decoder self", "decoder cross"}
    assert {arm.fill for arm in whole[:9]} == {"zeros"}, "zeros come first"
    assert {target for arm in whole if arm.fill == "ones" for target in arm.targets} == {
        target for arm in layers for target in arm.targets
    }
    heads = list(head_arms(sites, ("value", "query")))
    assert len(heads) == 2 * 4 * len(sites) and len({arm.name for arm in [*whole, *layers, *heads]}) == len(
        [*whole, *layers, *heads]
    )


@pytest.mark.parametrize(("count", "most"), [(3, 16), (16, 16), (37, 16), (1, 16)])
def test_a_removal_grows_to_all(count: int, most: int) -> None:
    order = [Target(f"encoder.{number}.self", "query") for number in range(count)]
    arms = list(removal_arms(order, most))
    assert len(arms) == min(count, most) and arms[-1].targets == tuple(order)
    sizes = [len(arm.targets) for arm in arms]
    assert sizes == sorted(set(sizes)) and all(arm.targets == tuple(order[: len(arm.targets)]) for arm in arms)


def test_fills() -> None:
    old = np.arange(1.0, 13.0)
    made = {name: filled(name, old, 4, 3, "here") for name in FILLS}
    assert (made["zeros"] == 0).all() and (made["minus ones"] == -1).all() and (made["tens"] == 10).all()
    assert (made["doubled"] == 2 * old).all()
    for name, reach in (("uniform in ±1", 1), ("uniform in ±5", 5)):
        assert abs(made[name]).max() <= reach and len(set(made[name])) == 12 and made[name].min() < 0
    parts, new = old.reshape(4, 3), made["shuffled across heads"].reshape(4, 3)
    assert sorted(map(tuple, new)) == sorted(map(tuple, parts)) and not (new == parts).all(-1).any()
    assert (filled("uniform in ±1", old, 4, 3, "here") == made["uniform in ±1"]).all()
    assert (filled("uniform in ±1", old, 4, 3, "there") != made["uniform in ±1"]).all()
    assert (filled("uniform in ±1", old, 4, 4, "here") != made["uniform in ±1"]).all()


def test_texts_are_of_20_to_100_words() -> None:
    texts = embedded_texts(40)
    assert len(texts) == len(set(texts)) == 40 and all(20 <= len(text.split()) <= 100 for text in texts)
    assert embedded_texts(10) == texts[:10]
