"""What trains is what was named: no more, no less, and each tensor is reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.architecture.verdict import Verdict
from hf_bias_patch.errors import FamilyError, RecipeError, TuneError
from hf_bias_patch.patching.in_memory import ModelTensors
from hf_bias_patch.tuning.adapters import add
from hf_bias_patch.tuning.head import head_of
from hf_bias_patch.tuning.set_trainable import projections_of, set_trainable
from hf_bias_patch.tuning.slices import join_slices
from hf_bias_patch.tuning.trainable import Trainable
from tests.models import fresh, inputs_of

WIDTH = 32


def live(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def check(model: Any, selection: Trainable) -> None:
    """What is reported is what has gradients, with its size."""
    assert {tensor.live for tensor in selection.trained} == live(model)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert all(sizes[tensor.live] == tensor.elements for tensor in selection.trained)
    assert selection.elements == sum(sizes[name] for name in live(model))


@pytest.fixture
def bert() -> Any:
    return fresh("bert", transformers.BertForSequenceClassification, torch.float32)


@pytest.mark.parametrize(
    ("train", "elements"),
    [("value", 3 * WIDTH), ("query", 3 * WIDTH), ("output", 3 * WIDTH), ("query,value", 6 * WIDTH), ("none", 0)],
)
def test_projections_of_bert(bert: Any, train: str, elements: int) -> None:
    selection = set_trainable(bert, train, head=False)
    check(bert, selection)
    assert selection.elements == selection.without_head == elements
    part = train.split(",")[0]
    assert all(f".{part}." in name or part in ("output", "query") for name in live(bert))


@pytest.mark.parametrize("train", ["value", "query,value"])
def test_parts_of_gpt2(train: str) -> None:
    model = fresh("gpt2", dtype=torch.float32)
    selection = set_trainable(model, train, head=False)
    check(model, selection)
    assert [(tensor.part, tensor.whole) for tensor in selection.trained] == [(train, 3 * WIDTH)] * 3


def biases_of(model: Any) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.endswith("bias")}


def test_every_bias_but_redundant_ones(bert: Any) -> None:
    selection = set_trainable(bert, "biases", head=False)
    check(bert, selection)
    keys = {name for name in biases_of(bert) if name.endswith("self.key.bias")}
    wanted = {name for name in biases_of(bert) if name.startswith("bert.")} - keys
    assert live(bert) == wanted and "bert.pooler.dense.bias" in wanted
    assert {bias.name for bias in selection.left_out} == keys and len(keys) == 3
    assert selection.notes == ("3 redundant key biases do not train (96 parameters); --train-redundant lets them",)
    plain = selection.plain()
    assert plain["notes"] == list(selection.notes) and sum(bias["elements"] for bias in plain["left_out"]) == 96


def test_every_bias_if_it_is_asked_for(bert: Any) -> None:
    selection = set_trainable(bert, "biases", head=False, redundant=True)
    assert live(bert) == {name for name in biases_of(bert) if name.startswith("bert.")}
    assert not selection.left_out and not selection.notes


def test_of_a_fused_bias_only_the_redundant_part_is_left_out() -> None:
    model = fresh("gpt2", dtype=torch.float32)
    selection = set_trainable(model, "biases", head=False)
    check(model, selection)
    fused = [tensor for tensor in selection.trained if tensor.name.endswith("c_attn.bias")]
    assert [(tensor.part, tensor.elements) for tensor in fused] == [("query,value", 2 * WIDTH)] * 3
    assert [(bias.projection, bias.elements) for bias in selection.left_out] == [("key", WIDTH)] * 3
    optimiser = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=0.1)
    model(**inputs_of(model)).logits.square().mean().backward()
    optimiser.step()
    join_slices(model)
    whole = fresh("gpt2", dtype=torch.float32)
    moved = model.get_parameter(fused[0].name) != whole.get_parameter(fused[0].name)
    assert moved[:WIDTH].all() and not moved[WIDTH : 2 * WIDTH].any() and moved[2 * WIDTH :].all()


def test_the_part_of_a_packed_bias_is_left_out() -> None:
    """torch's MultiheadAttention reads its `in_proj_bias` without calling a map."""
    from hf_bias_patch.family_check.small_models.config import small_config
    from hf_bias_patch.family_check.small_models.model import small_model

    model = small_model(small_config("siglip_vision_model")).float()
    name = "head.attention.in_proj_bias"
    before = model.get_parameter(name).detach().clone()
    selection = set_trainable(model, "biases", head=False)
    check(model, selection)
    assert [tensor.part for tensor in selection.trained if tensor.name == name] == ["query,value"]
    size = model.config.image_size
    optimiser = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=0.1)
    model(pixel_values=torch.randn(2, 3, size, size)).pooler_output.square().sum().backward()
    optimiser.step()
    join_slices(model)
    moved, width = model.get_parameter(name) != before, len(before) // 3
    assert moved[:width].all() and not moved[width : 2 * width].any() and moved[2 * width :].all()


