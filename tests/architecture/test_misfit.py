"""Config and tensors that do not fit together are refused by name; what a family does not cover is unknown."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.errors import CheckpointError, FamilyError
from tests.architecture.headers import Info, is_attention, sample, slot_of, tensors_of


@pytest.mark.parametrize(
    ("name", "key", "named"),
    [
        ("bert", "num_hidden_layers", "encoder.layer.2.attention.self.query"),
        ("distilbert", "n_layers", "transformer.layer.2.attention.q_lin"),
        ("gpt2", "n_layer", "h.2.attn.c_attn"),
        ("mbart", "decoder_layers", "decoder.layers.2.self_attn.q_proj"),
    ],
)
def test_a_config_that_counts_other_layers(name: str, key: str, named: str) -> None:
    config, tensors = sample(name)
    whole, fewer = (find_sites(config | {key: count}, tensors) for count in (3, 2))
    assert fewer == tuple(site for site in whole if site.layer < 2), "stock transformers reads these"
    with pytest.raises(CheckpointError, match=f"{key} = 4.*lacks .*{named.replace('2', '3')}"):
        find_sites(config | {key: 4}, tensors)


@pytest.mark.parametrize("value", [None, 0, -3, "3", 3.0, True, [3]])
def test_a_config_that_does_not_count_layers_is_refused(value: Any) -> None:
    config, tensors = sample("bert")
    with pytest.raises(CheckpointError, match=r"`num_hidden_layers` is .*not a positive whole number"):
        find_sites(config | {"num_hidden_layers": value}, tensors)
    with pytest.raises(CheckpointError, match=r"`num_attention_heads` is .*not a positive whole number"):
        find_sites(config | {"num_attention_heads": value}, tensors)


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_a_missing_map_is_refused(part: str) -> None:
    config, tensors = sample("bert")
    gone = {name: info for name, info in tensors.items() if f"layer.1.attention.self.{part}." not in name}
    assert len(gone) == len(tensors) - 2
    with pytest.raises(CheckpointError, match=f"lacks bert.encoder.layer.1.attention.self.{part}"):
        find_sites(config, gone)


def test_a_missing_bias_is_absent_and_its_site_still_found() -> None:
    config, tensors = sample("bert")
    gone = {name: info for name, info in tensors.items() if not name.endswith("layer.1.attention.self.key.bias")}
    slot = slot_of(config, gone, "encoder.1.self", "key")
    assert (slot.bias, slot.verdict.state) == (None, "absent") and slot.weight in tensors
    assert slot_of(config, gone, "encoder.0.self", "key").verdict.state == "redundant"


def test_a_missing_norm_closes_the_weight_and_is_named() -> None:
    config, tensors = sample("bert")
    gone = {name: info for name, info in tensors.items() if name != "bert.embeddings.LayerNorm.bias"}
    query, value = (slot_of(config, gone, "encoder.0.self", name) for name in ("query", "value"))
    assert query.norm is None and query.verdict.state == "needed"
    assert "no layer norm bert.embeddings.LayerNorm" in query.verdict.reason
    assert value.verdict.destinations == ("output",)


def test_a_missing_output_bias_leaves_the_weight_to_the_value() -> None:
    config, tensors = sample("bert")
    gone = {name: info for name, info in tensors.items() if not name.endswith("layer.1.attention.output.dense.bias")}
    value = slot_of(config, gone, "encoder.1.self", "value")
    assert value.verdict.destinations == ("weight",)
    assert "output projection has no bias" in value.verdict.folds["output"]


def test_several_models_in_one_checkpoint_are_refused() -> None:
    config, tensors = sample("bert")
    two = {f"{part}.{name}": info for part in ("student", "teacher") for name, info in tensors.items()}
    with pytest.raises(CheckpointError, match=r"several models of type bert, under 'student\.bert\.', 'teacher"):
        find_sites(config, two)
    assert find_sites(config, two | tensors) == find_sites(config, tensors), "stock transformers reads this one"


def test_tensors_of_another_architecture_are_refused() -> None:
    config, tensors = sample("gpt2")
    with pytest.raises(CheckpointError, match=r"none of the attention tensors .*of another type"):
        find_sites(sample("bert")[0], tensors)
    assert config["model_type"] == "gpt2"


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_bias_that_does_not_fit_its_weight_is_refused(name: str) -> None:
    config, tensors = sample(name)
    slot = find_sites(config, tensors)[1].slots["key"]
    with pytest.raises(CheckpointError, match="do not fit together") as caught:
        find_sites(config, tensors | {slot.bias: Info("F32", (33,))})
    assert slot.bias.removesuffix(".bias") in str(caught.value)


def test_an_unknown_model_type_is_refused() -> None:
    _, tensors = sample("bert")
    with pytest.raises(FamilyError, match=r"'reformer'.*hf-bias-patch families"):
        find_sites({"model_type": "reformer"}, tensors)
    for config in ({}, {"model_type": None}, {"model_type": ""}):
        with pytest.raises(FamilyError, match="has no `model_type`"):
            find_sites(config, tensors)


@pytest.mark.parametrize(
    "entry",
    [{"position_embedding_type": "relative_key"}, {"position_embedding_type": "relative_key_query"}],
)
def test_an_unhandled_config_value_is_unknown_by_name(entry: dict[str, str]) -> None:
    config, tensors = sample("bert")
    (text,) = entry.values()
    for site in find_sites(config | entry, tensors):
        for projection, slot in site.slots.items():
            assert slot.verdict.state == "unknown" and not slot.verdict.destinations
            assert f"position_embedding_type = '{text}'" in slot.verdict.reason, projection
    for same in ({"position_embedding_type": "absolute"}, {"position_embedding_type": None}, {"pruned_heads": {}}):
        assert find_sites(config | same, tensors) == find_sites(config, tensors)


def test_pruned_heads_are_unknown() -> None:
    config, tensors = sample("bert")
    pruned = find_sites(config | {"pruned_heads": {"0": [1]}}, tensors)
    assert {slot.verdict.state for site in pruned for slot in site.slots.values()} == {"unknown"}


def test_a_pair_with_a_part_that_has_no_family_is_refused() -> None:
    config, tensors = sample("bert+bert")
    with pytest.raises(FamilyError, match="'made_up'"):
        find_sites(config | {"decoder": config["decoder"] | {"model_type": "made_up"}}, tensors)
    with pytest.raises(FamilyError, match="itself a model of type encoder-decoder"):
        find_sites(config | {"encoder": config}, tensors)
    with pytest.raises(FamilyError, match="decoder of its own"):
        find_sites(config | {"encoder": sample("bart")[0]}, tensors)
    with pytest.raises(
        CheckpointError, match="num_hidden_layers = 12, but the checkpoint lacks"
    ):  # transformers' default
        find_sites({key: value for key, value in config.items() if key != "decoder"}, tensors)


def test_an_encoder_of_several_stacks_may_be_half_of_a_pair() -> None:
    """Longformer's maps for global tokens are a stack beside its layers, and no decoder."""
    small = {"vocab_size": 48, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1}
    encoder = transformers.LongformerConfig(**small, attention_window=[4])
    decoder = transformers.BertConfig(**small, is_decoder=True, add_cross_attention=True)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    with torch.device("meta"):
        model = transformers.EncoderDecoderModel(config)
    names = [site.name for site in find_sites(config.to_dict(), tensors_of(model))]
    assert names == ["encoder-encoder.0.self", "encoder-global.0.self", "decoder.0.self", "decoder.0.cross"]


