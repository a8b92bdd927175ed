"""A part of a fused bias trains, and the rest stays bit-identical; then the model is a stock one again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hf_bias_patch.tuning.set_trainable import set_trainable
from hf_bias_patch.tuning.slices import join_slices, train_slice
from tests.models import fresh, inputs_of, outputs_of

NAME = "transformer.h.0.attn.c_attn.bias"
VALUE = slice(64, 96)  # of [q|k|v], 32 wide each


@pytest.fixture
def model() -> Any:
    return fresh("gpt2", dtype=torch.float64)


def steps(model: Any, count: int = 3) -> torch.optim.Optimizer:
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    for seed in range(count):
        optimiser.zero_grad()
        model(**inputs_of(model, seed)).logits.square().mean().backward()
        optimiser.step()
    return optimiser


def test_the_function_is_the_same(model: Any) -> None:
    before = outputs_of(model)
    train_slice(model, NAME, torch.arange(64, 96))
    after = outputs_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_only_the_slice_moves(model: Any) -> None:
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    set_trainable(model, "value", head=False)
    steps(model)
    join_slices(model)
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    moved = after[NAME] != before[NAME]
    assert moved[VALUE].all() and not moved[: VALUE.start].any()
    others = [name for name in before if not name.endswith("c_attn.bias")]
    assert all(torch.equal(before[name], after[name]) for name in others)


def test_masking_the_gradient_would_not_do(model: Any) -> None:
    """Why there are slices at all: AdamW decays what has no gradient."""
    model.requires_grad_(False)
    bias = model.get_parameter(NAME).requires_grad_(True)
    before = bias.detach().clone()
    mask = torch.zeros_like(bias)
    mask[VALUE] = 1
    bias.register_hook(lambda gradient: gradient * mask)
    steps(model)
    assert (bias != before)[: VALUE.start].any()


def test_gradient_is_that_of_the_whole(model: Any) -> None:
    given = inputs_of(model)
    model(**given).logits.square().mean().backward()
    whole = model.get_parameter(NAME).grad.clone()
    model.zero_grad()
    part = train_slice(model, NAME, torch.arange(64, 96))
    model(**given).logits.square().mean().backward()
    assert whole[VALUE].abs().min() > 0
    torch.testing.assert_close(model.get_parameter(part).grad, whole[VALUE], rtol=1e-12, atol=0)


def test_optimiser_state_is_of_the_slice(model: Any) -> None:
    set_trainable(model, "value", head=False)
    state = steps(model, 1).state_dict()["state"]
    sizes = [entry["exp_avg"].numel() for entry in state.values()]
    assert sizes == [32, 32, 32]


def test_interleaved_layout() -> None:
    """Places need not be one block: NeoX has query, key and value together, head by head."""
    linear = torch.nn.Sequential(torch.nn.Linear(3, 12))
    places = torch.tensor([2, 5, 8, 11])
    train_slice(linear, "0.bias", places)
    linear(torch.ones(1, 3)).sum().backward()
    with torch.no_grad():
        linear.get_parameter("0.parametrizations.bias.original").add_(1)
    before = linear[0].bias.detach().clone()
    join_slices(linear)
    assert torch.equal(linear[0].bias, before)
    assert [name for name, _ in linear.named_parameters()] == ["0.weight", "0.bias"]
