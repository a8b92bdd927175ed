"""A checkpoint that does not fit its config.json: the error names what made it so, where the files tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.stock import entry
from hf_bias_patch.errors import CheckpointError, FamilyError


@dataclass(frozen=True)
class Info:
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


Tensors = dict[str, Info]
CONFIG: dict[str, Any] = {"model_type": "bert", "num_hidden_layers": 2, "num_attention_heads": 4}


def bert() -> Tensors:
    """The attention of a BERT of two layers, 24 wide, and the norms before it."""
    maps = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    tensors = {f"encoder.layer.{layer}.{name}.weight": Info("F32", (24, 24)) for layer in range(2) for name in maps}
    norms = ("embeddings.LayerNorm", "encoder.layer.0.output.LayerNorm")
    tensors |= {f"{name}.weight": Info("F32", (24,)) for name in norms}
    return tensors | {name.replace("weight", "bias"): Info("F32", (24,)) for name in tensors}


def refused(config: dict[str, Any], tensors: Tensors) -> str:
    """The error, in one line; it is one of ours."""
    with pytest.raises((CheckpointError, FamilyError)) as caught:
        find_sites(config, tensors)
    return str(caught.value)


def test_the_tensors_themselves_are_sound() -> None:
    assert len(find_sites(CONFIG, bert())) == 2


EMPTY = {
    "attention": lambda name, info: "attention" in name,
    "matrices": lambda name, info: len(info.shape) == 2,
    "biases": lambda name, info: name.endswith("bias"),
    "one": lambda name, info: name == "encoder.layer.1.attention.self.key.weight",
}


@pytest.mark.parametrize("which", EMPTY)
def test_placeholders_of_zero3_are_counted_and_named(which: str) -> None:
    is_empty = EMPTY[which]
    tensors = {name: Info("F32", (0,)) if is_empty(name, info) else info for name, info in bert().items()}
    count = sum(info.shape == (0,) for info in tensors.values())
    said = refused(CONFIG, tensors)
    assert f"{count} of {len(tensors)} tensors are empty" in said and "ZeRO-3" in said and "zero_to_fp32.py" in said
    assert "config.json" not in said
    # It is the files that are empty, whatever config.json says.
    assert "ZeRO-3" in refused({}, tensors) and "ZeRO-3" in refused({"model_type": "nobody's"}, tensors)


def test_what_is_empty_for_another_reason_is_no_placeholder() -> None:
    """A head for no labels; what fp_quant leaves beside its packed weights; a buffer."""
    others = {
        "classifier.weight": Info("F32", (0, 24)), "classifier.bias": Info("F32", (0,)),
        "mlp.weight": Info("F32", (0,)), "mlp.qweight": Info("I32", (8, 3)), "rotary.inv_freq": Info("F32", (0,)),
    }  # fmt: skip
    assert len(find_sites(CONFIG, bert() | others)) == 2


def test_a_model_with_code_of_its_own_is_known_by_auto_map() -> None:
    fused = {name: info for name, info in bert().items() if ".self." not in name}
    fused |= {f"encoder.layer.{layer}.attention.self.Wqkv.weight": Info("F32", (72, 24)) for layer in range(2)}
    own = CONFIG | {"auto_map": {"AutoModelForMaskedLM": "bert_layers.BertForMaskedLM"}}
    said = refused(own, fused)
    assert "`auto_map` names bert_layers.BertForMaskedLM" in said and "--trust-remote-code" in said
    # Also where but one map goes by another name, and where no family knows the type.
    partly = {name.replace("self.key", "self.k"): info for name, info in bert().items()}
    assert "bert_layers" in refused(own, partly) and "lacks" in refused(own, partly)
    assert "bert_layers" in refused(own | {"model_type": "nobody's"}, fused)
    # A config.json alone, and the loader of a variant whose biases are absent, are no such code.
    for auto_map in ({"AutoConfig": "own.Config"}, {"AutoModel": "modeling_bias_patch.AutoModel"}, "own.Model", None):
        assert "auto_map" not in refused(CONFIG | {"auto_map": auto_map}, fused)


def test_an_adapter_in_the_place_of_a_model() -> None:
    names = [f"base_model.model.encoder.layer.0.attention.self.query.lora_{part}.weight" for part in "AB"]
    said = refused(CONFIG, {name: Info("F32", (8, 24)) for name in names})
    assert "2 of 2 tensors are an adapter's" in said and "merge" in said


def test_a_model_that_was_saved_with_an_adapter_around_it() -> None:
    names = {f"base_model.model.{name.replace('query.', 'query.base_layer.')}": info for name, info in bert().items()}
    said = refused(CONFIG, names)
    assert "4 of 20 tensors are called `.base_layer.`" in said and "merge_and_unload" in said


def test_tensors_of_another_type_are_told_by_their_names_or_by_the_class() -> None:
    config = {"model_type": "gpt2", "n_layer": 2, "n_head": 4}
    assert "so it is of another type" in refused(config, bert())
    said = refused(config | {"architectures": ["BertForMaskedLM"]}, bert())
    assert "`model_type` is 'gpt2', and `architectures` names a bert model" in said


def test_a_checkpoint_without_tensors() -> None:
    assert "holds no tensors" in refused(CONFIG, {})


@pytest.mark.parametrize("named", [["bert"], {"bert": 1}, 3, True])
def test_a_model_type_that_is_no_text(named: Any) -> None:
    assert "No family covers the model type" in refused(CONFIG | {"model_type": named}, bert())
    assert entry("stock_parts", named) == entry("stock_configs", named) == {}


def test_a_checkpoint_that_was_cut_says_where_it_ends() -> None:
    said = refused(CONFIG | {"num_hidden_layers": 12}, bert())
    assert "num_hidden_layers = 12" in said and "Its last layer is 1" in said
    assert len(find_sites(CONFIG | {"num_hidden_layers": 1}, bert())) == 1, "stock reads no layer beyond"


@pytest.mark.parametrize("ending", ["weight_packed", "qweight", "W_q", "codes", "trellis"])
def test_packed_maps_are_seen_and_only_the_key_can_go(ending: str) -> None:
    packed = {name.replace(".weight", f".{ending}") if "attention" in name else name: info
              for name, info in bert().items() if name != "encoder.layer.0.attention.output.dense.bias"}  # fmt: skip
    packed = {name: Info("I32", info.shape) if name.endswith(ending) else info for name, info in packed.items()}
    for site in find_sites(CONFIG, packed):
        assert site.slots["key"].verdict.destinations == ("nothing",)
        assert not site.slots["value"].verdict.destinations and not site.slots["query"].verdict.destinations
        assert "quantised weights cannot be read" in site.slots["value"].verdict.reason


def test_a_value_goes_through_an_output_projection_that_can_be_read() -> None:
    """Whether its own weights can be read does not matter; the output's do."""
    value, output = "encoder.layer.0.attention.self.value.weight", "encoder.layer.0.attention.output.dense.weight"
    for packed, destinations in ((value, ("output",)), (output, ("weight",))):
        tensors = bert() | {packed: Info("I8", (24, 24))}
        assert find_sites(CONFIG, tensors)[0].slots["value"].verdict.destinations == destinations
        without = {name: info for name, info in bert().items() if name != packed}
        assert find_sites(CONFIG, without)[0].slots["value"].verdict.destinations == destinations


@pytest.mark.parametrize("number", [3, 2**31, 2**64, 10**300])
def test_no_number_of_layers_takes_work(number: int) -> None:
    assert "lacks encoder.layer.2" in refused(CONFIG | {"num_hidden_layers": number}, bert())


@pytest.mark.parametrize("layer", ["9" * 5000, "01", "1_0", "٣", "-1"])
def test_what_is_no_layer_number_is_no_layer(layer: str) -> None:
    strange = {name.replace("layer.1.", f"layer.{layer}."): info for name, info in bert().items()}
    assert "lacks encoder.layer.1" in refused(CONFIG, strange)
