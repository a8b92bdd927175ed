"""Every fold of every family leaves every output as it was, on models where dropping the same bias does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hf_bias_patch.errors import PlanError
from hf_bias_patch.patching.in_memory import apply
from tests.models import NAMES, WITH_NORMS, error, fresh, inputs_of, outputs_of

EXACT = 1e-9
"""Bound on the relative error of an exact fold in float64. The noise floor is a ten-thousandth of it."""

NEEDED = 1e-3
"""What dropping a needed bias, of any single site, moves an output by at least."""

FOLDS = (
    "key",
    "value",
    "query",
    "key,value,query",
    "key:weight",
    "value:weight",
    "query:weight",
    "key:weight,value:weight,query:weight",
    "query:norm",
    "query:norm,key,value",
    "query:norm,key:weight,value:weight",
    "query:norm,key:weight,value:output",
)

# Where a projection reads no layer norm: a fold that needs one, and the site it is refused for.
NO_NORM = {
    "electra-projected": ("query", "encoder.0.self"),
    "gpt2-cross": ("key:weight", "decoder.0.cross"),
    "bert-cross": ("key:weight", "decoder.0.cross"),
    "bert+gpt2-bridged": ("value:weight", "decoder.0.cross"),
}


def recipe_for(name: str, fold: str) -> dict[str, Any]:
    """A recipe of this fold that leaves out sites where it is not exact."""
    needs_norm = "query" in fold or "weight" in fold
    return {"fold": fold} | (WITH_NORMS.get(name, {}) if needs_norm else {})


def probes(model: Any) -> list[dict[str, torch.Tensor]]:
    """Two batches: one padded, one longer and not."""
    return [inputs_of(model), inputs_of(model, seed=1, length=12, padded=False)]


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.named_parameters(remove_duplicate=False)}


def worst(model: Any, before: list[dict[str, torch.Tensor]]) -> float:
    """Error over all probes, against the outputs before."""
    return max(error(outputs_of(model, given), out) for given, out in zip(probes(model), before, strict=True))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", NAMES)
def test_folds_leave_the_outputs_equal(name: str, attention: str) -> None:
    model = fresh(name, attention=attention)
    before, values = [outputs_of(model, given) for given in probes(model)], state(model)
    checked = 0
    for fold in FOLDS if attention == "eager" else ("key,value,query", "query:norm,key,value"):
        with apply(model, **recipe_for(name, fold)) as patched:
            assert patched is model
            assert worst(model, before) < EXACT, fold
        after = state(model)
        assert all(torch.equal(after[key], value) for key, value in values.items()), "not restored"
        checked += 1
    assert checked >= 2


@pytest.mark.parametrize("name", NAMES)
def test_the_noise_floor_lies_far_below_the_bound(name: str) -> None:
    """The same function computed in another order, in float64."""
    model = fresh(name)
    before = [outputs_of(model, given) for given in probes(model)]
    assert worst(fresh(name, attention="sdpa"), before) < 1e-4 * EXACT


@pytest.mark.parametrize("name", NAMES)
def test_dropping_what_is_needed_does_not(name: str) -> None:
    """Layer by layer, so that no site passes because another one is watched. Keys are redundant, and may go."""
    model = fresh(name)
    before = [outputs_of(model, given) for given in probes(model)]
    plan = apply(model, fold="key").plan
    assert worst(model, before) < EXACT
    sites = [edit.site for edit in plan.edits]
    assert len(sites) >= 3
    for site in sites:
        stack, layer, kind = site.split(".")
        for projection in ("query", "value"):
            with apply(model, drop=projection, stack=stack, layers=int(layer), attention=kind) as _:
                assert worst(model, before) > NEEDED, f"{projection} of {site}"


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_touches_what_it_says(name: str) -> None:
    model = fresh(name)
    values = state(model)
    for fold in FOLDS:
        handle = apply(model, **recipe_for(name, fold))
        after = state(model)
        changed = {key for key, value in values.items() if not torch.equal(after[key], value)}
        assert changed == set(handle.plan.touched)
        for edit in handle.plan.edits:
            bias = edit.slot.view.take(after[edit.bias].detach().numpy())
            assert edit.removes and not bias.any()
        handle.restore()
        sizes = {key: value.numel() * value.element_size() for key, value in values.items()}
        assert handle.plan.touched == {key: sizes[key] for key in handle.plan.touched}
        assert not handle.plan.lossy and handle.plan.equal.logits


@pytest.mark.parametrize("name", NO_NORM)
def test_a_site_without_a_norm_is_refused_by_name(name: str) -> None:
    model = fresh(name)
    values = state(model)
    fold, site = NO_NORM[name]
    with pytest.raises(PlanError, match=f"fold {fold.split(':')[0]}.* at {site}") as caught:
        apply(model, fold=fold)
    assert "between" in str(caught.value) or "caller passes in" in str(caught.value)
    after = state(model)
    assert all(torch.equal(after[key], value) for key, value in values.items())


@pytest.mark.parametrize(
    "recipe",
    [
        {"fold": "value,query", "layers": 1},
        {"fold": "value:weight,query", "layers": "0,2", "attention": "self"},
        {"fold": "query:norm", "stack": "decoder"},
        {"fold": "query,key,value", "stack": "encoder"},
        {"fold": "query:norm,value,key", "attention": "cross"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["bart", "mbart", "bert+bert", "bert+gpt2"])
def test_selected_sites_only(name: str, recipe: dict[str, Any]) -> None:
    if "0,2" in str(recipe):
        recipe = recipe | {"stack": "decoder"}
    model = fresh(name)
    before = [outputs_of(model, given) for given in probes(model)]
    with apply(model, **recipe):
        assert worst(model, before) < EXACT
    drop = {"drop": [part.split(":")[0] for part in recipe["fold"].split(",")]}
    with apply(model, **drop | {key: value for key, value in recipe.items() if key != "fold"}):
        assert worst(model, before) > NEEDED


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
def test_a_redundant_key_may_hold_anything(name: str) -> None:
    """The paper's perturbation: random key biases between -5 and 5 change nothing; the same of queries do."""
    model = fresh(name)
    before = [outputs_of(model, given) for given in probes(model)]
    with apply(model, fill="key=uniform:-5:5") as _:
        assert worst(model, before) < EXACT
    with apply(model, fill="query=uniform:-5:5"):
        assert worst(model, before) > NEEDED
    with apply(model, fill="value=3"):
        assert worst(model, before) > NEEDED


