"""In-place edits: what they do, what they refuse, what they cost, and that errors take them back."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.checkpoint.guards import refuse_unsafe
from hf_bias_patch.checkpoint.inplace import MARK, ByteEdit, edit_in_place, recover
from hf_bias_patch.checkpoint.journal import JOURNAL, read_journal
from hf_bias_patch.errors import CheckpointError, TargetError

MakeScene = Callable[..., Any]


def test_edits_and_small_files_are_written(make_scene: MakeScene) -> None:
    scene = make_scene()
    assert scene.old != scene.new
    edit_in_place(scene.folder, scene.edits, scene.replace)
    assert scene.state() == scene.new
    assert (scene.folder / "config.json").stat().st_mode & 0o777 == 0o640
    assert not recover(scene.folder) and scene.state() == scene.new


def test_small_files_alone(make_scene: MakeScene) -> None:
    scene = make_scene()
    edit_in_place(scene.folder, [], {"config.json": b"new"})
    assert scene.state() == {**scene.old, "config.json": b"new"}
    edit_in_place(scene.folder, [], {})
    assert scene.state() == {**scene.old, "config.json": b"new"}


def test_costs_what_it_touches(make_scene: MakeScene) -> None:
    """Bytes given to write(2), as the kernel counts them: the journal and the edit, and little else."""
    scene = make_scene(size=100_000)

    def written() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))

    touched = sum(len(edit.data) for edit in scene.edits)
    before = written()
    edit_in_place(scene.folder, scene.edits, {})
    assert 2 * touched <= written() - before < 2.01 * touched


def test_matrices_are_not_held_twice(make_scene: MakeScene) -> None:
    """The journal is written and put back in pieces, whatever the size of a range."""
    import tracemalloc

    scene = make_scene(size=4 << 20)
    tracemalloc.start()
    edit_in_place(scene.folder, scene.edits, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20 < len(scene.edits[1].data)


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model-1.safetensors", "config.json"])
@pytest.mark.parametrize("trap", ["link", "hard link", "read-only", "hub cache"])
def test_unsafe_files_are_refused_untouched(trap: str, name: str, make_scene: MakeScene, tmp_path: Path) -> None:
    scene = make_scene("repo/snapshots/0123" if trap == "hub cache" else "scene")
    path = scene.folder / name
    if trap == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif trap == "hard link":
        (tmp_path / "other name").hardlink_to(path)
    elif trap == "read-only":
        path.chmod(0o444)
    else:
        (tmp_path / "repo" / "blobs").mkdir()
    before = scene.state()
    with pytest.raises(TargetError, match="Hub's cache" if trap == "hub cache" else name) as caught:
        edit_in_place(scene.folder, scene.edits, scene.replace)
    assert "hf-bias-patch patch" in caught.value.remedy
    told = {"link": "symbolic link", "hard link": "other hard links", "read-only": "read-only", "hub cache": "cache"}
    assert told[trap] in caught.value.why
    assert scene.state() == before
    with pytest.raises(TargetError, match=name):
        refuse_unsafe(path)


def test_missing_files_are_refused(make_scene: MakeScene) -> None:
    scene = make_scene()
    with pytest.raises(TargetError, match=r"gone\.safetensors"):
        edit_in_place(scene.folder, [ByteEdit("gone.safetensors", 8, b"x")], {})
    with pytest.raises(TargetError, match="no such folder"):
        edit_in_place(scene.folder / "no such folder", [], {"config.json": b"x"})
    assert scene.state() == scene.old


@pytest.mark.parametrize("name", ["../out", "/out", "side/../../out", ""])
def test_names_stay_inside(name: str, make_scene: MakeScene) -> None:
    scene = make_scene()
    with pytest.raises(ValueError, match="inside"):
        edit_in_place(scene.folder, [], {name: b"x"})
    with pytest.raises(ValueError, match="inside"):
        edit_in_place(scene.folder, [ByteEdit(name, 8, b"x")], {})


def test_a_linked_sub_folder_is_not_written_through(make_scene: MakeScene, tmp_path: Path) -> None:
    scene = make_scene()
    (tmp_path / "outside").mkdir()
    (scene.folder / "side").symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match="leads out"):
        edit_in_place(scene.folder, scene.edits, scene.replace)
    assert not any((tmp_path / "outside").iterdir())


@pytest.mark.parametrize(
    "edits",
    [
        [("model-1.safetensors", 7, b"x")],
        [("model-1.safetensors", 100, b"xx"), ("model-1.safetensors", 101, b"x")],
        [("model-1.safetensors", 100, b"x"), ("model-1.safetensors", 90, b"x" * 11)],
        [("model-1.safetensors", 10**9, b"x")],
    ],
)
def test_impossible_ranges_are_a_mistake(edits: list[tuple[str, int, bytes]], make_scene: MakeScene) -> None:
    scene = make_scene()
    with pytest.raises(ValueError, match=r"model-1\.safetensors"):
        edit_in_place(scene.folder, [ByteEdit(*edit) for edit in edits], {})
    assert scene.state() == scene.old


def test_one_editor_at_a_time(make_scene: MakeScene) -> None:
    scene = make_scene()
    descriptor = os.open(scene.folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(TargetError, match="another process"):
        edit_in_place(scene.folder, scene.edits, scene.replace)
    assert scene.state() == scene.old
    os.close(descriptor)
    edit_in_place(scene.folder, scene.edits, scene.replace)


# --- errors in the middle -----------------------------------------------------------------------------------

CALLS = ("open", "read", "write", "lseek", "fsync", "replace", "unlink", "mkdir", "rmdir", "chmod")


class Killed(BaseException):
    """Nothing after it happens: no call to the system succeeds any more."""


class Faults:
    """Counts calls to the system, and lets the one numbered `at` fail; with `dead`, all that follow as well."""

    def __init__(self, at: int = -1, *, dead: bool = False, code: int = errno.EIO) -> None:
        self.at, self.dead, self.code, self.count = at, dead, code, 0

    def __enter__(self) -> Faults:
        self.patch = pytest.MonkeyPatch()
        for name in CALLS:
            self.patch.setattr(os, name, self._wrapped(name, getattr(os, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            number, self.count = self.count, self.count + 1
            if self.dead and number >= self.at >= 0:
                # A write that is cut short leaves its first bytes.
                if name == "write" and number == self.at:
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise Killed
            if number == self.at:
                raise OSError(self.code, os.strerror(self.code))
            if name == "fsync":
                return None  # of no effect without a power cut, and slow
            return real(*arguments, **named)

        return call


def count_calls(scene: Any, action: Callable[[], object]) -> int:
    with Faults() as faults:
        action()
    return faults.count


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_any_failing_call_is_taken_back(code: int, make_scene: MakeScene) -> None:
    """Every system call fails once, one after the other: the old state is back at once, nothing is left."""
    first = make_scene()
    total = count_calls(first, lambda: edit_in_place(first.folder, first.edits, first.replace))
    assert total > 50
    failed = 0
    for number in range(total):
        scene = make_scene(f"scene{number}")
        try:
            with Faults(number, code=code):
                edit_in_place(scene.folder, scene.edits, scene.replace)
        except TargetError as error:
            failed += 1
            assert scene.state() == scene.old, number
            assert code == errno.EIO or number == 0 or "Make room" in str(error)
        else:
            assert scene.state() == scene.new
    assert failed >= total - 2  # only the last sync of the folder may fail in silence


def killed_scenes(make_scene: MakeScene) -> Iterator[Any]:
    """A scene killed at each system call of an edit."""
    first = make_scene("count")
    total = count_calls(first, lambda: edit_in_place(first.folder, first.edits, first.replace))
    for number in range(total):
        scene = make_scene(f"killed{number}")
        with pytest.raises(Killed), Faults(number, dead=True):
            edit_in_place(scene.folder, scene.edits, scene.replace)
            # The commit is behind us and the failing sync was passed over.
            raise Killed
        yield scene


def test_killed_at_any_call_it_is_recovered(make_scene: MakeScene) -> None:
    seen = {"old": 0, "recovered": 0, "new": 0}
    for scene in killed_scenes(make_scene):
        scene.check_never_silently_mixed()
        journal = (scene.folder / JOURNAL).exists()
        if journal:
            with pytest.raises(CheckpointError, match="in the middle of an edit"):
                open_checkpoint(scene.folder)
            with pytest.raises(CheckpointError, match="hf-bias-patch revert"):
                edit_in_place(scene.folder, scene.edits, scene.replace)
        assert recover(scene.folder) == journal
        assert not recover(scene.folder)
        state = scene.state()
        assert state == scene.old or (state == scene.new and not journal)
        seen["recovered" if journal else "new" if state == scene.new else "old"] += 1
    assert min(seen.values()) > 0 and seen["recovered"] > 30


def test_killed_again_while_recovering(make_scene: MakeScene) -> None:
    """Every call of a recovery, from every tenth moment of the edit, and twice in a row."""
    deaths = 0
    for index, scene in enumerate(killed_scenes(make_scene)):
        if index % 10 or not (scene.folder / JOURNAL).exists():
            continue
        number, alive = 0, False
        while not alive:
            try:
                with Faults(number, dead=True):
                    recover(scene.folder)
                alive = True
            except Killed:
                deaths += 1
                scene.check_never_silently_mixed()
            number += 1
        assert scene.state() == scene.old
    assert deaths > 100


def test_killed_while_recovering_from_the_last_moment(make_scene: MakeScene) -> None:
    """All is written and no mark is left, only the journal: going back must set the marks again."""
    tried = 0
    for scene in killed_scenes(make_scene):
        written = {name: content for name, content in scene.state().items() if name != JOURNAL}
        if written != scene.new or not (scene.folder / JOURNAL).exists():
            continue
        number, alive = 0, False
        while not alive:
            with suppress(Killed), Faults(number, dead=True):
                recover(scene.folder)
                alive = True
            scene.check_never_silently_mixed()
            number += 1
        assert scene.state() == scene.old
        tried += 1
    assert tried


def test_what_cannot_be_taken_back_waits_for_recover(make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses everything after the journal: the error says so, and nothing loads."""
    scene = make_scene()
    real, calls = os.open, 0

    def fails_later(path: Any, flags: int, *more: Any, **options: Any) -> int:
        nonlocal calls
        calls += flags & os.O_WRONLY and not flags & os.O_CREAT
        if calls > 3:
            raise OSError(errno.EIO, "broken disk")
        return real(path, flags, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fails_later)
        with pytest.raises(TargetError, match="could not be edited, and the old files could not be restored") as caught:
            edit_in_place(scene.folder, scene.edits, scene.replace)
    assert "broken disk" in str(caught.value) and "revert" in str(caught.value)
    scene.check_never_silently_mixed()
    assert recover(scene.folder) and scene.state() == scene.old


