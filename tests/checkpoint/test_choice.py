"""Which file a folder is opened by: the one that stock transformers loads, whatever lies beside it."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hf_bias_patch import inspect, patch, patch_in_place, plan
from hf_bias_patch.checkpoint.pickled import open_any_model
from hf_bias_patch.errors import BiasPatchError, CheckpointError
from tests.models import fresh

Saved = Callable[..., Path]

BIAS = "bert.encoder.layer.0.attention.self.key.bias"
FORMS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
OTHERS = ("model.fp16.safetensors", "other.safetensors", "adapter_model.safetensors")


def write(folder: Path, name: str, mark: float) -> None:
    """A model in one of its forms; its first key bias tells which."""
    state = {key: value.float() for key, value in fresh("bert").state_dict().items()}
    state[BIAS] = torch.full_like(state[BIAS], mark)
    if name == "adapter_model.safetensors":
        state = {"base_model.model.x.lora_A.weight": torch.ones(2, 2)}
    if not name.endswith(".index.json"):
        (save_file if name.endswith(".safetensors") else torch.save)(state, folder / name)
        return
    ending = "safetensors" if "safetensors" in name else "bin"
    names = sorted(state)
    for number, part in enumerate((names[:9], names[9:]), 1):
        content = {key: state[key] for key in part}
        file = folder / f"{name.split('.')[0]}-{number:05}-of-00002.{ending}"
        (save_file if ending == "safetensors" else torch.save)(content, file)
    weight_map = {
        key: f"{name.split('.')[0]}-{number:05}-of-00002.{ending}"
        for number, part in enumerate((names[:9], names[9:]), 1)
        for key in part
    }
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A config.json alone."""
    fresh("bert").config.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_it_is_the_one_that_transformers_loads(count: int, folder: Path) -> None:
    """Every set of so many forms, beside files that stock transformers does not look at."""
    for number, name in enumerate((*FORMS, *OTHERS)):
        write(folder, name, number + 1.0)
    everything = {path.name: path.read_bytes() for path in folder.iterdir()}
    for chosen in itertools.combinations(FORMS, count):
        for path in folder.iterdir():
            if path.name in FORMS:
                path.unlink()
        for name in chosen:
            (folder / name).write_bytes(everything[name])
        (folder / "adapter_model.safetensors").unlink(missing_ok=True)
        model = transformers.BertForMaskedLM.from_pretrained(folder)
        (folder / "adapter_model.safetensors").write_bytes(everything["adapter_model.safetensors"])
        expected = model.get_parameter(BIAS)[0].item()
        assert open_any_model(folder).read(BIAS)[0] == expected
        assert FORMS[int(expected) - 1] in chosen


def test_a_config_may_name_the_weights(folder: Path) -> None:
    write(folder, "model.safetensors", 1.0)
    write(folder, "other.safetensors", 2.0)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": "other.safetensors"}))
    assert transformers.BertForMaskedLM.from_pretrained(folder).get_parameter(BIAS)[0].item() == 2
    assert open_any_model(folder).read(BIAS)[0] == 2
    done = patch(folder, folder.parent / "out", fold="key")
    assert [path.name for path in done.left_behind] == ["model.safetensors"]
    assert transformers.BertForMaskedLM.from_pretrained(folder.parent / "out").get_parameter(BIAS)[0].item() == 0
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": ".//other.safetensors"}))
    assert list(open_any_model(folder).files) == ["other.safetensors"]
    for name in ("../other.safetensors", "/other.safetensors", "."):
        (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": name}))
        with pytest.raises(CheckpointError, match="not inside the folder"):
            open_any_model(folder)


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "weights.safetensors", "weights.safetensors.index.json"])
def test_what_stock_does_not_find_is_seen_but_not_patched(name: str, folder: Path) -> None:
    """`from_pretrained` would not load the variant either; it is said before anything is written."""
    write(folder, name, 1.0)
    with pytest.raises(OSError, match="no file named"):
        transformers.BertForMaskedLM.from_pretrained(folder)
    assert inspect(folder).sites
    right = "model.safetensors.index.json" if "index" in name else "model.safetensors"
    attempts = [
        lambda: plan(folder, fold="key"),
        lambda: patch(folder, folder.parent / "out", fold="key"),
        lambda: patch_in_place(folder, fold="key"),
    ]
    for attempt in attempts:
        with pytest.raises(CheckpointError, match=f"Rename it to {right}"):
            attempt()
    assert not (folder.parent / "out").exists()
    (folder / name).rename(folder / right)
    patch(folder, folder.parent / "out", fold="key")
    assert transformers.BertForMaskedLM.from_pretrained(folder.parent / "out").get_parameter(BIAS)[0].item() == 0


def test_a_file_that_is_given_beside_the_one_stock_takes(folder: Path) -> None:
    write(folder, "model.safetensors", 1.0)
    write(folder, "model.fp16.safetensors", 2.0)
    assert inspect(folder / "model.fp16.safetensors").sites
    with pytest.raises(CheckpointError, match="into a folder of its own"):
        patch(folder / "model.fp16.safetensors", folder.parent / "out", fold="key")


def test_what_is_no_file_is_passed_over(folder: Path) -> None:
    write(folder, "pytorch_model.bin", 3.0)
    (folder / "model.safetensors").mkdir()
    (folder / "model.safetensors.index.json").symlink_to("gone")
    assert transformers.BertForMaskedLM.from_pretrained(folder).get_parameter(BIAS)[0].item() == 3
    assert open_any_model(folder).read(BIAS)[0] == 3


def test_an_adapter_alone_is_no_model(folder: Path) -> None:
    write(folder, "adapter_model.safetensors", 1.0)
    with pytest.raises(BiasPatchError, match="no weights"):
        inspect(folder)


def test_sixteen_bits_beside_a_pickle(saved: Saved, tmp_path: Path) -> None:
    """The pickle is what stock transformers loads, so the pickle is what is patched."""
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(saved("bert"), source)
    state = load_file(source / "model.safetensors")
    torch.save(state, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    save_file({key: value.half() for key, value in state.items()}, source / "model.fp16.safetensors")
    assert inspect(source).nbytes == inspect(saved("bert")).nbytes
    with pytest.raises(CheckpointError, match="is a PyTorch pickle"):
        patch_in_place(source, fold="key")
    done = patch(source, out, fold="key")
    assert {path.name: what for path, what in done.left_behind.items()} == {
        "model.fp16.safetensors": "the unpatched weights"
    }
    patch(saved("bert"), tmp_path / "other", fold="key")
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "other" / "model.safetensors").read_bytes()
