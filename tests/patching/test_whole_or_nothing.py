"""OUT appears whole or not at all, an edit in place is old or new, the source is never touched, whatever happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hf_bias_patch
from hf_bias_patch.checkpoint.inplace import recover
from hf_bias_patch.errors import TargetError

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

    # What patching uses of the standard library: whichever fails, in whatever step.
    @pytest.mark.parametrize(
        ("place", "name"),
        [
            (zipfile.ZipFile, "writestr"),
            (zipfile.ZipFile, "open"),
            (Path, "write_bytes"),
            (Path, "write_text"),
            (zlib, "compressobj"),
            (os, "write"),
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
            with pytest.raises((InterruptionError, TargetError)):
                hf_bias_patch.patch(saved("bert"), tmp_path / out, fold="key,query", overwrite=True)
            assert tree(tmp_path) == before and not (tmp_path / "new").exists()

    def test_in_the_middle_of_a_matrix(
        self, saved: Saved, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What went wrong is what is told, though an archive is left open."""

        def broken(*_: Any, **__: Any) -> None:
            raise InterruptionError

        monkeypatch.setattr(zlib, "compressobj", broken)
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
