"""What stock transformers does not read is no part of the model, whatever the file holds; and it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import hf_bias_patch
from hf_bias_patch.architecture.as_read import as_read
from hf_bias_patch.architecture.unread import unread
from hf_bias_patch.cli import app
from hf_bias_patch.errors import BiasPatchError, CheckpointError, RecipeError

Values = dict[str, torch.Tensor]


def folder_of(out: Path, model: Any, change: Callable[[Values], None] = lambda values: None, **config: Any) -> Path:
    """A random checkpoint with other tensors, and other config values than it was saved with; None takes one away."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(float(parameter.dim() == 1 and name.endswith("weight")), 0.2)
    model.save_pretrained(out)
    values = load_file(out / "model.safetensors")
    change(values)
    save_file(values, out / "model.safetensors", {"format": "pt"})
    path = out / "config.json"
    written = json.loads(path.read_text()) | config
    path.write_text(json.dumps({key: value for key, value in written.items() if value is not None}))
    return out


def with_bias(part: str, like: str) -> Callable[[Values], None]:
    """Give every module of a name a bias, of the length of another's."""

    def change(values: Values) -> None:
        for name in [name for name in values if name.endswith(f".{part}.weight")]:
            values[name.replace(".weight", ".bias")] = torch.ones(len(values[name.replace(part, like)]))

    return change


def verdicts(source: Path) -> dict[str, dict[str, str]]:
    return {
        site.name: {name: slot.verdict.state for name, slot in site.slots.items()}
        for site in hf_bias_patch.inspect(source).sites
    }


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=24, patch_size=8
    )
    return folder_of(tmp_path_factory.mktemp("vit") / "source", transformers.ViTModel(config), qkv_bias=False)


def test_a_switch_that_is_off(vit: Path, tree: Callable[[Path], dict[str, str]], tmp_path: Path) -> None:
    before = tree(vit)
    found = hf_bias_patch.inspect(vit)
    assert verdicts(vit)["encoder.0.self"] == {
        "query": "absent",
        "key": "absent",
        "value": "absent",
        "output": "needed",
    }
    assert found.verdicts() == {"needed": 64} and len(found.unread) == 6
    assert set(found.unread.values()) == {"`qkv_bias` is false"}
    with pytest.raises(RecipeError, match=r"has a value bias.*does not read it: `qkv_bias` is false.*correct config"):
        hf_bias_patch.patch(vit, tmp_path / "out", fold="value")
    for action in ("drop", "freeze", "train"):
        with pytest.raises(BiasPatchError, match="`qkv_bias` is false"):
            hf_bias_patch.plan(vit, **{action: "query"})
    assert tree(vit) == before and not (tmp_path / "out").exists()


def test_inspect_prints_it(vit: Path) -> None:
    text = " ".join(CliRunner().invoke(app, ["inspect", str(vit)]).output.split())
    assert "Stock transformers does not read 6 more, such as" in text and "`qkv_bias` is false" in text


def test_what_a_type_never_has(tmp_path: Path) -> None:
    """Whisper's keys have no bias; the certificate of a fold beside such a one passes, for nothing reads it."""
    config = transformers.WhisperConfig(
        vocab_size=60,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        num_mel_bins=8,
        max_source_positions=20,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    source = folder_of(tmp_path / "source", model, with_bias("k_proj", "q_proj"))
    assert {states["key"] for states in verdicts(source).values()} == {"absent"}
    reasons = {slot.verdict.reason for site in hf_bias_patch.inspect(source).sites for slot in [site.slots["key"]]}
    assert reasons == {"stock transformers does not read it: a model of type whisper has no such bias"}
    variant = hf_bias_patch.patch(source, tmp_path / "out", fold="value").path
    assert hf_bias_patch.verify(variant, source, layerwise=True).passed
    kept, old = (load_file(folder / "model.safetensors") for folder in (variant, source))
    assert all(kept[name].equal(old[name]) for name in old if name.endswith("k_proj.bias"))


def test_an_output_bias_that_is_not_read_takes_nothing_up(tmp_path: Path) -> None:
    config = transformers.Qwen2Config(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    source = folder_of(tmp_path / "source", transformers.Qwen2ForCausalLM(config), with_bias("o_proj", "o_proj"))
    value = hf_bias_patch.inspect(source).sites[0].slots["value"]
    assert value.verdict.state == "needed"
    assert "does not read the output bias: a model of type qwen2 has no such bias" in value.verdict.folds["output"]


@pytest.mark.parametrize("config", [{"attention_bias": False}, {"attention_bias": None}])
def test_off_by_the_file_or_by_default(config: dict[str, Any], tmp_path: Path) -> None:
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=60,
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            attention_bias=True,
            mlp_bias=True,
        )
    )
    source = folder_of(tmp_path / "source", model, **config)
    assert {state for states in verdicts(source).values() for state in states.values()} == {"absent"}
    with pytest.raises(RecipeError, match="`attention_bias` is false"):
        hf_bias_patch.plan(source, drop="key")


