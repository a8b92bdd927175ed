"""A small share of `make fuzz`: a few hundred damaged folders, the same ones every time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.seeds import make_seeds
from tests.fuzz.trial import trial

COUNT, SEED = 200, 20


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sound folders, made once."""
    return make_seeds(tmp_path_factory.mktemp("seeds"))


def test_every_damage_ends_in_a_result_or_a_refusal(seeds: dict[str, Path]) -> None:
    outcomes = [trial(seeds, number, SEED) for number in range(COUNT)]
    assert not [fault for outcome in outcomes for fault in outcome.faults]
    # Damage that is always refused, or never, would show nothing.
    done, refused = (Counter(what for each in outcomes for what in getattr(each, kind)) for kind in ("done", "refused"))
    for what in ("inspect", "plan", "patch", "in place", "recipe", "revert", "pair", "card", "rebuild"):
        assert done[what] > 2 and refused[what] > 2, what
