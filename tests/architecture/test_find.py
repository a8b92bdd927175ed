"""The sites of every family, of every task head, are found where the model really has them, or refused by name."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import PROJECTIONS, Site
from tests.architecture.headers import Info, Tensors, is_attention, sample, slot_of, tensors_of
from tests.models import FAMILIES, NAMES, config_of, heads


@cache
def headed(family: str, head: type[PreTrainedModel]) -> tuple[dict[str, Any], Tensors]:
    """Config and tensors of a task head, without a value computed."""
    config = config_of(family)
    with torch.device("meta"):
        return config.to_dict(), tensors_of(head(config))


HEADED = [(family, head) for family in FAMILIES for head in heads(family)]


def expected_sites(family: str, head: type[PreTrainedModel] | None = None) -> list[str]:
    """Names of the sites the tiny config makes, written down from the architecture."""
    if family in ("bart", "mbart"):
        encoder = [] if head is not None and "CausalLM" in head.__name__ else ["encoder.0.self", "encoder.1.self"]
        return encoder + [f"decoder.{layer}.{kind}" for layer in range(3) for kind in ("self", "cross")]
    stack = "decoder" if family in ("gpt2", "gpt2-cross", "bert-cross") else "encoder"
    kinds = ("self", "cross") if family.endswith("-cross") else ("self",)
    return [f"{stack}.{layer}.{kind}" for layer in range(3) for kind in kinds]


PAIRED = {
    "bert+bert": ["encoder.0.self", "encoder.1.self"]
    + [f"decoder.{layer}.{kind}" for layer in range(3) for kind in ("self", "cross")],
}
PAIRED["bert+gpt2"] = PAIRED["bert+gpt2-bridged"] = PAIRED["bert+bert"]


@pytest.mark.parametrize(("family", "head"), HEADED, ids=lambda value: getattr(value, "__name__", value))
def test_every_task_head_has_its_sites(family: str, head: type[PreTrainedModel]) -> None:
    config, tensors = headed(family, head)
    sites = find_sites(config, tensors)
    assert [site.name for site in sites] == expected_sites(family, head)
    check_against_the_model(sites, tensors)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_has_its_sites(name: str) -> None:
    config, tensors = sample(name)
    sites = find_sites(config, tensors)
    assert [site.name for site in sites] == PAIRED.get(name, expected_sites(name))
    check_against_the_model(sites, tensors)


def check_against_the_model(sites: tuple[Site, ...], tensors: Tensors) -> None:
    """Every name is a tensor's, the projections of a module cover it, and no attention tensor is left over."""
    named: set[str] = set()
    covered: dict[str, int] = {}
    for site in sites:
        assert list(site.slots) == list(PROJECTIONS)
        assert site.heads == site.kv_heads == 4
        for slot in site.slots.values():
            assert slot.bias in tensors and slot.weight in tensors
            width = 40 if tensors[slot.bias].shape[0] in (40, 80, 120) else 32
            assert slot.view.size == width and tensors[slot.bias].shape == (slot.view.axis,)
            assert tensors[slot.weight].shape[1 if slot.conv1d else 0] == slot.view.axis
            covered[slot.bias] = covered.get(slot.bias, 0) + slot.view.size
            named |= {slot.bias, slot.weight}
            if slot.norm is not None:
                reads = tensors[slot.weight].shape[0 if slot.conv1d else 1]
                assert tensors[slot.norm.weight].shape == tensors[slot.norm.bias].shape == (reads,)
                assert slot.norm.weight.removesuffix("weight") == slot.norm.bias.removesuffix("bias")
    assert all(covered[bias] == tensors[bias].shape[0] for bias in covered)
    left = {name for name in tensors if is_attention(name)} - named
    assert not left, "attention tensors that no site has"


def _is_norm(name: str) -> bool:
    return "norm" in name.lower() or ".ln_" in name


@pytest.mark.parametrize(("family", "head"), HEADED, ids=lambda value: getattr(value, "__name__", value))
def test_the_prefix_of_a_task_head_is_found(family: str, head: type[PreTrainedModel]) -> None:
    """The base model's names are those of its heads, without a prefix; bare checkpoints have none."""
    config, tensors = headed(family, head)
    prefix = f"{head.base_model_prefix}."
    if any(name.startswith(prefix) for name in tensors):
        bare = {name.removeprefix(prefix): info for name, info in tensors.items()}
        slots = [slot for site in find_sites(config, tensors) for slot in site.slots.values()]
        stripped = [slot for site in find_sites(config, bare) for slot in site.slots.values()]
        assert [slot.bias for slot in slots] == [prefix + str(slot.bias) for slot in stripped]
        assert [slot.norm and slot.norm.bias for slot in slots] == [
            slot.norm and prefix + slot.norm.bias for slot in stripped
        ]
    else:
        assert head.__name__.endswith("Model")