def test_a_norm_whose_bias_is_not_read_carries_nothing(tmp_path: Path) -> None:
    config = transformers.OPTConfig(
        vocab_size=60, hidden_size=32, ffn_dim=40, num_hidden_layers=1, num_attention_heads=4, word_embed_proj_dim=32
    )
    on = folder_of(tmp_path / "on", transformers.OPTModel(config))
    off = folder_of(tmp_path / "off", transformers.OPTModel(config), layer_norm_elementwise_affine=False)
    assert (verdicts(on)["decoder.0.self"]["query"], verdicts(off)["decoder.0.self"]["query"]) == ("foldable", "needed")


def bert(layers: int, **more: Any) -> Any:
    return transformers.BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=40, **more
    )


def test_layers_beyond_the_count(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", transformers.BertForMaskedLM(bert(3)), num_hidden_layers=2)
    found = hf_bias_patch.inspect(source)
    assert [site.layer for site in found.sites] == [0, 1]
    assert len(found.unread) == 4 and set(found.unread.values()) == {"`num_hidden_layers` is 2"}
    variant = hf_bias_patch.patch(source, tmp_path / "out", fold="key,value").path
    assert hf_bias_patch.verify(variant, source, attention=("sdpa",)).passed


def test_layers_beyond_the_counts_of_stages(tmp_path: Path) -> None:
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[2, 1], num_heads=[2, 4], window_size=4, num_labels=2
    )
    model = transformers.SwinForImageClassification(config)
    source = folder_of(tmp_path / "source", model, depths=[1, 1])
    found = hf_bias_patch.inspect(source)
    assert [site.slots["key"].bias.split(".attention")[0][-10:] for site in found.sites] == ["0.blocks.0", "1.blocks.0"]
    assert set(found.unread.values()) == {"`depths` is [1, 1]"}


def test_cross_attention_that_the_config_does_not_have(tmp_path: Path) -> None:
    config = bert(1, is_decoder=True, add_cross_attention=True)
    source = folder_of(tmp_path / "source", transformers.BertLMHeadModel(config), add_cross_attention=False)
    found = hf_bias_patch.inspect(source)
    assert [site.kind for site in found.sites] == ["self"]
    assert set(found.unread.values()) == {"`add_cross_attention` is false"}


@pytest.mark.parametrize("prefix", ["mtp.", "model.mtp.", "medusa.model."])
def test_other_heads_stand_not_in_the_way(prefix: str, tmp_path: Path) -> None:
    """Of the files of Qwen3-Next, stock leaves out `mtp.`, the layers that predict several tokens."""
    config = transformers.Qwen2Config(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )

    def predict_more(values: Values) -> None:
        for name in [name for name in values if name.startswith("model.layers.1.")]:
            values[name.replace("model.layers.1.", f"{prefix}layers.0.")] = values[name].clone()

    source = folder_of(tmp_path / "source", transformers.Qwen2ForCausalLM(config), predict_more)
    found = hf_bias_patch.inspect(source)
    assert [site.name for site in found.sites] == ["decoder.0.self", "decoder.1.self"]
    assert set(found.unread.values()) == {f"a model of type qwen2 has no such attention under `{prefix}`"}
    variant = hf_bias_patch.patch(source, tmp_path / "out", drop="value").path
    old, new = (load_file(folder / "model.safetensors") for folder in (source, variant))
    assert all(new[name].equal(old[name]) for name in old if name.startswith(prefix))
    assert not new["model.layers.1.self_attn.v_proj.bias"].any()


def test_a_wrapper_is_still_refused(tmp_path: Path) -> None:
    """Where stock finds no model, the prefix is in the way, not beside it."""

    def wrapped(values: Values) -> None:
        for name in list(values):
            values[f"module.{name}"] = values.pop(name)

    source = folder_of(tmp_path / "source", transformers.BertForMaskedLM(bert(1)), wrapped)
    with pytest.raises(CheckpointError, match=r"begin with `module\.`"):
        hf_bias_patch.inspect(source)


def test_a_switch_for_each_stage() -> None:
    config = {"model_type": "cvt", "qkv_bias": [True, False, True]}
    assert [sorted(unread(config, "encoder", "self", stage=stage)) for stage in range(3)] == [
        [],
        ["key", "query", "value"],
        [],
    ]


def test_a_switch_by_its_older_name() -> None:
    """The published config.json of VideoMAE say `qkv_bias`; its keys have no bias in any case."""
    config = as_read({"model_type": "videomae", "qkv_bias": False})
    found = unread(config, "encoder", "self", "vision_config.")
    assert found["value"] == "`vision_config.qv_bias` is false" and "never" not in str(found)
    assert list(unread(as_read({"model_type": "videomae"}), "encoder", "self")) == ["key"]
