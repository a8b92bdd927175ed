"""`apply` on a model in memory: a handle that puts back everything it changed, and touches nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hf_bias_patch.errors import PlanError
from hf_bias_patch.patching.in_memory import apply
from tests.models import DTYPES, fresh, outputs_of


def snapshot(model: torch.nn.Module) -> dict[str, tuple[bytes, bool, int]]:
    """Bytes, requires_grad and address of every parameter."""
    return {
        name: (bits(value), value.requires_grad, value.data_ptr())
        for name, value in model.named_parameters(remove_duplicate=False)
    }


def bits(value: torch.Tensor) -> bytes:
    return value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
def test_restores_bit_for_bit_in_every_dtype(name: str, dtype: str) -> None:
    model = fresh(name, dtype=DTYPES[dtype])
    before = snapshot(model)
    for recipe in ({"fold": "query,key,value"}, {"fold": "query:norm,value:weight"}, {"fill": "key=uniform:-1:1"}):
        handle = apply(model, max_loss=1.0, **recipe)  # type: ignore[arg-type]
        changed = {key for key, state in snapshot(model).items() if state != before[key]}
        assert changed == set(handle.plan.touched) != set()
        assert handle.model is model
        handle.restore()
        assert snapshot(model) == before
        handle.restore()
        assert snapshot(model) == before


def test_an_exception_in_the_block_restores_too() -> None:
    model = fresh("bert")
    before = snapshot(model)
    with pytest.raises(KeyError), apply(model, drop="query,value") as inside:
        assert inside is model and snapshot(model) != before
        raise KeyError
    assert snapshot(model) == before


def test_blocks_may_be_nested() -> None:
    model = fresh("gpt2")
    before = snapshot(model)
    with apply(model, fold="query"):
        between = snapshot(model)
        with apply(model, fold="value"):
            assert snapshot(model) != between
        assert snapshot(model) == between
    assert snapshot(model) == before


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"fold": "query"}, {"fold": "value", "fill": "query=1"}),
        ({"fold": "value"}, {"fold": "query:norm"}),
        ({"drop": "key"}, {"fill": "key=1"}),
        ({"freeze": "key"}, {"train": "key"}),
    ],
    ids=str,
)
def test_handles_that_overlap_are_restored_backwards_or_not_at_all(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    """In the wrong order the first would put its values over the second's, and the second then its own over those."""
    model = fresh("bert")
    before = snapshot(model)
    earlier = apply(model, max_loss=1.0, **first)
    later = apply(model, max_loss=1.0, **second)
    both = snapshot(model)
    with pytest.raises(PlanError, match=r"changed since it was patched.*restore that one first"):
        earlier.restore()
    assert snapshot(model) == both
    later.restore()
    earlier.restore()
    assert snapshot(model) == before


def test_handles_of_different_parameters_are_restored_in_any_order() -> None:
    model = fresh("bert")
    before = snapshot(model)
    earlier, later = apply(model, fold="key", layers=0), apply(model, fold="key,query", layers=2)
    earlier.restore()
    later.restore()
    assert snapshot(model) == before


def test_values_trained_since_are_not_thrown_away() -> None:
    model = fresh("bert")
    handle = apply(model, fold="key")
    with torch.no_grad():
        model.bert.encoder.layer[1].attention.self.key.bias[3] = 0.5
    trained = snapshot(model)
    with pytest.raises(PlanError, match=r"layer\.1\.attention\.self\.key\.bias changed since it was patched"):
        handle.restore()
    assert snapshot(model) == trained


def test_training_goes_on_with_the_same_parameters() -> None:
    """An optimiser made before the edit keeps its hold on the parameters."""
    model = fresh("bert").train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    apply(model, fold="key,value,query")
    outputs_of(model)
    model(input_ids=torch.tensor([[5, 6, 7]])).logits.sum().backward()
    optimiser.step()
    assert model.bert.encoder.layer[1].attention.self.query.bias.any()


@pytest.mark.parametrize(
    ("name", "recipe", "trained"),
    [
        ("bert", {"freeze": "key"}, None),
        ("bert", {"freeze": "query,key,value,output"}, None),
        ("bart", {"freeze": "value", "attention": "cross"}, None),
        ("gpt2", {"freeze": "query,key,value"}, None),
        ("bert", {"train": "key", "layers": 1}, False),
        ("gpt2", {"train": "output", "freeze": "query,key,value"}, False),
    ],
    ids=str,
)
def test_what_an_optimiser_may_touch(name: str, recipe: dict[str, Any], trained: bool | None) -> None:
    """`freeze` and `train` set the flag of the biases they name, and of nothing else."""
    model = fresh(name)
    if trained is not None:
        model.requires_grad_(trained)
    before = snapshot(model)
    handle = apply(model, **recipe)
    wanted = {edit.bias: edit.action == "train" for edit in handle.plan.edits}
    assert wanted
    for key, (values, flag, _) in snapshot(model).items():
        assert values == before[key][0]
        assert flag == wanted.get(key, before[key][1])
    handle.restore()
    assert snapshot(model) == before


@pytest.mark.parametrize("recipe", [{"freeze": "key"}, {"freeze": "key,query", "train": "value"}], ids=str)
def test_a_part_of_a_fused_bias_is_not_frozen(recipe: dict[str, Any]) -> None:
    model = fresh("gpt2")
    before = snapshot(model)
    with pytest.raises(PlanError, match=r"c_attn\.bias cannot be frozen or trained in part"):
        apply(model, **recipe)
    assert snapshot(model) == before
