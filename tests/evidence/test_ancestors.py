"""Variants of variants: which of its ancestors a checkpoint is, and what verifying against the first one can say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import hf_bias_patch
from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.evidence.ancestors import ancestor, history
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.evidence.run import verify
from hf_bias_patch.patching.record import UNDO
from tests.evidence.helpers import edited, variant_of

Saved = Callable[..., Path]


def depth(variant: Path, source: Path) -> int | None:
    return ancestor(history(open_checkpoint(variant)), open_checkpoint(source), ["no sha256 of any file"])


def patched_in_place(source: Path, folder: Path, *recipes: dict[str, Any]) -> list[Path]:
    """A copy of the checkpoint after each recipe; the last one is in `folder`."""
    shutil.copytree(source, folder)
    states = []
    for number, recipe in enumerate(recipes):
        hf_bias_patch.patch_in_place(folder, **recipe)
        states.append(folder.with_name(f"{folder.name}-{number}"))
        shutil.copytree(folder, states[-1])
    return states


def chained(certificate: Certificate, patches: int) -> None:
    """Passes, by the deployed figure alone, and says why."""
    assert certificate.passed, certificate.reasons
    assert certificate.algebra is None and certificate.comparisons > 1000 and not certificate.equal
    assert f"in {patches} patches" in certificate.no_algebra and "; then fold" in certificate.no_algebra
    assert any(f"none of the {patches} patches touch" in note for note in certificate.notes)
    assert certificate.tensors is not None and certificate.tensors.planned is None and certificate.tensors.identical


@pytest.mark.parametrize("layerwise", [False, True])
@pytest.mark.parametrize("storage", ["zeros", "absent"])
def test_copies(saved: Saved, storage: str, layerwise: bool, tmp_path: Path) -> None:
    """It failed with `key.bias: not in the variant`."""
    source = saved("bert", "F64")
    first = variant_of(source, tmp_path / "first", fold="key", storage=storage)
    second = variant_of(first, tmp_path / "second", fold="value", storage=storage)
    third = variant_of(second, tmp_path / "third", fold="query", storage=storage)
    chained(verify(second, source, attention=("sdpa",), layerwise=layerwise), 2)
    chained(verify(third, source, attention=("sdpa",), layerwise=layerwise), 3)
    assert verify(third, second, attention=("sdpa",), layerwise=layerwise).algebra is not None
    assert verify(third, attention=("sdpa",), layerwise=layerwise).algebra is not None


@pytest.mark.parametrize("layerwise", [False, True])
def test_in_place(saved: Saved, layerwise: bool, tmp_path: Path) -> None:
    """The plan of the last patch was taken for one of the first source: off by 1.3 beyond rounding."""
    source = saved("gpt2", "F64")
    first, second = patched_in_place(source, tmp_path / "model", {"fold": "key,value"}, {"fold": "query:norm"})
    assert (depth(second, source), depth(second, first), depth(first, source)) == (2, 1, 1)
    chained(verify(second, source, attention=("sdpa",), layerwise=layerwise), 2)
    certificate = verify(second, first, attention=("sdpa",), layerwise=layerwise)
    assert certificate.passed and certificate.algebra is not None


def test_patches_that_touch_different_tensors(saved: Saved, tmp_path: Path) -> None:
    """What the last patch touches is the same in both ancestors, so that alone does not tell them apart."""
    source = saved("bert")
    recipes = [{"fold": "value", "layers": "0"}, {"fold": "value", "layers": "1"}, {"fold": "value", "layers": "2"}]
    first, second, third = patched_in_place(source, tmp_path / "model", *recipes)
    assert [depth(third, place) for place in (source, first, second, third)] == [3, 2, 1, None]
    assert [depth(second, place) for place in (source, first, second, third)] == [2, 1, None, None]
    chained(verify(third, first, attention=("sdpa",)), 2)
    # In place first, and then as a copy.
    copy = variant_of(second, tmp_path / "copy", fold="query", layers="0")
    assert (depth(copy, first), depth(copy, source)) == (2, 3)


def test_another_checkpoint_is_no_ancestor(saved: Saved, tmp_path: Path) -> None:
    source = saved("bert")
    _, variant = patched_in_place(source, tmp_path / "model", {"fold": "key"}, {"fold": "value"})
    other = tmp_path / "other"
    shutil.copytree(source, other)
    values = load_file(other / "model.safetensors")
    values["bert.encoder.layer.1.attention.self.key.bias"] += 1e-3
    save_file(values, other / "model.safetensors", {"format": "pt"})
    assert depth(variant, other) is None
    certificate = verify(variant, other, attention=("sdpa",))
    assert certificate.algebra is None and "another checkpoint" in certificate.no_algebra
    assert certificate.passed, "a key bias moves nothing, so the two are equal all the same"


def test_a_change_beside_the_patches_still_fails(saved: Saved, tmp_path: Path) -> None:
    first = variant_of(saved("gpt2"), tmp_path / "first", fold="key,value")
    second = variant_of(first, tmp_path / "second", fold="query:norm")

    def change(values: dict[str, torch.Tensor]) -> None:
        values["transformer.wte.weight"].view(torch.int32).view(-1)[-1] += 1

    certificate = verify(edited(second, tmp_path / "wrong", change), saved("gpt2"), attention=("sdpa",))
    assert certificate.tensors is not None
    assert certificate.tensors.wrong == ("transformer.wte.weight: differs, and nothing was to change it",)


def test_a_damaged_undo_file_leaves_what_config_says(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "out", fold="value")
    (variant / UNDO).write_bytes(b"no archive")
    assert history(open_checkpoint(variant)) == []
    assert verify(variant, saved("bert"), layerwise=True).algebra is not None
    assert "another checkpoint" in verify(variant, saved("bert", "F16"), layerwise=True).no_algebra
