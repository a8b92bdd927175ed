"""Storage `absent`: tensors leave the file and parameters the module, and everything still loads and computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open

import hf_bias_patch
from hf_bias_patch.errors import CheckpointError, PlanError, SourceError
from hf_bias_patch.evidence.run import verify
from hf_bias_patch.patching.in_memory import apply
from tests.models import error, fresh, inputs_of, outputs_of

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]

AUTO = {
    "bert": transformers.AutoModelForMaskedLM,
    "roberta": transformers.AutoModelForMaskedLM,
    "distilbert": transformers.AutoModelForMaskedLM,
    "electra": transformers.AutoModelForMaskedLM,
    "gpt2": transformers.AutoModelForCausalLM,
    "gpt2-cross": transformers.AutoModelForCausalLM,
    "bart": transformers.AutoModelForSeq2SeqLM,
    "mbart": transformers.AutoModelForSeq2SeqLM,
    "bert+bert": transformers.AutoModelForSeq2SeqLM,
    "bert+gpt2": transformers.AutoModelForSeq2SeqLM,
}
ATTENTION_SITES = {"bart": 8, "mbart": 8, "bert+bert": 8, "bert+gpt2": 8, "gpt2-cross": 6}


def tensor_names(folder: Path) -> set[str]:
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            names |= set(file.keys())
    return names


def parameters(model: torch.nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())


@pytest.fixture
def no_code_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Code shipped in checkpoints is copied to a cache of its own."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))


@pytest.mark.parametrize("name", AUTO)
@pytest.mark.usefixtures("no_code_cache")
def test_every_way_to_load(saved: Saved, name: str, tmp_path: Path) -> None:
    source, out = saved(name), tmp_path / "out"
    done = hf_bias_patch.patch(source, out, fold="query,key,value", storage="absent")
    removed = set(done.plan.absent)
    assert removed and tensor_names(source) - tensor_names(out) == removed
    assert (out / "model.safetensors").stat().st_size < (source / "model.safetensors").stat().st_size

    stock = fresh(name, dtype=torch.float32)
    expected = outputs_of(fresh(name))
    gone = ATTENTION_SITES.get(name, 3) * 3 * 32
    for load in (
        lambda **more: hf_bias_patch.load(out, **more),
        lambda **more: hf_bias_patch.load(out, AUTO[name], **more),
        lambda **more: hf_bias_patch.load(str(out), type(stock), **more),
        lambda **more: AUTO[name].from_pretrained(out, trust_remote_code=True, **more),
    ):
        model, report = load(output_loading_info=True)
        assert not any(report.values()), report
        assert isinstance(model, type(stock)) and not model.training
        assert parameters(model) == parameters(stock) - gone
        present = dict(model.named_parameters(remove_duplicate=False))
        assert not removed & set(present) and set(present) == set(stock.state_dict()) & set(present)
        assert error(outputs_of(model.double()), expected) < 1e-5


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart", "bert+gpt2"])
@pytest.mark.usefixtures("no_code_cache")
def test_saved_and_loaded_again(saved: Saved, name: str, tmp_path: Path) -> None:
    hf_bias_patch.patch(saved(name), tmp_path / "out", fold="query,key,value", storage="absent")
    model = hf_bias_patch.load(tmp_path / "out", dtype="auto")
    expected, size = outputs_of(model), parameters(model)
    model.save_pretrained(tmp_path / "again")
    assert tensor_names(tmp_path / "again") == tensor_names(tmp_path / "out")
    by_us = hf_bias_patch.load(tmp_path / "again")
    by_stock = AUTO[name].from_pretrained(tmp_path / "again", trust_remote_code=True)
    by_stock.save_pretrained(tmp_path / "thrice")
    last = AUTO[name].from_pretrained(tmp_path / "thrice", trust_remote_code=True)
    for other in (by_us, by_stock, last, hf_bias_patch.load(tmp_path / "thrice")):
        assert parameters(other) == size
        assert error(outputs_of(other), expected) == 0


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_other_heads_of_the_same_weights(saved: Saved, name: str, tmp_path: Path) -> None:
    hf_bias_patch.patch(saved(name), tmp_path / "out", fold="query,key,value", storage="absent")
    bare = hf_bias_patch.load(tmp_path / "out", transformers.AutoModel).double()
    full = fresh(name).base_model
    given = inputs_of(full)
    last = "last of hidden_states"
    assert error({last: outputs_of(bare, given)[last]}, {last: outputs_of(full, given)[last]}) < 1e-5
    stock = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "out", trust_remote_code=False)
    lean = hf_bias_patch.load(tmp_path / "out", transformers.AutoModelForTokenClassification)
    assert parameters(lean) == parameters(stock) - 3 * 3 * 32


def test_a_bare_model_has_names_without_a_prefix(saved: Saved, tmp_path: Path) -> None:
    hf_bias_patch.patch(saved("bert", head=transformers.BertModel), tmp_path / "out", fold="key", storage="absent")
    bare = hf_bias_patch.load(tmp_path / "out")
    assert type(bare).__name__ == "BertModel"
    assert all(layer.attention.self.key.bias is None for layer in bare.encoder.layer)
    assert all(layer.attention.self.query.bias is not None for layer in bare.encoder.layer)
    headed = hf_bias_patch.load(tmp_path / "out", transformers.BertForTokenClassification)
    assert all(layer.attention.self.key.bias is None for layer in headed.bert.encoder.layer)


def test_a_certificate_asks_for_the_code_that_loads_it(saved: Saved, tmp_path: Path) -> None:
    source, out = saved("bert"), tmp_path / "out"
    hf_bias_patch.patch(source, out, fold="key", storage="absent")
    assert verify(out, source, attention=("sdpa",)).passed
    loader = out / "modeling_bias_patch.py"
    loader.write_text(loader.read_text() + "\nsomething = 1\n")
    assert "modeling_bias_patch.py is not as it was written" in verify(out, source, attention=("sdpa",)).differs
    loader.unlink()
    assert any("modeling_bias_patch.py is not in" in why for why in verify(out, source, attention=("sdpa",)).differs)


def test_stock_loaders_without_the_code_add_zeros(saved: Saved, tmp_path: Path) -> None:
    """Without trust, the function is the same still; the parameters come back as zeros."""
    hf_bias_patch.patch(saved("bert"), tmp_path / "out", fold="query,key,value", storage="absent")
    model, report = transformers.BertForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    missing = report["missing_keys"]
    assert len(missing) == 9 and all(name.endswith(".bias") for name in missing)
    assert error(outputs_of(model.double()), outputs_of(fresh("bert"))) < 1e-5


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
@pytest.mark.usefixtures("no_code_cache")
def test_shards(saved: Saved, name: str, tmp_path: Path, tree: Tree) -> None:
    source = saved(name, shard="20KB")
    done = hf_bias_patch.patch(source, tmp_path / "out", fold="query,key,value", storage="absent")
    old, new = (
        json.loads((folder / "model.safetensors.index.json").read_text()) for folder in (source, tmp_path / "out")
    )
    assert set(old["weight_map"]) - set(new["weight_map"]) == set(done.plan.absent)
    assert set(new["weight_map"]) == tensor_names(tmp_path / "out")
    gone = sum(32 * 4 * (3 if "c_attn" in bias else 1) for bias in done.plan.absent)
    assert old["metadata"]["total_size"] - new["metadata"]["total_size"] == gone
    for model in (
        hf_bias_patch.load(tmp_path / "out"),
        AUTO[name].from_pretrained(tmp_path / "out", trust_remote_code=True),
    ):
        assert error(outputs_of(model.double()), outputs_of(fresh(name))) < 1e-5
    hf_bias_patch.revert(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(source)


def test_a_shard_that_holds_nothing_else(saved: Saved, tmp_path: Path, tree: Tree) -> None:
    """One tensor a shard: those of the biases would be left empty."""
    source = saved("distilbert", shard=1)
    assert len(list(source.glob("*.safetensors"))) > 40
    done = hf_bias_patch.patch(source, tmp_path / "out", fold="query,key,value", storage="absent")
    assert len(done.plan.absent) == 9
    model, report = hf_bias_patch.load(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    assert error(outputs_of(model.double()), outputs_of(fresh("distilbert"))) < 1e-5
    again = hf_bias_patch.patch(tmp_path / "out", tmp_path / "more", drop="output")
    assert len(again.plan.edits) == 3
    hf_bias_patch.revert(tmp_path / "more")
    assert tree(tmp_path / "more") == tree(tmp_path / "out")
    hf_bias_patch.revert(tmp_path / "more")
    hf_bias_patch.revert(tmp_path / "out", tmp_path / "back")
    assert tree(tmp_path / "more") == tree(tmp_path / "back") == tree(source)


@pytest.mark.parametrize(
    "fields", [{"fold": "query"}, {"fold": "key,value"}, {"drop": "key", "fold": "query"}], ids=str
)
def test_a_part_of_a_fused_bias_is_refused_with_the_alternative(
    saved: Saved, fields: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(
        PlanError, match=r"cannot take a part out of .*h\.0\.attn\.c_attn\.bias \(nor of 2 more\)"
    ) as caught:
        hf_bias_patch.patch(saved("gpt2"), tmp_path / "out", storage="absent", **fields)
    assert "--fold query,key,value" in str(caught.value) and "--storage zeros" in str(caught.value)
    assert not (tmp_path / "out").exists()
    hf_bias_patch.patch(saved("gpt2"), tmp_path / "out", **fields)


def test_the_whole_of_a_fused_bias_in_different_ways(saved: Saved, tmp_path: Path) -> None:
    done = hf_bias_patch.patch(saved("gpt2"), tmp_path / "out", fold="query,value", drop="key", storage="absent")
    assert len(done.plan.absent) == 3
    model = hf_bias_patch.load(tmp_path / "out")
    assert error(outputs_of(model.double()), outputs_of(fresh("gpt2"))) < 1e-5


def test_chained_patches_take_away_more_and_more(saved: Saved, tmp_path: Path) -> None:
    first = hf_bias_patch.patch(saved("bert"), tmp_path / "one", fold="key", storage="absent")
    second = hf_bias_patch.patch(tmp_path / "one", tmp_path / "two", fold="value,query", storage="absent")
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert config["bias_patch"]["absent"] == sorted({*first.plan.absent, *second.plan.absent})
    model = hf_bias_patch.load(tmp_path / "two")
    assert parameters(model) == parameters(fresh("bert")) - 9 * 32
    assert error(outputs_of(model.double()), outputs_of(fresh("bert"))) < 1e-5
    third = hf_bias_patch.patch(tmp_path / "two", tmp_path / "three", drop="output")
    assert third.plan.absent == ()
    config = json.loads((tmp_path / "three" / "config.json").read_text())
    assert len(config["bias_patch"]["absent"]) == 9, "what is gone stays gone"
    assert parameters(hf_bias_patch.load(tmp_path / "three")) == parameters(model)


def test_biases_that_a_stock_loader_brought_back_and_training_moved(saved: Saved, tmp_path: Path) -> None:
    hf_bias_patch.patch(saved("bert"), tmp_path / "out", fold="query,key,value", storage="absent")
    model = transformers.BertForMaskedLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.attention.self.value.bias.fill_(0.5)
    model.save_pretrained(tmp_path / "trained")
    expected = outputs_of(model)
    again = hf_bias_patch.load(tmp_path / "trained")
    assert error(outputs_of(again), expected) == 0 and parameters(again) == parameters(model)
    hf_bias_patch.patch(tmp_path / "trained", tmp_path / "two", fold="value", storage="absent")
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert [name.split(".")[-2] for name in config["bias_patch"]["absent"]] == ["value"] * 3
    two = hf_bias_patch.load(tmp_path / "two")
    assert parameters(two) == parameters(model) - 3 * 32
    assert error(outputs_of(two), expected) < 1e-5


def test_zero_biases_can_be_taken_away_too(saved: Saved, tmp_path: Path) -> None:
    hf_bias_patch.patch(saved("bert"), tmp_path / "zeros", fold="key,value")
    done = hf_bias_patch.patch(tmp_path / "zeros", tmp_path / "out", fold="key,value", storage="absent")
    assert not done.unchanged and not done.plan.touched and len(done.plan.absent) == 6
    assert tensor_names(saved("bert")) - tensor_names(tmp_path / "out") == set(done.plan.absent)


class TestLoad:
    def test_what_is_no_variant_loads_as_well(self, saved: Saved) -> None:
        model = hf_bias_patch.load(saved("bert"), dtype="auto")
        assert type(model) is transformers.BertForMaskedLM
        assert error(outputs_of(model.double()), outputs_of(fresh("bert"))) < 1e-5

    def test_a_variant_with_zeros_loads_as_stock(self, saved: Saved, tmp_path: Path) -> None:
        hf_bias_patch.patch(saved("bert"), tmp_path / "out", fold="key")
        assert type(hf_bias_patch.load(tmp_path / "out")) is transformers.BertForMaskedLM

    def test_options_are_passed_on(self, saved: Saved) -> None:
        assert hf_bias_patch.load(saved("gpt2"), dtype=torch.bfloat16).dtype == torch.bfloat16
        model = hf_bias_patch.load(saved("gpt2"), attn_implementation="eager")
        assert model.config._attn_implementation == "eager"

    def test_a_class_that_does_not_fit(self, saved: Saved) -> None:
        with pytest.raises(CheckpointError, match="AutoModelForSeq2SeqLM has no class for the model type 'gpt2'"):
            hf_bias_patch.load(saved("gpt2"), transformers.AutoModelForSeq2SeqLM)

    @pytest.mark.parametrize("architectures", [None, [], ["BertForMindReading"]])
    def test_no_class_named(self, saved: Saved, tmp_path: Path, architectures: Any) -> None:
        for path in saved("bert").iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": architectures}))
        with pytest.raises(CheckpointError, match=r"names no architecture .*Pass an Auto class"):
            hf_bias_patch.load(tmp_path)
        assert hf_bias_patch.load(tmp_path, transformers.AutoModelForMaskedLM)

    def test_nowhere(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError):
            hf_bias_patch.load(tmp_path / "nowhere")


def test_in_memory_there_is_no_absent() -> None:
    """`apply` keeps the parameters: they belong to the caller's model."""
    model = fresh("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(PlanError, match="for a model in memory"):
        apply(model, fold="key", storage="absent")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
