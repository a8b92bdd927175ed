"""A verdict follows from the evidence alone, and every closed road says why."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from hf_bias_patch.architecture.verdict import BLOCKERS, DESTINATIONS, SlotFacts, decide

REASONS = ("no_norm", "no_shift", "no_output", "no_weight")
CLOSED_BY = {
    ("query", "weight"): {"no_weight", "no_norm"},
    ("query", "norm"): {"no_weight", "no_norm", "no_shift"},
    ("key", "nothing"): set(),
    ("key", "weight"): {"no_weight", "no_norm"},
    ("value", "output"): {"no_output"},
    ("value", "weight"): {"no_weight", "no_norm"},
}
EVIDENCE = [
    dict(zip(REASONS, closed, strict=True)) for closed in itertools.product(("", "closed"), repeat=len(REASONS))
]


@pytest.mark.parametrize("projection", ["query", "key", "value"])
def test_a_road_is_closed_by_its_own_reasons_only(projection: str) -> None:
    states = set()
    for closed in EVIDENCE:
        given = {name: f"because of {name}" for name, text in closed.items() if text}
        verdict = decide(projection, SlotFacts(bias=True, **given))
        assert tuple(verdict.folds) == DESTINATIONS[projection]
        for destination, refusal in verdict.folds.items():
            reasons = CLOSED_BY[projection, destination] & set(given)
            assert bool(refusal) == bool(reasons)
            assert not refusal or refusal.removeprefix("because of ") in reasons
        opened = tuple(name for name, refusal in verdict.folds.items() if not refusal)
        assert verdict.destinations == opened
        redundant = "redundant" if projection == "key" else "foldable"
        assert verdict.state == (redundant if opened else "needed")
        assert verdict.reason
        states.add(verdict.state)
    assert states == ({"redundant"} if projection == "key" else {"foldable", "needed"})


@pytest.mark.parametrize("projection", DESTINATIONS)
def test_what_is_not_there_is_absent(projection: str) -> None:
    verdict = decide(projection, SlotFacts(bias=False, unhandled="a = 1"))
    assert verdict.state == "absent" and not verdict.destinations


@pytest.mark.parametrize("projection", DESTINATIONS)
def test_what_is_not_covered_is_unknown_by_name(projection: str) -> None:
    verdict = decide(projection, SlotFacts(bias=True, unhandled="a = 1"))
    assert verdict.state == "unknown" and "a = 1" in verdict.reason and not verdict.destinations


def test_the_output_bias_is_needed() -> None:
    verdict = decide("output", SlotFacts(bias=True))
    assert verdict.state == "needed" and verdict.folds == {}


def test_a_needed_bias_names_every_closed_road() -> None:
    verdict = decide("value", SlotFacts(bias=True, no_norm="no norm", no_output="no output bias"))
    assert verdict.state == "needed" and verdict.reason == "no output bias; no norm"


def test_the_theory_has_a_row_for_each_trap_that_says_what_it_closes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "theory.md").read_text("utf-8")
    section = page.partition("\n## Where they fail\n")[2].partition("\n## ")[0]
    told: dict[str, set[str]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if named := re.match(r"`(\w+)`", cells[0]):
            roads = ("key", "value") if len(cells) == 5 else ("weight",)
            answers = cells[2:4] if len(cells) == 5 else cells[1:2]
            told[named[1]] = {road for road, answer in zip(roads, answers, strict=True) if answer[:2] == "no"}
            assert all(answer[:3] in ("yes", "no", "no:", "unk") for answer in answers)
    told["not_known"] = {"key", "value", "weight"}  # its row says that nothing is known
    assert told == {name: set(roads) for name, (_, roads) in BLOCKERS.items()}
