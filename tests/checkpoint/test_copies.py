"""A copy of the weights is known by its tensors, whatever the file is called; all else travels."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hf_bias_patch.checkpoint.copies import parts_of
from hf_bias_patch.checkpoint.listing import companion_files, left_behind
from hf_bias_patch.checkpoint.pickled import open_any_model

MakeFolder = Callable[..., Path]
Tensors = Mapping[str, "np.ndarray[Any, Any]"]


def sorted_out(checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """The files that travel, and those that do not."""
    return (
        [path.as_posix() for path in companion_files(checkpoint)],
        [path.as_posix() for path in left_behind(checkpoint)],
    )


def other_values(tensors: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.array(values + 1, values.dtype) for name, values in tensors.items()}


def under(prefix: str, tensors: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    return {prefix + name: values for name, values in tensors.items()}


def renamed(tensors: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    return {f"w{number}": values for number, values in enumerate(tensors.values())}


def halved(tensors: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    return {name: values.astype(np.float16) for name, values in tensors.items()}


def packed(tensors: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    """As quantisers write it: eight numbers of four bits each in one of 32, and their scales."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, values in tensors.items():
        if name.endswith("weight"):
            found[name.replace("weight", "qweight")] = np.zeros((values.shape[0], 1), np.int32)
            found[name.replace("weight", "scales")] = np.ones(values.shape[0], np.float16)
    return found


def test_so_is_one_whose_maps_are_fused(make_folder: MakeFolder) -> None:
    """As those published it who trained it: other names, and query, key and value in one matrix."""
    draw = np.random.default_rng(0)
    maps = {name: draw.standard_normal((8, 8)).astype(np.float32) for name in "qkvo"}
    tensors = {f"encoder.{n}.attention.{name}.weight": values for n in (0, 1) for name, values in maps.items()}
    tensors["words.weight"] = draw.standard_normal((30, 8)).astype(np.float32)
    folder = make_folder(tensors=tensors)
    qkv = np.concatenate([maps[name] for name in "qkv"])
    layers = {f"blocks{n}_{name}": values for n in (0, 1) for name, values in (("qkv", qkv), ("out", maps["o"]))}
    save_file({**layers, "embed": tensors["words.weight"]}, folder / "first.safetensors")
    save_file({**layers, "embed": np.ones((99, 8), np.float32)}, folder / "of_other_words.safetensors")
    assert sorted_out(open_checkpoint(folder)) == (["config.json", "of_other_words.safetensors"], ["first.safetensors"])


@pytest.mark.parametrize("name", ["model.safetensors.bak", "weights (1)", "model.safetensors-old"])
def test_so_is_one_without_an_ending(name: str, make_folder: MakeFolder, tensors: Tensors) -> None:
    folder = make_folder()
    save_file(dict(tensors), folder / name)
    torch.save({key: torch.from_numpy(values) for key, values in tensors.items()}, folder / f"{name}2")
    assert sorted_out(open_checkpoint(folder)) == (["config.json"], sorted([name, f"{name}2"]))


def test_so_is_one_of_numpy(make_folder: MakeFolder, tensors: Tensors) -> None:
    folder = make_folder()
    np.savez(folder / "weights.npz", **tensors)  # type: ignore[arg-type]
    np.savez_compressed(folder / "small.npz", **halved(tensors))  # type: ignore[arg-type]
    np.savez(folder / "prompts.npz", voice=np.ones((5, 4)), names=np.array(["a", "b"]))
    assert sorted_out(open_checkpoint(folder)) == (["config.json", "prompts.npz"], ["small.npz", "weights.npz"])


@pytest.mark.parametrize("make", [dict, halved, packed, other_values, lambda t: under("module.", t), renamed])
@pytest.mark.parametrize("name", ["fast.safetensors", "ema/weights.safetensors"])
def test_a_copy_is_known_by_its_tensors(make: Any, name: str, make_folder: MakeFolder, tensors: Tensors) -> None:
    folder = make_folder()
    (folder / name).parent.mkdir(exist_ok=True)
    save_file(make(tensors), folder / name)
    opened = open_checkpoint(folder)
    assert sorted_out(opened) == (["config.json"], [name])
    assert ("other values" in left_behind(opened)[Path(name)]) == (make is other_values)