def test_a_pair_whose_decoder_was_tied_away_says_so() -> None:
    """tie_encoder_decoder leaves the decoder's tensors out of the file."""
    config, tensors = sample("bert+bert")
    tied = {name: info for name, info in tensors.items() if not name.startswith("decoder.bert.encoder.layer.1.")}
    with pytest.raises(CheckpointError, match=r"lacks decoder.bert.encoder.layer.1.*tied"):
        find_sites(config, tied)


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart", "bert+gpt2"])
def test_quantised_weights_leave_the_key_fold_only(name: str) -> None:
    config, tensors = sample(name)
    integers = {
        key: Info("I8", info.shape) if key.endswith("weight") and len(info.shape) == 2 else info
        for key, info in tensors.items()
    }
    packed = {
        key.replace(".weight", ".qweight") if len(info.shape) == 2 and is_attention(key) else key: info
        for key, info in tensors.items()
    }
    for quantised, word in ((integers, "stored as I8"), (packed, "stored as F32")):
        for site in find_sites(config, quantised):
            for projection, slot in site.slots.items():
                assert slot.weight is None and slot.bias in tensors
                if projection == "key":
                    assert slot.verdict.state == "redundant" and slot.verdict.destinations == ("nothing",)
                else:
                    assert slot.verdict.state == "needed" and not slot.verdict.destinations
                    assert f"{word}: quantised weights" in slot.verdict.reason or projection == "output"


def test_attention_that_the_config_switches_off_is_no_misfit() -> None:
    """PatchTSMixer has attention only where `self_attn` is on; it is off by default."""
    config = transformers.PatchTSMixerConfig(context_length=16, patch_length=4, num_layers=1, d_model=8)
    with pytest.raises(FamilyError, match=r"has no softmax attention(?s:.*)self_attn = False"):
        find_sites(config.to_dict(), tensors_of(transformers.PatchTSMixerModel(config)))
    config.self_attn = True
    (site,) = find_sites(config.to_dict(), tensors_of(transformers.PatchTSMixerModel(config)))
    assert site.slots["key"].verdict.state == "redundant"


def test_a_hybrid_without_attention_layers_is_no_misfit() -> None:
    """Its config is right: there is none to restore."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 32, "vocab_size": 50}
    config = transformers.Lfm2Config(**sizes, num_attention_heads=4, layer_types=["conv", "conv"])
    with pytest.raises(FamilyError, match=r"lfm2 model has no softmax attention(?s:.*)layer_types"):
        find_sites(config.to_dict(), tensors_of(transformers.Lfm2Model(config)))
    with pytest.raises(CheckpointError, match="none of the attention tensors"):
        find_sites(config.to_dict() | {"layer_types": ["full_attention"] * 2}, {"other.weight": Info("F32", (2, 2))})
