"""A new folder appears whole or not at all, and nothing else is ever lost."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hf_bias_patch.checkpoint import folder as folder_module
from hf_bias_patch.checkpoint.folder import new_folder
from hf_bias_patch.checkpoint.leftovers import clear_leftovers, working_folder
from hf_bias_patch.errors import TargetError

Snapshot = Callable[[Path], dict[str, bytes]]


def make(out: Path, content: str = "new", *, overwrite: bool = False, inputs: tuple[Path, ...] = ()) -> None:
    with new_folder(out, overwrite=overwrite, inputs=inputs) as folder:
        (folder / "config.json").write_text(content)
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text(content)
        assert not (out / "sub").exists()


def old(out: Path) -> Path:
    out.mkdir(parents=True)
    (out / "config.json").write_text("old")
    (out / "only old").write_text("old")
    return out


def test_appears_with_its_content(tmp_path: Path, snapshot: Snapshot) -> None:
    make(tmp_path / "out")
    assert snapshot(tmp_path) == {
        "out": b"/",
        "out/config.json": b"new",
        "out/sub": b"/",
        "out/sub/file": b"new",
    }
    # mkdtemp would have made it private.
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_missing_parents_are_made_and_unmade(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="boom"),
        new_folder(tmp_path / "a" / "b" / "out", overwrite=False, inputs=()),
    ):
        raise RuntimeError("boom")
    assert not any(tmp_path.iterdir())
    make(tmp_path / "a" / "b" / "out")
    assert (tmp_path / "a" / "b" / "out" / "config.json").exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existing", [True, False])
def test_an_exception_leaves_nothing(
    error: type[BaseException], existing: bool, tmp_path: Path, snapshot: Snapshot
) -> None:
    if existing:
        old(tmp_path / "out")
    before = snapshot(tmp_path)
    with pytest.raises(error), new_folder(tmp_path / "out", overwrite=True, inputs=()) as folder:
        (folder / "half").write_text("half")
        raise error
    assert snapshot(tmp_path) == before


def no_library(*_: Any, **__: Any) -> Any:
    """A system whose C library cannot exchange two names."""
    raise OSError("no such library")


@pytest.mark.parametrize("exchange", [True, False])
def test_overwriting_replaces_the_whole(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on filesystems that cannot exchange two names."""
    if not exchange:
        monkeypatch.setattr(ctypes, "CDLL", no_library)
    old(tmp_path / "out")
    make(tmp_path / "out", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "sub"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_second_rename_that_fails_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    before, calls, real = snapshot(old(tmp_path / "out")), 0, os.rename

    def second_fails(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(5, "broken disk")
        real(*arguments)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(TargetError, match="broken disk"):
        make(tmp_path / "out", overwrite=True)
    assert snapshot(tmp_path / "out") == before and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_killed_between_two_renames_the_old_folder_comes_back(tmp_path: Path, snapshot: Snapshot) -> None:
    before = snapshot(old(tmp_path / "out"))
    os.rename(tmp_path / "out", folder_module._aside(tmp_path / "out"))
    with pytest.raises(TargetError, match="out exists"):
        make(tmp_path / "out")
    assert snapshot(tmp_path / "out") == before and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_existing_folder_is_refused(tmp_path: Path, snapshot: Snapshot) -> None:
    old(tmp_path / "out")
    (tmp_path / "file").write_text("x")
    before = snapshot(tmp_path)
    for name in ("out", "file"):
        with pytest.raises(TargetError, match=f"{name} exists"):
            make(tmp_path / name)
    with pytest.raises(TargetError, match="not a folder"):
        make(tmp_path / "file", overwrite=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(("names", "expected"), [(["thesis.doc"], "no checkpoint"), (["config.json", ".git"], "git")])
def test_what_is_no_checkpoint_is_not_overwritten(names: list[str], expected: str, tmp_path: Path) -> None:
    """`patch MODEL ~ --overwrite` must not cost a home folder."""
    (tmp_path / "out").mkdir()
    for name in names:
        (tmp_path / "out" / name).write_text("x")
    with pytest.raises(TargetError, match=expected):
        make(tmp_path / "out", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_may_be_used(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").mkdir()
    make(tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out" / "config.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_stays_after_an_exception(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out", overwrite=False, inputs=()):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not any((tmp_path / "out").iterdir())


def test_an_empty_folder_that_was_filled_meanwhile_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(TargetError, match="another program"), new_folder(tmp_path / "out", overwrite=False, inputs=()):
        (tmp_path / "out" / "thesis.doc").write_text("x")
    assert (tmp_path / "out" / "thesis.doc").read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_made_by_somebody_else_meanwhile(tmp_path: Path) -> None:
    with (
        pytest.raises(TargetError, match=r"another program|exists"),
        new_folder(tmp_path / "out", overwrite=False, inputs=()),
    ):
        old(tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("out", ["model", "model/out", "model/a/b", ".", "link", "link/out", "model/../model/out"])
@pytest.mark.parametrize("given", ["model", "link"])
def test_the_input_is_out_of_bounds(out: str, given: str, tmp_path: Path, snapshot: Snapshot) -> None:
    old(tmp_path / "model")
    (tmp_path / "link").symlink_to("model")
    before = snapshot(tmp_path)
    with pytest.raises(TargetError, match="the input") as caught:
        make(tmp_path / out, overwrite=True, inputs=(tmp_path / given,))
    assert "elsewhere" in str(caught.value)
    assert snapshot(tmp_path) == before


def test_beside_the_input_is_fine(tmp_path: Path) -> None:
    old(tmp_path / "model")
    make(tmp_path / "model2", inputs=(tmp_path / "model",))
    make(tmp_path / "out", inputs=(tmp_path / "model" / "config.json",))
    assert {path.name for path in tmp_path.iterdir()} == {"model", "model2", "out"}
    assert (tmp_path / "model" / "config.json").read_text() == "old"


def test_through_a_link_the_folder_it_leads_to_is_replaced(tmp_path: Path) -> None:
    old(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    make(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "config.json").read_text() == "new"


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TargetError, match="file"):
        make(tmp_path / "file" / "out")


def test_a_read_only_parent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    with pytest.raises(TargetError, match="read-only"):
        make(tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_the_longest_name_is_possible(tmp_path: Path) -> None:
    make(tmp_path / ("x" * 255))
    assert [path.name for path in tmp_path.iterdir()] == ["x" * 255]


def test_what_replaces_a_folder_is_on_disk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def remember(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append(path.name if not path.name.startswith(".bias_patch-") else "folder")
        assert (tmp_path / "out" / "only old").exists() == (path != tmp_path)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", remember)
    make(tmp_path / "fresh")
    assert not synced, "nothing was there that could be lost"
    make(old(tmp_path / "out"), overwrite=True)
    assert sorted(synced[:-2]) == ["config.json", "file", "sub"]
    assert synced[-2:] == ["folder", tmp_path.name]


# --- killed runs --------------------------------------------------------------------------------------------

CHILD = """
import time
from pathlib import Path
from hf_bias_patch.checkpoint.folder import new_folder
with new_folder(Path(sys.argv[1]), overwrite=True, inputs=()) as folder:
    (folder / "config.json").write_text("new")
    print("inside", flush=True)
    time.sleep(float(sys.argv[2]))
print("done", flush=True)
"""


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child that has come as far as the inside of its block."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None and child.stdout.readline() == b"inside\n"
        yield child


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_leftovers_go_and_living_runs_stay(tmp_path: Path, run_python: Callable[..., list[str]]) -> None:
    out = tmp_path / "out"
    command = run_python(CHILD, out, 60)
    with started(command) as dead, started(command) as living:
        dead.kill()
        dead.wait()
        assert len(list(tmp_path.iterdir())) == 2 and not out.exists()
        make(out)
        assert len(list(tmp_path.iterdir())) == 2 and (out / "config.json").exists()
        living.send_signal(signal.SIGINT)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_leftovers_of_other_folders_go_too(tmp_path: Path, run_python: Callable[..., list[str]]) -> None:
    """And nothing else: no living run's, no old folder that may be all there is, no folder of another name."""
    with (
        started(run_python(CHILD, tmp_path / "one", 60)) as dead,
        started(run_python(CHILD, tmp_path / "two", 60)) as living,
    ):
        both = set(tmp_path.iterdir())
        dead.kill()
        dead.wait()
        (tmp_path / f".bias_patch-{'0' * 16}-old").mkdir()
        (tmp_path / ".bias_patch-mine").mkdir()
        kept = set(tmp_path.iterdir()) - both
        removed = clear_leftovers(tmp_path)
        assert len(removed) == 1 and both - {*removed} | kept == set(tmp_path.iterdir())
        living.send_signal(signal.SIGINT)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_where_no_lock_tells_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    (tmp_path / f".bias_patch-{'0' * 16}-{'1' * 8}").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("fcntl.flock", no_locks)
        assert clear_leftovers(tmp_path) == []
        make(tmp_path / "out")
    assert len(list(tmp_path.iterdir())) == 2
    make(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_a_working_folder_goes_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), working_folder(tmp_path, "x" * 255) as folder:
        (folder / "file").write_text("x")
        assert clear_leftovers(tmp_path) == [] and folder.name.startswith(".")
        raise RuntimeError
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("existing", [True, False])
def test_killed_at_any_moment_the_folder_is_old_or_new(
    existing: bool, tmp_path: Path, run_python: Callable[..., list[str]], snapshot: Snapshot
) -> None:
    """Real SIGKILLs around the moment the folder gets its name."""
    out = tmp_path / "out"
    before = snapshot(old(out)) if existing else None
    for number in range(10):
        with started(run_python(CHILD, out, 0)) as child:
            time.sleep(number % 8 * 0.0006)
            child.kill()
        now = snapshot(out) if out.exists() else None
        assert now == before or now == {"config.json": b"new"}
        if out.exists():
            shutil.rmtree(out)
        if existing:
            old(out)
    make(out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