# --- the journal --------------------------------------------------------------------------------------------


def interrupted(make_scene: MakeScene) -> Any:
    """A scene whose edit was killed while files are marked."""
    for scene in killed_scenes(make_scene):
        if any(content.startswith(MARK) for content in scene.state().values()) and scene.state() != scene.old:
            return scene
    raise AssertionError("no edit was interrupted")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_journal_is_never_believed(damage: str, make_scene: MakeScene) -> None:
    scene = interrupted(make_scene)
    journal = scene.folder / JOURNAL
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 1
    cut = {"truncated": content[:-40], "flipped": content, "empty": b"", "foreign": b"x" * 500}[damage]
    journal.write_bytes(bytes(cut))
    before = scene.state()
    with pytest.raises(CheckpointError, match="cannot be put back"):
        recover(scene.folder)
    assert scene.state() == before


def test_a_damaged_journal_of_an_untouched_checkpoint_goes(make_scene: MakeScene) -> None:
    scene = make_scene()
    (scene.folder / JOURNAL).write_bytes(b"torn")
    assert not recover(scene.folder) and scene.state() == scene.old


def test_every_flipped_byte_is_noticed(make_scene: MakeScene) -> None:
    scene = interrupted(make_scene)
    journal = scene.folder / JOURNAL
    content = journal.read_bytes()
    assert read_journal(scene.folder) is not None
    for position in range(0, len(content), 7):
        journal.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        with pytest.raises(CheckpointError, match="damaged"):
            read_journal(scene.folder)


def test_old_bytes_do_not_go_into_another_file(make_scene: MakeScene) -> None:
    scene = interrupted(make_scene)
    (scene.folder / "model-1.safetensors").write_bytes(b"downloaded again, another version")
    with pytest.raises(CheckpointError, match=r"model-1\.safetensors is not the file"):
        recover(scene.folder)
    assert (scene.folder / JOURNAL).exists()


def test_somebody_elses_files_in_a_new_folder_stay(make_scene: MakeScene) -> None:
    for scene in killed_scenes(make_scene):
        if (scene.folder / JOURNAL).exists() and (scene.folder / "side").exists():
            (scene.folder / "side" / "notes").write_bytes(b"mine")
            recover(scene.folder)
            assert scene.state() == {**scene.old, "side": b"/", "side/notes": b"mine"}
            return
    raise AssertionError("no folder was made")