@pytest.mark.parametrize("fold", ["query", "value:weight", "key:weight"])
def test_dead_channels_of_a_norm_carry_the_bias(fold: str) -> None:
    """γ_i = 0 makes channel i the constant."""
    model = fresh("bert")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("LayerNorm.weight"):
                parameter[5:7] = 0
    before = [outputs_of(model, given) for given in probes(model)]
    with apply(model, fold=fold):
        assert worst(model, before) < EXACT


@pytest.mark.parametrize("name", ["gpt2", "bart", "mbart", "bert+bert", "bert+gpt2"])
def test_greedy_text_stays_the_same(name: str) -> None:
    """Generation with the cache: token for token, and the scores each was chosen by."""
    model = fresh(name)
    given = inputs_of(model, padded=False)
    given.pop("decoder_input_ids", None)

    def generate() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        options: dict[str, Any] = {"output_logits": True, "return_dict_in_generate": True}
        out = model.generate(**given, max_new_tokens=10, do_sample=False, eos_token_id=None, **options)
        return out.sequences, {str(step): logits for step, logits in enumerate(out.logits)}

    tokens, scores = generate()
    assert len(scores) == 10
    for fold in ("query,key,value", "query:norm,key,value"):
        with apply(model, fold=fold):
            again, those = generate()
            assert torch.equal(again, tokens) and error(those, scores) < EXACT
    with apply(model, drop="query,value"):
        assert error(generate()[1], scores) > NEEDED
