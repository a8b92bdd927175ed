"""sha256, here and in the background."""

from __future__ import annotations

import hashlib
import threading
import time
import tracemalloc
from contextlib import ExitStack
from pathlib import Path

import pytest

from hf_bias_patch.checkpoint.hashing import BackgroundHash, sha256_file
from hf_bias_patch.errors import CheckpointError


@pytest.mark.parametrize("size", [0, 1, 4 << 20, (4 << 20) + 1, 9_000_001])
def test_agrees_with_hashlib(size: int, tmp_path: Path) -> None:
    content = (b"0123456789abcde" * (size // 15 + 1))[:size]
    path = tmp_path / "file"
    path.write_bytes(content)
    counts: list[int] = []
    expected = hashlib.sha256(content).hexdigest()
    assert sha256_file(path, counts.append) == expected
    assert sum(counts) == size
    with BackgroundHash(path) as background:
        assert background.result() == expected
        assert background.result() == expected


def test_a_missing_file_is_told_by_both(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="gone"):
        sha256_file(tmp_path / "gone")
    with BackgroundHash(tmp_path / "gone") as background, pytest.raises(CheckpointError, match="gone"):
        background.result()


def test_leaving_early_stops_all_threads(tmp_path: Path) -> None:
    """And many files at once take the memory of one."""
    path = tmp_path / "huge"
    with open(path, "wb") as file:
        file.truncate(2**40)  # hashing a terabyte of nothing would take an hour
    before = threading.active_count()
    tracemalloc.start()
    with pytest.raises(RuntimeError, match="copy failed"), ExitStack() as stack:
        for _ in range(50):
            background = stack.enter_context(BackgroundHash(path))
        time.sleep(0.05)
        raise RuntimeError("copy failed")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert threading.active_count() == before
    assert peak < 16 << 20
    with pytest.raises(RuntimeError, match="stopped"):
        background.result()
