"""The order of the data: every sample once an epoch, and the same steps however they are dealt out."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hf_bias_patch.tuning.batches import MicroBatch, Schedule

sizes = st.integers(1, 5)


def schedule(samples: int = 400, **fields: object) -> Schedule:
    lengths = np.random.default_rng(0).integers(1, 60, samples).tolist()
    return Schedule(lengths, **{"seed": 1, "per_device": 8, **fields})  # type: ignore[arg-type]


@given(samples=st.integers(1, 90), per_device=sizes, accumulation=sizes, processes=sizes, by_length=st.booleans())
def test_every_sample_once(samples: int, per_device: int, accumulation: int, processes: int, by_length: bool) -> None:
    made = schedule(samples, per_device=per_device, accumulation=accumulation, processes=processes, by_length=by_length)
    assert len(made.epoch(0)) == made.steps_per_epoch
    seen: Counter[int] = Counter()
    for process in range(processes):
        for step in made.micro_batches(process, 0, made.steps_per_epoch):
            assert len(step) == accumulation
            assert all(1 <= len(part.rows) <= per_device for part in step)
            seen.update(row for part in step if part.counts for row in part.rows)
    assert seen == Counter(range(samples))


def test_processes_share_the_same_steps() -> None:
    one = schedule(per_device=8)
    many = [schedule(per_device=2, processes=2, accumulation=2)] * 2
    steps = one.micro_batches(0, 0, 60)
    dealt = zip(*(made.micro_batches(process, 0, 60) for process, made in enumerate(many)), strict=True)
    checked = 0
    for (whole,), parts in zip(steps, dealt, strict=True):
        assert sorted(whole.rows) == sorted(row for process in parts for part in process for row in part.rows)
        checked += 1
    assert checked == 60


def test_a_resume_goes_on() -> None:
    made = schedule(samples=50)
    assert list(made.micro_batches(0, 0, 20))[9:] == list(made.micro_batches(0, 9, 20))


def test_epochs_and_seeds_differ() -> None:
    made = schedule()
    first, second, other = made.epoch(0), made.epoch(1), schedule(seed=2).epoch(0)
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(first, made.epoch(0), strict=True))


def padding(made: Schedule) -> float:
    """The share of tokens that is padding, over ten epochs."""
    lengths = np.asarray(made.lengths)
    batches = [batch for epoch in range(10) for batch in made.epoch(epoch)]
    tokens = sum(len(batch) * lengths[batch].max() for batch in batches)
    return 1 - 10 * lengths.sum() / tokens


def test_by_length_pads_little() -> None:
    assert padding(schedule(4000, by_length=False)) > 0.4
    assert padding(schedule(4000)) < 0.05


def test_by_length_is_still_shuffled() -> None:
    made = schedule(4000)
    order = [made.lengths[int(step[0])] for step in made.epoch(0)]
    assert abs(np.corrcoef(order, range(len(order)))[0, 1]) < 0.2
    together = [set(map(int, made.epoch(epoch)[0])) for epoch in range(5)]
    assert len(set.intersection(*together)) == 0


def test_nothing_left_for_a_process() -> None:
    made = Schedule([3, 4, 5], seed=0, per_device=2, processes=2)
    (last,) = list(made.micro_batches(1, 0, 1))
    assert sum(part.counts for part in last) == 1
    alone = Schedule([3], seed=0, per_device=2, processes=2)
    assert list(alone.micro_batches(1, 0, 1)) == [[MicroBatch((0,), counts=False)]]
