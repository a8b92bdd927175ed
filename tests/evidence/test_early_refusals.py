"""What a certificate would be refused for is said before anything is written, and patching without one goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hf_bias_patch import inspect, plan
from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.evidence.early_refusals import refuse_plan_ahead, refuse_storage_ahead
from tests.cli.conftest import run

__all__ = ["run"]

Saved = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
KEY = "bert.encoder.layer.1.attention.self.key.bias"


def leftover(source: Path, folder: Path) -> Path:
    """A checkpoint of plain weights whose config.json kept what it said of quantised ones."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def packed(source: Path, folder: Path) -> Path:
    """The same with all matrices packed, as compressed-tensors does it."""
    shutil.copytree(source, folder)
    tensors = {}
    for name, values in load_file(source / "model.safetensors").items():
        if values.ndim == 2 and ".layer." in name:
            tensors[f"{name}_packed"] = np.zeros((values.shape[0], values.shape[1] // 8), np.int32)
            tensors[f"{name}_scale"] = np.ones((values.shape[0], 1), np.float32)
        else:
            tensors[name] = values
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


MADE = {"leftover": leftover, "packed": packed}


@pytest.mark.parametrize("how", MADE)
def test_patch_says_so_before_it_writes(how: str, run: Run, saved: Saved, tmp_path: Path, tree: Callable) -> None:
    source = MADE[how](saved("bert"), tmp_path / "source")
    before = tree(source)
    for more in ((tmp_path / "out",), (tmp_path / "out", "--dry-run"), ("--in-place",)):
        code, out, err = run("patch", source, *more, "--fold", "key")
        said = " ".join(err.split())
        assert code == 2 and not out and "cannot be verified" in said and "--no-verify" in said
        if how == "leftover":
            assert "`quantization_config`" in said and "bitsandbytes" in said and "out of config.json" in said
        else:
            assert "36 tensors are quantised (compressed-tensors)" in said
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source"] and tree(source) == before


@pytest.mark.parametrize("how", MADE)
def test_without_a_certificate_the_edit_is_made(how: str, run: Run, saved: Saved, tmp_path: Path) -> None:
    source = MADE[how](saved("bert"), tmp_path / "source")
    code, _, err = run("patch", source, tmp_path / "out", "--fold", "key", "--no-verify")
    assert code == 0, err
    assert open_checkpoint(source).read(KEY).any() and not open_checkpoint(tmp_path / "out").read(KEY).any()


@pytest.mark.parametrize("how", MADE)
def test_inspect_says_so_too(how: str, run: Run, saved: Saved, tmp_path: Path) -> None:
    source = MADE[how](saved("bert"), tmp_path / "source")
    code, out, _ = run("inspect", source)
    assert code == 0 and "A variant of it cannot be verified" in out
    assert inspect(source).plain()["quantised"] and not inspect(saved("bert")).plain()["quantised"]


def test_what_stock_leaves_out_is_said_before(saved: Saved, tmp_path: Path) -> None:
    """A config.json by which stock makes no cross-attention, which the plan is about."""
    shutil.copytree(saved("gpt2-cross"), tmp_path / "source")
    made = plan(tmp_path / "source", fold="value", attention="cross")
    config = json.loads((tmp_path / "source/config.json").read_text())
    (tmp_path / "source/config.json").write_text(json.dumps(config | {"add_cross_attention": False}))
    with pytest.raises(VerifyError, match=r"does not use .* under test.*--no-verify"):
        refuse_plan_ahead(tmp_path / "source", made)


def test_what_stock_cannot_load_is_said_before(saved: Saved, tmp_path: Path) -> None:
    shutil.copytree(saved("bert"), tmp_path / "source")
    config = json.loads((saved("bert") / "config.json").read_text())
    (tmp_path / "source/config.json").write_text(json.dumps(config | {"hidden_size": 30}))
    refuse_storage_ahead(tmp_path / "source")
    with pytest.raises(VerifyError, match=r"--no-verify"):
        refuse_plan_ahead(tmp_path / "source", plan(tmp_path / "source", fold="key"))


def test_too_little_memory_is_said_before(saved: Saved) -> None:
    made = plan(saved("bert"), fold="key")
    refuse_plan_ahead(saved("bert"), made)
    with pytest.raises(VerifyError, match=r"takes about [\d,.]+ GiB .* are free.*--layerwise.*--no-verify"):
        refuse_plan_ahead(saved("bert"), made, texts=10**12)
    refuse_plan_ahead(saved("bert"), made, texts=10**12, layerwise=True)
