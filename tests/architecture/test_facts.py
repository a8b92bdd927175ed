"""Facts of families that depend on the config, on the layer, or on which tensors there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from hf_bias_patch.architecture.condition import meant
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Slot
from hf_bias_patch.errors import CheckpointError, FamilyError

WIDTH = 8


@dataclass(frozen=True)
class Info:
    """What a header tells of a tensor."""

    dtype: str
    shape: tuple[int, ...]


def maps(*modules: str, shape: tuple[int, ...] = (WIDTH, WIDTH)) -> dict[str, Info]:
    """Weights and biases of maps."""
    weights = {f"{module}.weight": Info("F32", shape) for module in modules}
    return weights | {f"{module}.bias": Info("F32", shape[:1]) for module in modules}


def norms(*modules: str) -> dict[str, Info]:
    """Weights and biases of layer norms."""
    return maps(*modules, shape=(WIDTH,))


def slots(config: Mapping[str, Any], tensors: Mapping[str, Info]) -> dict[str, Slot]:
    """`site/projection` → slot."""
    sites = find_sites(config, tensors)
    return {f"{site.name}/{name}": slot for site in sites for name, slot in site.slots.items()}


def norm_of(slot: Slot) -> str:
    """The module of the norm that a slot's map reads; empty if it has none to fold with."""
    return slot.norm.weight.removesuffix(".weight") if slot.norm and "weight" in slot.verdict.destinations else ""


def test_a_key_that_is_not_there_counts_as_null() -> None:
    assert meant({"a.b": ["null", False]}, {}) and meant({"a": [False, "null"]}, {"a": False})
    assert not meant({"a": [True]}, {}) and not meant({"a": {"not": ["null"]}}, {})
    assert meant({}, {"a": 1}) and meant({"a": {"not": [1]}}, {"a": 2})


def _wav2vec2() -> dict[str, Info]:
    layers = [f"encoder.layers.{layer}" for layer in range(2)]
    projections = [f"{layer}.attention.{name}_proj" for layer in layers for name in ("q", "k", "v", "out")]
    behind = [f"{layer}.{name}" for layer in layers for name in ("layer_norm", "final_layer_norm")]
    return maps(*projections) | norms("encoder.layer_norm", *behind)


@pytest.mark.parametrize(
    ("stable", "first", "second"),
    [
        ({}, "encoder.layer_norm", "encoder.layers.0.final_layer_norm"),
        ({"do_stable_layer_norm": False}, "encoder.layer_norm", "encoder.layers.0.final_layer_norm"),
        ({"do_stable_layer_norm": True}, "encoder.layers.0.layer_norm", "encoder.layers.1.layer_norm"),
    ],
)
def test_which_norm_is_read_may_depend_on_the_config(stable: dict[str, bool], first: str, second: str) -> None:
    found = slots({"model_type": "wav2vec2", "num_attention_heads": 2, **stable}, _wav2vec2())
    assert [norm_of(found[f"encoder.{layer}.self/query"]) for layer in (0, 1)] == [first, second]


@pytest.mark.parametrize(
    ("more", "read"),
    [
        ({}, "encoder.encoder.layers.1.final_layer_norm"),
        ({"do_stable_layer_norm": True}, "encoder.encoder.layer_norm"),
        ({"add_adapter": True}, ""),
    ],
)
def test_what_a_decoder_reads_may_depend_on_the_encoders_config(more: dict[str, Any], read: str) -> None:
    decoder = [f"decoder.bert.encoder.layer.0.{kind}" for kind in ("attention", "crossattention")]
    tensors = {f"encoder.{name}": info for name, info in _wav2vec2().items()}
    tensors |= maps(*[f"{part}.self.{name}" for part in decoder for name in ("query", "key", "value")])
    tensors |= maps(*[f"{part}.output.dense" for part in decoder])
    tensors |= norms("decoder.bert.embeddings.LayerNorm", *[f"{part}.output.LayerNorm" for part in decoder])
    encoder = {"model_type": "wav2vec2", "num_attention_heads": 2, "layerdrop": 0.1, **more}
    bert = {"model_type": "bert", "num_attention_heads": 2, "num_hidden_layers": 1, "is_decoder": True}
    bert["add_cross_attention"] = True
    config = {"model_type": "speech-encoder-decoder", "encoder": encoder, "decoder": bert}
    key = slots(config, tensors)["decoder.0.cross/key"]
    assert norm_of(key) == read
    # The layer before may be skipped while training: then it is another norm.
    assert key.norm is None or key.norm.dropout == ("layers" in read)


