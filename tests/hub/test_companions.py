"""Heads, modules and adapters on the way to the Hub and back, and the weights that stock takes there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_bias_patch import inspect, patch, pull, verify
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.publish.push import push
from tests.hub.server import Hub

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]

BASE, WHOLE, THIN = "owner/base", "owner/whole", "owner/thin"
HEAD = {"weight": torch.arange(64.0).reshape(2, 32), "bias": torch.ones(2)}
pytestmark = pytest.mark.usefixtures("login")


@pytest.fixture
def base(saved: Saved, tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    shutil.copytree(saved("bert"), folder)
    for name in ("colbert_linear.pt", "scheduler.pt", "2_Dense/pytorch_model.bin"):
        (folder / name).parent.mkdir(exist_ok=True)
        torch.save(HEAD, folder / name)
    save_file(HEAD, folder / "value_head.safetensors")
    state = load_file(folder / "model.safetensors")
    save_file({name: value.half() for name, value in state.items()}, folder / "model.fp16.safetensors")
    for name in ("pytorch_model.bin", "best.pth", "consolidated.00.pth"):
        torch.save(state, folder / name)
    (folder / "tf_model.h5").write_bytes(b"x")
    return folder


CARRIED = {"colbert_linear.pt", "scheduler.pt", "2_Dense/pytorch_model.bin", "value_head.safetensors"}
COPIES = {"model.fp16.safetensors", "pytorch_model.bin", "consolidated.00.pth", "tf_model.h5"}


def test_there_and_back(hub: Hub, base: Path, tmp_path: Path, tree: Tree) -> None:
    """Whole, and as a patch alone, which takes the companions of the base."""
    hub.add(BASE, base)
    got = {path.name for path in resolve(BASE).path.iterdir()}
    assert not got & COPIES, "copies that are known by their names are not even downloaded"
    variant = tmp_path / "variant"
    done = patch(BASE, variant, fold="key,value")
    assert [path.name for path in done.left_behind] == ["best.pth"]
    made = tree(variant)
    assert all(made[name] == tree(base)[name] for name in CARRIED)
    assert not made.keys() & (COPIES | {"best.pth"})
    verify(variant, BASE)
    for name, alone in ((WHOLE, False), (THIN, True)):
        push(variant, name, patch_only=alone)
        assert CARRIED.isdisjoint(hub.files(name)) == alone, "what the base has is not published again"
    shutil.rmtree(tmp_path / "cache")
    for name in (WHOLE, THIN):
        back = tree(pull(name, tmp_path / name.replace("/", "-")))
        assert {file: back[file] for file in tree(variant)} == tree(variant)


def test_the_weights_that_stock_takes_are_read_there(hub: Hub, base: Path, tmp_path: Path, tree: Tree) -> None:
    (base / "model.safetensors").unlink()
    hub.add(BASE, base)
    with pytest.raises(CheckpointError, match="is a PyTorch pickle"):
        inspect(BASE)
    done = patch(BASE, tmp_path / "out", fold="key")
    assert [path.name for path in done.left_behind] == ["best.pth"]
    patch(base, tmp_path / "here", fold="key")
    assert tree(tmp_path / "out")["model.safetensors"] == tree(tmp_path / "here")["model.safetensors"]


def test_a_config_names_the_weights_there_too(hub: Hub, base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"transformers_weights": "model.fp16.safetensors"}))
    hub.add(BASE, base)
    assert inspect(BASE).nbytes * 2 == inspect(base / "model.safetensors").nbytes
    patch(BASE, tmp_path / "out", fold="key")
    assert (tmp_path / "out" / "model.fp16.safetensors").is_file()
    assert not (tmp_path / "out" / "model.safetensors").exists()
