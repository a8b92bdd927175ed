"""What a variant carries and what it leaves behind, on folders as the Hub has them."""

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
from hf_bias_patch.checkpoint.listing import companion_files, files_beside, left_behind, weight_names
from hf_bias_patch.checkpoint.pickled import open_any_model
from hf_bias_patch.errors import CheckpointError

MakeFolder = Callable[..., Path]
Tensors = Mapping[str, "np.ndarray[Any, Any]"]

COMPANIONS = [
    ".gitattributes",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "2_Dense/pytorch_model.bin",
    "README.md",
    "adapter_config.json",
    "adapter_model.bin",
    "adapter_model.safetensors",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "modeling_custom.py",
    "model_head.pkl",
    "modules.json",
    "onnx/tokenizer.onnx",
    "openvino/openvino_tokenizer.bin",
    "openvino/openvino_tokenizer.xml",
    "prompts/adapter_model.safetensors",
    "rng_state_0.pth",
    "scheduler.pt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "training_args.bin",
    "vocab.txt",
]
LEFT = [
    "checkpoint-500",
    "consolidated.00.pth",
    "coreml/model.mlpackage",
    "flax_model.msgpack",
    "ggml/model.Q4_K.gguf",
    "global_step500",
    "model.ckpt.index",
    "model.fp16.safetensors",
    "model.onnx",
    "onnx/model.onnx",
    "onnx/model.onnx_data",
    "openvino/openvino_model.bin",
    "openvino/openvino_model.xml",
    "optimizer.pt",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model.fp16.bin",
    "pytorch_model_fsdp_0",
    "rust_model.ot",
    "tf_model.h5",
    "tf_saved_model",
]
INSIDE = {
    "coreml/model.mlpackage": "x",
    "checkpoint-500": "model.safetensors",
    "global_step500": "mp_rank_00_model_states.pt",
    "pytorch_model_fsdp_0": "__0_0.distcp",
    "tf_saved_model": "saved_model.pb",
}
NEITHER = [
    ".cache/huggingface/x",
    ".git/config",
    ".bias_patch-1234/x",
    "__pycache__/modeling_custom.pyc",
    "bias_patch/plan.json",
]


def fill(folder: Path, names: list[str]) -> None:
    """Files whose content nobody can read, so that their names must tell."""
    for name in names:
        path = folder / name / INSIDE[name] if name in INSIDE else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"x")


def sorted_out(checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """The files that travel, and those that do not."""
    return (
        [path.as_posix() for path in companion_files(checkpoint)],
        [path.as_posix() for path in left_behind(checkpoint)],
    )


@pytest.mark.parametrize("shards", [1, 2])
def test_every_file_is_weights_companion_left_or_ours(shards: int, make_folder: MakeFolder) -> None:
    folder = make_folder(shards=shards)
    fill(folder, [*COMPANIONS, *LEFT, *NEITHER])
    assert sorted_out(open_checkpoint(folder)) == (sorted(COMPANIONS), LEFT)
    weights = sorted(path.name for path in folder.glob("model*.safetensors") if "fp16" not in path.name)
    assert weight_names(folder) == {*weights, *(["model.safetensors.index.json"] if shards > 1 else [])}


def test_what_is_left_is_said_truly(make_folder: MakeFolder) -> None:
    folder = make_folder()
    fill(folder, ["optimizer.pt", "tf_model.h5", "pytorch_model.bin", "checkpoint-500"])
    said = {path.as_posix(): what for path, what in left_behind(open_checkpoint(folder)).items()}
    assert "weights" in said["pytorch_model.bin"] and "another format" in said["tf_model.h5"]
    assert "optimiser" in said["optimizer.pt"] and "training" in said["checkpoint-500"]


def test_shards_beside_a_whole_file_are_left(make_folder: MakeFolder, tensors: Tensors) -> None:
    folder = make_folder(shards=2)
    save_file(dict(tensors), folder / "model.safetensors")
    assert sorted_out(open_checkpoint(folder))[1] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]


def test_the_one_that_is_meant_is_none_beside(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "other.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert sorted_out(open_checkpoint(folder / "other.safetensors"))[1] == ["model.safetensors"]


# --- by content ---------------------------------------------------------------------------------------------


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


# --- links --------------------------------------------------------------------------------------------------


def test_a_companion_that_leads_out_is_refused(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Else a private file would be copied into a folder that is about to be published."""
    folder = make_folder()
    (tmp_path / "secret").write_text("x")
    (folder / "vocab.txt").symlink_to(tmp_path / "secret")
    for listed in (lambda: companion_files(open_checkpoint(folder)), lambda: files_beside(folder, ())):
        with pytest.raises(CheckpointError, match=r"vocab\.txt is a link that leads out"):
            listed()


def test_a_companion_that_is_not_there_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "vocab.txt").symlink_to("gone")
    with pytest.raises(CheckpointError, match=r"vocab\.txt is no readable file"):
        companion_files(open_checkpoint(folder))


def test_a_linked_folder_is_not_entered_and_said(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder()
    (folder / "latest").symlink_to(tmp_path)
    opened = open_checkpoint(folder)
    assert sorted_out(opened) == (["config.json"], ["latest"])
    assert "link" in left_behind(opened)[Path("latest")]
