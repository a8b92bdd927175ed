"""Partial success: what is left out is named, the rest is proven, and nothing is measured after it is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import hf_bias_patch
from hf_bias_patch.errors import PlanError, RecipeError, VerifyError
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.evidence.run import verify
from hf_bias_patch.evidence.where_possible import where_possible
from tests.evidence.helpers import steep_norm
from tests.models import fresh

Saved = Callable[..., Path]
ALL = "key,value,query"
BAD = "encoder.1.self.query"


@pytest.fixture(scope="module")
def steep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steep_norm(tmp_path_factory.mktemp("steep"))


def passed(variant: Path, source: Path, **how: Any) -> bool:
    certificate = verify(variant, source, attention=("sdpa",), **how)
    assert isinstance(certificate, Certificate)
    return certificate.passed


def test_a_fold_that_the_certificate_would_convict_is_left_out(steep: Path, tmp_path: Path) -> None:
    whole = hf_bias_patch.patch(steep, tmp_path / "whole", fold=ALL)
    assert not passed(whole.path, steep), "the plan takes it, and the certificate does not"
    for layerwise in (False, True):
        recipe = where_possible(steep, fold=ALL, attention=("sdpa",), layerwise=layerwise)
        assert list(recipe.left_out) == [BAD] and "at this site alone" in recipe.left_out[BAD]
        assert not recipe.where_possible, "what was found is said by name, and means the same wherever it is planned"
    done = hf_bias_patch.patch(steep, tmp_path / "out", recipe)
    assert {edit.name for edit in whole.plan.edits} - {edit.name for edit in done.plan.edits} == {BAD}
    assert passed(done.path, steep) and passed(done.path, steep, seed=5) and passed(done.path, steep, layerwise=True)
    block = json.loads((tmp_path / "out" / "config.json").read_text())["bias_patch"]
    assert block["recipe"]["left_out"] == recipe.left_out and BAD not in block["removed"]


def test_a_drop_is_no_fold(saved: Saved, tmp_path: Path) -> None:
    source = saved("electra-projected", "F64")
    recipe = where_possible(source, fold="key,query", drop="value", layerwise=True)
    assert recipe.drop == ("value",) and list(recipe.left_out) == ["encoder.0.self.query"]
    done = hf_bias_patch.patch(source, tmp_path / "out", recipe)
    assert sum(edit.action == "drop" for edit in done.plan.edits) == 3 and done.plan.lossy


def test_half_precision_that_overflows(tmp_path: Path) -> None:
    """No plan reads the output's weight, so only carrying it out tells that a sum is beyond float16."""
    source = tmp_path / "source"
    fresh("bert", dtype=torch.float16).save_pretrained(source)
    name = "bert.encoder.layer.2.attention.output.dense.bias"
    values = load_file(source / "model.safetensors")
    values[name] = torch.full_like(values[name], 65504)
    values["bert.encoder.layer.2.attention.self.value.bias"] *= 1000
    save_file(values, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(PlanError, match="overflow"):
        hf_bias_patch.patch(source, tmp_path / "out", fold="value")
    assert list(where_possible(source, fold="value", layerwise=True).left_out) == ["encoder.2.self.value"]


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_tensors_in_fewer_bits_than_the_model_are_measured_as_they_are_stored(
    name: str, saved: Saved, tmp_path: Path
) -> None:
    """GPT-2 is saved as its base model, so that its names in memory are others."""
    shutil.copytree(saved(name), source := tmp_path / "mixed")
    values = load_file(source / "model.safetensors")
    maps = ("query.weight", "c_attn.weight")
    values = {key.removeprefix("transformer."): value for key, value in values.items()}
    values = {key: value.half() if key.endswith(maps) else value for key, value in values.items()}
    save_file(values, source / "model.safetensors", {"format": "pt"})
    recipe = where_possible(source, fold=ALL, attention=("sdpa",))
    assert {slot.rpartition(".")[2] for slot in recipe.left_out} == {"query"}
    variant = hf_bias_patch.patch(source, tmp_path / "out", recipe)
    assert passed(variant.path, source)


def test_a_source_that_gives_nan_is_refused(saved: Saved, tmp_path: Path) -> None:
    shutil.copytree(saved("bert"), folder := tmp_path / "nan")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": float("nan")}))
    with pytest.raises(VerifyError, match="itself gives NaN"):
        where_possible(folder, fold=ALL, attention=("sdpa",))


def test_nothing_is_folded(saved: Saved) -> None:
    with pytest.raises(RecipeError, match="where_possible needs a fold"):
        where_possible(saved("bert"), drop="key", where_possible=True)
    with pytest.raises(RecipeError, match="Nothing is folded"):
        where_possible(saved("bert"), drop="key")


def test_in_float64_nothing_need_be_left_out(saved: Saved) -> None:
    recipe = where_possible(saved("gpt2", "F64"), fold=ALL, attention=("eager",))
    assert not recipe.left_out and recipe.fold == {"key": "default", "value": "default", "query": "default"}
