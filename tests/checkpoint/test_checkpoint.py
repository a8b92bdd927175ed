"""Opening folders and files, reading values, and refusing what is hostile, broken or half there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.errors import CheckpointError

MakeFolder = Callable[..., Path]
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("shards", [1, 3])
def test_reads_every_value_as_the_library_does(shards: int, make_folder: MakeFolder, tensors: dict[str, Any]) -> None:
    checkpoint = open_checkpoint(make_folder(shards=shards))
    assert checkpoint.config == {"model_type": "bert"}
    assert json.loads(checkpoint.config_bytes) == checkpoint.config
    assert set(checkpoint.tensors) == set(tensors) and len(checkpoint.files) == shards
    assert checkpoint.index_name == (None if shards == 1 else INDEX)
    for name, expected in tensors.items():
        value = checkpoint.read(name)
        assert value.dtype == expected.dtype and value.shape == expected.shape
        np.testing.assert_array_equal(value, expected)
        assert value.flags.owndata or value.base is None
        assert name in load_file(checkpoint.folder / checkpoint.file_of(name))
    assert checkpoint.nbytes == sum(value.nbytes for value in tensors.values())
    assert checkpoint.parameters == sum(value.size for value in tensors.values())


def test_reads_narrow_floats(make_folder: MakeFolder) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    folder = make_folder()
    kinds = {"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
    drawn = torch.randn(5, 3)
    drawn[0, 0] = 448  # where the two float8 with four exponent bits differ
    save_torch({name: drawn.to(kind) for name, kind in kinds.items()}, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.read("BF16").dtype == ml_dtypes.bfloat16
    for name, kind in kinds.items():
        expected = drawn.to(kind).to(torch.float32).numpy()
        np.testing.assert_array_equal(checkpoint.read(name).astype(np.float32), expected)


def test_an_owned_array_does_not_touch_the_file(make_folder: MakeFolder) -> None:
    folder = make_folder()
    before = (folder / "model.safetensors").read_bytes()
    open_checkpoint(folder).read("encoder.0.query.bias")[:] = 7
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(("start", "stop"), [(0, 6), (0, 0), (2, 5), (6, 6)])
def test_rows_are_slices(start: int, stop: int, make_folder: MakeFolder, tensors: dict[str, Any]) -> None:
    checkpoint = open_checkpoint(make_folder())
    for name in ("encoder.0.query.weight", "encoder.1.query.bias"):
        rows = checkpoint.rows(name, start, stop)
        assert rows.shape == tensors[name][start:stop].shape
        np.testing.assert_array_equal(rows, tensors[name][start:stop])


@pytest.mark.parametrize(("name", "start", "stop"), [("scale", 0, 0), ("position_ids", 0, 6), ("position_ids", -1, 2)])
def test_rows_outside_are_refused(name: str, start: int, stop: int, make_folder: MakeFolder) -> None:
    with pytest.raises(IndexError, match=name):
        open_checkpoint(make_folder()).rows(name, start, stop)


def test_empty_tensors_are_read(make_folder: MakeFolder) -> None:
    checkpoint = open_checkpoint(make_folder(tensors={"none": np.zeros((0, 3), np.float32)}))
    assert checkpoint.read("none").shape == (0, 3) and checkpoint.rows("none", 0, 0).shape == (0, 3)


def test_unknown_tensors_are_named(make_folder: MakeFolder) -> None:
    checkpoint = open_checkpoint(make_folder())
    for ask in (checkpoint.read, checkpoint.file_of, checkpoint.info):
        with pytest.raises(CheckpointError, match="'no such'"):
            ask("no such")


def test_a_file_that_shrank_is_an_error(make_folder: MakeFolder) -> None:
    folder = make_folder(tensors={"a": np.ones(1000, np.float32)})
    checkpoint = open_checkpoint(folder)
    os.truncate(folder / "model.safetensors", 1000)
    with pytest.raises(CheckpointError, match="ends early"):
        checkpoint.read("a")


# --- what is opened -----------------------------------------------------------------------------------------


def test_a_file_is_opened_with_the_config_beside_it(make_folder: MakeFolder) -> None:
    folder = make_folder(shards=2)
    alone = open_checkpoint(folder / "model-00001-of-00002.safetensors")
    assert alone.config["model_type"] == "bert" and len(alone.files) == 1
    (folder / "config.json").unlink()
    alone = open_checkpoint(folder / "model-00001-of-00002.safetensors")
    assert alone.config == {} and alone.config_bytes == b""


def test_model_safetensors_comes_first(make_folder: MakeFolder) -> None:
    """As transformers has it: with both there, the index is not looked at."""
    folder = make_folder(shards=2)
    save_file({"other": np.ones(2, np.float32)}, folder / "model.safetensors")
    assert list(open_checkpoint(folder).tensors) == ["other"]


def test_one_other_name_is_enough(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert list(open_checkpoint(folder).files) == ["weights.safetensors"]
    save_file({"other": np.ones(2, np.float32)}, folder / "more.safetensors")
    with pytest.raises(CheckpointError, match=r"more\.safetensors, weights\.safetensors"):
        open_checkpoint(folder)


def test_an_index_of_another_name_is_enough(make_folder: MakeFolder) -> None:
    folder = make_folder(shards=2)
    (folder / INDEX).rename(folder / "weights.safetensors.index.json")
    assert len(open_checkpoint(folder).files) == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "no config.json"), ("{", "not valid JSON"), ("[]", "not a JSON object"), ("\udcff", "not valid JSON")],
)
def test_a_config_is_needed(content: str | None, expected: str, make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=expected):
        open_checkpoint(folder)


def test_an_adapter_is_recognised(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(CheckpointError, match="PEFT adapter"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pytorch_model.bin", "hf-bias-patch patch"),
        ("pytorch_model.bin.index.json", "hf-bias-patch patch"),
        ("tf_model.h5", "TensorFlow"),
        ("flax_model.msgpack", "Flax"),
        ("model.onnx", "ONNX"),
        ("model.Q4.gguf", "GGUF"),
        ("rust_model.ot", "Rust"),
        ("notes.txt", "no weights"),
    ],
)
def test_other_formats_are_named(name: str, expected: str, make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(CheckpointError, match=expected):
        open_checkpoint(folder)


def test_what_is_no_checkpoint_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    for path in (folder / "config.json", folder / "gone"):
        with pytest.raises(CheckpointError, match=path.name):
            open_checkpoint(path)


# --- the index ----------------------------------------------------------------------------------------------


def edit_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    "entry",
    [
        "../outside.safetensors",
        "sub/../../outside.safetensors",
        "/outside.safetensors",
        "..\\outside.safetensors",
        "\\outside.safetensors",
        "C:\\outside.safetensors",
        "C:outside.safetensors",
        "a\0b",
        "",
        ".",
        "..",
    ],
)
def test_an_index_stays_in_its_folder(entry: str, make_folder: MakeFolder) -> None:
    folder = make_folder(shards=2)
    save_file({"scale": np.ones(1, np.float32)}, folder.parent / "outside.safetensors")
    edit_index(folder, lambda index: index["weight_map"].update(scale=entry))
    with pytest.raises(CheckpointError, match=r"not inside the folder") as caught:
        open_checkpoint(folder)
    assert INDEX in str(caught.value)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_an_index_follows_no_link_out(linked: str, make_folder: MakeFolder) -> None:
    folder, outside = make_folder(shards=2), make_folder("outside")
    if linked == "file":
        (folder / "link").symlink_to(outside / "model.safetensors")
        edit_index(folder, lambda index: index["weight_map"].update(scale="link"))
    else:
        (folder / "sub").symlink_to(outside)
        edit_index(folder, lambda index: index["weight_map"].update(scale="sub/model.safetensors"))
    with pytest.raises(CheckpointError, match="a link that leads out"):
        open_checkpoint(folder)


def test_links_within_the_folder_are_fine(make_folder: MakeFolder) -> None:
    folder = make_folder(shards=2)
    (folder / "sub").mkdir()
    for path in sorted(folder.glob("*.safetensors")):
        path.rename(folder / "sub" / path.name)
        path.symlink_to(Path("sub", path.name))
    assert len(open_checkpoint(folder).files) == 2


@pytest.mark.parametrize("store", ["repo", "cache"])
def test_the_hub_cache_is_made_of_links(store: str, make_folder: MakeFolder, tmp_path: Path) -> None:
    """Snapshot files lead to the repository's blobs; those may lead on to a store of the whole cache."""
    plain = make_folder(shards=2)
    repo = tmp_path / "hub" / "models--owner--name"
    snapshot, blobs = repo / "snapshots" / "0123abcd", repo / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(plain.iterdir())):
        blob = blobs / f"{number:064x}"
        if store == "repo":
            blob.write_bytes(path.read_bytes())
        else:
            shared = tmp_path / "hub" / "blobs" / "ab" / f"{number:064x}"
            shared.parent.mkdir(parents=True, exist_ok=True)
            shared.write_bytes(path.read_bytes())
            blob.symlink_to(Path("../../blobs/ab", shared.name))
        (snapshot / path.name).symlink_to(Path("../../blobs", blob.name))
    assert len(open_checkpoint(snapshot).files) == 2
    # Another model's blobs are still out of bounds.
    other = tmp_path / "hub" / "models--other" / "secret.safetensors"
    other.parent.mkdir()
    other.write_bytes((plain / "model-00001-of-00002.safetensors").read_bytes())
    (snapshot / "model-00001-of-00002.safetensors").unlink()
    (snapshot / "model-00001-of-00002.safetensors").symlink_to(other)
    with pytest.raises(CheckpointError, match="a link that leads out"):
        open_checkpoint(snapshot)


