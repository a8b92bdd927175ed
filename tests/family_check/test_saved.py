"""Every stock class of a type, saved by itself: the table finds in the file what it finds in memory.

All model types: `make sweep`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from hf_bias_patch import inspect
from hf_bias_patch.architecture.family import is_known
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Site, Tensor
from hf_bias_patch.checkpoint.checkpoint import TensorInfo
from hf_bias_patch.family_check import saved_classes as saved
from hf_bias_patch.family_check.reasons import reasons
from hf_bias_patch.family_check.reasons.uncovered import attention_parameters, reason_for
from hf_bias_patch.family_check.saved_classes import check_saved
from tests.models import randomise

TYPES = [
    # Saved as the base model, whose names lack what the classes with heads put before them.
    "vit_mae", "videomae", "perceiver", "vjepa2", "videoprism_vision_model", "mgp-str", "decision_transformer", "dpr",
    # Saved with a text tower that has no name of its own in the files.
    "qwen2_vl", "qwen2_5_vl", "paddleocr_vl", "step3p7", "cosmos3_edge", "cosmos3_omni", "deepseek_ocr2",
    "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker", "hunyuan_vl",
    # Models inside a model, some of which no class but the largest has.
    "moshi", "csm", "evolla", "bridgetower", "minicpm_ocr", "inkling2", "kimi_k25",
    # Names that stock loaders take off only while they load.
    "ultrabert", "tipsv2", "ernie4_5_vl_moe", "rag",
    # Classes that want another config than the rest.
    "hiera", "t5gemma",
    # Layers that share a module, which the files hold once.
    "zamba",
]  # fmt: skip


@pytest.mark.parametrize("model_type", TYPES)
def test_files_and_memory_say_the_same(model_type: str) -> None:
    found = check_saved(model_type)
    assert found.differences == [] and not found.no_family
    assert len(found.compared) >= 1, found.not_built


def test_all_auto_classes_are_looked_at() -> None:
    compared = check_saved("bert").compared
    assert {"BertModel", "BertForPreTraining", "BertForQuestionAnswering", "BertLMHeadModel"} <= compared


@pytest.mark.parametrize(
    ("model_type", "hidden", "kinds"),
    [
        ("bert", "bert.encoder.layer.1", {"wrong"}),
        ("bert", "no such name", set()),
        ("zamba", ".shared_transf.self_attn", {"wrong"}),
    ],
    ids=["hidden", "none-hidden", "all-of-a-shared-module"],
)
def test_a_site_that_the_files_hide_is_found(
    model_type: str, hidden: str, kinds: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table that finds less in the files (those of a class with a head, here) than in memory."""

    def blind(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Site, ...]:
        files = isinstance(next(iter(tensors.values())), TensorInfo)
        sites = find_sites(config, tensors)
        return tuple(site for site in sites if not (files and hidden in str(site.slots["key"].weight)))

    monkeypatch.setattr(saved, "find_sites", blind)
    assert {difference.kind for difference in check_saved(model_type).differences} == kinds


def test_the_text_of_a_stock_qwen2_5_vl_is_seen(tmp_path: Path) -> None:
    rope = {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"}
    layers = {"hidden_size": 32, "intermediate_size": 48}
    text = layers | {
        "vocab_size": 200,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rope_scaling": rope,
    }
    vision = layers | {"depth": 2, "out_hidden_size": 32, "num_heads": 4, "fullatt_block_indexes": [1]}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    randomise(model, 0)
    model.save_pretrained(tmp_path)
    found = inspect(tmp_path)
    tensors = {slot.bias for site in found.sites for slot in site.slots.values() if slot.bias}
    assert {f"model.layers.{n}.self_attn.{p}_proj.bias" for n in range(2) for p in "qkv"} < tensors
    assert {site.stack for site in found.sites} == {"text", "vision"} and found.uncovered == ()


def test_an_attention_bias_at_no_site_needs_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = check_saved("doge")
    assert found.differences == [] and all("dt_proj.bias" in name for name in found.explained) and found.explained
    monkeypatch.setattr(saved, "reason_for", lambda *_: "")
    again = check_saved("doge")
    assert {difference.kind for difference in again.differences} == {"unseen"} and not again.explained


def test_a_prefix_that_only_stock_loaders_take_off_is_no_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "wrapper", lambda config, tensors: "module." if "architectures" in config else "")
    assert [difference.kind for difference in check_saved("mgp-str").differences] == ["wrong", "wrong"]


def test_a_bias_of_attention_is_known_by_its_class_too() -> None:
    class OddAttention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)
            self.mlp = torch.nn.Sequential(torch.nn.Linear(4, 4))

    class AttentionBlock(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixing, self.second = OddAttention(), torch.nn.Linear(4, 4)

    assert list(attention_parameters(AttentionBlock())) == ["mixing.first.bias"]


def test_reasons_are_for_types_that_have_a_family() -> None:
    entries = reasons("uncovered")
    assert entries and all(is_known(name) and entry.reason for entry in entries for name in entry.model_types)
    assert reason_for({"model_type": "doge"}, "DogeModel", "layers.0.self_attn.dt_proj.bias")
    assert not reason_for({"model_type": "doge"}, "DogeModel", "layers.0.self_attn.q_proj.bias")
    tower = {"model_type": "llava", "vision_config": {"model_type": "no-such-type"}}
    assert reason_for(tower, "LlavaModel", "model.vision_tower.x.bias") == "no family covers no-such-type"
    assert not reason_for(tower, "LlavaModel", "model.language_model.x.bias")
