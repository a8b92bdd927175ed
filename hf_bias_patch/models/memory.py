"""Whether the memory of this machine holds what is needed, asked before anything large is loaded."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["available_memory"]


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping, as far as the system tells; None if it does not."""
    found = [number for number in (_of_system(), _of_container()) if number is not None]
    return min(found, default=None)


def _of_system() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):  # no such name on this system, or no sysconf at all
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_container() -> int | None:
    """What a container's limit leaves, counting its page cache as free."""
    root = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        limit, used = (int((root / f"memory.{name}").read_text("ascii")) for name in ("max", "current"))
        stat = dict(line.split() for line in (root / "memory.stat").read_text("ascii").splitlines())
        return max(0, limit - used + int(stat.get("inactive_file", 0)))
    return None
