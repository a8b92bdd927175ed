"""Layers whose sites are told by the modules that they have or lack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.errors import CheckpointError


@dataclass(frozen=True)
class Info:
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


def tensors(*layers: str) -> dict[str, Info]:
    """Maps of Gemma 4's layers, with biases: each layer as the letters of the maps that it has, of `qkvo`."""
    maps = [f"model.layers.{number}.self_attn.{letter}_proj" for number, own in enumerate(layers) for letter in own]
    weights = {f"{name}.weight": Info("F32", (16, 16)) for name in maps}
    return weights | {f"{name}.bias": Info("F32", (16,)) for name in maps}


def config(layers: int) -> dict[str, Any]:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    return {"model_type": "gemma4_text", "num_hidden_layers": layers, "global_head_dim": 8, **sizes}


def test_each_layer_has_the_entry_that_its_modules_tell() -> None:
    layers = ("qkvo", "qko", "qo", "qkvo")
    sites = {site.name: site for site in find_sites(config(4), tensors(*layers))}
    found = {name: "".join(p[0] for p, slot in site.slots.items() if slot.weight) for name, site in sites.items()}
    assert found == {f"decoder.{number}.self": own for number, own in enumerate(layers)}


@pytest.mark.parametrize("own", ["kvo", "qv", "qkv"])
def test_a_layer_that_lacks_more_than_its_entry_allows_is_refused(own: str) -> None:
    with pytest.raises(CheckpointError, match=r"lacks model\.layers\.1\.self_attn"):
        find_sites(config(2), tensors("qkvo", own))


def test_layers_without_the_module_have_no_site() -> None:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "qk_nope_head_dim": 4, "v_head_dim": 4}
    shapes = {"q_proj": (16, 16), "kv_b_proj": (16, 8), "dense": (16, 8)}
    there = {f"model.layers.1.attention.{name}.weight": Info("F32", shape) for name, shape in shapes.items()}
    others = [f"model.layers.{number}.attention.{name}.weight" for number in (0, 2) for name in ("q_proj", "dense")]
    linear = dict.fromkeys(others, Info("F32", (16, 16)))
    sites = find_sites({"model_type": "bailing_hybrid", "num_hidden_layers": 3, **sizes}, there | linear)
    assert [site.name for site in sites] == ["decoder.1.self"]
