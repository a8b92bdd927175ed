"""Files made of ranges and new bytes: right whatever the kernel offers, and never held in memory."""

from __future__ import annotations

import errno
import os
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_bias_patch.checkpoint import copying
from hf_bias_patch.checkpoint.copying import CopyRange, NewBytes, write_file
from hf_bias_patch.errors import CheckpointError, TargetError

WAYS = ["copy_file_range", "sendfile", "buffer"]
SOURCE = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copying")
    (folder / "source").write_bytes(SOURCE)
    return folder


def only(way: str, patch: pytest.MonkeyPatch) -> None:
    """Let the kernel refuse everything but one way of copying."""

    def refuse(*arguments: Any, **named: Any) -> int:
        raise OSError(errno.EXDEV, "not offered")

    if way != "copy_file_range":
        patch.setattr(os, "copy_file_range", refuse)
    if way == "buffer":
        patch.setattr(os, "sendfile", refuse)


keeps = st.tuples(st.integers(0, len(SOURCE)), st.integers(0, len(SOURCE))).map(lambda pair: CopyRange(*sorted(pair)))
puts = st.one_of(
    st.binary(max_size=50).map(lambda data: NewBytes(data, len(data))),
    st.lists(st.binary(max_size=20), max_size=4).map(lambda parts: NewBytes(parts, sum(map(len, parts)))),
)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=60, deadline=None)
@given(segments=st.lists(st.one_of(keeps, puts), max_size=6), step=st.sampled_from([7, 1000, 64 << 20]))
def test_writes_what_the_segments_say(way: str, segments: list[CopyRange | NewBytes], step: int, scratch: Path) -> None:
    expected = b""
    for part in segments:
        if isinstance(part, CopyRange):
            expected += SOURCE[part.start : part.stop]
        else:
            expected += part.data if isinstance(part.data, bytes) else b"".join(part.data)  # type: ignore[arg-type]
    counts: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        only(way, patch)
        patch.setattr(copying, "_STEP", step)
        write_file(scratch / "source", scratch / "target", segments, counts.append)
    assert (scratch / "target").read_bytes() == expected
    assert sum(counts) == len(expected)
    assert (scratch / "source").read_bytes() == SOURCE


def test_adjoining_ranges_are_one(scratch: Path) -> None:
    parts = [CopyRange(0, 5), CopyRange(5, 9), NewBytes(b"x", 1), CopyRange(9, 9), CopyRange(9, 12), CopyRange(13, 14)]
    assert [p for p in copying._merged(parts) if isinstance(p, CopyRange)] == [
        CopyRange(0, 9),
        CopyRange(9, 12),
        CopyRange(13, 14),
    ]


@pytest.mark.parametrize("way", WAYS)
def test_short_counts_are_continued(way: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may copy or write less than it was asked to."""
    only(way, monkeypatch)
    real_range, real_send, real_write = os.copy_file_range, os.sendfile, os.write

    def short_range(source: int, target: int, count: int, **named: Any) -> int:
        return real_range(source, target, min(count, 3), **named)

    def short_send(target: int, source: int, offset: int, count: int) -> int:
        return real_send(target, source, offset, min(count, 3))

    if way == "copy_file_range":
        monkeypatch.setattr(os, "copy_file_range", short_range)
    if way == "sendfile":
        monkeypatch.setattr(os, "sendfile", short_send)
    monkeypatch.setattr(os, "write", lambda target, data: real_write(target, bytes(data[:3])))
    write_file(scratch / "source", scratch / "target", [NewBytes(b"0123456789", 10), CopyRange(100, 999)])
    assert (scratch / "target").read_bytes() == b"0123456789" + SOURCE[100:999]


def test_a_way_that_stops_halfway_is_taken_over(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.copy_file_range, 0

    def once(source: int, target: int, count: int, **named: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.EINVAL, "no more")
        return real(source, target, 10, **named)

    monkeypatch.setattr(os, "copy_file_range", once)
    write_file(scratch / "source", scratch / "target", [CopyRange(0, 500)])
    assert calls == 2 and (scratch / "target").read_bytes() == SOURCE[:500]


@pytest.mark.parametrize("way", WAYS)
def test_a_source_that_ends_early_is_an_error(way: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(way, monkeypatch)
    with pytest.raises(CheckpointError, match="ends at byte 10,240"):
        write_file(scratch / "source", scratch / "target", [CopyRange(10_000, 20_000)])


def test_unusable_places_are_named(scratch: Path) -> None:
    with pytest.raises(CheckpointError, match="gone"):
        write_file(scratch / "gone", scratch / "target", [CopyRange(0, 1)])
    with pytest.raises(TargetError, match="nowhere"):
        write_file(scratch / "source", scratch / "nowhere" / "target", [CopyRange(0, 1)])


def test_a_put_of_another_length_is_a_mistake(scratch: Path) -> None:
    with pytest.raises(ValueError, match="came with 3"):
        write_file(None, scratch / "target", [NewBytes(b"abc", 4)])


@pytest.mark.parametrize("way", WAYS)
def test_memory_does_not_grow_with_the_file(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(way, monkeypatch)
    size = 100 << 20
    with open(tmp_path / "big", "wb") as file:
        file.truncate(size)
    block = bytes(1 << 20)
    tracemalloc.start()
    write_file(
        tmp_path / "big", tmp_path / "copy", [CopyRange(0, size), NewBytes((block for _ in range(20)), 20 << 20)]
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "copy").stat().st_size == size + (20 << 20)
    assert peak < 10 << 20


# --- a full disk --------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB; a file size limit of 1 MB where nothing can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode == 0:
        yield place
        subprocess.run(["umount", place], check=True)
        return
    import resource
    import signal

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, old[1]))
    yield place
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk_is_told_with_numbers(
    way: str, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(way, monkeypatch)
    blocks: Callable[[], Iterator[bytes]] = lambda: (bytes(1 << 16) for _ in range(64))  # noqa: E731
    with pytest.raises(TargetError, match="4,194,304 bytes"):
        write_file(None, small_disk / "target", [NewBytes(blocks(), 4 << 20)])
    (small_disk / "target").unlink()
    # Written before the limit holds, where it is a limit.
    source = tmp_path / "source"
    with open(source, "wb") as file:
        for _ in range(15):
            file.write(bytes(1 << 16))
    parts = [CopyRange(0, 15 << 16)] * 4
    with pytest.raises(TargetError, match="3,932,160 bytes") as caught:
        write_file(source, small_disk / "target", [part for keep in parts for part in (keep, NewBytes(b"", 0))])
    assert "Make room" in str(caught.value)
