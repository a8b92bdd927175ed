"""Deliberate mistakes, each of which the equivalence check must catch: one that passes means the check is blind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from hf_bias_patch.architecture.family import family_of
from hf_bias_patch.architecture.family_files import drafted, text_of
from hf_bias_patch.architecture.layout import View
from hf_bias_patch.patching.in_memory import Applied, apply
from hf_bias_patch.patching.plan import Edit, Plan
from tests.models import error, fresh, outputs_of

SAME, CAUGHT = 1e-9, 1e-6
HEAD = 8
"""Entries of a head of every model here."""


@dataclass(frozen=True)
class Result:
    """Error of the outputs, and how many values of the removed biases are not zero."""

    error: float
    left: int


@dataclass(frozen=True)
class Folded:
    """A model's parameters before and after the right folds, (out, in) or as they are stored."""

    plan: Plan
    old: dict[str, np.ndarray]
    new: dict[str, np.ndarray]


Mistake = Callable[[Folded], dict[str, np.ndarray]]
"""The parameters that come out otherwise than they should."""


def parameters_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """A copy of every parameter."""
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters(remove_duplicate=False)}


def check(
    name: str,
    recipe: dict[str, Any],
    replan: Callable[[Plan], Plan] | None = None,
    mistake: Mistake | None = None,
) -> Result:
    """The equivalence check: outputs before and after, and whether the biases are gone."""
    model = fresh(name)
    before, old = outputs_of(model), parameters_of(model)
    handle = apply(model, **recipe)
    if replan is not None:
        plan = handle.plan
        handle.restore()
        handle = Applied(model, replan(plan))
    if mistake is not None:
        wrong = mistake(Folded(handle.plan, old, parameters_of(model)))
        assert wrong, "no mistake"
        with torch.no_grad():
            for parameter, values in wrong.items():
                model.get_parameter(parameter).copy_(torch.from_numpy(values))
    left = 0
    for edit in handle.plan.edits:
        values = model.get_parameter(edit.bias).detach().numpy()
        left += np.count_nonzero(edit.slot.view.take(values))
    return Result(error(outputs_of(model), before), left)


def edited(change: Callable[[Edit, Plan], dict[str, Any]]) -> Callable[[Plan], Plan]:
    """A mutation of every edit of a plan."""

    def replan(plan: Plan) -> Plan:
        edits = tuple(edit.model_copy(update=change(edit, plan)) for edit in plan.edits)
        assert edits != plan.edits, "no mutation"
        return plan.model_copy(update={"edits": edits})

    return replan


def another(edit: Edit, plan: Plan) -> Edit:
    """The same projection's edit of the next layer; of the last, that of the one before."""
    same = [other for other in plan.edits if other.projection == edit.projection]
    place = same.index(edit)
    return same[place + 1] if place + 1 < len(same) else same[place - 1]


# Mistakes in a plan: the wrong tensor is named.
PLANS: dict[str, tuple[tuple[str, dict[str, Any]], Callable[[Plan], Plan]]] = {
    "value: the neighbour's output bias": (
        ("bert", {"fold": "value"}),
        edited(lambda edit, plan: {"output": replace(edit.output, bias=another(edit, plan).output.bias)}),
    ),
    "value: the output weight of another layer": (
        ("bart", {"fold": "value", "stack": "encoder"}),
        edited(lambda edit, plan: {"output": replace(edit.output, weight=another(edit, plan).output.weight)}),
    ),
    "value: the output weight read transposed": (
        ("gpt2", {"fold": "value"}),
        edited(lambda edit, plan: {"output": replace(edit.output, conv1d=False)}),
    ),
    "value: a plain output weight read as transposed": (
        ("mbart", {"fold": "value"}),
        edited(lambda edit, plan: {"output": replace(edit.output, conv1d=True)}),
    ),
    "weight: the norm of another layer": (
        ("gpt2", {"fold": "query"}),
        edited(lambda edit, plan: {"norm": another(edit, plan).norm}),
    ),
    "weight: the weight of another layer": (
        ("bert", {"fold": "query"}),
        edited(lambda edit, plan: {"slot": replace(edit.slot, weight=another(edit, plan).slot.weight)}),
    ),
    "weight: a square weight updated transposed": (
        ("gpt2-cross", {"fold": "query", "attention": "cross"}),
        edited(lambda edit, plan: {"slot": replace(edit.slot, conv1d=False)}),
    ),
    "norm: the residual is not made up for": (
        ("bert", {"fold": "query:norm"}),
        edited(lambda edit, plan: {"norm": replace(edit.norm, residual=False)}),
    ),
    "norm: a residual where there is none": (
        ("mbart", {"fold": "query:norm", "attention": "self"}),
        edited(lambda edit, plan: {"norm": replace(edit.norm, residual=True)}),
    ),
    "norm: the key's weight in place of the value's": (
        ("distilbert", {"fold": "query:norm"}),
        edited(lambda edit, plan: {"value": replace(edit.value, weight=edit.value.weight.replace("v_lin", "k_lin"))}),
    ),
    "norm: the key's block in place of the value's": (
        ("gpt2", {"fold": "query:norm"}),
        edited(lambda edit, plan: {"value": replace(edit.value, view=View(1, 96, 32, 64), rows=View(1, 96, 32, 64))}),
    ),
    "norm: the value is not made up for": (
        ("gpt2", {"fold": "query:norm"}),
        edited(lambda edit, plan: {"value": replace(edit.value, norm=None)}),
    ),
    "norm: the norm of another layer": (
        ("mbart", {"fold": "query:norm", "attention": "self"}),
        edited(lambda edit, plan: {"norm": another(edit, plan).norm}),
    ),
}