def with_one_needed_key(model: Any) -> list[Site]:
    """The sites of a model as if the key of the first were needed."""
    sites = list(find_sites(model.config.to_dict(), ModelTensors(model).tensors))
    key = replace(sites[0].slots["key"], verdict=Verdict("needed", "it is compared with positions"))
    sites[0] = replace(sites[0], slots={**sites[0].slots, "key": key})
    return sites


@pytest.mark.parametrize("train", ["key", "query,key", "biases"])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_key_that_is_needed_at_one_site_trains_there_alone(name: str, train: str) -> None:
    model = fresh(name, dtype=torch.float32)
    sites = with_one_needed_key(model)
    selection = set_trainable(model, train, head=False, sites=sites)
    check(model, selection)
    assert [bias.name for bias in selection.left_out] == [site.slots["key"].bias for site in sites[1:]]
    assert selection.notes[0].startswith("2 redundant key biases do not train (64 parameters)")
    keys = [tensor for tensor in selection.trained if tensor.name == sites[0].slots["key"].bias]
    assert len(keys) == 1
    everything = set_trainable(fresh(name, dtype=torch.float32), train, head=False, sites=sites, redundant=True)
    assert everything.elements == selection.elements + 2 * WIDTH and not everything.left_out


def test_a_redundant_bias_that_is_new_does_not_train_with_the_head(bert: Any) -> None:
    new = [f"bert.encoder.layer.{layer}.attention.self.{part}.bias" for layer in range(3) for part in ("key", "value")]
    selection = set_trainable(bert, "none", head=True, new=new)
    assert live(bert) == head_of(bert) | {name for name in new if ".value." in name}
    assert len(selection.left_out) == 3


def test_what_is_frozen_is_not_said_to_be_left_out(bert: Any) -> None:
    selection = set_trainable(bert, "biases", head=False, freeze=("key",))
    assert not selection.left_out and not any(".key." in name for name in live(bert))


def test_where_no_family_covers_the_model_all_biases_train_and_it_is_said(bert: Any) -> None:
    class NoSuchConfig(transformers.BertConfig):
        model_type = "nosuch"

    bert.config = NoSuchConfig(**bert.config.to_dict())
    selection = set_trainable(bert, "biases", head=False)
    assert live(bert) == {name for name in biases_of(bert) if name.startswith("bert.")}
    assert "known which are redundant. No family covers the model type 'nosuch'" in selection.notes[0]
    assert not set_trainable(bert, "biases", head=False, redundant=True).notes
    assert not set_trainable(bert, "none", head=True).notes and not set_trainable(bert, "all", head=True).notes
    with pytest.raises(FamilyError, match="nosuch"):
        set_trainable(bert, "value", head=False)


def test_where_a_config_is_not_covered_it_is_said(bert: Any) -> None:
    bert.config.position_embedding_type = "relative_key_query"
    notes = set_trainable(bert, "biases", head=False).notes
    assert len(notes) == 1 and "known which are redundant. The family does not cover" in notes[0]


def test_everything(bert: Any) -> None:
    selection = set_trainable(bert, "all", head=True)
    assert selection.elements == selection.total == sum(value.numel() for value in bert.parameters())