@pytest.mark.parametrize(
    ("model_type", "config", "open_layers"),
    [
        ("got_ocr2_vision", {"global_attn_indexes": [1]}, [1]),
        ("got_ocr2_vision", {}, []),
        ("vitdet", {"window_block_indices": [1]}, [0]),
        ("vitdet", {}, [0, 1]),  # transformers' default: no layer attends within windows
    ],
)
def test_a_trap_may_spare_layers(model_type: str, config: dict[str, Any], open_layers: list[int]) -> None:
    name, attention, norm = {
        "got_ocr2_vision": ("layers.{}", "attn", "layer_norm1"),
        "vitdet": ("encoder.layer.{}", "attention", "norm1"),
    }[model_type]
    layers = [name.format(number) for number in range(2)]
    tensors = maps(*[f"{layer}.{attention}.qkv" for layer in layers], shape=(3 * WIDTH, WIDTH))
    tensors |= maps(*[f"{layer}.{attention}.proj" for layer in layers])
    tensors |= norms(*[f"{layer}.{norm}" for layer in layers])
    found = slots({"model_type": model_type, "num_attention_heads": 2, **config}, tensors)
    assert [layer for layer in (0, 1) if norm_of(found[f"encoder.{layer}.self/query"])] == open_layers


def test_a_tower_reads_the_first_of_several_that_is_there() -> None:
    text = [f"encoder.layer.0.{kind}" for kind in ("attention", "crossattention")]

    def bert(prefix: str) -> dict[str, Info]:
        found = maps(*[f"{prefix}.{part}.self.{name}" for part in text for name in ("query", "key", "value")])
        found |= maps(*[f"{prefix}.{part}.output.dense" for part in text])
        norm = [f"{prefix}.{part}.output.LayerNorm" for part in text]
        return found | norms(f"{prefix}.embeddings.LayerNorm", f"{prefix}.encoder.layer.0.output.LayerNorm", *norm)

    vision = maps("vision_model.encoder.layers.0.self_attn.qkv", shape=(3 * WIDTH, WIDTH))
    vision |= maps("vision_model.encoder.layers.0.self_attn.projection")
    vision |= norms("vision_model.encoder.layers.0.layer_norm1", "vision_model.post_layernorm")
    part = {"num_attention_heads": 2, "is_decoder": True}
    config = {"model_type": "blip", "text_config": part, "vision_config": {"num_attention_heads": 2}}
    caption = slots(config, vision | bert("text_decoder.bert"))
    assert norm_of(caption["text_decoder.0.cross/value"]) == "vision_model.post_layernorm"
    answer = slots(config, vision | bert("text_encoder") | bert("text_decoder.bert"))
    assert norm_of(answer["text_encoder.0.cross/value"]) == "vision_model.post_layernorm"
    assert norm_of(answer["text_decoder.0.cross/value"]) == "text_encoder.encoder.layer.0.output.LayerNorm"