@pytest.mark.parametrize("mistake", PLANS)
def test_a_plan_with_a_mistake_is_caught(mistake: str) -> None:
    (name, recipe), mutate = PLANS[mistake]
    right = check(name, recipe)
    assert right.error < SAME and not right.left
    assert check(name, recipe, mutate).error > CAUGHT


def scaled(which: Callable[[Edit], str], factor: float) -> Mistake:
    """A tensor changes so many times as much as it should."""

    def mistake(made: Folded) -> dict[str, np.ndarray]:
        names = {which(edit) for edit in made.plan.edits}
        return {name: made.old[name] + factor * (made.new[name] - made.old[name]) for name in names}

    return mistake


def output_bias(edit: Edit) -> str:
    assert edit.output and edit.output.bias
    return edit.output.bias


def own_weight(edit: Edit) -> str:
    assert edit.slot.weight
    return edit.slot.weight


def norm_bias(edit: Edit) -> str:
    assert edit.norm
    return edit.norm.bias


def matrix(slot: Any, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """A projection's weight, (out, in)."""
    stored = tensors[slot.weight]
    return slot.rows.take(stored.T if slot.conv1d else stored)


def both(*mistakes: Mistake) -> Mistake:
    return lambda made: {name: values for mistake in mistakes for name, values in mistake(made).items()}


def moved(change: Callable[[np.ndarray], np.ndarray]) -> Mistake:
    """The output bias gets what another value bias makes."""

    def mistake(made: Folded) -> dict[str, np.ndarray]:
        wrong = {}
        for edit in made.plan.edits:
            bias = change(edit.slot.view.take(made.old[edit.bias]))
            wrong[output_bias(edit)] = made.old[output_bias(edit)] + matrix(edit.output, made.old) @ bias
        return wrong

    return mistake


def last_head_missed(bias: np.ndarray) -> np.ndarray:
    return np.concatenate([bias[:-HEAD], np.zeros(HEAD)])


def left(values: Callable[[np.ndarray], np.ndarray]) -> Mistake:
    """Something stays where the bias was."""

    def mistake(made: Folded) -> dict[str, np.ndarray]:
        wrong = {edit.bias: made.new[edit.bias].copy() for edit in made.plan.edits}
        for edit in made.plan.edits:
            edit.slot.view.put(wrong[edit.bias], values(edit.slot.view.take(made.old[edit.bias])))
        return wrong

    return mistake


def first_head(bias: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(bias)) < HEAD, 0.5, 0.0)


def direction(
    change: Callable[[np.ndarray, np.ndarray], np.ndarray], norms: str = "new", projection: str = "query"
) -> Mistake:
    """A mistake in d; of weights stored (out, in), each of one projection."""

    def mistake(made: Folded) -> dict[str, np.ndarray]:
        wrong = {}
        for edit in made.plan.edits:
            if edit.projection == projection:
                assert edit.norm
                tensors = getattr(made, norms)
                d = change(tensors[edit.norm.weight], tensors[edit.norm.bias])
                wrong[own_weight(edit)] = made.old[own_weight(edit)] + np.outer(made.old[edit.bias], d)
        return wrong

    return mistake


