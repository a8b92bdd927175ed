"""The norms of a card's figure are those of the biases, before and after, in each layout and storage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hf_bias_patch as hbp
from hf_bias_patch import patch
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.checkpoint.checkpoint import open_model
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.record import UNDO
from hf_bias_patch.publish.bias_norms import FIGURE, NORMS
from hf_bias_patch.publish.facts import read_facts

Saved = Callable[..., Path]


@pytest.mark.parametrize("storage", ["zeros", "absent"])
@pytest.mark.parametrize("kind", ["bert", "gpt2", "bart"])
def test_they_are_the_biases(saved: Saved, tmp_path: Path, kind: str, storage: str) -> None:
    base, variant = saved(kind), tmp_path / "variant"
    fold = "key,value,query" if kind == "gpt2" else "key,value"  # of a fused bias, all or nothing leaves the file
    patch(base, variant, fold=fold, storage=storage)
    facts = read_facts(variant)
    old, new = open_model(base), open_model(variant)
    sites = {site.name: site for site in find_sites(old.config, old.tensors)}
    for norm in facts.norms:
        slot = sites[norm.site].slots[norm.projection]
        for file, found in ((old, norm.before), (new, norm.after)):
            values = slot.view.take(file.read(slot.bias).astype(np.float64)) if slot.bias in file.tensors else 0.0
            assert found == pytest.approx(np.linalg.norm(values), rel=1e-5)
        if norm.projection in fold:
            assert norm.before > 0 and norm.after == 0
    assert len(facts.norms) == sum(slot.bias is not None for site in sites.values() for slot in site.slots.values()) > 0


def test_a_card_shows_them_where_the_old_values_are_gone(saved: Saved, tmp_path: Path) -> None:
    variant = tmp_path / "variant"
    patch(saved("bert"), variant, fold="key")
    first = hbp.card(variant).text
    assert f"]({FIGURE})" in first and (variant / FIGURE).read_bytes().startswith(b"\x89PNG")
    measured = json.loads((variant / NORMS).read_text())
    (variant / UNDO).unlink()
    assert hbp.card(variant).text == first and json.loads((variant / NORMS).read_text()) == measured
    (variant / NORMS).write_text("[1]")
    with pytest.raises(CheckpointError, match="damaged"):
        hbp.card(variant)
    (variant / NORMS).unlink()
    assert "](bias_patch" not in hbp.card(variant).text and not (variant / FIGURE).exists()


def test_the_figure_is_the_same_again(saved: Saved, tmp_path: Path) -> None:
    patch(saved("bert"), tmp_path / "variant", fold="key")
    hbp.card(tmp_path / "variant")
    first = (tmp_path / "variant" / FIGURE).read_bytes()
    hbp.card(tmp_path / "variant")
    assert (tmp_path / "variant" / FIGURE).read_bytes() == first
