"""Numbers that cannot be, and numbers that are none we can read: refused by name, and nothing is written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import hf_bias_patch
from hf_bias_patch.errors import CheckpointError, PlanError
from hf_bias_patch.patching.in_memory import apply
from tests.models import fresh

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]


class TestOnDisk:
    """Numbers that cannot be: found while planning, or in the middle of a matrix. Nothing is written either way."""

    def damaged(self, source: Path, folder: Path, tensor: str, value: float) -> Path:
        shutil.copytree(source, folder)
        tensors = load_file(source / "model.safetensors")
        values = tensors[tensor].copy()
        values.reshape(-1)[-1] = value
        save_file(tensors | {tensor: values}, folder / "model.safetensors", {"format": "pt"})
        return folder

    @pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
    @pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
    @pytest.mark.parametrize(
        "tensor",
        [
            "transformer.h.1.attn.c_attn.bias",
            "transformer.h.1.attn.c_attn.weight",
            "transformer.h.2.attn.c_proj.weight",
            "transformer.h.2.attn.c_proj.bias",
            "transformer.h.0.ln_1.bias",
            "transformer.h.0.ln_1.weight",
        ],
    )
    def test_nan_and_infinity(
        self, saved: Saved, tmp_path: Path, tree: Tree, tensor: str, value: float, dtype: str
    ) -> None:
        source = self.damaged(saved("gpt2", dtype), tmp_path / "model", tensor, value)
        before = tree(tmp_path)
        recipe = {"fold": "key,query,value:weight"} if "c_proj" not in tensor else {"fold": "value"}
        for attempt in (
            lambda: hf_bias_patch.patch(source, tmp_path / "out", **recipe, max_loss=1.0),
            lambda: hf_bias_patch.patch_in_place(source, **recipe, max_loss=1.0),
        ):
            with pytest.raises(CheckpointError, match=f"Tensor {tensor} holds 1 NaN or infinite values"):
                attempt()
            assert tree(tmp_path) == before and not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        "recipe", [{"fold": "value"}, {"fold": "query", "max_loss": 1.0}, {"fill": "key=7e4"}], ids=str
    )
    def test_overflow_in_float16(self, saved: Saved, tmp_path: Path, tree: Tree, recipe: dict[str, Any]) -> None:
        source = tmp_path / "model"
        shutil.copytree(saved("distilbert", "F16"), source)
        tensors = load_file(source / "model.safetensors")
        for name in tensors:
            if name.endswith(("2.attention.v_lin.bias", "2.attention.q_lin.bias")):
                tensors[name] = np.full_like(tensors[name], 6e4)
            if name.endswith("layer.1.output_layer_norm.bias"):
                tensors[name] = tensors[name] / np.float16(64)  # a small constant: a large update
        save_file(tensors, source / "model.safetensors", {"format": "pt"})
        before = tree(tmp_path)
        for attempt in (
            lambda: hf_bias_patch.patch(source, tmp_path / "out", **recipe),
            lambda: hf_bias_patch.patch_in_place(source, **recipe),
        ):
            with pytest.raises(PlanError, match=r"would overflow: [\d.e+]+ is beyond the range of F16"):
                attempt()
            assert tree(tmp_path) == before and not (tmp_path / "out").exists()

    @pytest.mark.parametrize("fill", ["1e60", "uniform:0:1e60", "normal:0:1e60"])
    def test_a_fill_that_overflows_is_refused_in_the_plan(self, saved: Saved, fill: str) -> None:
        """With a remedy for fills: there is no fold whose destination could be changed."""
        with pytest.raises(PlanError, match=r"would overflow: .* is beyond the range of F32") as caught:
            hf_bias_patch.plan(saved("bert"), fill=f"key={fill}")
        assert "Fill the key bias with smaller values" in str(caught.value) and "fold" not in str(caught.value)
        assert hf_bias_patch.plan(saved("bert", "F64"), fill=f"key={fill}").edits

    @pytest.mark.parametrize("fields", [{"drop": "key"}, {"fill": "key=0.5"}, {"fill": "key=normal:0:1"}], ids=str)
    def test_a_drop_or_fill_of_a_whole_bias_repairs_it(
        self, saved: Saved, tmp_path: Path, tree: Tree, fields: dict[str, Any]
    ) -> None:
        bias = "bert.encoder.layer.1.attention.self.key.bias"
        source = self.damaged(saved("bert"), tmp_path / "model", bias, float("nan"))
        before = tree(source)
        made = hf_bias_patch.patch(source, tmp_path / "out", **fields)
        sound = {edit.site: edit.equal.logits for edit in made.plan.edits}
        assert sound == {"encoder.0.self": True, "encoder.1.self": False, "encoder.2.self": True}
        assert made.plan.lossy, "NaN does not cancel in softmax, so the function changes"
        repaired = load_file(tmp_path / "out" / "model.safetensors")
        assert np.isfinite(repaired[bias]).all() and len(repaired[bias]) == 32
        hf_bias_patch.patch(saved("bert"), tmp_path / "sound", **fields)
        assert np.array_equal(repaired[bias], load_file(tmp_path / "sound" / "model.safetensors")[bias])
        hf_bias_patch.revert(tmp_path / "out")
        assert tree(tmp_path / "out") == before
        hf_bias_patch.patch_in_place(source, **fields)
        assert np.isfinite(load_file(source / "model.safetensors")[bias]).all()

    def test_of_a_fused_bias_a_part_does_not(self, saved: Saved, tmp_path: Path) -> None:
        source = self.damaged(saved("gpt2"), tmp_path / "model", "transformer.h.1.attn.c_attn.bias", float("nan"))
        with pytest.raises(CheckpointError, match="A drop or fill of all of a bias repairs it"):
            hf_bias_patch.patch(source, tmp_path / "out", fill="key=1")

    def test_the_largest_bfloat16_is_not_exceeded(self, saved: Saved, tmp_path: Path) -> None:
        largest = float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
        hf_bias_patch.patch(saved("bert", "BF16"), tmp_path / "out", fill=f"key={largest!r}")
        tensors = load_file(tmp_path / "out" / "model.safetensors")
        assert (tensors["bert.encoder.layer.0.attention.self.key.bias"].astype(float) == largest).all()
        with pytest.raises(PlanError, match="overflow"):
            hf_bias_patch.patch(saved("bert", "BF16"), tmp_path / "two", fill=f"key={largest * 1.01!r}")


class TestInMemory:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize(
        ("parameter", "fields"),
        [
            ("bert.encoder.layer.1.attention.self.key.bias", {"fold": "key"}),
            ("bert.encoder.layer.1.attention.self.value.bias", {"fold": "value"}),
            ("bert.encoder.layer.1.attention.output.dense.bias", {"fold": "value"}),
            ("bert.encoder.layer.1.attention.output.dense.weight", {"fold": "value"}),
            ("bert.encoder.layer.1.attention.self.query.bias", {"fold": "query"}),
            ("bert.encoder.layer.1.attention.self.query.weight", {"fold": "query"}),
            ("bert.encoder.layer.0.output.LayerNorm.weight", {"fold": "query"}),
            ("bert.encoder.layer.0.output.LayerNorm.bias", {"fold": "query"}),
            ("bert.encoder.layer.1.attention.self.query.weight", {"fold": "query:norm"}),
            ("bert.encoder.layer.1.attention.self.value.weight", {"fold": "query:norm"}),
            ("bert.encoder.layer.1.attention.output.dense.weight", {"fold": "query:norm"}),
            ("bert.encoder.layer.0.output.LayerNorm.bias", {"fold": "query:norm"}),
        ],
        ids=str,
    )
    def test_are_refused_by_name_and_nothing_changes(
        self, parameter: str, fields: dict[str, Any], value: float
    ) -> None:
        model = fresh("bert")
        with torch.no_grad():
            model.get_parameter(parameter).view(-1)[17] = value
        before = {name: old.clone() for name, old in model.named_parameters()}
        with pytest.raises(CheckpointError, match=f"Tensor {re.escape(parameter)} holds 1 NaN or infinite"):
            apply(model, **fields)
        assert all(before[name].equal(new) or name == parameter for name, new in model.named_parameters())

    def test_elsewhere_are_nobodys_business(self) -> None:
        model = fresh("bert")
        with torch.no_grad():
            model.get_parameter("bert.encoder.layer.1.attention.self.query.weight")[0, 0] = float("nan")
        assert apply(model, fold="key").plan.edits
        assert apply(model, fold="value").plan.edits
        assert apply(model, fold="query", layers="0,2").plan.edits


class TestOverflowInMemory:
    def large(self) -> Any:
        model = fresh("bert", dtype=torch.float16)
        with torch.no_grad():
            model.get_parameter("bert.encoder.layer.1.attention.self.value.bias").fill_(60000)
            model.get_parameter("bert.encoder.layer.1.attention.self.query.bias").fill_(60000)
        return model

    @pytest.mark.parametrize(
        ("fields", "tensor"),
        [
            ({"fold": "value"}, "bert.encoder.layer.1.attention.output.dense.bias"),
            ({"fold": "query", "max_loss": 1}, "bert.encoder.layer.1.attention.self.query.weight"),
            ({"fold": "query:norm", "max_loss": 1}, "bert.encoder.layer.0.output.LayerNorm.bias"),
            ({"fill": "output=1e5"}, "bert.encoder.layer.0.attention.output.dense.bias"),
        ],
        ids=str,
    )
    def test_is_refused_with_the_number_and_nothing_changes(self, fields: dict[str, Any], tensor: str) -> None:
        model = self.large()
        norm = model.bert.encoder.layer[0].output.LayerNorm
        with torch.no_grad():
            norm.bias[:] = 2.0**-6 * torch.sign(norm.bias)
        before = {name: value.clone() for name, value in model.named_parameters()}
        with pytest.raises(
            PlanError, match=f"Tensor {re.escape(tensor)} would overflow: .* beyond the range of F16"
        ) as caught:
            apply(model, **fields)
        found = re.search(r"overflow: ([\d.e+]+) is beyond", str(caught.value))
        assert found is not None and float(found[1]) > 65504
        assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


class TestQuantised:
    @pytest.fixture
    def source(self, saved: Saved, tmp_path: Path) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(saved("bert"), folder)
        tensors = load_file(folder / "model.safetensors")
        for name, values in list(tensors.items()):
            if ".attention." in name and values.ndim == 2:
                tensors[name] = np.clip(values * 100, -127, 127).astype(np.int8)
                tensors[name.replace(".weight", ".SCB")] = np.ones(len(values), np.float32)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder

    def test_the_key_fold_works(self, source: Path, tmp_path: Path, tree: Tree) -> None:
        hf_bias_patch.patch(source, tmp_path / "out", fold="key")
        old, new = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
        keys = {name for name in old if name.endswith("attention.self.key.bias")}
        assert len(keys) == 3
        for name, values in old.items():
            assert np.array_equal(new[name], values) is (name not in keys)
            assert name not in keys or not new[name].any()
        hf_bias_patch.revert(tmp_path / "out")
        assert tree(tmp_path / "out") == tree(source)

    @pytest.mark.parametrize("fold", ["value", "query", "query:norm", "value:weight", "key:weight", "key,value,query"])
    def test_others_are_refused(self, source: Path, tmp_path: Path, fold: str) -> None:
        with pytest.raises(PlanError, match=r"stored as I8: quantised weights cannot be read or edited"):
            hf_bias_patch.patch(source, tmp_path / "out", fold=fold)
        assert not (tmp_path / "out").exists()
