"""A small share of `make fuzz`: a few hundred damaged folders, the same ones every time."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_bias_patch.errors import CheckpointError
from tests.fuzz import limits
from tests.fuzz.seeds import make_seeds
from tests.fuzz.trial import Outcome, judge, trial

COUNT, SEED = 150, 20


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


def _spin() -> None:
    while True:
        pass


def _fail() -> None:
    raise KeyError("a name")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (_spin, "TooLongError.*more than 1 s"),
        (lambda: bytearray(1 << 30), "MemoryError"),
        (_fail, "KeyError.*a name"),
        (lambda: os._exit(7), "the process ended"),
    ],
    ids=["time", "memory", "error", "exit"],
)
def test_what_goes_wrong_is_noticed(call: Callable[[], object], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 1)
    with pytest.raises(AssertionError, match=said):
        limits.limited(call)


def test_what_is_left_over_or_changed_is_noticed(seeds: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(seeds["plain-bert"], source)

    def refuses_late(out: Path) -> None:
        out.mkdir()
        (out.parent / ".working").mkdir()
        (source / "config.json").write_text("{}")
        raise CheckpointError("x" * 2000)

    def job() -> Outcome:
        outcome = Outcome()
        judge("patch", refuses_late, source, outcome)
        return outcome

    outcome = limits.limited(job)
    words = ["2,001 characters", "written all the same", "left behind", "the source changed"]
    assert [any(word in fault for fault in outcome.faults) for word in words] == [True] * 4
