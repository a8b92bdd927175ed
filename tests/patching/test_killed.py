"""Real kills: OUT is whole or absent, an edit in place is old or new, and the source is as it was."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file

import hf_bias_patch
from hf_bias_patch.checkpoint.inplace import recover
from hf_bias_patch.checkpoint.locks import try_lock
from hf_bias_patch.errors import CheckpointError

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]


ROOT = str(Path(hf_bias_patch.__path__[0]).parent)

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
            with pytest.raises(CheckpointError, match=r"in the middle of an edit.*hf-bias-patch revert"):
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
                with pytest.raises(CheckpointError, match="in the middle of an edit"):
                    hf_bias_patch.plan(folder, fold="key")
            recover(folder)
            assert tree(folder) in states, f"neither old nor new after {after} s"
            if tree(folder) == states[1]:
                hf_bias_patch.revert(folder)
            assert tree(folder) == states[0]
