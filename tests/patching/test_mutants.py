"""Deliberate mistakes, each of which the equivalence check must catch: one that passes means the check is blind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from hf_bias_patch.attention import family as families
from hf_bias_patch.attention import find
from hf_bias_patch.attention.layout import View
from hf_bias_patch.patching import algebra, rewrite
from hf_bias_patch.patching.memory import apply
from hf_bias_patch.patching.plan import Edit, Plan
from tests.models import error, fresh, outputs_of

SAME, CAUGHT = 1e-9, 1e-6

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Result:
    """Error of the outputs, and how many values of the removed biases are not zero."""

    error: float
    left: int


def check(name: str, recipe: dict[str, Any], mutate: Callable[[Plan], Plan] | None = None) -> Result:
    """The equivalence check: outputs before and after, and whether the biases are gone."""
    model = fresh(name)
    before = outputs_of(model)
    handle = apply(model, **recipe)
    if mutate is not None:
        plan = handle.plan
        handle.restore()
        handle = apply(model, mutate(plan))
    left = 0
    for edit in handle.plan.edits:
        values = model.get_parameter(edit.bias).detach().numpy()
        left += np.count_nonzero(edit.slot.view.take(values))
    return Result(error(outputs_of(model), before), left)


def edited(change: Callable[[Edit, Plan], dict[str, Any]]) -> Callable[[Plan], Plan]:
    """A mutation of every edit of a plan."""

    def mutate(plan: Plan) -> Plan:
        edits = tuple(edit.model_copy(update=change(edit, plan)) for edit in plan.edits)
        assert edits != plan.edits, "no mutation"
        return plan.model_copy(update={"edits": edits})

    return mutate


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
        edited(lambda edit, plan: {"value": replace(edit.value, view=View.block(96, 1, 3), rows=View.block(96, 1, 3))}),
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


def heads_rolled(monkeypatch: Patch) -> None:
    right = algebra.repeat_groups
    monkeypatch.setattr(algebra, "repeat_groups", lambda value, *sizes: np.roll(right(value, *sizes), 8))


def head_missed_on_the_way(monkeypatch: Patch) -> None:
    def wrong(value: np.ndarray, width: int, heads: int) -> np.ndarray:
        value = value.copy()
        value[-8:] = 0
        return value

    monkeypatch.setattr(algebra, "repeat_groups", wrong)


def head_left_standing(monkeypatch: Patch) -> None:
    def wrong(edit: Edit) -> np.ndarray:
        values = np.zeros(edit.slot.view.size)
        values[:8] = 0.5
        return values

    monkeypatch.setattr(rewrite, "removal", wrong)


def bias_left_standing(monkeypatch: Patch) -> None:
    right = View.put

    def wrong(self: View, array: np.ndarray, values: Any, axis: int = 0) -> None:
        if np.ndim(values):
            right(self, array, values, axis)

    monkeypatch.setattr(View, "put", wrong)


def output_sign(monkeypatch: Patch) -> None:
    right = rewrite.Rewrite._through_output
    monkeypatch.setattr(rewrite.Rewrite, "_through_output", lambda self, *given: -right(self, *given))


def output_twice(monkeypatch: Patch) -> None:
    right = rewrite.Rewrite._value_to_output

    def wrong(self: rewrite.Rewrite, edit: Edit, bias: np.ndarray) -> None:
        right(self, edit, bias)
        right(self, edit, bias)

    monkeypatch.setattr(rewrite.Rewrite, "_value_to_output", wrong)


def shift_sign(monkeypatch: Patch) -> None:
    right = algebra.solve_shift

    def wrong(weight: np.ndarray, bias: np.ndarray) -> Any:
        return replace(right(weight, bias), delta=-right(weight, bias).delta)

    monkeypatch.setattr(algebra, "solve_shift", wrong)


def shift_transposed(monkeypatch: Patch) -> None:
    right = algebra.solve_shift
    monkeypatch.setattr(algebra, "solve_shift", lambda weight, bias: right(weight.T.copy(), bias))


def shift_not_taken_back(monkeypatch: Patch) -> None:
    monkeypatch.setattr(rewrite.Rewrite, "_compensate", lambda *_: None)


def shift_taken_back_twice(monkeypatch: Patch) -> None:
    right = rewrite.Rewrite._compensate

    def wrong(self: rewrite.Rewrite, edit: Edit, delta: np.ndarray) -> None:
        right(self, edit, 2 * delta)

    monkeypatch.setattr(rewrite.Rewrite, "_compensate", wrong)


def direction(change: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Patch], None]:
    """A mistake in d."""

    def mutate(monkeypatch: Patch) -> None:
        right = algebra.witness

        def wrong(gamma: np.ndarray, beta: np.ndarray) -> Any:
            found = right(gamma, beta)
            return replace(found, direction=change(found.direction, gamma, beta))

        monkeypatch.setattr(algebra, "witness", wrong)

    return mutate


def weight_twice(monkeypatch: Patch) -> None:
    right = rewrite.Rewrite._into_weight

    def wrong(self: rewrite.Rewrite, edit: Edit, bias: np.ndarray) -> None:
        right(self, edit, 2 * bias)

    monkeypatch.setattr(rewrite.Rewrite, "_into_weight", wrong)


def weight_block_of_another(monkeypatch: Patch) -> None:
    right = rewrite.Outer.part

    def wrong(self: rewrite.Outer, start: int, stop: int) -> Any:
        return right(replace(self, view=View.block(self.view.axis, 0, 3)), start, stop)

    monkeypatch.setattr(rewrite.Outer, "part", wrong)


def norm_before_the_shift(monkeypatch: Patch) -> None:
    """d from the norm as it was, where another fold shifts it."""
    monkeypatch.setattr(rewrite.Rewrite, "_norm_bias", lambda self, norm: rewrite.read_finite(self._tensors, norm.bias))


def blocks_in_another_order(monkeypatch: Patch) -> None:
    """GPT-2 taken for [k|q|v]."""
    right = find.family_of

    def wrong(config: Any) -> Any:
        found = right(config)
        assert isinstance(found, families.Family)
        first, *others = found.attention
        maps = {
            module: [projections[1], projections[0], projections[2]] if len(projections) == 3 else projections
            for module, projections in first.maps.items()
        }
        return replace(found, attention=(replace(first, maps=maps), *others))

    monkeypatch.setattr(find, "family_of", wrong)


def norm_of_the_layer_itself(monkeypatch: Patch) -> None:
    """Post-norm read as if the norm after the attention came before it."""
    right = find.family_of

    def wrong(config: Any) -> Any:
        found = right(config)
        attention = tuple(
            replace(entry, reads=entry.reads.replace("{before}", "{layer}"), reads_first="")
            for entry in found.attention
        )
        return replace(found, attention=attention)

    monkeypatch.setattr(find, "family_of", wrong)


# Mistakes in the code: (model, recipe, the mistake).
CODE: dict[str, tuple[str, dict[str, Any], Callable[[Patch], None]]] = {
    "value: wrong sign": ("bert", {"fold": "value"}, output_sign),
    "value: folded twice": ("bert", {"fold": "value"}, output_twice),
    "value: heads in another order": ("roberta", {"fold": "value"}, heads_rolled),
    "value: one head missed on the way": ("gpt2", {"fold": "value"}, head_missed_on_the_way),
    "value: one head left standing": ("gpt2", {"fold": "value"}, head_left_standing),
    "key: one head left standing": ("gpt2", {"fold": "key"}, head_left_standing),
    "key: left standing": ("bart", {"fold": "key"}, bias_left_standing),
    "query: left standing": ("bert", {"fold": "query"}, bias_left_standing),
    "weight: wrong sign": ("bert", {"fold": "query"}, direction(lambda d, gamma, beta: -d)),
    "weight: folded twice": ("gpt2", {"fold": "value:weight"}, weight_twice),
    "weight: the block of another projection": ("gpt2", {"fold": "value:weight"}, weight_block_of_another),
    "weight: γ in place of 1/γ": ("bert", {"fold": "query"}, direction(lambda d, gamma, beta: gamma / (gamma @ beta))),
    "weight: not divided by c": ("bert", {"fold": "query"}, direction(lambda d, gamma, beta: 1 / gamma)),
    "weight: only the first channel": (
        "bert",
        {"fold": "query"},
        direction(lambda d, gamma, beta: np.eye(len(d))[0] / beta[0]),
    ),
    "weight: the norm as it was before its shift": (
        "bert",
        {"fold": "query:norm,value:weight"},
        norm_before_the_shift,
    ),
    "norm: wrong sign": ("gpt2", {"fold": "query:norm"}, shift_sign),
    "norm: the weight transposed": ("gpt2", {"fold": "query:norm"}, shift_transposed),
    "norm: not taken back": ("mbart", {"fold": "query:norm"}, shift_not_taken_back),
    "norm: taken back twice": ("bert", {"fold": "query:norm"}, shift_taken_back_twice),
    "facts: blocks in another order": ("gpt2", {"fold": "key"}, blocks_in_another_order),
    "facts: the norm after the attention": ("bert", {"fold": "query"}, norm_of_the_layer_itself),
}


@pytest.mark.parametrize("mistake", CODE)
def test_code_with_a_mistake_is_caught(mistake: str, monkeypatch: Patch) -> None:
    name, recipe, mutate = CODE[mistake]
    right = check(name, recipe)
    assert right.error < SAME and not right.left
    mutate(monkeypatch)
    wrong = check(name, recipe)
    if "left standing" in mistake:
        assert wrong.left, "the bias is thought to be gone"
    else:
        assert wrong.error > CAUGHT
