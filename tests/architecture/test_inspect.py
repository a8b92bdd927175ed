"""`inspect` tells the numbers that are in the file, and reads nothing but headers and biases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hf_bias_patch.architecture.inspect import inspect
from hf_bias_patch.architecture.plot import draw
from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.errors import CheckpointError, FamilyError, SourceError


def test_the_numbers_of_a_bert(saved: Callable[..., Path]) -> None:
    folder = saved("bert")
    tensors = load_file(folder / "model.safetensors")
    found = inspect(folder)
    assert (found.model, found.model_type, found.family) == (str(folder), "bert", "bert")
    assert found.parameters == sum(value.size for value in tensors.values())
    assert found.nbytes == sum(value.nbytes for value in tensors.values())
    assert found.bias_parameters == 3 * 4 * 32 and found.bias_nbytes == 4 * found.bias_parameters
    assert found.verdicts() == {"foldable": 2 * 96, "redundant": 96, "needed": 96}
    assert len(found.values) == 12
    for (site, projection), values in found.values.items():
        layer = site.split(".")[1]
        module = "attention.output.dense" if projection == "output" else f"attention.self.{projection}"
        bias = tensors[f"bert.encoder.layer.{layer}.{module}.bias"].astype(np.float64)
        assert (values.dtype, values.parameters, values.nbytes) == ("F32", 32, 128)
        assert values.norm == pytest.approx(np.sqrt((bias**2).sum()), rel=1e-12)
        if projection == "output":
            assert values.head_norms == ()
        else:
            per_head = [np.sqrt((bias[head * 8 : head * 8 + 8] ** 2).sum()) for head in range(4)]
            assert values.head_norms == pytest.approx(per_head, rel=1e-12)


def test_the_parts_of_a_fused_bias(saved: Callable[..., Path]) -> None:
    folder = saved("gpt2", "BF16")
    found = inspect(folder)
    fused = load_file(folder / "model.safetensors")["transformer.h.1.attn.c_attn.bias"].astype(np.float64)
    for number, projection in enumerate(("query", "key", "value")):
        values = found.values["decoder.1.self", projection]
        own = fused[number * 32 : number * 32 + 32]
        assert values.dtype == "BF16" and values.nbytes == 64
        assert values.norm == pytest.approx(np.linalg.norm(own), rel=1e-12)
        assert values.head_norms[2] == pytest.approx(np.linalg.norm(own[16:24]), rel=1e-12)


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart", "bert+gpt2-bridged"])
def test_everything_as_json(saved: Callable[..., Path], name: str) -> None:
    found = inspect(saved(name))
    plain = json.loads(json.dumps(found.plain()))
    assert [entry["site"] for entry in plain["sites"]] == [site.name for site in found.sites]
    assert plain["bias_parameters"] == found.bias_parameters and plain["verdicts"] == found.verdicts()
    for entry in plain["sites"]:
        assert set(entry["biases"]) == {"query", "key", "value", "output"}
        assert all(bias["verdict"] and bias["reason"] for bias in entry["biases"].values())


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
def test_no_weight_is_read(saved: Callable[..., Path], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read = Checkpoint.read

    def counted(self: Checkpoint, tensor: str) -> np.ndarray:
        asked.append(tensor)
        return read(self, tensor)

    def refused(*_: object) -> np.ndarray:
        raise AssertionError("a matrix is read")

    monkeypatch.setattr(Checkpoint, "read", counted)
    monkeypatch.setattr(Checkpoint, "rows", refused)
    inspect(saved(name))
    assert asked and all(tensor.endswith(".bias") for tensor in asked)
    assert len(asked) == len(set(asked)), "read twice"


def test_a_single_file_is_inspected_with_the_config_beside_it(saved: Callable[..., Path]) -> None:
    folder = saved("distilbert")
    assert inspect(folder / "model.safetensors").plain()["sites"] == inspect(folder).plain()["sites"]


def test_a_bias_that_is_no_number_is_refused(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved("bert")
    tensors = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.1.attention.self.key.bias"
    save_file(tensors | {name: tensors[name].astype(np.int8)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=f"{name} is stored as I8"):
        inspect(tmp_path)


def test_where_each_bias_could_go_is_said_in_full(saved: Callable[..., Path]) -> None:
    biases = inspect(saved("electra-projected")).plain()["sites"][0]["biases"]
    assert biases["value"]["folds"] == [
        {"destination": "output", "exact": True, "reason": ""},
        {
            "destination": "weight",
            "exact": False,
            "reason": "embeddings_project stands between the embedding norm and it",
        },
    ]
    assert biases["output"]["folds"] == []


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_what_is_not_finite_is_counted_and_is_null_in_json(
    saved: Callable[..., Path], tmp_path: Path, value: float
) -> None:
    folder = saved("bert")
    tensors = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.1.attention.self.key.bias"
    tensors[name] = tensors[name].copy()
    tensors[name][[3, 4]] = value
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    found = inspect(tmp_path)
    assert {place: values.not_finite for place, values in found.values.items() if values.not_finite} == {
        ("encoder.1.self", "key"): 2
    }
    entry = json.loads(json.dumps(found.plain(), allow_nan=False))["sites"][1]["biases"]["key"]
    assert (entry["norm"], entry["not_finite"], entry["dtype"], entry["parameters"]) == (None, 2, "F32", 32)
    assert entry["head_norms"][0] is None and all(norm > 0 for norm in entry["head_norms"][1:])
    draw(found, tmp_path / "norms.png")
    assert (tmp_path / "norms.png").stat().st_size > 5_000


def test_places_that_are_no_checkpoint(tmp_path: Path, saved: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no config"):
        inspect(tmp_path)
    lone = tmp_path / "lone.safetensors"
    lone.write_bytes((saved("bert") / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"There is no config\.json beside .*lone\.safetensors"):
        inspect(lone)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FamilyError, match="has no `model_type`"):
        inspect(lone)