def test_a_block_reads_the_norm_of_the_block_before() -> None:
    layers = [f"encoder.blocks.{block}.{layer}" for block in range(2) for layer in range(2)]
    tensors = maps(*[f"{layer}.attention.{name}" for layer in layers for name in ("k_head", "v_head", "post_proj")])
    tensors |= {f"{layer}.attention.q_head.weight": Info("F32", (WIDTH, WIDTH)) for layer in layers}
    tensors |= norms("embeddings.layer_norm", *[f"{layer}.ffn.layer_norm" for layer in layers])
    config = {"model_type": "funnel", "n_head": 2, "pool_q_only": True, "block_repeats": [1, 1]}
    found = slots(config, tensors)
    assert [norm_of(found[f"encoder.{number}.self/key"]) for number in range(4)] == [
        "embeddings.layer_norm",
        "encoder.blocks.0.0.ffn.layer_norm",
        "encoder.blocks.0.1.ffn.layer_norm",
        "encoder.blocks.1.0.ffn.layer_norm",
    ]
    repeated = slots(config | {"block_repeats": [1, 2]}, tensors)
    assert not any(norm_of(slot) for slot in repeated.values()), "a repeated layer reads its own norm"


@pytest.mark.parametrize(
    ("output", "open_road"),
    [((WIDTH, WIDTH, 1), True), ((WIDTH, WIDTH, 3), False), ((WIDTH, WIDTH // 2, 1), False)],
)
def test_a_convolution_of_width_one_without_groups_is_a_matrix(output: tuple[int, ...], open_road: bool) -> None:
    names = [f"encoder.layers.0.attention.{name}" for name in ("query", "key", "value")]
    tensors = maps(*names, shape=(WIDTH, WIDTH // 4, 1))
    tensors |= maps("encoder.layers.0.post_attention.conv1d", shape=output)
    found = slots({"model_type": "squeezebert", "num_attention_heads": 2}, tensors)
    assert ("output" in found["encoder.0.self/value"].verdict.destinations) == open_road
    assert found["encoder.0.self/key"].verdict.state == "redundant"


def test_a_fused_map_of_the_first_release_is_found() -> None:
    tensors = maps("new.encoder.layer.0.attention.qkv_proj", shape=(3 * WIDTH, WIDTH))
    tensors |= maps("new.encoder.layer.0.attention.o_proj")
    tensors |= norms("new.embeddings.LayerNorm", "new.encoder.layer.0.mlp_ln")
    found = slots({"model_type": "gte", "num_attention_heads": 2}, tensors)
    value = found["encoder.0.self/value"]
    assert (value.view.start, value.view.stop) == (2 * WIDTH, 3 * WIDTH)
    assert value.verdict.destinations == ("output", "weight")


def test_a_type_without_attention_is_told_so() -> None:
    with pytest.raises(FamilyError, match="A model of type mamba has no softmax attention"):
        find_sites({"model_type": "mamba"}, maps("layers.0.mixer.in_proj"))


def test_key_and_value_of_latent_attention_lie_in_one_map_head_by_head() -> None:
    """Heads of 3 entries for keys without positions, 2 with them, and 5 for values: two heads of (3 + 5)."""
    config = {
        "model_type": "deepseek_v3",
        "num_attention_heads": 2,
        "qk_nope_head_dim": 3,
        "qk_rope_head_dim": 2,
        "v_head_dim": 5,
    }
    own = "model.layers.0.self_attn."
    tensors = {
        **maps(f"{own}q_b_proj", shape=(10, 6)),
        **maps(f"{own}kv_b_proj", shape=(16, 4)),
        **maps(f"{own}o_proj", shape=(8, 10)),
    }
    (site,) = find_sites(config, tensors)
    key, value = site.slots["key"], site.slots["value"]
    assert key.view.take(np.arange(16)).tolist() == [0, 1, 2, 8, 9, 10]
    assert value.view.take(np.arange(16)).tolist() == [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]
    assert site.kv_heads == site.heads == 2
    assert key.verdict.state == value.verdict.state == "absent", "stock classes make no bias there"
    with pytest.raises(CheckpointError, match="`v_head_dim` is 0"):
        find_sites(config | {"v_head_dim": 0}, tensors)
