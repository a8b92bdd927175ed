"""What a checkpoint lacks, or its class leaves out, must not be what a certificate rests on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.evidence.fully_loaded import refuse_ignored
from hf_bias_patch.evidence.run import verify
from hf_bias_patch.models.load_for_verify import load_model
from tests.evidence.helpers import edited, variant_of
from tests.models import randomise

Saved = Callable[..., Path]
ANY_LAYER = "bert.encoder.layer.1."


def source_of(folder: Path, out: Path, change: Callable[[dict[str, torch.Tensor]], Any], **config: Any) -> Path:
    """A copy of a checkpoint with other tensors and config values."""
    shutil.copytree(folder, out)
    values = load_file(out / "model.safetensors")
    change(values)
    save_file(values, out / "model.safetensors", {"format": "pt"})
    path = out / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return out


def without(*names: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(values: dict[str, torch.Tensor]) -> None:
        for name in names:
            del values[name]

    return change


@pytest.mark.parametrize(
    "name",
    [
        "bert.embeddings.word_embeddings.weight",
        "bert.embeddings.position_embeddings.weight",
        "bert.embeddings.LayerNorm.bias",
        f"{ANY_LAYER}intermediate.dense.bias",
        f"{ANY_LAYER}output.LayerNorm.weight",
        f"{ANY_LAYER}attention.self.query.bias",
    ],
)
def test_what_both_lack_is_no_evidence(saved: Saved, name: str, tmp_path: Path) -> None:
    """Both sides had the same made-up values there, so that whatever came of them was equal."""
    source = source_of(saved("bert"), tmp_path / "source", without(name))
    variant = variant_of(source, tmp_path / "out", fold="value")
    with pytest.raises(VerifyError, match=rf"source lacks 1 of the parameters that BertForMaskedLM needs: {name}"):
        verify(variant, source, attention=("sdpa",))


def test_site_by_site_it_is_said(saved: Saved, tmp_path: Path) -> None:
    """No model is run, so nothing tells whether it matters; what is at the sites was read from the files."""
    name = "bert.embeddings.word_embeddings.weight"
    source = source_of(saved("bert"), tmp_path / "source", without(name))
    certificate = verify(variant_of(source, tmp_path / "out", fold="value"), source, layerwise=True)
    assert isinstance(certificate, Certificate) and certificate.passed, certificate.reasons
    assert any(note.startswith("The source lacks") and name in note for note in certificate.notes)


def test_a_head_or_pooler_that_was_never_trained_is_none(saved: Saved, tmp_path: Path) -> None:
    """A base model's pooler is a parameter of the base; its states do not depend on it."""
    bare = saved("bert", head=transformers.BertModel)
    pooler = without("pooler.dense.weight", "pooler.dense.bias")
    for name, source in {
        "head": source_of(
            bare, tmp_path / "head", lambda values: None, architectures=["BertForSequenceClassification"]
        ),
        "pooler": source_of(bare, tmp_path / "pooler", pooler),
    }.items():
        certificate = verify(variant_of(source, tmp_path / f"{name}-out", fold="value"), source, attention=("sdpa",))
        assert isinstance(certificate, Certificate) and certificate.passed, certificate.reasons
        assert any(note.startswith("The source lacks parameters of") for note in certificate.notes)


def test_what_a_class_does_not_use_is_named(saved: Saved, tmp_path: Path) -> None:
    def add(values: dict[str, torch.Tensor]) -> None:
        values["bert.pooler.dense.weight"], values["second_head.weight"] = torch.ones(32, 32), torch.ones(2, 32)

    source = source_of(saved("bert"), tmp_path / "source", add)
    certificate = verify(variant_of(source, tmp_path / "out", fold="value"), source, attention=("sdpa",))
    assert isinstance(certificate, Certificate) and certificate.passed, certificate.reasons
    assert any("does not use all" in note and "second_head.weight" in note for note in certificate.notes)


@pytest.mark.parametrize("layerwise", [False, True])
def test_biases_under_test_that_the_class_does_not_use(layerwise: bool, tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=24, patch_size=8
    )
    randomise(transformers.ViTModel(config)).save_pretrained(tmp_path / "whole")
    variant = variant_of(tmp_path / "whole", tmp_path / "out", fold="value")
    for folder in (tmp_path / "whole", variant):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"qkv_bias": False}))
    certificate = verify(variant, tmp_path / "whole", attention=("sdpa",), layerwise=layerwise)
    assert isinstance(certificate, Certificate) and not certificate.passed
    assert any("not the plan" in reason and "`qkv_bias` is false" in reason for reason in certificate.reasons)


def test_names_that_a_class_ignores_without_a_word(tmp_path: Path) -> None:
    """The load report is silent on them, so it cannot tell that a tensor under test was not read."""
    config = transformers.Qwen3NextConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=1,
        layer_types=["full_attention"],
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=24,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        num_experts=2,
        num_experts_per_tok=1,
        attention_bias=True,
    )
    transformers.Qwen3NextForCausalLM(config).save_pretrained(tmp_path / "plain")
    one = "model.layers.0.self_attn.q_proj.bias"

    def predict_more(values: dict[str, torch.Tensor]) -> None:
        values[f"mtp.{one.removeprefix('model.')}"] = values[one].clone()

    source = source_of(tmp_path / "plain", tmp_path / "source", predict_more)
    loaded = load_model(resolve(source), "F32", "eager")
    assert not loaded.unexpected, "vacuous"
    refuse_ignored(loaded, "source", [one])
    with pytest.raises(VerifyError, match=r"does not use 1 of the tensors under test in source: mtp\.layers"):
        refuse_ignored(loaded, "source", [one, f"mtp.{one.removeprefix('model.')}"])


def test_a_variant_without_its_embeddings(saved: Saved, tmp_path: Path) -> None:
    right = variant_of(saved("bert"), tmp_path / "right", fold="value")
    wrong = edited(right, tmp_path / "wrong", without("bert.embeddings.word_embeddings.weight"), plan=False)
    certificate = verify(wrong, saved("bert"), attention=("sdpa",))
    assert "missing bert.embeddings.word_embeddings.weight" in certificate.load_report and not certificate.passed
