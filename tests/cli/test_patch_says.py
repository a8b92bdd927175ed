"""What `patch` says of the files around the weights, as a user reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_bias_patch.checkpoint.leftovers import working_folder

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def source(saved: Callable[..., Path], tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    shutil.copytree(saved("bert"), folder)
    return folder


def test_what_stays_behind_by_what_it_holds(run: Run, source: Path, tmp_path: Path) -> None:
    for name in ("tf_model.h5", "model.onnx", "optimizer.pt"):
        (source / name).write_bytes(b"x")
    shutil.copy(source / "model.safetensors", source / "best.safetensors")
    (source / "model_head.pkl").write_bytes(b"x")
    code, out, _ = run("patch", source, tmp_path / "out", "--fold", "key", "--no-verify")
    assert code == 0 and "model_head" not in out
    assert "Left behind (the unpatched weights): best.safetensors\n" in out
    assert "Left behind (the unpatched weights in another format): model.onnx, tf_model.h5\n" in out
    assert "Left behind (states of an optimiser, which go with the unpatched weights): optimizer.pt\n" in out
    code, out, _ = run("patch", source, "--in-place", "--fold", "key", "--no-verify")
    assert code == 0 and "Not patched (the unpatched weights): best.safetensors\n" in out


@pytest.mark.parametrize("command", ["patch", "revert"])
def test_what_a_killed_run_left_goes_and_is_named(run: Run, source: Path, tmp_path: Path, command: str) -> None:
    run("patch", source, tmp_path / "out", "--fold", "key", "--no-verify")
    dead = tmp_path / f".bias_patch-{'0' * 16}-{'1' * 8}"
    (dead / "1_Pooling").mkdir(parents=True)
    arguments = {
        "patch": ("patch", source, tmp_path / "other", "--fold", "value", "--no-verify"),
        "revert": ("revert", tmp_path / "out", tmp_path / "back"),
    }
    with working_folder(tmp_path, "of a living run") as living:
        code, out, _ = run(*arguments[command])
        assert code == 0 and f"Removed {dead}: the working folder of a run that was killed.\n" in out
        assert living.is_dir() and not dead.exists() and living.name not in out
    dead.mkdir()
    code, out, err = run("patch", source, tmp_path / "third", "--fold", "value", "--no-verify", "--json")
    assert code == 0 and json.loads(out)["path"] and "Removed" in err


def test_weights_that_stock_does_not_find(run: Run, source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors").rename(source / "model.fp16.safetensors")
    for more in ((), ("--dry-run",)):
        code, _, err = run("patch", source, tmp_path / "out", "--fold", "key", *more)
        assert code != 0 and "Rename it to model.safetensors" in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_spoken_of_before(run: Run, source: Path, tmp_path: Path) -> None:
    (source / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    code, out, _ = run("patch", source, "--fold", "key", "--dry-run")
    assert code == 0 and "The folder holds a peft adapter" in " ".join(out.split())
    code, out, _ = run("patch", source, "--fold", "key", "--dry-run", "--json")
    assert code == 0 and json.loads(out)["edits"]