# The norm that each projection reads, from the forward functions of transformers' models.
READS = {
    ("bert", "encoder.0.self", "query"): "bert.embeddings.LayerNorm",
    ("bert", "encoder.2.self", "value"): "bert.encoder.layer.1.output.LayerNorm",
    ("roberta", "encoder.1.self", "key"): "roberta.encoder.layer.0.output.LayerNorm",
    ("distilbert", "encoder.0.self", "query"): "distilbert.embeddings.LayerNorm",
    ("distilbert", "encoder.1.self", "query"): "distilbert.transformer.layer.0.output_layer_norm",
    ("electra", "encoder.0.self", "query"): "electra.embeddings.LayerNorm",
    ("electra-projected", "encoder.0.self", "query"): None,
    ("electra-projected", "encoder.1.self", "query"): "electra.encoder.layer.0.output.LayerNorm",
    ("gpt2", "decoder.0.self", "key"): "transformer.h.0.ln_1",
    ("gpt2-cross", "decoder.1.cross", "query"): "transformer.h.1.ln_cross_attn",
    ("gpt2-cross", "decoder.1.cross", "key"): None,
    ("bert-cross", "decoder.1.cross", "query"): "bert.encoder.layer.1.attention.output.LayerNorm",
    ("bert-cross", "decoder.1.cross", "value"): None,
    ("bart", "encoder.0.self", "query"): "model.encoder.layernorm_embedding",
    ("bart", "decoder.0.self", "query"): "model.decoder.layernorm_embedding",
    ("bart", "decoder.2.self", "query"): "model.decoder.layers.1.final_layer_norm",
    ("bart", "decoder.2.cross", "query"): "model.decoder.layers.2.self_attn_layer_norm",
    ("bart", "decoder.2.cross", "key"): "model.encoder.layers.1.final_layer_norm",
    ("mbart", "encoder.1.self", "query"): "model.encoder.layers.1.self_attn_layer_norm",
    ("mbart", "decoder.0.cross", "query"): "model.decoder.layers.0.encoder_attn_layer_norm",
    ("mbart", "decoder.0.cross", "value"): "model.encoder.layer_norm",
    ("bert+bert", "decoder.0.cross", "key"): "encoder.encoder.layer.1.output.LayerNorm",
    ("bert+bert", "decoder.0.self", "key"): "decoder.bert.embeddings.LayerNorm",
    ("bert+gpt2", "decoder.2.cross", "value"): "encoder.encoder.layer.1.output.LayerNorm",
    ("bert+gpt2-bridged", "decoder.2.cross", "value"): None,
    ("bert+gpt2-bridged", "decoder.2.cross", "query"): "decoder.transformer.h.2.ln_cross_attn",
}


@pytest.mark.parametrize(("name", "site", "projection"), READS)
def test_the_norm_before_a_projection(name: str, site: str, projection: str) -> None:
    slot = slot_of(*sample(name), site, projection)
    module = READS[name, site, projection]
    found = slot.norm and (slot.norm.weight, slot.norm.bias)
    assert found == (module and (f"{module}.weight", f"{module}.bias"))


POST_NORM = {"bert", "roberta", "distilbert", "electra", "electra-projected", "bert-cross", "bart"}


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra", "gpt2", "bart", "mbart"])
def test_residual_and_dropout_behind_a_norm(name: str) -> None:
    """Post-norm: the norm's output is the residual. Dropout follows the embedding norm of these models only."""
    checked = 0
    for site in find_sites(*sample(name)):
        for projection in ("query", "key", "value"):
            norm = site.slots[projection].norm
            memory = site.kind == "cross" and projection != "query"
            assert norm is not None
            assert norm.residual == (name in POST_NORM and not memory)
            assert norm.dropout == ("embed" in norm.bias)
            checked += 1
        assert site.slots["output"].norm is None
    assert checked >= 9
    assert any(site.slots["query"].norm.dropout for site in find_sites(*sample(name))) == (name in POST_NORM)


@pytest.mark.parametrize(
    ("head", "offered"), [("BartForConditionalGeneration", True), ("BartForCausalLM", False)], ids=["both", "decoder"]
)
def test_a_norm_takes_no_query_that_cross_attention_may_not_make_up_for(head: str, offered: bool) -> None:
    """A decoder saved without its encoder may run without hidden states: its cross-attention is left out then."""
    found = {site.name: site for site in find_sites(*headed("bart", getattr(transformers, head)))}
    for layer in range(3):
        verdict = found[f"decoder.{layer}.cross"].slots["query"].verdict
        assert ("norm" in verdict.destinations) == offered and "weight" in verdict.destinations
        assert offered or "without hidden states from the caller" in verdict.folds["norm"]
        assert "norm" in found[f"decoder.{layer}.self"].slots["query"].verdict.destinations


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
def test_names_of_converted_layer_norms(name: str) -> None:
    """Checkpoints converted from TensorFlow call weight and bias of a norm gamma and beta."""
    config, tensors = sample(name)
    old = {
        key.replace(".weight", ".gamma").replace(".bias", ".beta") if _is_norm(key) else key: info
        for key, info in tensors.items()
    }
    checked = 0
    for site, again in zip(find_sites(config, tensors), find_sites(config, old), strict=True):
        for projection, slot in site.slots.items():
            norm = again.slots[projection].norm
            assert again.slots[projection].verdict == slot.verdict
            if slot.norm is not None:
                assert norm is not None
                assert norm.weight == slot.norm.weight.removesuffix("weight") + "gamma"
                assert norm.bias == slot.norm.bias.removesuffix("bias") + "beta"
                checked += 1
    assert checked >= 9


def test_buffers_of_old_checkpoints_are_no_biases() -> None:
    """GPT-2 files once held the causal mask as `attn.bias`."""
    config, tensors = sample("gpt2")
    old = {f"transformer.h.{layer}.attn.bias": Info("U8", (1, 1, 40, 40)) for layer in range(3)}
    old |= {f"transformer.h.{layer}.attn.masked_bias": Info("F32", ()) for layer in range(3)}
    assert find_sites(config, tensors | old) == find_sites(config, tensors)
