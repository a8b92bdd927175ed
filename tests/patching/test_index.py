"""The index of a sharded variant: what it says of sizes is true, whatever its source's said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors.numpy import load_file

import hf_bias_patch

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]

INDEX = "model.safetensors.index.json"
SIZES: list[Any] = ["99616", None, 5, -763, 10**30, 1.5, [], {"bytes": 3}, True]


def sharded(saved: Saved, folder: Path, **changes: Any) -> Path:
    shutil.copytree(saved("bert", shard="20KB"), folder)
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index | changes))
    return folder


def stored(folder: Path) -> int:
    """Bytes of all tensors, read by the safetensors library."""
    return sum(values.nbytes for path in folder.glob("*.safetensors") for values in load_file(path).values())


@pytest.mark.parametrize("storage", ["zeros", "absent"])
@pytest.mark.parametrize("size", SIZES, ids=repr)
def test_the_total_size_is_that_of_the_tensors(
    saved: Saved, tmp_path: Path, tree: Tree, size: Any, storage: str
) -> None:
    source = sharded(saved, tmp_path / "source", metadata={"total_size": size, "by": "somebody"})
    transformers.BertForMaskedLM.from_pretrained(source)
    done = hf_bias_patch.patch(source, tmp_path / "out", fold="key,value", storage=storage)
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["metadata"] == {"total_size": stored(tmp_path / "out"), "by": "somebody"}
    assert stored(source) - stored(tmp_path / "out") == (6 * 32 * 4 if done.plan.absent else 0)
    transformers.BertForMaskedLM.from_pretrained(tmp_path / "out")
    hf_bias_patch.revert(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(source)


@pytest.mark.parametrize("storage", ["zeros", "absent"])
@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}, None, [], "x", 3], ids=repr)
def test_metadata_without_a_size_stays_as_it_is(
    saved: Saved, tmp_path: Path, tree: Tree, metadata: Any, storage: str
) -> None:
    source = sharded(saved, tmp_path / "source", metadata=metadata)
    hf_bias_patch.patch(source, tmp_path / "out", fold="key,value", storage=storage)
    assert json.loads((tmp_path / "out" / INDEX).read_text())["metadata"] == metadata
    hf_bias_patch.revert(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(source)


def test_a_sound_index_is_copied_byte_for_byte(saved: Saved, tmp_path: Path) -> None:
    source = sharded(saved, tmp_path / "source")
    (source / INDEX).write_bytes(b"  " + (saved("bert", shard="20KB") / INDEX).read_bytes())
    hf_bias_patch.patch(source, tmp_path / "out", fold="key")
    assert (tmp_path / "out" / INDEX).read_bytes() == (source / INDEX).read_bytes()


def test_an_edit_in_place_leaves_the_index_alone(saved: Saved, tmp_path: Path, tree: Tree) -> None:
    source = sharded(saved, tmp_path / "source", metadata={"total_size": "99616"})
    before = tree(source)
    hf_bias_patch.patch_in_place(source, fold="key,value")
    assert tree(source)[INDEX] == before[INDEX]
    hf_bias_patch.revert(source)
    assert tree(source) == before
