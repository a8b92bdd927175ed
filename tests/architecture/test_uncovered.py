"""Attention biases that no site covers are named: by their names and shapes, whatever the family says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hf_bias_patch import inspect, patch, plan, verify
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.uncovered import attention_biases, gathered, told
from hf_bias_patch.errors import FamilyError
from hf_bias_patch.evidence.certificate import Certificate


@dataclass(frozen=True)
class _Info:
    dtype: str
    shape: tuple[int, ...]


def _linear(*modules: str) -> dict[str, _Info]:
    return {f"{name}.{kind}": _Info("F32", (8, 8)[: 2 - (kind == "bias")]) for name in modules for kind in KINDS}


KINDS = ("weight", "bias")
NORM = {f"attention.LayerNorm.{kind}": _Info("F32", (8,)) for kind in KINDS}
TORCH = {
    "resblocks.0.attn.in_proj_weight": _Info("F32", (24, 8)),
    "resblocks.0.attn.in_proj_bias": _Info("F32", (24,)),
}


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        (_linear("layer.0.attention.self.query", "layer.0.attention.output.dense"), 2),
        (_linear("h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj"), 2),
        (_linear("blocks.0.wqkv", "blocks.0.wo", "blocks.0.fc0"), 2),
        (_linear("head.k_proj", "head.v_proj", "head.output_proj", "head.fc1"), 3),
        (_linear("attentions.0.q_lin", "attentions.0.v_lin", "attentions.0.out_lin", "ffns.0.lin1"), 3),
        (_linear("lang_self_att.self.query", "lang_self_att.output.dense", "lang_inter.dense"), 2),
        (_linear("self_attn.attn.to_out.0"), 1),
        (TORCH | _linear("resblocks.0.attn.out_proj", "resblocks.0.mlp.c_fc"), 2),
        ({"layers.0.self_attn.q_proj.bias": _Info("F32", (8,))}, 1),  # its weight is stored fused with others
        ({"attn.q_bias": _Info("F32", (8,)), "attn.in_proj.weight": _Info("F32", (24, 8))}, 1),
        ({"attention.dense_bias": _Info("F32", (8,)), "attention.dense.weight": _Info("F32", (8, 8))}, 1),
        ({"self_attn.q_proj.bias": _Info("F16", (8,)), "self_attn.q_proj.qweight": _Info("I32", (1, 8))}, 1),
        # What is none:
        (NORM | _linear("layer.0.attention.LayerNorm.x.mlp.fc1"), 0),
        (_linear("mixer.in_proj", "mixer.out_proj", "mixer.dt_proj"), 0),  # Mamba
        (_linear("quantizer.in_proj", "quantizer.out_proj"), 0),
        (_linear("value_head.summary", "classifier.dense", "key_head", "score"), 0),
        (_linear("entity_linker.query", "entity_linker.key"), 0),  # a head that scores pairs, without values
        (_linear("memory_attention.layers.0.linear1", "attention.mlp.fc1", "attn_norm.proj"), 0),
        (_linear("encoder.0.attention.relative_pos_embeddings", "attention.position_bias_mlp.0"), 0),
        ({"attention_biases.bias": _Info("F32", (4, 4)), "attn.query.bias": _Info("I64", (8,))}, 0),
    ],
)
def test_what_looks_like_an_attention_bias(tensors: Mapping[str, _Info], found: int) -> None:
    names = attention_biases(tensors)
    assert len(names) == found and all(name.endswith("bias") for name in names), names


def test_names_are_told_by_place() -> None:
    names = [f"model.layers.{n}.self_attn.{p}_proj.bias" for n in range(12) for p in "qkv"] + ["x.attn.in_proj_bias"]
    assert gathered(names) == ["model.layers.*.self_attn (q_proj, k_proj, v_proj)", "x.attn (in_proj_bias)"]
    assert told(names).startswith("37 attention biases are at no attention site that is known of this model: model.l")
    assert told(["attn.bias"]).startswith("1 attention bias is") and told([]) == ""
    assert "and 3 more places" in told([f"{letter}.attn.query.bias" for letter in "abcdefg"])


@pytest.fixture
def beside(saved: Callable[..., Path], tmp_path: Path) -> Path:
    """A BERT with one more attention beside its layers."""
    source = saved("bert")
    tensors = load_file(source / "model.safetensors")
    random = np.random.default_rng(0)
    for module in ("bert.adapter.attention.q_proj", "bert.adapter.attention.v_proj"):
        tensors[f"{module}.weight"] = random.normal(size=(32, 32)).astype(np.float32)
        tensors[f"{module}.bias"] = random.normal(size=32).astype(np.float32)
    folder = tmp_path / "beside"
    folder.mkdir()
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_inspect_plan_and_certificate_name_them(beside: Path, saved: Callable[..., Path], tmp_path: Path) -> None:
    names = ("bert.adapter.attention.q_proj.bias", "bert.adapter.attention.v_proj.bias")
    found = inspect(beside)
    assert found.uncovered == names and found.plain()["uncovered"] == list(names)
    assert found.bias_parameters == inspect(saved("bert")).bias_parameters and not inspect(saved("bert")).uncovered
    made = plan(beside, fold={"key": "default"})
    assert made.uncovered == names and json.loads(made.dumps())["uncovered"] == list(names)
    assert "uncovered" not in json.loads(plan(saved("bert"), fold={"key": "default"}).dumps())
    patch(beside, tmp_path / "variant", fold={"key": "default"})
    certificate = verify(tmp_path / "variant", beside, attention=("eager",))
    assert isinstance(certificate, Certificate) and certificate.passed and certificate.uncovered == names
    assert Certificate.loads(certificate.dumps()).uncovered == names


def test_a_model_whose_towers_no_family_covers_is_refused_for_that() -> None:
    towers = {"model_type": "qwen2_audio", "audio_config": {}, "text_config": {"model_type": "no-such-type"}}
    with pytest.raises(FamilyError, match=r"all parts of this qwen2_audio model: .*no-such-type"):
        find_sites(towers, _linear("audio_tower.attn.out_proj"))
