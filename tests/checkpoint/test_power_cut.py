"""Power cuts, simulated: after each call to the system, whatever was not synced may be lost, or kept in part.

A recorder notes every change an edit or a recovery makes. A disk is then built for a cut at any moment: what was
synced is on it; of the rest, a random part, in the most unkind way POSIX allows: writes torn, names without
content, content without names.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hf_bias_patch.checkpoint.inplace import edit_in_place, recover
from hf_bias_patch.checkpoint.journal import JOURNAL


@dataclass(frozen=True)
class Data:
    """Bytes written to a file, whatever its name is by then; None empties it."""

    file: int
    offset: int
    content: bytes | None


@dataclass(frozen=True)
class Name:
    """A change of names in a folder; a rename is two at once. None takes a name away, -1 is a folder."""

    folder: str
    changes: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Sync:
    """From here on, what was done to this file or in this folder stays."""

    what: int | str


class Recorder:
    """Notes what goes through `os`, while it happens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[Data | Name | Sync] = []
        self.names: dict[str, int] = {}
        self.content: dict[int, bytes] = {}
        self.opened: dict[int, str] = {}
        for name, content in _walk(folder).items():
            self.names[name] = -1 if content is None else len(self.content)
            if content is not None:
                self.content[len(self.content)] = content
        self.first = (dict(self.names), dict(self.content))

    def __enter__(self) -> Recorder:
        self.patch = pytest.MonkeyPatch()
        for name in ("open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir"):
            self.patch.setattr(os, name, self._wrapped(getattr(self, f"_{name}"), getattr(os, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    @staticmethod
    def _wrapped(note: Callable[..., None], real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            note_first = real.__name__ == "write"  # while the position is still the one before
            if note_first:
                note(*arguments)
            result = None if real.__name__ == "fsync" else real(*arguments, **named)
            if not note_first:
                note(*arguments, *([result] if real.__name__ == "open" else []))
            return result

        return call

    def _inside(self, path: Any) -> str:
        return Path(path).relative_to(self.folder).as_posix()

    def _set(self, folder: str, *changes: tuple[str, int | None]) -> None:
        self.log.append(Name(folder, changes))
        for name, file in changes:
            if file is None:
                self.names.pop(name, None)
            else:
                self.names[name] = file

    def _open(self, path: Any, flags: int, *rest: int) -> None:
        if not Path(path).is_relative_to(self.folder):
            return
        name = self._inside(path)
        self.opened[rest[-1]] = name
        if flags & os.O_CREAT and name not in self.names:
            self.content[len(self.content)] = b""
            self._set(_parent(name), (name, len(self.content) - 1))
        elif flags & os.O_TRUNC:
            self.log.append(Data(self.names[name], 0, None))

    def _write(self, descriptor: int, content: Any) -> None:
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        self.log.append(Data(self.names[self.opened[descriptor]], offset, bytes(content)))

    def _fsync(self, descriptor: int) -> None:
        name = self.opened[descriptor]
        self.log.append(Sync(name if self.names.get(name, -1) == -1 else self.names[name]))

    def _replace(self, source: Any, target: Any) -> None:
        old, new = self._inside(source), self._inside(target)
        assert _parent(old) == _parent(new)
        self._set(_parent(new), (old, None), (new, self.names[old]))

    def _unlink(self, path: Any) -> None:
        self._set(_parent(self._inside(path)), (self._inside(path), None))

    _rmdir = _unlink

    def _mkdir(self, path: Any) -> None:
        self._set(_parent(self._inside(path)), (self._inside(path), -1))

    def disk_after(self, count: int, draw: random.Random) -> dict[str, bytes | None]:
        """What may be on the disk when the power goes after `count` entries of the log."""
        names, content = dict(self.first[0]), dict(self.first[1])
        for number, entry in enumerate(self.log[:count]):
            target = entry.file if isinstance(entry, Data) else entry.folder if isinstance(entry, Name) else None
            safe = Sync(target) in self.log[number:count] if target is not None else True
            if isinstance(entry, Sync) or not (safe or draw.random() < 0.5):
                continue
            if isinstance(entry, Name):
                for name, file in entry.changes:
                    names.pop(name, None)
                    if file is not None:
                        names[name] = file
            elif entry.content is None:
                content[entry.file] = b""
            else:
                # A disk writes a sector whole: the eight bytes at the start of a file are old or new.
                tearable = not safe and len(entry.content) > 8
                new = entry.content[: draw.randint(0, len(entry.content))] if tearable else entry.content
                old = content.get(entry.file, b"").ljust(entry.offset, b"\0")
                content[entry.file] = old[: entry.offset] + new + old[entry.offset + len(new) :]
        return {name: None if file == -1 else content.get(file, b"") for name, file in names.items()}


def _parent(name: str) -> str:
    return Path(name).parent.as_posix()


def _walk(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def build(folder: Path, disk: dict[str, bytes | None]) -> None:
    folder.mkdir()
    for name, content in sorted(disk.items()):
        if not (folder / name).parent.is_dir():
            continue  # its folder's own name was lost
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def cuts(recorder: Recorder, target: Path, rounds: int) -> Any:
    """A folder for several random outcomes of a cut after each entry of the log; yields number and folder."""
    for count in range(len(recorder.log) + 1):
        for seed in range(rounds):
            folder = target / f"{count}.{seed}"
            build(folder, recorder.disk_after(count, random.Random(f"{count}.{seed}")))
            yield count, folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing is what is simulated."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_the_recorder_tells_the_truth(make_scene: Callable[..., Any], tmp_path: Path) -> None:
    scene = make_scene()
    with Recorder(scene.folder) as recorder:
        edit_in_place(scene.folder, scene.edits, scene.replace)
    assert len(recorder.log) > 40
    build(tmp_path / "again", recorder.disk_after(len(recorder.log), random.Random(0)))
    assert _walk(tmp_path / "again") == _walk(scene.folder)
    build(tmp_path / "before", recorder.disk_after(0, random.Random(0)))
    scene.folder = tmp_path / "before"
    assert scene.state() == scene.old


def test_a_power_cut_during_an_edit(make_scene: Callable[..., Any], tmp_path: Path) -> None:
    scene = make_scene()
    with Recorder(scene.folder) as recorder:
        edit_in_place(scene.folder, scene.edits, scene.replace)
    outcomes = {"old": 0, "recovered": 0, "new": 0}
    (tmp_path / "cuts").mkdir()
    for count, folder in cuts(recorder, tmp_path / "cuts", rounds=5):
        scene.folder = folder
        scene.check_never_silently_mixed()
        journal = (folder / JOURNAL).exists()
        recover(folder)
        state = scene.state()
        assert state == scene.old or (state == scene.new and not journal), f"cut after {recorder.log[:count][-1:]}"
        outcomes["recovered" if journal else "new" if state == scene.new else "old"] += 1
    assert min(outcomes.values()) > 3
    # Once it has returned, only the new state is left.
    assert state == scene.new


def test_a_power_cut_during_recovery(make_scene: Callable[..., Any], tmp_path: Path) -> None:
    scene = make_scene()
    with Recorder(scene.folder) as edit:
        edit_in_place(scene.folder, scene.edits, scene.replace)
    draw = random.Random(7)
    (tmp_path / "cuts").mkdir()
    tried = 0
    for start in draw.sample(range(len(edit.log)), 12):
        folder = tmp_path / f"interrupted{start}"
        build(folder, edit.disk_after(start, draw))
        if not (folder / JOURNAL).exists():
            continue
        with Recorder(folder) as recorder:
            recover(folder)
        target = tmp_path / "cuts" / str(start)
        target.mkdir()
        for _, again in cuts(recorder, target, rounds=2):
            scene.folder = again
            scene.check_never_silently_mixed()
            recover(again)
            assert scene.state() == scene.old
            tried += 1
    assert tried > 200
