"""What is measured: lengths of texts, arms, and what came of one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WINDOW = 25
"""Steps measured at least where batches go by length: few of them would be too much alike to stand for an epoch."""
WARM_UP = 2
LENGTHS = {
    # Every 5 % of the tokens of 60,614 sentences.
    "sst2": [3, 4, 4, 5, 6, 6, 7, 8, 8, 9, 10, 11, 13, 14, 16, 18, 20, 23, 27, 33, 66],
    # Log-normal about MNLI's published mean of 39 tokens a pair, cut at 128.
    "pairs": np.quantile(
        np.random.default_rng(0).lognormal(np.log(36), 0.42, 100_000).clip(10, 128), np.linspace(0, 1, 21)
    ).tolist(),
}


@dataclass(frozen=True)
class Arm:
    """What trains, whether in `tune`'s loop or in the usual one, and whether batches go by length."""

    train: str
    own_loop: bool
    by_length: bool


ARMS = {
    "all, usual": Arm("all", own_loop=False, by_length=False),
    "lora, usual": Arm("lora", own_loop=False, by_length=False),
    "beft, usual": Arm("beft", own_loop=False, by_length=False),
    "value, usual": Arm("value", own_loop=False, by_length=False),
    "all, tune": Arm("all", own_loop=True, by_length=True),
    "lora, tune": Arm("lora", own_loop=True, by_length=True),
    "beft, tune": Arm("beft", own_loop=True, by_length=True),
    "value, tune": Arm("value", own_loop=True, by_length=True),
    "beft, usual by length": Arm("beft", own_loop=False, by_length=True),
    "value, tune at random": Arm("value", own_loop=True, by_length=False),
}
COMMON = list(ARMS)[:8]
"""Each thing that trains, in the usual loop and as `tune` does it."""


@dataclass(frozen=True)
class How:
    """What all measurements of a run share."""

    steps: int
    bf16: bool
    compiled: bool
    tiny: bool
    batch: int = 32


@dataclass(frozen=True)
class Measured:
    """One measurement; the peak is of a GPU what torch allocated, else of the whole process."""

    lengths: str
    arm: str
    round: int
    samples_per_second: float
    peak_bytes: float


def lengths_of(name: str, samples: int, seed: int) -> list[int]:
    """Lengths drawn from a distribution's quantiles."""
    drawn = np.random.default_rng(seed).random(samples)
    return np.interp(drawn, np.linspace(0, 1, len(LENGTHS[name])), LENGTHS[name]).round().astype(int).tolist()
