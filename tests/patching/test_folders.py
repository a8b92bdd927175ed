"""What stock could load before a patch, stock can load after it, and after its revert: folders of every kind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hf_bias_patch
from hf_bias_patch.checkpoint.pickled import is_pickled, open_pickled
from tests.models import error
from tests.patching.folders import KINDS, Kind

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def source(kind: Kind, saved: Saved, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    shutil.copytree(saved("bert"), folder)
    kind.make(folder)
    return folder


def same(found: Any, expected: Any) -> bool:
    """Whether two things that were loaded are the same: outputs up to rounding, all else exactly."""
    if not isinstance(expected, dict) or not all(isinstance(value, torch.Tensor) for value in expected.values()):
        return bool(found == expected)
    if "logits" in expected:
        return error(found, expected) < 1e-5
    return found.keys() == expected.keys() and all(torch.equal(found[name], value) for name, value in expected.items())


def test_what_stock_could_load_it_can_load(kind: Kind, source: Path, tmp_path: Path, tree: Tree) -> None:
    loads = (kind.model, *kind.loads)
    before, content = [load(source) for load in loads], tree(source)
    done = hf_bias_patch.patch(source, tmp_path / "out", fold="key,value")
    assert tree(source) == content
    assert [path.as_posix() for path in done.left_behind] == list(kind.left)
    assert done.plan.touched, "vacuous"
    restored = hf_bias_patch.revert(tmp_path / "out", tmp_path / "restored").path
    for folder in (tmp_path / "out", restored):
        for load, expected in zip(loads, before, strict=True):
            assert same(load(folder), expected), (folder.name, load)
    # The revert gives the source back, without what was left behind; of a pickle, its conversion.
    pickles = set(open_pickled(source).weight_names) if is_pickled(source) else set()
    gone = {name for name in content if kind.left and name.startswith(kind.left)} | pickles
    kept = {name: value for name, value in content.items() if name not in gone}
    found = tree(restored)
    assert {name: found.get(name) for name in kept} == kept
    assert all(name.startswith("model") for name in found.keys() - kept.keys())
    # In place, too; and once more, of the variant itself.
    hf_bias_patch.revert(tmp_path / "out")
    assert tree(tmp_path / "out") == found


def test_a_patch_of_a_variant_carries_the_same(kind: Kind, source: Path, tmp_path: Path, tree: Tree) -> None:
    hf_bias_patch.patch(source, tmp_path / "one", fold="key")
    done = hf_bias_patch.patch(tmp_path / "one", tmp_path / "two", fold="value", storage="absent")
    assert not done.left_behind
    before = tree(tmp_path / "one")
    hf_bias_patch.revert(tmp_path / "two")
    assert tree(tmp_path / "two") == before
