"""Small random models: every parameter speaks, every input is heard, and the same again is the same again."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_bias_patch.errors import FamilyError
from hf_bias_patch.family_check.reasons import reasons
from hf_bias_patch.family_check.small_models.config import model_types, small_config
from hf_bias_patch.family_check.small_models.model import small_model
from hf_bias_patch.models.inputs.random_inputs import inputs_of
from hf_bias_patch.models.run import run

TYPES = (
    "bert",
    "blip-2",
    "detr",
    "gemma2",
    "gpt2",
    "llava",
    "mixtral",
    "qwen2_vl",
    "swin",
    "t5",
    "wav2vec2",
    "whisper",
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about the library itself
        yield


@pytest.fixture(scope="module", params=TYPES)
def case(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = small_model(small_config(request.param))
        return model, inputs_of(model)


def moved(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> bool:
    return any(not torch.allclose(before[name], after[name], rtol=1e-6, atol=1e-9) for name in before)


def other(name: str, value: Any) -> Any:
    """Another value that means something else; None for masks, sizes and switches."""
    if not isinstance(value, torch.Tensor) or "mask" in name:
        return None
    if value.is_floating_point():
        return value + torch.ones_like(value).cumsum(-1) / value.shape[-1]
    if name.endswith("input_ids"):
        return torch.where((value >= 20) & (value < 95), 20 + (value - 13) % 75, value)
    return None


def test_parameters_are_real(case: tuple[Any, dict[str, Any]]) -> None:
    model, _ = case
    assert not model.training
    biases = {name: value for name, value in model.named_parameters() if name.endswith("bias")}
    assert all(value.dtype == torch.float64 for value in model.parameters())
    assert all((value != 0).all() for value in biases.values())
    assert all(value.any() for value in model.parameters() if value.numel())


def test_outputs_are_finite_and_repeat(case: tuple[Any, dict[str, Any]]) -> None:
    first, second = run(*case), run(*case)
    assert first and first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == torch.float64
        assert value.isfinite().all(), name
        assert torch.equal(value, second[name]), name


def test_every_input_is_heard(case: tuple[Any, dict[str, Any]]) -> None:
    model, inputs = case
    before, checked = run(model, inputs), 0
    for name, value in inputs.items():
        changed = other(name, value)
        if changed is not None:
            assert moved(before, run(model, {**inputs, name: changed})), name
            checked += 1
    assert checked > 0, "vacuous"


def test_attention_is_not_uniform() -> None:
    model = small_model(small_config("bert"))
    weights = model(**inputs_of(model), output_attentions=True).attentions
    assert all(layer[0].std() > 0.05 for layer in weights)


def test_seed_decides_the_values() -> None:
    config = small_config("gpt2")
    one, same, another = (small_model(config, seed).h[0].attn.c_attn.bias for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, another)


def test_changes_are_applied() -> None:
    config = small_config("llava", **{"text_config.attention_bias": True, "vision_config.num_hidden_layers": 3})
    assert config.text_config.attention_bias and config.vision_config.num_hidden_layers == 3
    names = dict(small_model(config).named_parameters())
    assert any("language_model" in name and name.endswith("q_proj.bias") for name in names)


def test_every_kind_of_layer_occurs() -> None:
    for name, kinds in (("gemma3_text", {"sliding_attention", "full_attention"}), ("lfm2", {"conv", "full_attention"})):
        assert set(small_config(name).layer_types) == kinds


def test_grouped_queries_stay_grouped() -> None:
    config = small_config("mistral")
    assert 1 < config.num_key_value_heads < config.num_attention_heads


def test_unknown_types_are_refused_by_name() -> None:
    with pytest.raises(FamilyError, match="no_such_type"):
        small_config("no_such_type")
    name = reasons("not_built")[0].model_types[0]
    with pytest.raises(FamilyError, match=name):
        small_config(name)


def test_types_are_many_and_sorted() -> None:
    types = model_types()
    assert list(types) == sorted(types) and len(types) > 700
    assert not set(types) & {name for reason in reasons("not_built") for name in reason.model_types}
    for name in itertools.islice(types, 0, None, 40):  # names that share a class share a config
        assert small_config(name).model_type in CONFIG_MAPPING
