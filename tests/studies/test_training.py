"""What a study says of training: held against plain autograd, plain loops, and what the mathematics says."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd.functional import jvp
from torch.func import functional_call
from transformers import LlamaConfig, LlamaForCausalLM

from hf_bias_patch.studies.biases.arms import groups_of
from hf_bias_patch.studies.biases.swap import Biases
from hf_bias_patch.studies.measuring.effects import outputs, run
from hf_bias_patch.studies.measuring.folds import fold
from hf_bias_patch.studies.measuring.inputs import TokenisedTexts
from hf_bias_patch.studies.training.drift import DECAY, PRECISIONS, RATE, drift
from hf_bias_patch.studies.training.single_bias_training import RATE as LESSON_RATE
from hf_bias_patch.studies.training.single_bias_training import train_single_bias
from hf_bias_patch.studies.training.steps import Steps
from tests.models import fresh, randomise

FORMS = {"bert": "masked", "gpt2": "causal", "bart": "seq2seq"}
PARTS = ("query", "key", "value")
WIDTH, TOKENS = 32, 64


def _inputs(form: str) -> TokenisedTexts:
    random = np.random.default_rng(0)
    rows = tuple(
        tuple(int(token) for token in random.integers(4, 60, length)) for length in (9, 17, 5, 12, 30, 8, 7, 6)
    )
    return TokenisedTexts(rows, 0, 40, form, 0, 3, 2, 0)  # type: ignore[arg-type]


def _model(name: str) -> Any:
    return fresh(name, dtype=torch.float32)


def _plain_gradient(model: Any, inputs: TokenisedTexts) -> tuple[dict[str, torch.Tensor], Any]:
    """Of the mean loss over all tokens asked for, by parameter; and the batches."""
    model.requires_grad_(True)
    batches = list(inputs.batches(TOKENS, "cpu"))
    losses = torch.cat([outputs(model, batch).losses for batch in batches])  # type: ignore[misc]
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(losses.mean(), parameters, allow_unused=True)
    return {name: value for name, value in zip(names, gradients, strict=True) if value is not None}, batches


def _cut(biases: Biases, group: Any, whole: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A group's part of vectors, zero elsewhere: written for tiny models of three layouts alone."""
    found: dict[str, torch.Tensor] = {}
    for target in group.targets:
        name = biases.sites[target.site].slots[target.projection].bias
        assert name is not None
        part = torch.zeros_like(whole[name])
        start = WIDTH * PARTS.index(target.projection) if name.endswith("c_attn.bias") else 0
        part[start : start + WIDTH] = whole[name][start : start + WIDTH]
        found[name] = part
    return found


@pytest.mark.parametrize("name", FORMS)
def test_a_step_is_a_derivative(name: str) -> None:
    """Of the states along the step, by automatic differentiation; of the loss, by the gradient's own length."""
    model, inputs = _model(name).double(), _inputs(FORMS[name])
    model.set_attn_implementation("eager")
    whole, batches = _plain_gradient(copy.deepcopy(model), inputs)
    steps, biases, seen = Steps(copy.deepcopy(model), inputs, TOKENS, 0), Biases(model), 0
    for group in steps.groups:
        gradient, adam, anywhere = steps.measure(group)
        part = _cut(biases, group, whole)
        norm = float(torch.cat(list(part.values())).norm())
        assert [step.direction for step in (gradient, adam, anywhere)] == ["gradient", "AdamW", "random signs"]
        assert gradient.numbers == WIDTH * len(group.targets)
        if group.projection == "key":
            assert gradient.gradient < 1e-15 and adam.change < 1e-6 and anywhere.change < 1e-6
            continue
        seen += 1
        assert gradient.gradient == pytest.approx(norm, rel=1e-9) and norm > 1e-4
        assert gradient.loss_change == pytest.approx(-(norm**2), rel=1e-3)
        signs = {key: value.sign() for key, value in part.items()}
        assert adam.loss_change == pytest.approx(-sum(float(value.abs().sum()) for value in part.values()), rel=1e-3)
        assert anywhere.change > 1e-3
        assert adam.change == pytest.approx(_derivative(model, batches, signs), rel=1e-4)
    assert seen == 2 * len(steps.groups) // 3


def _derivative(model: Any, batches: list[Any], along: dict[str, torch.Tensor]) -> float:
    start = tuple(dict(model.named_parameters())[name].detach() for name in along)
    square, tokens = 0.0, 0
    for batch in batches:

        def states(*values: torch.Tensor, batch: Any = batch) -> torch.Tensor:
            new = dict(zip(along, values, strict=True))
            return outputs(lambda **inputs: functional_call(model, new, (), inputs), batch).states

        _, change = jvp(states, start, tuple(along.values()))
        square, tokens = square + float(change.square().sum()), tokens + len(change)
    return (square / tokens) ** 0.5


@pytest.mark.parametrize("name", FORMS)
def test_only_one_bias_trains(name: str) -> None:
    model, inputs = _model(name), _inputs(FORMS[name])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = {part: train_single_bias(model, inputs, TOKENS, part, steps=12) for part in PARTS}  # type: ignore[arg-type]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    for part, records in found.items():
        first, last = records[0], records[-1]
        sites = len({record.numbers for record in records})
        assert sites == 1 and first.numbers % WIDTH == 0 and (first.step, last.step) == (0, 12)
        assert first.relative == 0 and first.loss == found["key"][0].loss
        if part == "key":
            assert last.fitted == pytest.approx(first.fitted, abs=1e-6) and last.relative < 1e-5
        else:
            assert last.fitted < first.fitted - 1e-3 and last.relative > 1e-3


