"""Makes checkpoint files with the safetensors library, so that no test checks our writer by our reader."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hf_bias_patch.checkpoint.header import read_header
from hf_bias_patch.checkpoint.inplace import ByteEdit

Tensors = Mapping[str, "np.ndarray[Any, Any]"]


def _tensors(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(seed)
    return {
        "encoder.0.query.weight": draw.standard_normal((6, 4)).astype(np.float32),
        "encoder.0.query.bias": draw.standard_normal(6).astype(np.float32),
        "encoder.1.query.weight": draw.standard_normal((6, 4)).astype(np.float16),
        "encoder.1.query.bias": draw.standard_normal(6).astype(np.float16),
        "position_ids": np.arange(5),
        "scale": np.array(3.5, np.float32),
    }


@pytest.fixture
def tensors() -> dict[str, np.ndarray[Any, Any]]:
    """A few tensors of several dtypes, by name."""
    return _tensors()


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make a checkpoint folder: `make_folder(name="model", shards=1, tensors=…, config=…)`."""

    def make(
        name: str = "model",
        shards: int = 1,
        tensors: Tensors | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Path:
        content = dict(tensors if tensors is not None else _tensors())
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config or {"model_type": "bert"}))
        if shards == 1:
            save_file(content, folder / "model.safetensors", {"format": "pt"})
            return folder
        weight_map = {}
        for number in range(shards):
            file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
            part = {key: content[key] for key in list(content)[number::shards]}
            save_file(part, folder / file, {"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    return make


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., list[str]]:
    """The command line and environment of a child that can import the package, whatever is installed."""
    import hf_bias_patch

    root = str(Path(hf_bias_patch.__path__[0]).parent)

    def command(code: str, *arguments: object) -> list[str]:
        prelude = f"import sys; sys.path.insert(0, {root!r})\n"
        return [sys.executable, "-c", prelude + code, *map(str, arguments)]

    return command


def _snapshot(folder: Path) -> dict[str, bytes]:
    state = {}
    for parent, folders, files in os.walk(folder):
        below = Path(parent).relative_to(folder)
        state |= {(below / name).as_posix(): b"/" for name in folders}
        for name in files:
            path = Path(parent, name)
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            state[(below / name).as_posix()] = content
    return state


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    """Everything in a folder: relative name to content (b"/" for a folder), to compare states as a whole."""
    return _snapshot


@dataclass
class Scene:
    """A checkpoint of two shards, an edit of it, and what it is before and after: whole, or the test fails."""

    folder: Path
    edits: list[ByteEdit]
    replace: dict[str, bytes | None]
    old: dict[str, bytes]
    new: dict[str, bytes]

    def state(self) -> dict[str, bytes]:
        return _snapshot(self.folder)

    def check_never_silently_mixed(self) -> None:
        """What a loader that knows nothing of edits sees: the old, the new, or a file it cannot read."""
        shown = {name: content for name, content in self.state().items() if not Path(name).name.startswith(".")}
        for name, content in shown.items():
            if name.endswith(".safetensors") and content[:8] != self.old[name][:8]:
                # The library refuses a header longer than 100 MB, or than the file. Half a mark is long, too.
                assert int.from_bytes(content[:8], "little") > max(100_000_000, len(content))
                return
        assert shown in (self.old, self.new)


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Scene]:
    """Make `scene = make_scene()`; with `size`, tensors of that many values."""

    def make(name: str = "scene", size: int = 60) -> Scene:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        edits: list[ByteEdit] = []
        for shard in ("model-1.safetensors", "model-2.safetensors"):
            path = folder / shard
            save_file({key: np.zeros(size, np.float32) for key in "abc"}, path, {"format": "pt"})
            infos = read_header(path).tensors
            # Two ranges a file, with untouched bytes before, between and behind.
            edits.append(ByteEdit(shard, infos["a"].start + 8, b"\1" * (size * 2)))
            edits.append(ByteEdit(shard, infos["c"].start, b"\2" * (size * 4 - 8)))
        (folder / "config.json").write_bytes(b"old config")
        (folder / "certificate.json").write_bytes(b"goes away")
        (folder / "README.md").write_bytes(b"stays")
        (folder / "config.json").chmod(0o640)
        replace: dict[str, bytes | None] = {
            "config.json": b"new config, longer",
            "side/plan.json": b"made",
            "side/more/undo": b"made too",
            "certificate.json": None,
        }
        old = _snapshot(folder)
        new = dict(old)
        for edit in edits:
            content = new[edit.file]
            new[edit.file] = content[: edit.offset] + edit.data + content[edit.offset + len(edit.data) :]
        new |= {key: content for key, content in replace.items() if content is not None}
        new |= {"side": b"/", "side/more": b"/"}
        del new["certificate.json"]
        return Scene(folder, edits, replace, old, new)

    return make
