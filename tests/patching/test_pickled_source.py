"""A checkpoint that is only a PyTorch pickle: read without executing it, and written as safetensors."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hf_bias_patch
from hf_bias_patch.errors import CheckpointError, PlanError, TargetError
from tests.models import error, fresh, outputs_of

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]


def pickled(folder: Path, name: str = "bert", change: Callable[[dict[str, torch.Tensor]], None] | None = None) -> Path:
    """A folder as transformers wrote it once, tied tensors in it twice."""
    model = fresh(name, dtype=torch.float32)
    folder.mkdir()
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    state = model.state_dict()
    if change is not None:
        change(state)
    torch.save(state, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
def test_gives_the_variant_of_the_same_weights(saved: Saved, tree: Tree, name: str, tmp_path: Path) -> None:
    source = pickled(tmp_path / "source", name)
    before = tree(source)
    done = hf_bias_patch.patch(source, tmp_path / "out", fold="key,value,query")
    assert tree(source) == before and {path.name for path in tmp_path.iterdir()} == {"source", "out"}
    assert not (tmp_path / "out" / "pytorch_model.bin").exists() and done.path == tmp_path / "out"
    hf_bias_patch.patch(saved(name), tmp_path / "same", fold="key,value,query")
    found, wanted = (load_file(tmp_path / folder / "model.safetensors") for folder in ("out", "same"))
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    variant = hf_bias_patch.load(tmp_path / "out")
    assert error(outputs_of(variant.double()), outputs_of(fresh(name))) < 1e-5
    text = (tmp_path / "out" / "config.json").read_text()
    assert '"name": "source"' in text and "converted" not in text and str(tmp_path) not in text


def test_reverts_to_the_same_weights_as_safetensors(tree: Tree, tmp_path: Path) -> None:
    hf_bias_patch.patch(pickled(tmp_path / "source"), tmp_path / "out", fold="query")
    hf_bias_patch.revert(tmp_path / "out")
    model = hf_bias_patch.load(tmp_path / "out", dtype="auto")
    for name, value in fresh("bert", dtype=torch.float32).named_parameters():
        assert torch.equal(model.get_parameter(name), value)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_names_the_pickle_as_its_source_and_says_what_is_restored(tmp_path: Path) -> None:
    """It named the sha256 of a file that the source does not have."""
    source = pickled(tmp_path / "source")
    hf_bias_patch.patch(source, tmp_path / "out", fold="query")
    block = json.loads((tmp_path / "out" / "config.json").read_text())["bias_patch"]
    assert block["source"]["sha256"] == {"pytorch_model.bin": sha256(source / "pytorch_model.bin")}
    done = hf_bias_patch.revert(tmp_path / "out", tmp_path / "back")
    assert done.sha256 == ("model.safetensors",) and done.converted == ("pytorch_model.bin",)


@pytest.mark.parametrize("layerwise", [False, True])
def test_verifies_against_the_pickle_and_against_what_the_variant_restores(tmp_path: Path, layerwise: bool) -> None:
    source = pickled(tmp_path / "source", "distilbert")
    hf_bias_patch.patch(source, tmp_path / "out", fold="key,value,query")
    for against in (source, None):
        certificate = hf_bias_patch.verify(tmp_path / "out", against, attention=("sdpa",), layerwise=layerwise)
        assert certificate.passed and certificate.algebra is not None and certificate.algebra.error < 1e-13
        assert certificate.tensors is not None and certificate.tensors.exact == certificate.tensors.planned
        assert certificate.source.name == "source"
        file = "pytorch_model.bin" if against else "model.safetensors"
        assert list(certificate.source.sha256) == [file]
        if against:
            assert certificate.source.sha256[file] == sha256(source / file)
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}, "nothing is left lying about"


def test_verifying_against_another_pickle_has_no_algebra(tmp_path: Path) -> None:
    hf_bias_patch.patch(pickled(tmp_path / "source"), tmp_path / "out", fold="value")

    def change(state: dict[str, torch.Tensor]) -> None:
        state["bert.embeddings.LayerNorm.bias"] += 1

    certificate = hf_bias_patch.verify(tmp_path / "out", pickled(tmp_path / "other", change=change), layerwise=True)
    assert not certificate.passed and "another checkpoint" in certificate.no_algebra


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    source = pickled(tmp_path / "source")

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    (source / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Trap()}))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        hf_bias_patch.patch(source, tmp_path / "out", fold="key")
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_biases_that_share_memory_are_refused(tmp_path: Path) -> None:
    def tie(state: dict[str, torch.Tensor]) -> None:
        names = [f"bert.encoder.layer.{layer}.attention.self.query.bias" for layer in (0, 1)]
        state[names[1]] = state[names[0]]

    source = pickled(tmp_path / "source", change=tie)
    with pytest.raises(PlanError, match=r"layer\.\d\.attention\.self\.query\.bias shares its memory with"):
        hf_bias_patch.patch(source, tmp_path / "out", fold="query")
    assert {path.name for path in tmp_path.iterdir()} == {"source"}
    hf_bias_patch.patch(source, tmp_path / "out", fold="key,value")


def test_nothing_to_do_names_the_source(tmp_path: Path) -> None:
    """The conversion is gone by then, and must not be where the caller is sent."""

    def clear(state: dict[str, torch.Tensor]) -> None:
        for name in state:
            if name.endswith("self.key.bias"):
                state[name].zero_()

    done = hf_bias_patch.patch(pickled(tmp_path / "source", change=clear), tmp_path / "out", fold="key")
    assert done.unchanged and done.path == tmp_path / "source"
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


@pytest.mark.parametrize("place", [".", "out", ".."])
def test_a_target_in_or_around_the_source_is_refused(tree: Tree, tmp_path: Path, place: str) -> None:
    source = pickled(tmp_path / "source")
    before = tree(tmp_path)
    with pytest.raises(TargetError):
        hf_bias_patch.patch(source, source / place, fold="key", overwrite=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("shape", ["zip", "old", "shards"])
def test_is_inspected_and_planned_as_the_same_weights(saved: Saved, tree: Tree, shape: str, tmp_path: Path) -> None:
    source = pickled(tmp_path / "source")
    file = source / "pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    if shape == "old":
        torch.save(state, file, _use_new_zipfile_serialization=False)
    if shape == "shards":
        file.unlink()
        parts = {f"pytorch_model-{part + 1:05}-of-00002.bin": list(state)[part::2] for part in range(2)}
        for name, tensors in parts.items():
            torch.save({tensor: state[tensor] for tensor in tensors}, source / name)
        weight_map = {tensor: name for name, tensors in parts.items() for tensor in tensors}
        (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    before = tree(source)
    found, wanted = hf_bias_patch.inspect(source), hf_bias_patch.inspect(saved("bert"))
    assert (found.sites, found.values) == (wanted.sites, wanted.values)
    plans = [hf_bias_patch.plan(folder, fold="key,value,query") for folder in (source, saved("bert"))]
    assert plans[0].edits == plans[1].edits and plans[0].touched == plans[1].touched
    assert tree(source) == before and [path.name for path in tmp_path.iterdir()] == ["source"]
    with pytest.raises(CheckpointError, match="PyTorch pickle"):
        hf_bias_patch.patch_in_place(source, fold="key")
    assert tree(source) == before


def test_biases_that_are_views_of_one_storage_are_no_ties(saved: Saved, tmp_path: Path) -> None:
    """As a fused map that was split without a copy leaves them."""

    def split(state: dict[str, torch.Tensor]) -> None:
        for layer in (0, 1):
            for kind in ("weight", "bias"):
                names = [f"bert.encoder.layer.{layer}.attention.self.{one}.{kind}" for one in ("query", "key", "value")]
                state |= dict(zip(names, torch.cat([state[name] for name in names]).chunk(3), strict=True))

    hf_bias_patch.patch(pickled(tmp_path / "source", change=split), tmp_path / "out", fold="key,value,query")
    hf_bias_patch.patch(saved("bert"), tmp_path / "same", fold="key,value,query")
    found, wanted = (load_file(tmp_path / folder / "model.safetensors") for folder in ("out", "same"))
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_a_plan_refuses_biases_that_share_memory(tmp_path: Path) -> None:
    def tie(state: dict[str, torch.Tensor]) -> None:
        names = [f"bert.encoder.layer.{layer}.attention.self.value.bias" for layer in (0, 1)]
        state[names[1]] = state[names[0]]

    with pytest.raises(PlanError, match="shares its memory with"):
        hf_bias_patch.plan(pickled(tmp_path / "source", change=tie), fold="value")