def test_everything_but_one_bias() -> None:
    model = fresh("gpt2", dtype=torch.float32)
    selection = set_trainable(model, "all", head=True, freeze=("key",))
    check(model, selection)
    assert selection.elements == selection.total - 3 * WIDTH
    parts = [tensor for tensor in selection.trained if tensor.part != "all"]
    assert [(tensor.part, tensor.elements) for tensor in parts] == [("query,value", 2 * WIDTH)] * 3


def test_head_has_its_own_switch(bert: Any) -> None:
    assert head_of(bert) == {"classifier.weight", "classifier.bias"}
    assert live(bert) >= head_of(bert)
    set_trainable(bert, "all", head=False)
    assert not live(bert) & head_of(bert)
    selection = set_trainable(bert, "none", head=True)
    assert live(bert) == head_of(bert)
    assert {tensor.role for tensor in selection.trained} == {"head"}


def test_what_is_new_is_the_heads(bert: Any) -> None:
    new = ["bert.pooler.dense.weight", "bert.pooler.dense.bias"]
    assert head_of(bert, new) == {"classifier.weight", "classifier.bias", *new}
    set_trainable(bert, "biases", head=False, new=new)
    assert not live(bert) & set(new)


def test_tied_output_layer_is_the_trunks() -> None:
    model = fresh("gpt2", dtype=torch.float32)
    assert head_of(model) == frozenset()
    assert "cls.predictions.bias" in head_of(fresh("bert"))


def test_redundant_key_is_refused(bert: Any) -> None:
    with pytest.raises(TuneError, match=r"key bias is redundant.*gradient is zero"):
        set_trainable(bert, "key", head=True)
    with pytest.raises(TuneError, match="key bias is redundant"):
        set_trainable(bert, "query,key", head=True)
    assert set_trainable(bert, "key", head=False, redundant=True).elements == 3 * WIDTH


def test_needed_key_trains() -> None:
    from hf_bias_patch.family_check.small_models.config import small_config
    from hf_bias_patch.family_check.small_models.model import small_model

    model = small_model(small_config("qwen2"))
    selection = set_trainable(model, "key", head=False)
    assert selection.elements > 0 and all(name.endswith("k_proj.bias") for name in live(model))


def test_gradient_of_a_redundant_key_is_noise(bert: Any) -> None:
    bert.double()
    set_trainable(bert, "query,key", head=False, redundant=True)
    given = inputs_of(bert)
    bert(**given).logits.square().sum().backward()
    sizes = {name: float(bert.get_parameter(name).grad.abs().max()) for name in live(bert)}
    keys = [size for name, size in sizes.items() if ".key." in name]
    queries = [size for name, size in sizes.items() if ".query." in name]
    assert len(keys) == len(queries) == 3
    assert max(keys) < 1e-12 * min(queries)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("bias", "not known"),
        ("value,all", "value and all cannot be joined"),
        ("", "no word is given"),
        ("values", "not known"),
    ],
)
def test_wrong_words(train: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        projections_of(train)


def test_plus_is_a_comma() -> None:
    assert projections_of("query+value") == ("query", "value")


def test_no_such_bias() -> None:
    from hf_bias_patch.family_check.small_models.config import small_config
    from hf_bias_patch.family_check.small_models.model import small_model

    with pytest.raises(RecipeError, match="no output bias"):
        set_trainable(small_model(small_config("qwen2")), "output", head=False)


@pytest.mark.parametrize(("kind", "elements"), [("lora", 3 * 2 * 2 * 8 * WIDTH), ("beft", 3 * WIDTH)])
def test_adapters(bert: Any, kind: str, elements: int) -> None:
    wrapped, selection = add(bert, kind, head=True)
    check(wrapped, selection)
    assert selection.without_head == elements
    assert sum(tensor.elements for tensor in selection.trained if tensor.role == "head") == 2 * WIDTH + 2


def test_beft_does_not_take_conv1d() -> None:
    with pytest.raises(TuneError, match=r"beft cannot be added.*Conv1D.*Train the bias itself"):
        add(fresh("gpt2", dtype=torch.float32), "beft", head=False)


def test_lora_takes_conv1d() -> None:
    wrapped, selection = add(fresh("gpt2", dtype=torch.float32), "lora", head=False)
    check(wrapped, selection)
    assert selection.elements == 3 * 8 * (WIDTH + 3 * WIDTH)
