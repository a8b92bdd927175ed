"""What a variant carries and what it leaves behind, on folders as the Hub has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hf_bias_patch.checkpoint.listing import companion_files, stale_files, weight_names
from hf_bias_patch.errors import CheckpointError

MakeFolder = Callable[..., Path]

COMPANIONS = [
    ".gitattributes",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "2_Dense/pytorch_model.bin",
    "README.md",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "modeling_custom.py",
    "modules.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "training_args.bin",
    "vocab.txt",
]
STALE = [
    "adapter_model.bin",
    "checkpoint-500",
    "consolidated.00.pth",
    "coreml/model.mlpackage",
    "flax_model.msgpack",
    "ggml/model.Q4_K.gguf",
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
    "rust_model.ot",
    "tf_model.h5",
]
NEITHER = [
    ".cache/huggingface/x",
    ".git/config",
    ".bias_patch.journal",
    "__pycache__/modeling_custom.pyc",
    "bias_patch/plan.json",
]


def fill(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        if path.suffix == ".mlpackage" or name.startswith("checkpoint-"):
            path = path / "model.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"x")


@pytest.mark.parametrize("shards", [1, 2])
def test_every_file_is_weights_companion_stale_or_ours(shards: int, make_folder: MakeFolder) -> None:
    folder = make_folder(shards=shards)
    fill(folder, [*COMPANIONS, *STALE, *NEITHER])
    assert [path.as_posix() for path in companion_files(folder)] == COMPANIONS
    assert [path.as_posix() for path in stale_files(folder)] == STALE
    weights = sorted(path.name for path in folder.glob("model*.safetensors") if "fp16" not in path.name)
    assert weight_names(folder) == {*weights, *(["model.safetensors.index.json"] if shards > 1 else [])}


def test_shards_beside_a_whole_file_are_stale(make_folder: MakeFolder) -> None:
    folder = make_folder(shards=2)
    fill(folder, ["model.safetensors"])
    assert [path.as_posix() for path in stale_files(folder)] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]


def test_the_caller_may_say_what_the_weights_are(make_folder: MakeFolder) -> None:
    folder = make_folder()
    fill(folder, ["other.safetensors"])
    assert stale_files(folder, ["other.safetensors"]) == [Path("model.safetensors")]
    assert Path("other.safetensors") not in companion_files(folder, ["other.safetensors"])


def test_a_companion_that_leads_out_is_refused(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Else a private file would be copied into a folder that is about to be published."""
    folder = make_folder()
    (tmp_path / "secret").write_text("x")
    (folder / "vocab.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"vocab\.txt is a link that leads out"):
        companion_files(folder)


def test_a_companion_that_is_not_there_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "vocab.txt").symlink_to("gone")
    with pytest.raises(CheckpointError, match=r"vocab\.txt is no readable file"):
        companion_files(folder)


def test_a_linked_folder_is_not_entered(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder()
    (folder / "latest").symlink_to(tmp_path)
    assert [path.as_posix() for path in companion_files(folder)] == ["config.json"]
