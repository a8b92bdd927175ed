"""Where possible: a plan leaves out what it would refuse, and its own recipe says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperForConditionalGeneration

import hf_bias_patch
from hf_bias_patch.errors import PlanError, RecipeError, ValuesError
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.recipe import read_recipe
from tests.models import fresh, randomise

Saved = Callable[..., Path]


def names(plan: Plan) -> set[str]:
    return {edit.name for edit in plan.edits}


def test_the_plans_own_recipe_names_what_it_leaves_out(saved: Saved) -> None:
    source = saved("electra-projected")
    made = hf_bias_patch.plan(source, fold="key,query", where_possible=True)
    left_out = {"encoder.0.self.query": "embeddings_project stands between the embedding norm and it"}
    assert made.recipe.left_out == left_out and not made.recipe.where_possible
    again = hf_bias_patch.plan(source, Plan.loads(made.dumps()))
    assert again == made == hf_bias_patch.plan(source, made.recipe)
    assert len(names(made)) == 5 and not left_out.keys() & names(made)


def test_in_memory() -> None:
    model = fresh("electra-projected")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with hf_bias_patch.apply(model, fold="key,query", where_possible=True) as patched:
        left = [name for name, value in patched.state_dict().items() if name.endswith("query.bias") and value.any()]
        assert left == ["electra.encoder.layer.0.attention.self.query.bias"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_from_yaml_and_by_hand(saved: Saved, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("fold: [key, query]\nwhere_possible: true\nleft_out: {encoder.2.self.key: a test}\n")
    made = hf_bias_patch.plan(saved("electra-projected"), read_recipe(file))
    assert list(made.recipe.left_out) == ["encoder.0.self.query", "encoder.2.self.key"]
    with pytest.raises(RecipeError, match=r"left_out names encoder\.7\.self\.key"):
        hf_bias_patch.plan(saved("bert"), fold="key", left_out={"encoder.7.self.key": "a slip"})
    with pytest.raises(RecipeError, match="where_possible needs a fold"):
        hf_bias_patch.plan(saved("bert"), drop="key", where_possible=True)


def test_what_the_patch_before_left_out_stays_out(saved: Saved, tmp_path: Path) -> None:
    """Its noise is in the source by now, and a measurement against that would let fold after fold pass."""
    left_out = {"encoder.1.self.query": "measured"}
    variant = hf_bias_patch.patch(saved("bert"), tmp_path / "out", fold="key,query", left_out=left_out).path
    assert hf_bias_patch.plan(variant, fold="key,query", where_possible=True).recipe.left_out == left_out
    assert hf_bias_patch.patch(variant, tmp_path / "twice", fold="key,query", where_possible=True).unchanged
    for other in ({"fold": "query:norm", "where_possible": True}, {"fold": "key,query"}):
        assert left_out.keys() <= names(hf_bias_patch.plan(variant, **other))


def test_too_great_a_loss(saved: Saved) -> None:
    losses = {edit.name: edit.loss or 0.0 for edit in hf_bias_patch.plan(saved("bert"), fold="query").edits}
    bound = sorted(losses.values())[1]
    made = hf_bias_patch.plan(saved("bert"), fold="query", max_loss=bound, where_possible=True)
    assert names(made) == {name for name, loss in losses.items() if loss <= bound}
    assert all("above max_loss" in reason for reason in made.recipe.left_out.values()) and len(made.edits) == 2


def test_a_bias_that_is_not_a_number(saved: Saved, tmp_path: Path) -> None:
    fresh("bert", dtype=torch.float32).save_pretrained(tmp_path / "bert")
    file = tmp_path / "bert" / "model.safetensors"
    values = load_file(file)
    values["bert.encoder.layer.1.attention.self.value.bias"][3] = torch.nan
    save_file(values, file, {"format": "pt"})
    with pytest.raises(ValuesError, match="1 NaN or infinite"):
        hf_bias_patch.plan(tmp_path / "bert", fold="key,value")
    made = hf_bias_patch.plan(tmp_path / "bert", fold="key,value", where_possible=True)
    assert list(made.recipe.left_out) == ["encoder.1.self.value"]
    assert "NaN" in made.recipe.left_out["encoder.1.self.value"]


def test_a_projection_without_biases_leaves_nothing_to_fold(tmp_path: Path) -> None:
    config = WhisperConfig(
        vocab_size=60, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    randomise(WhisperForConditionalGeneration(config)).save_pretrained(tmp_path / "whisper")
    made = hf_bias_patch.plan(tmp_path / "whisper", fold="key,value", where_possible=True)
    assert made.recipe.fold == {"value": "default"} and len(made.edits) == 3 and not made.recipe.left_out
    for where in (False, True):
        with pytest.raises(RecipeError, match="has a key bias"):
            hf_bias_patch.plan(tmp_path / "whisper", fold="key", where_possible=where)


def test_storage_absent_needs_all_of_a_fused_bias(saved: Saved) -> None:
    fields = {"fold": "key,value,query", "storage": "absent", "max_loss": 1e-9, "where_possible": True}
    with pytest.raises(PlanError, match=r"(?s)None of the folds.*storage absent cannot take a part out of"):
        hf_bias_patch.plan(saved("gpt2"), **fields)
    apart = hf_bias_patch.plan(saved("bert"), **fields)
    assert len(apart.absent) == 6 and len(apart.recipe.left_out) == 3


def test_tensors_that_share_their_memory(tmp_path: Path) -> None:
    model = fresh("bert", dtype=torch.float32)
    folder = tmp_path / "bert"
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    state = model.state_dict()
    first, second = (f"bert.encoder.layer.{layer}.attention.self.key.bias" for layer in (0, 1))
    state[second] = state[first]
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(PlanError, match="shares its memory"):
        hf_bias_patch.plan(folder, fold="key,value")
    made = hf_bias_patch.plan(folder, fold="key,value", where_possible=True)
    assert list(made.recipe.left_out) == ["encoder.0.self.key", "encoder.1.self.key"]
    assert made.recipe.left_out["encoder.0.self.key"] == f"tensor {first} shares its memory with {second}"
    with pytest.raises(PlanError, match="shares its memory"):
        hf_bias_patch.plan(folder, fold="value", drop="key", where_possible=True)
