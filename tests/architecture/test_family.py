"""The family files hold facts that models bear out, and nothing that is not used."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hf_bias_patch import inspect
from hf_bias_patch.architecture import family as family_module
from hf_bias_patch.architecture.family import family_of, model_types
from hf_bias_patch.architecture.layout import ORDERS
from hf_bias_patch.architecture.sites import PROJECTIONS
from hf_bias_patch.architecture.verdict import BLOCKERS
from hf_bias_patch.errors import FamilyError
from tests.models import FAMILIES, config_of, fresh, inputs_of, run


def test_the_model_types_covered() -> None:
    assert set(FAMILIES) | {"encoder-decoder"} <= set(model_types())
    assert list(model_types()) == sorted(model_types())


@pytest.mark.parametrize("model_type", model_types())
def test_facts_are_complete(model_type: str) -> None:
    family = family_of({"model_type": model_type})
    assert model_type in family.model_types
    assert family.attention or family.towers or family.name == "without_attention"
    for attention in family.attention:
        mapped = [projection for projections in attention.maps.values() for projection in projections]
        assert len(mapped) == len(set(mapped)) and set(mapped) <= set(PROJECTIONS)
        assert mapped
        assert attention.stack in family.stacks and attention.kind in ("self", "cross")
        assert not attention.reads_first or attention.reads
        assert all(blocker.name in BLOCKERS for blocker in attention.blockers)
        assert all(layout.order in ORDERS for layout in attention.layouts)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_module_named_is_one(name: str) -> None:
    """Each pattern of a family is a module of the model that transformers makes, of the right class."""
    family = family_of(config_of(name).to_dict())
    crossed = {"bert": "bert-cross", "gpt2": "gpt2-cross"}.get(name, name)
    models = [fresh(crossed), fresh({"electra": "electra-projected"}.get(name, name))]
    modules = {path: module for model in models for path, module in model.base_model.named_modules()}
    checked = 0
    for attention in family.attention:
        if attention.kind == "cross" and name in ("roberta", "electra"):
            continue  # the same classes as BERT's
        layers = 2 if attention.stack == "encoder" and name in ("bart", "mbart") else 3
        patterns = [*attention.maps, attention.reads]
        for pattern in patterns:
            module = modules[pattern.format(layer=1, before=0, last=layers - 1)]
            assert hasattr(module, "weight") and hasattr(module, "bias")
            assert ("LayerNorm" in type(module).__name__) == (pattern == attention.reads)
            assert (type(module).__name__ == "Conv1D") == (attention.conv1d and pattern != attention.reads)
            checked += 1
        if attention.reads_first:
            assert "LayerNorm" in type(modules[attention.reads_first]).__name__
        if attention.between_first and name == "electra":
            assert type(modules[attention.between_first]).__name__ == "Linear"
        final = family.stacks[attention.stack].final_norm[0].norm.format(last=layers - 1)
        assert "LayerNorm" in type(modules[final]).__name__
    assert checked >= 5


@pytest.mark.parametrize("name", FAMILIES)
def test_the_final_norm_makes_what_the_stack_gives(name: str) -> None:
    """A cross-attention over the stack reads the output of that norm, and of no other."""
    model = fresh(name)
    family = family_of(model.config.to_dict())
    seen: dict[str, torch.Tensor] = {}
    for stack, facts in family.stacks.items():
        last = 1 if stack == "encoder" and len(family.stacks) > 1 else 2
        module = model.base_model.get_submodule(facts.final_norm[0].norm.format(last=last))
        module.register_forward_hook(lambda _, given, output, stack=stack: seen.update({stack: output.detach()}))
    out = run(model, **inputs_of(model))
    assert seen.keys() == family.stacks.keys()
    if len(seen) > 1:
        assert torch.equal(seen["encoder"], out.encoder_last_hidden_state)
        assert torch.equal(seen["decoder"], out.decoder_hidden_states[-1])
    else:
        assert torch.equal(*seen.values(), out.hidden_states[-1])


def test_an_unknown_type_is_refused_with_what_is_known() -> None:
    with pytest.raises(FamilyError, match=r"'made_up'.*never guessed"):
        family_of({"model_type": "made_up"})


def test_an_unhandled_value_is_named_and_a_missing_one_is_the_default() -> None:
    family = family_of({"model_type": "bert"})
    assert family.unhandled({"position_embedding_type": "relative_key"}) == "position_embedding_type = 'relative_key'"
    assert not family.unhandled({}) and not family.unhandled({"position_embedding_type": "absolute"})


@pytest.mark.parametrize("model_type", [["bert"], {"name": "bert"}, 3], ids=str)
def test_a_model_type_that_is_no_name_is_refused(model_type: object) -> None:
    with pytest.raises(FamilyError, match=re.escape(f"No family covers the model type {model_type!r}")):
        family_of({"model_type": model_type})


def test_only_the_files_that_name_the_type_are_parsed(saved: Callable[..., Path]) -> None:
    """All of them take 0.3 s, which nobody who looks at one checkpoint should wait for."""
    for cached in (family_module._families, family_module._find, family_module._parse):
        cached.cache_clear()
    inspect(saved("gpt2"))
    assert not family_module._families.cache_info().currsize
    assert 1 <= family_module._parse.cache_info().currsize < 10
