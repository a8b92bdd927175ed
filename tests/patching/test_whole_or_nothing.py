"""OUT appears whole or not at all, an edit in place is old or new, the source is never touched, whatever happens."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

import hf_bias_patch
from hf_bias_patch.checkpoint.durable import try_lock
from hf_bias_patch.checkpoint.inplace import recover
from hf_bias_patch.errors import CheckpointError, PlanError, TargetError
from hf_bias_patch.patching import disk, undo
from hf_bias_patch.patching.rewrite import Rewrite

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]

ROOT = str(Path(hf_bias_patch.__path__[0]).parent)


class InterruptionError(Exception):
    """Stands for anything that may go wrong."""


def fail_after(count: int) -> Callable[..., Any]:
    """A function that raises when it is called for the count-th time."""
    calls = iter(range(count))

    def progress(_: int) -> None:
        if next(calls, None) is None:
            raise InterruptionError

    return progress


class TestInterrupted:
    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_while_weights_are_written(self, saved: Saved, tmp_path: Path, count: int) -> None:
        with pytest.raises(InterruptionError):
            hf_bias_patch.patch(
                saved("bart", shard="20KB"), tmp_path / "a" / "out", fold="key,query", progress=fail_after(count)
            )
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("place", "name"),
        [
            (disk, "_small_files"),
            (disk, "keep_old_files"),
            (undo.UndoWriter, "finish"),
            (undo.UndoWriter, "vector"),
            (Rewrite, "blocks"),
            (shutil, "copyfile"),
        ],
        ids=str,
    )
    def test_at_any_step(
        self, saved: Saved, tmp_path: Path, tree: Tree, place: Any, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise InterruptionError

        hf_bias_patch.patch(saved("bert"), tmp_path / "there", fold="key")
        before = tree(tmp_path)
        monkeypatch.setattr(place, name, fail)
        for out in ("new", "there"):
            with pytest.raises(InterruptionError):
                hf_bias_patch.patch(saved("bert"), tmp_path / out, fold="key,query", overwrite=True)
            assert tree(tmp_path) == before and not (tmp_path / "new").exists()

    def test_in_the_middle_of_a_matrix(
        self, saved: Saved, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What went wrong is what is told, though an archive is left open."""

        def broken(*_: Any) -> None:
            raise InterruptionError

        monkeypatch.setattr("hf_bias_patch.patching.residual.round_once", broken)
        with pytest.raises(InterruptionError):
            hf_bias_patch.patch(saved("bert"), tmp_path / "out", fold="query")
        folder = tmp_path / "model"
        shutil.copytree(saved("bert"), folder)
        with pytest.raises(InterruptionError):
            hf_bias_patch.patch_in_place(folder, fold="query")
        assert tree(folder) == tree(saved("bert"))
        assert [path.name for path in tmp_path.iterdir()] == ["model"]

    @pytest.mark.parametrize("storage", ["zeros", "absent"])
    def test_while_it_is_reverted(self, saved: Saved, tmp_path: Path, tree: Tree, storage: str) -> None:
        hf_bias_patch.patch(saved("bert"), tmp_path / "variant", fold="key,query", storage=storage)
        before = tree(tmp_path)
        with pytest.raises(InterruptionError):
            hf_bias_patch.revert(tmp_path / "variant", tmp_path / "back", progress=fail_after(0))
        assert tree(tmp_path) == before and not (tmp_path / "back").exists()
        if storage == "absent":
            with pytest.raises(InterruptionError):
                hf_bias_patch.revert(tmp_path / "variant", progress=fail_after(0))
            assert tree(tmp_path) == before

    def test_in_place(self, saved: Saved, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "model"
        shutil.copytree(saved("bert"), folder)
        before, replace = tree(folder), os.replace

        def fail(source: Any, target: Any, **more: Any) -> None:
            if Path(target).name == "config.json":
                raise OSError(28, "No space left on device")
            replace(source, target, **more)

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(TargetError):
            hf_bias_patch.patch_in_place(folder, fold="key,query")
        monkeypatch.undo()
        recover(folder)
        assert tree(folder) == before


NO_ROOM = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import hf_bias_patch
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    hf_bias_patch.patch(*sys.argv[2:], fold="key,query")
except hf_bias_patch.errors.TargetError as error:
    print(error)
"""


def test_no_room(saved: Saved, tmp_path: Path, tree: Tree) -> None:
    """A real limit on what a process may write, met in the middle of the weights."""
    source = saved("bert")
    assert (source / "model.safetensors").stat().st_size > 100_000
    command = [sys.executable, "-c", NO_ROOM, ROOT, str(source), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "model.safetensors" in done.stdout and "Make room" in done.stdout
    assert not list(tmp_path.iterdir())


class TestBadValues:
    """Numbers that cannot be: found while planning, or in the middle of a matrix. Nothing is written either way."""

    def damaged(self, source: Path, folder: Path, tensor: str, value: float) -> Path:
        shutil.copytree(source, folder)
        tensors = load_file(source / "model.safetensors")
        values = tensors[tensor].copy()
        values.reshape(-1)[-1] = value
        save_file(tensors | {tensor: values}, folder / "model.safetensors", {"format": "pt"})
        return folder

    @pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
    @pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
    @pytest.mark.parametrize(
        "tensor",
        [
            "transformer.h.1.attn.c_attn.bias",
            "transformer.h.1.attn.c_attn.weight",
            "transformer.h.2.attn.c_proj.weight",
            "transformer.h.2.attn.c_proj.bias",
            "transformer.h.0.ln_1.bias",
            "transformer.h.0.ln_1.weight",
        ],
    )
    def test_nan_and_infinity(
        self, saved: Saved, tmp_path: Path, tree: Tree, tensor: str, value: float, dtype: str
    ) -> None:
        source = self.damaged(saved("gpt2", dtype), tmp_path / "model", tensor, value)
        before = tree(tmp_path)
        recipe = {"fold": "key,query,value:weight"} if "c_proj" not in tensor else {"fold": "value"}
        for attempt in (
            lambda: hf_bias_patch.patch(source, tmp_path / "out", **recipe, max_loss=1.0),
            lambda: hf_bias_patch.patch_in_place(source, **recipe, max_loss=1.0),
        ):
            with pytest.raises(CheckpointError, match=f"Tensor {tensor} holds 1 NaN or infinite values"):
                attempt()
            assert tree(tmp_path) == before and not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        "recipe", [{"fold": "value"}, {"fold": "query", "max_loss": 1.0}, {"fill": "key=7e4"}], ids=str
    )
    def test_overflow_in_float16(self, saved: Saved, tmp_path: Path, tree: Tree, recipe: dict[str, Any]) -> None:
        source = tmp_path / "model"
        shutil.copytree(saved("distilbert", "F16"), source)
        tensors = load_file(source / "model.safetensors")
        for name in tensors:
            if name.endswith(("2.attention.v_lin.bias", "2.attention.q_lin.bias")):
                tensors[name] = np.full_like(tensors[name], 6e4)
            if name.endswith("layer.1.output_layer_norm.bias"):
                tensors[name] = tensors[name] / np.float16(64)  # a small constant: a large update
        save_file(tensors, source / "model.safetensors", {"format": "pt"})
        before = tree(tmp_path)
        for attempt in (
            lambda: hf_bias_patch.patch(source, tmp_path / "out", **recipe),
            lambda: hf_bias_patch.patch_in_place(source, **recipe),
        ):
            with pytest.raises(PlanError, match=r"would overflow: [\d.e+]+ is beyond the range of F16"):
                attempt()
            assert tree(tmp_path) == before and not (tmp_path / "out").exists()

    def test_the_largest_bfloat16_is_not_exceeded(self, saved: Saved, tmp_path: Path) -> None:
        largest = float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
        hf_bias_patch.patch(saved("bert", "BF16"), tmp_path / "out", fill=f"key={largest!r}")
        tensors = load_file(tmp_path / "out" / "model.safetensors")
        assert (tensors["bert.encoder.layer.0.attention.self.key.bias"].astype(float) == largest).all()
        with pytest.raises(PlanError, match="overflow"):
            hf_bias_patch.patch(saved("bert", "BF16"), tmp_path / "two", fill=f"key={largest * 1.01!r}")


class TestQuantised:
    @pytest.fixture
    def source(self, saved: Saved, tmp_path: Path) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(saved("bert"), folder)
        tensors = load_file(folder / "model.safetensors")
        for name, values in list(tensors.items()):
            if ".attention." in name and values.ndim == 2:
                tensors[name] = np.clip(values * 100, -127, 127).astype(np.int8)
                tensors[name.replace(".weight", ".SCB")] = np.ones(len(values), np.float32)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder

    def test_the_key_fold_works(self, source: Path, tmp_path: Path, tree: Tree) -> None:
        hf_bias_patch.patch(source, tmp_path / "out", fold="key")
        old, new = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
        keys = {name for name in old if name.endswith("attention.self.key.bias")}
        assert len(keys) == 3
        for name, values in old.items():
            assert np.array_equal(new[name], values) is (name not in keys)
            assert name not in keys or not new[name].any()
        hf_bias_patch.revert(tmp_path / "out")
        assert tree(tmp_path / "out") == tree(source)

    @pytest.mark.parametrize("fold", ["value", "query", "query:norm", "value:weight", "key:weight", "key,value,query"])
    def test_others_are_refused(self, source: Path, tmp_path: Path, fold: str) -> None:
        with pytest.raises(PlanError, match=r"stored as I8: quantised weights cannot be read or edited"):
            hf_bias_patch.patch(source, tmp_path / "out", fold=fold)
        assert not (tmp_path / "out").exists()


class TestInPlace:
    def test_absent_cannot_be_made(self, saved: Saved, tree: Tree, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(saved("bert"), folder)
        before = tree(folder)
        with pytest.raises(PlanError, match="cannot be made in place"):
            hf_bias_patch.patch_in_place(folder, fold="key", storage="absent")
        assert tree(folder) == before

    @pytest.mark.parametrize("kind", ["symlink", "hard link", "read-only", "hub cache"])
    def test_files_of_others_are_refused(self, saved: Saved, tree: Tree, tmp_path: Path, kind: str) -> None:
        folder = tmp_path / "model"
        if kind == "hub cache":
            folder = tmp_path / "hub" / "models--owner--name" / "snapshots" / ("0" * 40)
            (folder.parent.parent / "blobs").mkdir(parents=True)
        shutil.copytree(saved("bert"), folder)
        weights, other = folder / "model.safetensors", tmp_path / "other"
        if kind == "symlink":
            weights.rename(other)
            weights.symlink_to(other)
        elif kind == "hard link":
            os.link(weights, other)
        elif kind == "read-only":
            weights.chmod(0o444)
        before = tree(tmp_path)
        with pytest.raises(TargetError, match="cannot be edited in place"):
            hf_bias_patch.patch_in_place(folder, fold="key")
        assert tree(tmp_path) == before

    def test_it_changes_the_bytes_it_says(self, saved: Saved, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(saved("gpt2"), folder)
        old = (folder / "model.safetensors").read_bytes()
        done = hf_bias_patch.patch_in_place(folder, fold="key,value")
        new = (folder / "model.safetensors").read_bytes()
        changed = sum(one != two for one, two in zip(old, new, strict=True))
        assert 0 < changed <= sum(done.plan.touched.values())
        tensors, before = load_file(folder / "model.safetensors"), load_file(saved("gpt2") / "model.safetensors")
        assert {name for name in before if before[name].tobytes() != tensors[name].tobytes()} == set(done.plan.touched)

    def test_a_certificate_of_the_state_before_goes_and_comes_back(
        self, saved: Saved, tmp_path: Path, tree: Tree
    ) -> None:
        folder = tmp_path / "model"
        hf_bias_patch.patch(saved("bert"), folder, fold="key")
        (folder / "bias_patch" / "certificate.json").write_text("{}")
        before = tree(folder)
        hf_bias_patch.patch_in_place(folder, fold="value")
        assert not (folder / "bias_patch" / "certificate.json").exists()
        hf_bias_patch.revert(folder)
        assert tree(folder) == before


# A child that patches the same thing over and over, so that a kill at any moment falls into some step of it.
PATCHES = """
import itertools, shutil, sys
sys.path.insert(0, sys.argv[1])
import hf_bias_patch
source, out, storage = sys.argv[2:]
hf_bias_patch.plan(source, fold="key,value,query", max_loss=1.0)
print("ready", flush=True)
for number in itertools.count():
    hf_bias_patch.patch(source, out, fold="key,value,query", storage=storage, max_loss=1.0, overwrite=number > 0)
"""
EDITS = """
import itertools, shutil, sys
sys.path.insert(0, sys.argv[1])
import hf_bias_patch
folder = sys.argv[2]
hf_bias_patch.plan(folder, fold="key,value,query", max_loss=1.0)
print("ready", flush=True)
for number in itertools.count():
    hf_bias_patch.patch_in_place(folder, fold="key,value,query", max_loss=1.0)
    hf_bias_patch.revert(folder)
"""


# A child that dies when the weights of an in-place edit are written and the small files are not.
HALF = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import hf_bias_patch
from hf_bias_patch.checkpoint import inplace
inplace.replace_file = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
hf_bias_patch.patch_in_place(sys.argv[2], fold="value,query")
"""


def killed(code: str, *arguments: object, after: float) -> None:
    """Run a child, and end it by SIGKILL so many seconds after it is ready."""
    command = [sys.executable, "-c", code, ROOT, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline() == "ready\n", child.stderr.read()
        try:
            child.wait(after)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
        else:
            raise AssertionError(child.stderr.read())


def moments(rounds: int, longest: float) -> Iterator[float]:
    """Random moments; the first kills come within the first run, the others anywhere."""
    draw = random.Random(time.time_ns())
    for number in range(rounds):
        yield draw.uniform(0, longest * (number + 1) / rounds)


class TestKilled:
    @pytest.mark.parametrize("storage", ["zeros", "absent"])
    def test_a_patch(self, saved: Saved, tree: Tree, tmp_path: Path, storage: str) -> None:
        source = saved("bart", shard="20KB")
        start = time.monotonic()
        hf_bias_patch.patch(source, tmp_path / "whole", fold="key,value,query", storage=storage, max_loss=1.0)
        once, whole = time.monotonic() - start, tree(tmp_path / "whole")
        before = tree(source)
        place = tmp_path / "place"
        place.mkdir()
        for after in moments(5, 2 * once):
            shutil.rmtree(place / "out", ignore_errors=True)
            killed(PATCHES, source, place / "out", storage, after=after)
            assert tree(source) == before
            if (place / "out").exists():
                assert tree(place / "out") == whole, f"half a variant after {after} s"
            # Whatever a kill left beside it is hidden, and the next run clears it away.
            assert all(path.name.startswith(".") or path.name == "out" for path in place.iterdir())
        hf_bias_patch.patch(source, place / "out", fold="key", overwrite=True)
        assert [path.name for path in place.iterdir()] == ["out"]

    def test_revert_takes_back_the_interrupted_edit_and_no_earlier_one(
        self, saved: Saved, tree: Tree, tmp_path: Path
    ) -> None:
        folder = tmp_path / "model"
        hf_bias_patch.patch(saved("bert"), folder, fold="key")
        before = tree(folder)
        done = subprocess.run([sys.executable, "-c", HALF, ROOT, str(folder)], check=False)
        assert done.returncode == -signal.SIGKILL and tree(folder) != before
        with pytest.raises(SafetensorError):
            load_file(folder / "model.safetensors")
        for attempt in (
            lambda: hf_bias_patch.plan(folder, fold="value"),
            lambda: hf_bias_patch.inspect(folder),
            lambda: hf_bias_patch.patch(folder, tmp_path / "out", fold="value"),
            lambda: hf_bias_patch.patch_in_place(folder, fold="value"),
        ):
            with pytest.raises(CheckpointError, match=r"neither old nor new.*hf-bias-patch revert"):
                attempt()
        reverted = hf_bias_patch.revert(folder)
        assert reverted.recovered and tree(folder) == before
        assert not hf_bias_patch.revert(folder).recovered and tree(folder) == tree(saved("bert"))

    def test_an_edit_in_place(self, saved: Saved, tree: Tree, tmp_path: Path) -> None:
        folder, states = tmp_path / "model", []
        shutil.copytree(saved("gpt2"), folder)
        states.append(tree(folder))
        start = time.monotonic()
        hf_bias_patch.patch_in_place(folder, fold="key,value,query", max_loss=1.0)
        states.append(tree(folder))
        hf_bias_patch.revert(folder)
        once = time.monotonic() - start
        for after in moments(6, 2 * once):
            killed(EDITS, folder, after=after)
            lock = try_lock(folder)
            assert lock is not None, "the lock of a dead process holds"
            lock()
            if (folder / ".bias_patch.journal").exists():
                with pytest.raises(CheckpointError, match="neither old nor new"):
                    hf_bias_patch.plan(folder, fold="key")
            recover(folder)
            assert tree(folder) in states, f"neither old nor new after {after} s"
            if tree(folder) == states[1]:
                hf_bias_patch.revert(folder)
            assert tree(folder) == states[0]
