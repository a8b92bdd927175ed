"""What a variant carries and what it leaves behind, on folders as the Hub has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hf_bias_patch.checkpoint.listing import companion_files, files_beside, left_behind, weight_names
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
    with pytest.raises(CheckpointError, match=r"vocab\.txt is not a readable file"):
        companion_files(open_checkpoint(folder))


def test_a_linked_folder_is_not_entered_and_said(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder()
    (folder / "latest").symlink_to(tmp_path)
    opened = open_checkpoint(folder)
    assert sorted_out(opened) == (["config.json"], ["latest"])
    assert "link" in left_behind(opened)[Path("latest")]
