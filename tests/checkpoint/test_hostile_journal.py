"""A journal that comes with a stranger's folder writes nothing outside of it, however right its checksum is."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_bias_patch.checkpoint.inplace import MARK, recover
from hf_bias_patch.checkpoint.journal import JOURNAL
from hf_bias_patch.errors import CheckpointError

Saved = Callable[..., Path]
SOUND: dict[str, Any] = {"files": [], "ranges": [], "smalls": [], "folders": []}
TEXT = b"written"


def write_journal(folder: Path, table: Any, kept: bytes = TEXT, length: int | None = None) -> None:
    """A journal with this table, whose checksum is right."""
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    content = b"HFBPJRN1" + (len(text) if length is None else length).to_bytes(8, "little") + text + kept
    (folder / JOURNAL).write_bytes(content + hashlib.sha256(content).digest())


@pytest.fixture
def folder(saved: Saved, tmp_path: Path) -> Path:
    """A checkpoint beside a file that is nobody's business."""
    shutil.copytree(saved("bert"), tmp_path / "model")
    (tmp_path / "private").write_bytes(b"as it was")
    (tmp_path / "model" / "link").symlink_to(tmp_path)
    return tmp_path / "model"


def small(name: str, nbytes: int = len(TEXT), mode: int | None = 0o644) -> dict[str, Any]:
    """A table with one small file."""
    return SOUND | {"smalls": [{"name": name, "mode": mode, "nbytes": nbytes}]}


def test_a_sound_one_is_followed(folder: Path) -> None:
    write_journal(folder, small("note.txt"))
    assert recover(folder) and (folder / "note.txt").read_bytes() == TEXT


STRANGE: dict[str, Any] = {
    "above": small("../private"),
    "absolute": small("/tmp/private-of-a-test"),
    "through a link": small("link/private"),
    "deleted above": small("../private", 0, None),
    "a folder above": SOUND | {"folders": ["../somewhere"]},
    "a name that is none": small(""),
    "no text": small(7),  # type: ignore[arg-type]
    "a size too large": small("note.txt", 2**60),
    "a size below 0": small("note.txt", -1),
    "a mode that is none": small("note.txt", len(TEXT), 2**40),
    "a range of another file": SOUND | {"ranges": [{"file": "other", "offset": 8, "nbytes": 7}]},
    "a field too many": SOUND | {"smalls": [{"name": "a", "mode": 0, "nbytes": 7, "more": 1}]},
    "a list": [],
    "no fields": {},
    "no JSON": b"{",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("which", STRANGE)
def test_a_strange_one_writes_nothing(which: str, folder: Path, tree: Callable) -> None:
    write_journal(folder, STRANGE[which])
    before = tree(folder.parent)
    assert not recover(folder)
    assert tree(folder.parent) == {name: sha for name, sha in before.items() if not name.endswith(JOURNAL)}


def test_nor_where_a_file_is_marked(folder: Path) -> None:
    """The mark says that an edit was under way, and this journal cannot put it back."""
    weights = folder / "model.safetensors"
    weights.write_bytes(MARK + weights.read_bytes()[8:])
    write_journal(folder, SOUND, length=2**60)
    with pytest.raises(CheckpointError, match="table is invalid"):
        recover(folder)