def test_all_missing_shards_are_named(make_folder: MakeFolder) -> None:
    folder = make_folder(shards=3)
    (folder / "model-00001-of-00003.safetensors").unlink()
    (folder / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks 2 of 3") as caught:
        open_checkpoint(folder)
    assert "model-00001-of-00003" in str(caught.value) and "model-00003-of-00003" in str(caught.value)


def test_a_tensor_the_shard_lacks_is_named(make_folder: MakeFolder) -> None:
    folder = make_folder(shards=2)
    edit_index(folder, lambda index: index["weight_map"].update({"not there": "model-00001-of-00002.safetensors"}))
    with pytest.raises(CheckpointError, match="'not there' is not in model-00001-of-00002"):
        open_checkpoint(folder)


def test_a_tensor_in_two_shards_is_named(make_folder: MakeFolder) -> None:
    folder = make_folder(shards=2)
    first, second = sorted(folder.glob("*.safetensors"))
    name = next(iter(load_file(first)))
    save_file({**load_file(second), name: load_file(first)[name]}, second)
    with pytest.raises(CheckpointError, match="is both in model-00001") as caught:
        open_checkpoint(folder)
    assert name in str(caught.value)


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_a_broken_index_is_named(content: str, make_folder: MakeFolder) -> None:
    folder = make_folder(shards=2)
    (folder / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        open_checkpoint(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize(
    ("shards", "name"),
    [(1, "model.safetensors"), (1, "config.json"), (2, "model.safetensors.index.json")],
    ids=str,
)
def test_a_pipe_is_not_waited_for(make_folder: MakeFolder, shards: int, name: str) -> None:
    """Nobody will ever write into it, so whoever opens it to read never comes back."""
    folder = make_folder(shards=shards)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match=f"{re.escape(name)} is not a regular file"):
        open_checkpoint(folder)


def test_a_folder_in_the_place_of_a_weight_file_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        open_checkpoint(folder)