def other_block(made: Folded) -> dict[str, np.ndarray]:
    """The value's update in the query's block, of a weight stored (in, out)."""
    changes = {name: made.new[name] - made.old[name] for name in map(own_weight, made.plan.edits)}
    return {name: made.old[name] + np.roll(change, change.shape[1] // 3, 1) for name, change in changes.items()}


def shift_transposed(made: Folded) -> dict[str, np.ndarray]:
    wrong = {}
    for edit in made.plan.edits:
        delta = np.linalg.solve(matrix(edit.slot, made.old).T, edit.slot.view.take(made.old[edit.bias]))
        gain = matrix(edit.output, made.old) @ matrix(edit.value, made.old) @ delta
        wrong[norm_bias(edit)] = made.old[norm_bias(edit)] + delta
        wrong[output_bias(edit)] = made.old[output_bias(edit)] - gain
    return wrong


# Mistakes in what is computed: (model, recipe, the mistake).
CODE: dict[str, tuple[str, dict[str, Any], Mistake]] = {
    "value: wrong sign": ("bert", {"fold": "value"}, scaled(output_bias, -1)),
    "value: folded twice": ("bert", {"fold": "value"}, scaled(output_bias, 2)),
    "value: heads in another order": ("roberta", {"fold": "value"}, moved(lambda bias: np.roll(bias, HEAD))),
    "value: one head missed on the way": ("gpt2", {"fold": "value"}, moved(last_head_missed)),
    "value: one head left standing": ("gpt2", {"fold": "value"}, left(first_head)),
    "key: one head left standing": ("gpt2", {"fold": "key"}, left(first_head)),
    "key: left standing": ("bart", {"fold": "key"}, left(lambda bias: bias)),
    "query: left standing": ("bert", {"fold": "query"}, left(lambda bias: bias)),
    "weight: wrong sign": ("bert", {"fold": "query"}, scaled(own_weight, -1)),
    "weight: folded twice": ("gpt2", {"fold": "value:weight"}, scaled(own_weight, 2)),
    "weight: the block of another projection": ("gpt2", {"fold": "value:weight"}, other_block),
    "weight: γ in place of 1/γ": ("bert", {"fold": "query"}, direction(lambda gamma, beta: gamma / (gamma @ beta))),
    "weight: not divided by c": ("bert", {"fold": "query"}, direction(lambda gamma, beta: 1 / gamma)),
    "weight: only the first channel": (
        "bert",
        {"fold": "query"},
        direction(lambda gamma, beta: np.eye(len(gamma))[0] / beta[0]),
    ),
    "weight: the norm as it was before its shift": (
        "bert",
        {"fold": "query:norm,value:weight"},
        direction(lambda gamma, beta: 1 / gamma / np.sum(beta / gamma), "old", "value"),
    ),
    "norm: wrong sign": ("gpt2", {"fold": "query:norm"}, both(scaled(norm_bias, -1), scaled(output_bias, -1))),
    "norm: the weight transposed": ("gpt2", {"fold": "query:norm"}, shift_transposed),
    "norm: not taken back": ("mbart", {"fold": "query:norm", "attention": "self"}, scaled(output_bias, 0)),
    "norm: taken back twice": ("bert", {"fold": "query:norm"}, scaled(output_bias, 2)),
}


@pytest.mark.parametrize("name", CODE)
def test_a_mistake_in_the_values_is_caught(name: str) -> None:
    model, recipe, mistake = CODE[name]
    right = check(model, recipe)
    assert right.error < SAME and not right.left
    wrong = check(model, recipe, mistake=mistake)
    if "left standing" in name:
        assert wrong.left, "the bias is thought to be gone"
    else:
        assert wrong.error > CAUGHT


def test_the_right_values_written_by_the_same_means_pass() -> None:
    """The oracle of the mistakes in d is right where it makes none."""
    right = direction(lambda gamma, beta: 1 / gamma / np.sum(beta / gamma))
    assert check("bert", {"fold": "query"}, mistake=right).error < SAME
    assert check("gpt2", {"fold": "value"}, mistake=moved(lambda bias: bias)).error < SAME


def blocks_in_another_order(text: str) -> str:
    """GPT-2 taken for [k|q|v]."""
    return text.replace('["query", "key", "value"]', '["key", "query", "value"]')


def norm_of_the_layer_itself(text: str) -> str:
    """Post-norm read as if the norm after the attention came before it."""
    lines = [line for line in text.splitlines() if "_first" not in line]
    return "\n".join(line.replace("{before}", "{layer}") if line.startswith("reads") else line for line in lines)


FACTS: dict[str, tuple[str, dict[str, Any], Callable[[str], str]]] = {
    "blocks in another order": ("gpt2", {"fold": "key"}, blocks_in_another_order),
    "the norm after the attention": ("bert", {"fold": "query"}, norm_of_the_layer_itself),
}


@pytest.mark.parametrize("mistake", FACTS)
def test_a_mistake_in_a_family_file_is_caught(mistake: str) -> None:
    name, recipe, change = FACTS[mistake]
    right = check(name, recipe)
    assert right.error < SAME and not right.left
    family = family_of({"model_type": name}).name
    wrong = change(text_of(family))
    assert wrong != text_of(family), "no mistake"
    with drafted(family, wrong):
        assert check(name, recipe).error > CAUGHT
