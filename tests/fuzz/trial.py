"""One trial: a damaged copy, every call that reads such a thing, in a child process of little memory and time."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hf_bias_patch import Plan, inspect, patch, patch_in_place, plan, revert
from hf_bias_patch.checkpoint.checkpoint import open_model
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import BiasPatchError
from hf_bias_patch.evidence.early_refusals import refuse_storage_ahead
from hf_bias_patch.evidence.pair import open_pair
from hf_bias_patch.patching.rebuild import rebuild
from hf_bias_patch.patching.recipe import read_recipe
from hf_bias_patch.publish.card import draft_card
from tests.fuzz.damage import damage
from tests.fuzz.limits import limited, start_clock, where
from tests.fuzz.values import damaged_text

__all__ = ["Outcome", "judge", "trial"]

LONGEST = 1500
"""Characters of a message that a person can still read."""

_RECIPES: list[dict[str, Any]] = [
    {"fold": "key"}, {"fold": "key,value"}, {"fold": "key,value,query"}, {"drop": "value", "layers": "0"},
    {"fill": {"key": 3.0}}, {"fold": "query:norm"}, {"fold": "key,value,query", "storage": "absent"},
]  # fmt: skip
_RECIPE_TEXT = "fold:\n  key: nothing\n  value: output\nlayers: [0, 1]\nstorage: zeros\nseed: 0\nmax_loss: 0.1\n"


@dataclass
class Outcome:
    """What became of one damaged folder.

    Attributes:
        done, refused: calls that gave a result, or an error of ours.
        faults: everything else, as one line each.
    """

    done: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def trial(seeds: dict[str, Path], number: int, seed: int) -> Outcome:
    """Damage one seed and call everything on it. The same numbers give the same trial."""
    draw = random.Random(f"{seed}/{number}")
    name = draw.choice(sorted(seeds))
    with TemporaryDirectory() as place:
        copied = Path(place, "source")
        shutil.copytree(seeds[name], copied)
        how = damage(copied, name.partition("-")[0], draw)
        kind, _, base = name.partition("-")
        sound = seeds.get(f"plain-{base}", seeds["plain-bert"])
        try:
            outcome = limited(lambda: _outcome(kind, copied, sound, draw))
        except AssertionError as error:
            outcome = Outcome(faults=[str(error)])
        outcome.faults = [f"{name}, {how}: {fault}" for fault in outcome.faults]
        return outcome


def _outcome(kind: str, copied: Path, sound: Path, draw: random.Random) -> Outcome:
    outcome = Outcome()
    calls = _calls_without_weights if kind in ("alone", "card") else _calls
    for what, call in calls(copied, sound, draw):
        judge(what, call, copied, outcome)
    return outcome


def _calls_without_weights(
    copied: Path, sound: Path, draw: random.Random
) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """What is called on a folder that holds no weights; as for `_calls`."""
    yield "inspect", lambda out: inspect(copied)
    yield "card", lambda out: draft_card(copied)
    if (copied / "bias_patch/patch.json").exists():
        yield "rebuild", lambda out: rebuild(resolve(copied), resolve(sound), out)


def _calls(copied: Path, sound: Path, draw: random.Random) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Name and call; a call gets a path that it may write to."""
    recipe = draw.choice(_RECIPES)
    yield "inspect", lambda out: inspect(copied).plain()
    yield "plan", lambda out: plan(copied, **recipe).dumps()
    yield "ahead", lambda out: refuse_storage_ahead(copied)
    yield "patch", lambda out: open_model(patch(copied, out, **recipe).path)
    text = damaged_text(_RECIPE_TEXT, draw)
    yield "recipe", lambda out: _by_recipe(text, sound, out)
    if (copied / "bias_patch").is_dir():
        yield "revert", lambda out: revert(copied, out)
        yield "pair", lambda out: open_pair(resolve(copied), resolve(sound), lambda step: None)
        yield "card", lambda out: draft_card(copied)
        yield "given plan", lambda out: _by_plan(copied, sound)
    yield "in place", lambda out: _in_place(copied, out, recipe)


def _by_recipe(text: str, sound: Path, out: Path) -> None:
    out.parent.joinpath("recipe.yaml").write_text(text, "utf-8")
    try:
        plan(sound, read_recipe(out.parent / "recipe.yaml"))
    finally:
        out.parent.joinpath("recipe.yaml").unlink()


def _by_plan(copied: Path, sound: Path) -> None:
    plan(sound, Plan.loads((copied / "bias_patch/plan.json").read_bytes()))


def _in_place(copied: Path, out: Path, recipe: dict[str, Any]) -> None:
    """On a copy, which must stay as it is when the edit is refused."""
    shutil.copytree(copied, out)
    before = _tree(out)
    try:
        patch_in_place(out, **recipe)
    except BiasPatchError:
        assert _tree(out) == before, "changed by an edit that was refused"
        raise
    finally:
        shutil.rmtree(out)


def judge(what: str, call: Callable[[Path], object], copied: Path, outcome: Outcome) -> None:
    """Call it, and note what came of it."""
    before, place = _tree(copied), copied.parent / "made"
    place.mkdir()
    start_clock()
    try:
        call(place / "out")
        outcome.done.append(what)
    except BiasPatchError as error:
        outcome.refused.append(what)
        if len(str(error)) > LONGEST:
            outcome.faults.append(f"{what}: a message of {len(str(error)):,} characters: {str(error)[:100]}")
        if (place / "out").exists():
            outcome.faults.append(f"{what}: refused, and written all the same")
    except BaseException as error:
        outcome.faults.append(f"{what}: {where(error)}")
    if left := sorted(path.name for path in place.iterdir() if path.name != "out"):
        outcome.faults.append(f"{what}: left behind {left}")
    if _tree(copied) != before:
        outcome.faults.append(f"{what}: the source changed")
    shutil.rmtree(place)


def _tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
