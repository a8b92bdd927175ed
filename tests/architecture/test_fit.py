"""Sizes that cannot be are refused by name while sites are found, before anything is computed with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import hf_bias_patch
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.family_check.small_models.config import small_config
from hf_bias_patch.family_check.small_models.model import small_model
from hf_bias_patch.patching.in_memory import ModelTensors

Saved = Callable[..., Path]
BERT = "bert.encoder.layer.1.attention."
BART = "model.decoder.layers.1.encoder_attn."


def changed(source: Path, folder: Path, shapes: dict[str, tuple[int, ...]], **config: Any) -> Path:
    """A checkpoint with other config values, and some tensors of other shapes."""
    folder.mkdir()
    entries = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(entries | config))
    tensors = load_file(source / "model.safetensors")
    assert shapes.keys() <= tensors.keys()
    tensors |= {name: np.full(shape, 0.25, np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


WRONG: list[tuple[str, dict[str, tuple[int, ...]], dict[str, Any], str]] = [
    ("bert", {}, {"num_attention_heads": 5}, r"`num_attention_heads` is 5, which does not divide the 32 of .*query"),
    ("gpt2", {}, {"n_head": 5}, r"`n_head` is 5, which does not divide the 32 of .*c_attn"),
    ("bart", {}, {"decoder_attention_heads": 3}, r"`decoder_attention_heads` is 3, which does not divide the 32"),
    (
        "bert",
        {f"{BERT}self.key.{kind}": (24, 32)[: 2 if kind == "weight" else 1] for kind in ("weight", "bias")},
        {},
        r"does not fit the 32 of .*query\.weight and the 24 of .*key\.weight",
    ),
    ("bert", {f"{BERT}self.query.weight": (32, 31)}, {}, r"query\.weight reads 31 values, and .*LayerNorm\.weight"),
    ("bert", {f"{BERT}self.key.weight": (32, 31)}, {}, r"key\.weight reads 31 values, and .*LayerNorm\.weight"),
    ("electra-projected", {"electra.encoder.layer.0.attention.self.value.weight": (32, 31)}, {}, "reads the same, 31"),
    ("bert", {"bert.encoder.layer.0.output.LayerNorm.weight": (31,)}, {}, r"LayerNorm\.weight, .* has 31"),
    ("bert", {"bert.encoder.layer.0.output.LayerNorm.bias": (1, 32)}, {}, r"LayerNorm\.bias, .* has 1 × 32"),
    ("bert", {f"{BERT}output.dense.weight": (32, 31)}, {}, r"dense\.weight reads 31 values, and the 4 heads make 32"),
    (
        "bert",
        {f"{BERT}output.dense.weight": (30, 32), f"{BERT}output.dense.bias": (30,)},
        {},
        r"dense\.bias makes 30 values, and they are added to the 32",
    ),
    ("bert", {f"{BERT}self.query.weight": (32,)}, {}, r"query\.weight has shape \[32\], and is not a matrix"),
    ("gpt2", {"transformer.h.1.attn.c_attn.weight": (31, 96)}, {}, r"c_attn\.weight reads 31 values"),
    ("gpt2", {"transformer.h.1.attn.c_proj.weight": (31, 32)}, {}, r"c_proj\.weight reads 31 values"),
    ("bart", {f"{BART}k_proj.weight": (32, 31)}, {}, r"k_proj\.weight reads 31 values, and .*encoder\.layers\.1"),
]


@pytest.mark.parametrize(("name", "shapes", "config", "says"), WRONG, ids=lambda value: str(value)[:60])
def test_sizes_that_do_not_fit(
    saved: Saved,
    tmp_path: Path,
    name: str,
    shapes: dict[str, tuple[int, ...]],
    config: dict[str, Any],
    says: str,
) -> None:
    model = changed(saved(name), tmp_path / "model", shapes, **config)
    for attempt in (
        lambda: hf_bias_patch.inspect(model),
        lambda: hf_bias_patch.plan(model, fold="key"),
        lambda: hf_bias_patch.patch(model, tmp_path / "out", fold="key"),
        lambda: hf_bias_patch.patch(model, tmp_path / "out", fold="query,value"),
    ):
        with pytest.raises(CheckpointError, match=says) as caught:
            attempt()
        assert "These sizes contradict each other" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_query_map_that_makes_a_gate_too_tells_nothing_of_heads() -> None:
    """Qwen3-Next with one head for all keys: 4 query heads of 16 with a gate each, 128 rows, and a key head of 16."""
    config = small_config("qwen3_next", num_key_value_heads=1, attention_bias=True)
    model = small_model(config)
    sites = find_sites(config.to_dict(), ModelTensors(model).tensors)
    sizes = [(site.slots["query"].view.size, site.slots["key"].view.size) for site in sites]
    heads, size = config.num_attention_heads, config.head_dim
    assert sizes and set(sizes) == {(2 * heads * size, size)}


def test_fewer_heads_that_divide_are_another_model_and_no_error(saved: Saved, tmp_path: Path) -> None:
    model = changed(saved("bert"), tmp_path / "model", {}, num_attention_heads=8)
    assert {site.heads for site in hf_bias_patch.inspect(model).sites} == {8}


def test_what_the_family_does_not_cover_is_shown_without_norms_of_heads(saved: Saved, tmp_path: Path) -> None:
    """A layer with pruned heads has other sizes than the config's."""
    shapes = {f"{BERT}self.{name}.weight": (24, 32) for name in ("query", "key", "value")}
    shapes |= {name.replace("weight", "bias"): (24,) for name in shapes} | {f"{BERT}output.dense.weight": (32, 24)}
    model = changed(saved("bert"), tmp_path / "model", shapes, pruned_heads={"1": [2]}, num_attention_heads=16)
    found = hf_bias_patch.inspect(model)
    assert set(found.verdicts()) == {"unknown"}
    assert found.values["encoder.1.self", "query"].head_norms == ()
    assert len(found.values["encoder.0.self", "query"].head_norms) == 16
