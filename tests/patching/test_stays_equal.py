"""The what-stays-equal flags, measured: where a flag says yes the quantity is the same, where it says no it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_bias_patch.models.run import CACHES
from hf_bias_patch.patching.in_memory import apply
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.preserved import Preserved
from tests.models import config_of, error, fresh, inputs_of, outputs_of, randomise

SAME, OTHER = 1e-9, 1e-4

DROPOUT = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "electra": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "distilbert": ("dropout", "attention_dropout"),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "bart": ("dropout", "attention_dropout", "activation_dropout"),
    "mbart": ("dropout", "attention_dropout", "activation_dropout"),
}

L, H, A, D, R, C = "logits", "hidden_states", "attention_weights", "with_dropout", "lora", "kv_cache"
ALL = {L, H, A, D, R, C}

# DESIGN's table, a line per fold and place in a model. What is not listed must differ.
CASES: list[tuple[str, dict[str, Any], set[str]]] = [
    *((name, {"fold": "key"}, ALL - {C}) for name in DROPOUT),
    *((name, {"fold": "value"}, ALL - {D, R, C}) for name in DROPOUT),
    ("bert", {"fold": "query", "layers": "1-2"}, ALL),
    ("bert", {"fold": "value:weight", "layers": "1-2"}, ALL),
    ("bert", {"fold": "key:weight", "layers": "1-2"}, ALL),
    ("bert", {"fold": "query", "layers": 0}, ALL - {D}),
    ("electra", {"fold": "value:weight", "layers": 0}, ALL - {D}),
    ("distilbert", {"fold": "query", "layers": 0}, ALL - {D}),
    ("distilbert", {"fold": "query", "layers": 2}, ALL),
    ("gpt2", {"fold": "query,key:weight,value:weight"}, ALL),
    ("mbart", {"fold": "query,key:weight,value:weight"}, ALL),
    ("bart", {"fold": "query,key:weight,value:weight", "attention": "cross"}, ALL),
    ("bart", {"fold": "query", "layers": 0, "stack": "decoder", "attention": "self"}, ALL - {D}),
    ("bart", {"fold": "query", "layers": 1, "attention": "self"}, ALL),
    ("bert", {"fold": "query:norm", "layers": "1-2"}, {L, A}),
    ("distilbert", {"fold": "query:norm", "layers": 1}, {L, A}),
    ("gpt2", {"fold": "query:norm"}, {L, H, A}),
    ("mbart", {"fold": "query:norm", "attention": "self"}, {L, H, A}),
    ("bert", {"drop": "key"}, ALL - {C}),
    ("gpt2", {"fill": "key=uniform:-2:2"}, ALL - {C}),
    ("bert", {"drop": "value"}, set()),
    ("gpt2", {"drop": "value"}, set()),
    ("gpt2", {"fill": "query=normal:0:2"}, set()),
    ("bart", {"freeze": "key", "train": "query"}, ALL),
]
KEYS_AND_VALUES = {"key", "value", "k_lin", "v_lin", "k_proj", "v_proj", "c_attn"}


@cache
def dropping(name: str) -> torch.nn.Module:
    """A random float64 model whose dropouts are all strong."""
    stock = type(fresh(name))
    config = config_of(name, attn_implementation="eager", **dict.fromkeys(DROPOUT[name], 0.3))
    return randomise(stock(config).double()).eval()


def _id(value: Any) -> str:
    # Two test processes must name the cases alike, and a set prints in another order in each.
    return "-".join(sorted(value)) if isinstance(value, set) else str(value)


@pytest.mark.parametrize(("name", "recipe", "expected"), CASES, ids=_id)
def test_flags_are_what_is_measured(name: str, recipe: dict[str, Any], expected: set[str]) -> None:
    model = dropping(name)
    before = {flag: measure(model) for flag, measure in MEASURES.items()}
    handle = apply(model, **recipe)
    try:
        errors = {flag: error(measure(model), before[flag]) for flag, measure in MEASURES.items()}
    finally:
        handle.restore()
    claimed = {flag for flag, equal in handle.plan.equal.model_dump().items() if equal}
    assert claimed == expected
    for flag, found in errors.items():
        if flag in expected:
            assert found < SAME, flag
        elif flag != A or "query" in str(recipe):  # a value moves later attention only through the hidden states
            assert found > OTHER, flag


def logits(model: Any) -> dict[str, Tensor]:
    return outputs_of(model)


def hidden_states(model: Any) -> dict[str, Tensor]:
    return stacked(model, "hidden_states")


def attention_weights(model: Any) -> dict[str, Tensor]:
    return stacked(model, "attentions")


def stacked(model: Any, ending: str) -> dict[str, Tensor]:
    """Every hidden state or attention weight of every layer."""
    with torch.no_grad():
        out = model(**inputs_of(model), output_hidden_states=True, output_attentions=True)
    found = {
        f"{name} {layer}": value
        for name, values in out.items()
        if name.endswith(ending) and isinstance(values, tuple)
        for layer, value in enumerate(values)
    }
    assert len(found) >= 3
    return found


def with_dropout(model: Any) -> dict[str, Tensor]:
    """Training mode, the same dropout masks each time; that masks matter is checked."""
    model.train()
    try:
        torch.manual_seed(1)
        one = outputs_of(model)
        torch.manual_seed(2)
        assert error(outputs_of(model), one) > OTHER
    finally:
        model.eval()
    return one


def lora(model: Any) -> dict[str, Tensor]:
    """Outputs under low-rank updates of every attention map: W + BA."""
    with adapted(model, lambda name: True):
        return outputs_of(model)


@contextmanager
def adapted(model: Any, wanted: Callable[[str], bool]) -> Iterator[None]:
    random = torch.Generator().manual_seed(7)
    updates = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and ("attn" in name or "attention" in name):
            rows, columns = (torch.randn(size, 2, generator=random).double() for size in parameter.shape)
            if wanted(name):
                updates[name] = 0.1 * rows @ columns.T
    assert len(updates) >= 3
    old = {name: model.get_parameter(name).detach().clone() for name in updates}
    for name, update in updates.items():
        model.get_parameter(name).data += update
    try:
        yield
    finally:
        for name, value in old.items():
            model.get_parameter(name).data.copy_(value)


def kv_cache(model: Any) -> dict[str, Tensor]:
    """What a cache would hold: the outputs of the key and value maps."""
    seen: dict[str, Tensor] = {}
    hooks = []
    for path, module in model.named_modules():
        if path.rsplit(".", 1)[-1] in KEYS_AND_VALUES:
            hooks.append(module.register_forward_hook(_remember(seen, path)))
    try:
        outputs_of(model)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) >= 3
    return {
        path: value[..., value.shape[-1] // 3 :] if path.endswith("attn.c_attn") else value
        for path, value in seen.items()
    }


def _remember(seen: dict[str, Tensor], path: str) -> Callable[..., None]:
    def hook(module: Any, inputs: Any, output: Tensor) -> None:
        seen[path] = output.detach().clone()

    return hook


MEASURES: dict[str, Callable[[Any], dict[str, Tensor]]] = {
    L: logits,
    H: hidden_states,
    A: attention_weights,
    D: with_dropout,
    R: lora,
    C: kv_cache,
}


def test_every_flag_is_measured() -> None:
    assert list(MEASURES) == list(Preserved.model_fields)


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
def test_a_value_fold_spares_adapters_off_the_output_weight(name: str) -> None:
    """The flag says no because of an adapter on W_o; one on q and v stays valid."""
    model = dropping(name)
    outputs = ("output.dense", "c_proj", "out_proj")

    def elsewhere(parameter: str) -> bool:
        return not any(part in parameter for part in outputs)

    with adapted(model, elsewhere):
        before = outputs_of(model)
    with apply(model, fold="value"), adapted(model, elsewhere):
        assert error(outputs_of(model), before) < SAME


@pytest.mark.parametrize(
    ("recipe", "valid"),
    [
        ({"fold": "query,key:weight,value:weight"}, True),
        ({"fold": "query"}, True),
        ({"fold": "key"}, False),
        ({"fold": "value"}, False),
        ({"fold": "query:norm"}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_a_cache_filled_before_the_edit(name: str, recipe: dict[str, Any], valid: bool) -> None:
    """Half a text is read before the edit, the rest after it, from the cache."""
    model = fresh(name)
    if name == "bart" and recipe == {"fold": "query:norm"}:
        recipe = recipe | {"attention": "self"}
    given = inputs_of(model, padded=False)
    expected = halves(model, given, None)
    found = halves(model, given, recipe)
    assert apply(model, **recipe).plan.equal.kv_cache == valid
    assert (error(found, expected) < SAME) if valid else (error(found, expected) > OTHER)


def halves(model: Any, given: dict[str, Tensor], recipe: dict[str, Any] | None) -> dict[str, Tensor]:
    ids = "decoder_input_ids" if model.config.is_encoder_decoder else "input_ids"
    given = dict(given)
    text = given.pop(ids)
    given.pop("attention_mask")
    with torch.no_grad():
        first = model(**given, **{ids: text[:, :5]}, use_cache=True)
        name = next(name for name in reversed(CACHES) if name in first)  # the newer one answers to both names
        cached = {name: first[name], "use_cache": True}
        if recipe is None:
            return {"logits": model(**given, **{ids: text[:, 5:]}, **cached).logits}
        with apply(model, **recipe):
            return {"logits": model(**given, **{ids: text[:, 5:]}, **cached).logits}


def test_all_flags_of_several_edits_together() -> None:
    some = [Preserved(lora=False), Preserved(kv_cache=False), Preserved()]
    assert Preserved.by_all(some) == Preserved(lora=False, kv_cache=False)
    assert Preserved.by_all([]) == Preserved()


@pytest.mark.parametrize("action", ["freeze", "train"])
def test_what_an_optimiser_may_touch_changes_nothing(action: Any) -> None:
    assert apply(fresh("gpt2"), **{action: "query,key,value"}).plan.equal == Preserved()


def test_a_plan_with_a_lossy_edit_says_so() -> None:
    model = dropping("gpt2")
    for recipe, lossy in (({"drop": "value"}, True), ({"drop": "key"}, False), ({"fold": "value"}, False)):
        handle = apply(model, **recipe)  # type: ignore[arg-type]
        handle.restore()
        assert isinstance(handle.plan, Plan) and handle.plan.lossy is lossy