def test_a_lesson_is_a_plain_loop() -> None:
    model, inputs = _model("bert"), _inputs("masked")
    found = train_single_bias(model, inputs, TOKENS, "value", steps=5)
    plain = copy.deepcopy(model)
    trained = [value for name, value in plain.named_parameters() if name.endswith("self.value.bias")]
    optimiser = torch.optim.AdamW(trained, lr=LESSON_RATE, weight_decay=0.0)
    kept = TokenisedTexts(inputs.rows[:6], 0, 40, "masked", 0, 3, 2, 0)
    batches = list(kept.batches(TOKENS, "cpu"))
    assert len(batches) > 1
    for step in range(5):
        plain.zero_grad()
        outputs(plain, batches[step % len(batches)]).losses.mean().backward()  # type: ignore[union-attr]
        optimiser.step()
    losses = torch.cat([run(plain, batch).losses for batch in batches])  # type: ignore[misc]
    assert found[-1].fitted == pytest.approx(float(losses.double().mean()), rel=1e-6) and found[-1].step == 5
    assert found[0].fitted - found[-1].fitted > 1e-3


@pytest.mark.parametrize("name", FORMS)
def test_drift_is_what_a_plain_loop_moves(name: str) -> None:
    model, inputs = _model(name), _inputs(FORMS[name])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = drift(model, inputs, TOKENS, "float32", steps=6)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    plain = copy.deepcopy(model).requires_grad_(True)
    optimiser = torch.optim.AdamW(plain.parameters(), lr=RATE, weight_decay=DECAY)
    batches, biases = list(inputs.batches(TOKENS, "cpu")), Biases(model)
    for step in range(6):
        optimiser.zero_grad()
        outputs(plain, batches[step % len(batches)]).losses.mean().backward()  # type: ignore[union-attr]
        optimiser.step()
    started = {name: value.detach() for name, value in model.named_parameters()}
    moved = {name: value.detach() - started[name] for name, value in plain.named_parameters()}
    for record, group in zip(found, groups_of(biases.sites.values()), strict=True):
        assert (record.place, record.projection) == (group.place, group.projection)
        mine = torch.cat(list(_cut(biases, group, moved).values()))
        start = torch.cat(list(_cut(biases, group, started).values()))
        if group.projection == "key":  # noise, which another order of additions changes
            assert (
                record.gradient < 1e-6 and record.relative < 1e-5 and record.moved < 0.5 * RATE * 6 * len(mine) ** 0.5
            )
        else:
            assert record.moved == pytest.approx(float(mine.norm()), rel=1e-3) and record.straight > 0.3
            assert record.gradient > 1e-4 and record.relative > 1e-6
        assert record.start == pytest.approx(float(start.norm()), rel=1e-6)
        assert record.decay == pytest.approx((1 - (1 - RATE * DECAY) ** 6) * record.start)


def test_rounding_in_bfloat16_moves_the_key_bias() -> None:
    """Its gradient is noise a thousand times above float32's, and AdamW steps as far for noise as for anything."""
    model, inputs = _model("gpt2"), _inputs("causal")
    keys = {
        name: next(record for record in drift(model, inputs, TOKENS, name, steps=6) if record.projection == "key")
        for name in PRECISIONS
    }
    assert keys["bfloat16 mixed"].gradient > 100 * keys["float32"].gradient
    assert keys["bfloat16 mixed"].moved > 2 * keys["float32"].moved
    assert max(record.relative for record in keys.values()) < 1e-5


@pytest.mark.parametrize("name", FORMS)
def test_the_weights_can_say_what_a_bias_says(name: str) -> None:
    """Any exact fold changes nothing: so it is looked at which biases are gone, and that the others are there."""
    model, inputs = _model(name), _inputs(FORMS[name])
    ran: list[Any] = []
    model.register_forward_pre_hook(lambda module, _: ran.append(module))  # of its copies, too
    groups = groups_of(Biases(model).sites.values())
    for group in groups:
        (found,) = fold(model, inputs, TOKENS, group)
        assert not found.refused and 0 < found.relative < 1e-4 and ran[-1] is not model
        assert found.numbers == sum(map(Biases(model).numbers, group.targets))
        assert (found.place, found.projection) == (group.place, group.projection)
        for other in groups:
            gone = [not values.any() for values in Biases(ran[-1]).values(other.targets).values()]
            assert all(gone) if other == group else not any(gone)
    assert all(values.all() for group in groups for values in Biases(model).values(group.targets).values())


def test_a_fold_that_is_refused_says_why() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, vocab_size=64,
        attention_bias=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    randomise(model)
    key = next(group for group in groups_of(Biases(model).sites.values()) if group.projection == "key")
    (found,) = fold(model, _inputs("causal"), TOKENS, key)
    assert found.refused and found.relative == 0
    gradient, *_ = Steps(copy.deepcopy(model).double(), _inputs("causal"), TOKENS, 0).measure(key)
    assert gradient.gradient > 1e-6, "rotary positions: a key bias matters"
