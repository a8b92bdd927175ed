"""`patch --where-possible`: in place, into a folder, refused before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

import hf_bias_patch
from hf_bias_patch.errors import PlanError
from tests.evidence.helpers import steep_norm

Saved = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
ALL = "key,value,query"


def test_in_place_and_twice(tree: Callable[[Path], dict[str, str]], run: Run, tmp_path: Path) -> None:
    """The noise of the first patch is in the source of the second, and must not make room for what was left out."""
    folder = steep_norm(tmp_path / "model")
    before = tree(folder)
    code, out, _ = run("patch", folder, "--in-place", "--fold", ALL, "--where-possible")
    assert code == 0 and "PASSED" in out and "query at encoder self 1: fold query:weight is measured" in out
    code, out, _ = run("patch", folder, "--in-place", "--fold", ALL, "--where-possible")
    assert code == 0 and "patched this way already: nothing was written" in out
    hf_bias_patch.revert(folder)
    assert tree(folder) == before


def test_where_the_plan_refuses(saved: Saved, run: Run, tmp_path: Path) -> None:
    source, out = saved("electra-projected", "F64"), tmp_path / "out"
    with pytest.raises(PlanError, match="--where-possible"):
        hf_bias_patch.plan(source, fold=ALL)
    code, printed, _ = run("patch", source, out, "--fold", ALL, "--where-possible", "--layerwise")
    assert code == 0 and "PASSED" in printed
    assert "query at encoder self 0: embeddings_project stands between" in printed
    values = load_file(out / "model.safetensors")
    kept = [name for name, value in values.items() if name.endswith(".query.bias") and value.any()]
    assert kept == ["electra.encoder.layer.0.attention.self.query.bias"]


def test_where_nothing_can_be_folded(saved: Saved, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ("--fold", "query", "--layers", 0, "--drop", "key", "--where-possible")
    code, _, error = run("patch", saved("electra-projected"), out, *asked)
    assert code == 2 and not out.exists() and list(tmp_path.iterdir()) == []
    assert "None of the folds" in error and "query at encoder self 0: embeddings_project stands" in " ".join(
        error.split()
    )
    out.mkdir()
    (out / "mine").touch()
    code, _, error = run("patch", saved("electra-projected"), out, "--fold", ALL, "--where-possible")
    assert code == 2 and "exists" in error, "what cannot be written is said before anything is measured"
