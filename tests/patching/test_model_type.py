"""A config.json of 2019 names no model type: the user says it, and the variant says it to everybody else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hf_bias_patch
from hf_bias_patch.errors import FamilyError
from hf_bias_patch.patching.recipe import read_recipe
from tests.models import error, fresh, outputs_of

Saved = Callable[..., Path]


def untyped(source: Path, out: Path, *, pickled: bool = False, also: tuple[str, ...] = ()) -> Path:
    """A copy whose config.json names no model type, nor the keys `also`."""
    shutil.copytree(source, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in ("model_type", *also)}))
    if pickled:
        (out / "model.safetensors").unlink()
        torch.save(fresh("bert", dtype=torch.float32).state_dict(), out / "pytorch_model.bin")
    return out


def test_a_guess_is_offered_and_not_taken(saved: Saved, tmp_path: Path) -> None:
    source = untyped(saved("bert"), tmp_path / "by_class")
    for call in (hf_bias_patch.inspect, lambda model: hf_bias_patch.plan(model, fold="key")):
        with pytest.raises(FamilyError, match=r"architectures.*--model-type bert"):
            call(source)
    source = untyped(saved("gpt2"), tmp_path / "by_names", also=("architectures",))
    with pytest.raises(FamilyError, match=r"has no `model_type`.*gpt2, .*same names.*--model-type TYPE"):
        hf_bias_patch.inspect(source)


def test_what_config_json_says_is_not_overruled(saved: Saved) -> None:
    for call in (
        lambda: hf_bias_patch.inspect(saved("bert"), model_type="roberta"),
        lambda: hf_bias_patch.plan(saved("bert"), fold="key", model_type="roberta"),
    ):
        with pytest.raises(FamilyError, match=r"names the model type 'bert'.*--model-type"):
            call()
    assert hf_bias_patch.inspect(saved("bert"), model_type="bert").family == "bert"


def test_inspection_is_that_of_the_typed_checkpoint(saved: Saved, tmp_path: Path) -> None:
    for pickled in (False, True):
        source = untyped(saved("bert"), tmp_path / f"{pickled}", pickled=pickled)
        found, wanted = hf_bias_patch.inspect(source, model_type="bert"), hf_bias_patch.inspect(saved("bert"))
        assert found.model_type == "bert"
        assert (found.sites, found.values) == (wanted.sites, wanted.values)
    with pytest.raises(FamilyError, match="No family covers"):
        hf_bias_patch.inspect(source, model_type="nonsense")


@pytest.mark.parametrize("pickled", [False, True])
def test_the_variant_is_loaded_by_stock_and_certified(saved: Saved, pickled: bool, tmp_path: Path) -> None:
    source = untyped(saved("bert"), tmp_path / "source", pickled=pickled)
    before = (source / "config.json").read_bytes()
    hf_bias_patch.patch(source, tmp_path / "out", fold="key,value", model_type="bert")
    variant = hf_bias_patch.load(tmp_path / "out")
    assert error(outputs_of(variant.double()), outputs_of(fresh("bert"))) < 1e-5
    for against in (source, None):
        certificate = hf_bias_patch.verify(tmp_path / "out", against, attention=("sdpa",))
        assert certificate.passed and certificate.algebra is not None and certificate.source.name == "source"
        file = "pytorch_model.bin" if pickled and against else "model.safetensors"
        assert list(certificate.source.sha256) == [file]
    again = hf_bias_patch.patch(tmp_path / "out", tmp_path / "again", fold="key,value", model_type="bert")
    assert again.unchanged
    hf_bias_patch.revert(tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_bytes() == before == (source / "config.json").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}, "nothing is left lying about"


def test_in_place_and_with_absent_storage(saved: Saved, tmp_path: Path) -> None:
    source = untyped(saved("bert"), tmp_path / "source")
    hf_bias_patch.patch(source, tmp_path / "out", drop="key", storage="absent", model_type="bert")
    assert hf_bias_patch.load(tmp_path / "out").config.model_type == "bert"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("fold: [key]\nmodel_type: bert\n")
    hf_bias_patch.patch_in_place(source, read_recipe(recipe))
    assert json.loads((source / "config.json").read_text())["model_type"] == "bert"
    assert hf_bias_patch.verify(source, attention=("sdpa",)).passed
