"""What stays equal: measured for every fold, and never less than the plan says."""

from __future__ import annotations

import pytest
import torch

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.evidence.claims import measure_claims
from hf_bias_patch.models.inputs.text import TextFormat, text_batches
from hf_bias_patch.patching.in_memory import ModelTensors
from hf_bias_patch.patching.planner import make_plan
from hf_bias_patch.patching.preserved import Preserved
from hf_bias_patch.patching.recipe import make_recipe
from tests.models import fresh, outputs_of

FLAGS = tuple(Preserved.model_fields)
YES, NO = True, False
# The table of docs/design.md: logits, hidden states, attention weights, with dropout, LoRA, cache.
TABLE = {
    ("gpt2", "key"): (YES, YES, YES, YES, YES, NO),
    ("gpt2", "value"): (YES, YES, YES, NO, NO, NO),
    ("gpt2", "query:weight"): (YES, YES, YES, YES, YES, YES),
    ("gpt2", "query:weight,key:weight,value:weight"): (YES, YES, YES, YES, YES, YES),
    ("gpt2", "query:norm"): (YES, YES, YES, NO, NO, NO),
    ("bert-cross", "key"): (YES, YES, YES, YES, YES, NO),
    ("bert-cross", "query:weight"): (YES, YES, YES, NO, YES, YES),
    ("bert-cross", "query:norm"): (YES, NO, YES, NO, NO, NO),
    ("mbart", "value"): (YES, YES, YES, NO, NO, NO),
    ("mbart", "key:weight,query:weight"): (YES, YES, YES, YES, YES, YES),
}


@pytest.mark.parametrize(("name", "fold"), TABLE)
def test_the_table(name: str, fold: str) -> None:
    model = fresh(name)
    before = outputs_of(model)
    for module in model.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.2  # BART's attention takes it from here, and its config says 0
    only = {"attention": "self"} if name == "bert-cross" and ":" in fold else {}
    recipe = make_recipe(fold=fold, **only)
    plan = make_plan(model.config.to_dict(), ModelTensors(model), recipe)
    claims = measure_claims(model, recipe, plan.equal, text_batches(TextFormat.of(model), [], seed=0), bound=1e-9)
    assert tuple(claim.flag for claim in claims) == FLAGS
    assert tuple(claim.held for claim in claims) == TABLE[name, fold], claims
    assert tuple(claim.claimed for claim in claims) == TABLE[name, fold], "the plan says something else"
    for claim in claims:
        assert claim.error is not None and (claim.error < 1e-11 or claim.error > 1e-4), "nothing in between"
    assert all(torch.equal(value, before[key]) for key, value in outputs_of(model).items()), (
        "the model was not restored"
    )


def test_what_cannot_be_measured_is_said() -> None:
    model = fresh("bert")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    probes = text_batches(TextFormat.of(model), [], seed=0)
    claims = {c.flag: c for c in measure_claims(model, make_recipe(fold="key"), Preserved(), probes, bound=1e-9)}
    assert claims["kv_cache"].held is None and "gives none out" in claims["kv_cache"].how
    assert claims["with_dropout"].held is None and "no dropout" in claims["with_dropout"].how
    assert claims["lora"].held is True
    assert len(find_sites(model.config.to_dict(), ModelTensors(model).tensors)) == 3
