"""What trains is what was named: no more, no less, and each tensor is reported."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from hf_bias_patch.errors import RecipeError, TuneError
from hf_bias_patch.tuning.adapters import add
from hf_bias_patch.tuning.head import head_of
from hf_bias_patch.tuning.select import Selection, projections_of, select
from tests.models import fresh, inputs_of

WIDTH = 32


def live(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def check(model: Any, selection: Selection) -> None:
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
    selection = select(bert, train, head=False)
    check(bert, selection)
    assert selection.elements == selection.without_head == elements
    part = train.split(",")[0]
    assert all(f".{part}." in name or part in ("output", "query") for name in live(bert))


@pytest.mark.parametrize("train", ["value", "query,value"])
def test_parts_of_gpt2(train: str) -> None:
    model = fresh("gpt2", dtype=torch.float32)
    selection = select(model, train, head=False)
    check(model, selection)
    assert [(tensor.part, tensor.whole) for tensor in selection.trained] == [(train, 3 * WIDTH)] * 3


def test_every_bias(bert: Any) -> None:
    selection = select(bert, "biases", head=False)
    check(bert, selection)
    wanted = {name for name, value in bert.named_parameters() if name.endswith("bias") and name.startswith("bert.")}
    assert live(bert) == wanted and "bert.pooler.dense.bias" in wanted


def test_everything(bert: Any) -> None:
    selection = select(bert, "all", head=True)
    assert selection.elements == selection.total == sum(value.numel() for value in bert.parameters())


def test_everything_but_one_bias() -> None:
    model = fresh("gpt2", dtype=torch.float32)
    selection = select(model, "all", head=True, freeze=("key",))
    check(model, selection)
    assert selection.elements == selection.total - 3 * WIDTH
    parts = [tensor for tensor in selection.trained if tensor.part != "all"]
    assert [(tensor.part, tensor.elements) for tensor in parts] == [("not frozen", 2 * WIDTH)] * 3


def test_head_has_its_own_switch(bert: Any) -> None:
    assert head_of(bert) == {"classifier.weight", "classifier.bias"}
    assert live(bert) >= head_of(bert)
    select(bert, "all", head=False)
    assert not live(bert) & head_of(bert)
    selection = select(bert, "none", head=True)
    assert live(bert) == head_of(bert)
    assert {tensor.role for tensor in selection.trained} == {"head"}


def test_what_is_new_is_the_heads(bert: Any) -> None:
    new = ["bert.pooler.dense.weight", "bert.pooler.dense.bias"]
    assert head_of(bert, new) == {"classifier.weight", "classifier.bias", *new}
    select(bert, "biases", head=False, new=new)
    assert not live(bert) & set(new)


def test_tied_output_layer_is_the_trunks() -> None:
    model = fresh("gpt2", dtype=torch.float32)
    assert head_of(model) == frozenset()
    assert "cls.predictions.bias" in head_of(fresh("bert"))


def test_redundant_key_is_refused(bert: Any) -> None:
    with pytest.raises(TuneError, match=r"key bias is redundant.*gradient is zero"):
        select(bert, "key", head=True)
    with pytest.raises(TuneError, match="key bias is redundant"):
        select(bert, "query,key", head=True)
    assert select(bert, "key", head=False, redundant=True).elements == 3 * WIDTH


def test_needed_key_trains() -> None:
    from hf_bias_patch.probing.small import small_config, small_model

    model = small_model(small_config("qwen2"))
    selection = select(model, "key", head=False)
    assert selection.elements > 0 and all(name.endswith("k_proj.bias") for name in live(model))


def test_gradient_of_a_redundant_key_is_noise(bert: Any) -> None:
    bert.double()
    select(bert, "query,key", head=False, redundant=True)
    given = inputs_of(bert)
    bert(**given).logits.square().sum().backward()
    sizes = {name: float(bert.get_parameter(name).grad.abs().max()) for name in live(bert)}
    keys = [size for name, size in sizes.items() if ".key." in name]
    queries = [size for name, size in sizes.items() if ".query." in name]
    assert len(keys) == len(queries) == 3
    assert max(keys) < 1e-12 * min(queries)


@pytest.mark.parametrize(
    ("train", "message"),
    [("bias", "not known"), ("value,all", "no one thing"), ("", "no one thing"), ("values", "not known")],
)
def test_wrong_words(train: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        projections_of(train)


def test_plus_is_a_comma() -> None:
    assert projections_of("query+value") == ("query", "value")


def test_no_such_bias() -> None:
    from hf_bias_patch.probing.small import small_config, small_model

    with pytest.raises(RecipeError, match="no output bias"):
        select(small_model(small_config("qwen2")), "output", head=False)


@pytest.mark.parametrize(("kind", "elements"), [("lora", 3 * 2 * 2 * 8 * WIDTH), ("beft", 3 * WIDTH)])
def test_adapters(bert: Any, kind: str, elements: int) -> None:
    wrapped, selection = add(bert, kind, head=True)
    check(wrapped, selection)
    assert selection.without_head == elements
    assert sum(tensor.elements for tensor in selection.trained if tensor.role == "head") == 2 * WIDTH + 2


def test_beft_does_not_take_conv1d() -> None:
    with pytest.raises(TuneError, match=r"beft cannot be added.*Conv1D"):
        add(fresh("gpt2", dtype=torch.float32), "beft", head=False)


def test_lora_takes_conv1d() -> None:
    wrapped, selection = add(fresh("gpt2", dtype=torch.float32), "lora", head=False)
    check(wrapped, selection)
    assert selection.elements == 3 * 8 * (WIDTH + 3 * WIDTH)