@pytest.mark.parametrize("name", ["fast.pt", "best.pth", "last.ckpt", "weights.bin", "states/0.pkl"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [lambda t: t, lambda t: {"epoch": 3, "state_dict": t}, lambda t: [{"model": t}]])
def test_so_is_one_in_a_pickle(name: str, zipped: bool, nested: Any, make_folder: MakeFolder, tensors: Tensors) -> None:
    folder = make_folder()
    (folder / name).parent.mkdir(exist_ok=True)
    state = {key: torch.from_numpy(values) for key, values in tensors.items()}
    torch.save(nested(state), folder / name, _use_new_zipfile_serialization=zipped)
    assert sorted_out(open_checkpoint(folder)) == (["config.json"], [name])


def test_so_is_one_in_a_row(make_folder: MakeFolder, tensors: Tensors) -> None:
    folder = make_folder()
    row = torch.cat([torch.from_numpy(values).float().flatten() for values in tensors.values()])
    torch.save({"flat": row, "step": 3}, folder / "rank0.pt")
    torch.save({"flat": row[:8], "step": 3}, folder / "few.pt")
    assert sorted_out(open_checkpoint(folder)) == (["config.json", "few.pt"], ["rank0.pt"])


HEADS: dict[str, Any] = {
    "colbert_linear.pt": {"weight": torch.ones(6, 4), "bias": torch.ones(6)},
    "value_head.safetensors": {"summary.weight": np.ones((1, 4), np.float32)},
    "model.head.safetensors": {"summary.weight": np.ones((6, 4), np.float32)},
    "pytorch_model_head.bin": {"heads.default.1.weight": torch.ones(6, 4)},
    "embeddings.safetensors": {"documents": np.ones((500, 4), np.float32)},
    "classifier.pth": {"classifier": [torch.ones(3, 4), torch.ones(3)]},
    "scales.safetensors": {"encoder.0.query.ia3_l": np.ones((2, 1), np.float16)},
    "student.safetensors": {f"encoder.{n}.query.weight": np.ones((3, 4), np.float32) for n in (0, 1)},
    "lora.safetensors": {"encoder.0.query.lora_A.weight": np.ones((1, 4), np.float32)},
}


def test_what_is_no_copy_travels_under_any_name(make_folder: MakeFolder) -> None:
    folder = make_folder()
    for name, content in HEADS.items():
        save = save_file if name.endswith(".safetensors") else torch.save
        save(content, folder / name)
    (folder / "model_head.joblib").write_bytes(b"\x80" * 9)
    (folder / "labels.pkl").write_bytes(pickle.dumps({"coef": {1, 2}, "name": b"x" * 9000}))
    found, left = sorted_out(open_checkpoint(folder))
    assert found == sorted([*HEADS, "config.json", "model_head.joblib", "labels.pkl"]) and left == []


@pytest.mark.parametrize("pickled", [True, False])
def test_another_model_with_a_config_of_its_own_travels(
    pickled: bool, make_folder: MakeFolder, tensors: Tensors
) -> None:
    """Two towers of one architecture: only the values tell the second from a copy of the first."""
    folder = make_folder()
    for name, content in (("copy", halved(tensors)), ("tower", other_values(tensors))):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
        if pickled:
            torch.save({key: torch.from_numpy(v) for key, v in content.items()}, folder / name / "pytorch_model.bin")
        else:
            save_file(content, folder / name / "model.safetensors")
    file = "pytorch_model.bin" if pickled else "model.safetensors"
    assert sorted_out(open_checkpoint(folder)) == (
        ["config.json", "copy/config.json", "tower/config.json", f"tower/{file}"],
        [f"copy/{file}"],
    )


def test_an_index_goes_with_its_shards(make_folder: MakeFolder, tensors: Tensors) -> None:
    folder = make_folder()
    for number, (place, content) in enumerate({"copy": dict(tensors), "tower": renamed(tensors)}.items()):
        part = make_folder(f"model/{place}", shards=2, tensors=content)
        assert len(list(part.iterdir())) == 4, number
    (folder / "copy" / "config.json").unlink()
    found, left = sorted_out(open_checkpoint(folder))
    assert [name for name in left if name.endswith("index.json")] == ["copy/model.safetensors.index.json"]
    assert len(left) == 3 and len(found) == 5


def test_what_cannot_be_read_is_told_by_its_size(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "state.pt").write_bytes(b"\x80\x02" + b"x" * 5000)
    (folder / "head.pt").write_bytes(b"\x80\x02x")
    (folder / "documents.pkl").write_bytes(b"x" * 5000)
    assert sorted_out(open_checkpoint(folder)) == (["config.json", "documents.pkl", "head.pt"], ["state.pt"])


def test_a_pickled_model_has_companions_too(make_folder: MakeFolder, tensors: Tensors) -> None:
    folder = make_folder()
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    torch.save({key: torch.from_numpy(values) for key, values in tensors.items()}, folder / "pytorch_model.bin")
    torch.save(HEADS["colbert_linear.pt"], folder / "colbert_linear.pt")
    opened = open_any_model(folder)
    assert sorted_out(opened) == (["colbert_linear.pt", "config.json"], ["model.fp16.safetensors"])


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("name", ["zip.pt", "row.pt", "plain.pkl", "weights.npz", "small.npz", "half.safetensors"])
def test_a_damaged_file_ends_in_no_error(name: str, make_folder: MakeFolder, tensors: Tensors) -> None:
    """Bytes changed, taken out and cut off at random: it is sorted out somehow, every time."""
    folder = make_folder()
    state = {key: torch.from_numpy(values) for key, values in tensors.items()}
    torch.save(state, folder / "zip.pt")
    torch.save({"model": state}, folder / "row.pt", _use_new_zipfile_serialization=False)
    (folder / "plain.pkl").write_bytes(pickle.dumps({"a": np.ones(5), "b": {1, 2}, "c": complex(1, 2)}))
    np.savez(folder / "weights.npz", **tensors)  # type: ignore[arg-type]
    np.savez_compressed(folder / "small.npz", **tensors)  # type: ignore[arg-type]
    save_file(halved(tensors), folder / "half.safetensors")
    whole, draw = (folder / name).read_bytes(), random.Random(name)
    whole_parts = len(parts_of(folder / name))
    assert whole_parts == (0 if name == "plain.pkl" else len(tensors))
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(draw.choice([1, 2, 9])):
            place = draw.randrange(len(content))
            content[place : place + draw.choice([0, 1, 4])] = draw.randbytes(draw.choice([0, 1, 4]))
        (folder / name).write_bytes(content[: draw.choice([len(content), draw.randrange(len(content))])])
        assert len(parts_of(folder / name)) <= whole_parts + 1
    found, left = sorted_out(open_checkpoint(folder))
    assert (name in found) != (name in left)
