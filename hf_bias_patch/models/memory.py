"""Whether the memory of this machine holds what is needed, asked before anything large is loaded."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.patching.plan import Plan

__all__ = ["require_to_probe", "require_to_verify"]

PROBED = 32
"""Bytes a parameter takes while it is probed: its value, a copy, the code it is followed by, and one of those moved."""


def require_to_verify(files: Checkpoint, plan: Plan | None, texts: int, name: str) -> None:
    """Refuse a checkpoint whose float64 model, what `apply` keeps of it and its reference outputs would not fit.

    Args:
        files: the source's.
        plan: what leads to the variant, if that is known.
        texts: how many are given as inputs.
        name: of the checkpoint.

    Raises:
        VerifyError: fewer bytes are free; the message names both figures.
    """
    touched = sum(files.tensors[each].size for each in (plan.touched if plan else ()))
    widest = max((info.shape[0] for info in files.tensors.values() if info.shape and info.nbytes), default=1)
    outputs = (1000 + 128 * texts) * widest
    _require(
        8 * files.parameters + 16 * touched + 16 * outputs,
        f"Verifying {name}",
        why="The source is run in float64",
        remedy="Certify it one attention site at a time: --layerwise (layerwise=True)",
    )


def require_to_probe(parameters: int, name: str) -> None:
    """Refuse a model of so many parameters that does not fit while it is probed.

    Raises:
        VerifyError: fewer bytes are free; the message names both figures.
    """
    _require(
        PROBED * parameters,
        f"Probing {name}",
        why="The whole model is run in float64, and every parameter is followed",
        remedy="Use a machine with more memory, or probe a smaller model of the same architecture and config",
    )


def _require(needed: int, what: str, why: str, remedy: str) -> None:
    free = available_memory()
    if free is not None and needed > free:
        raise VerifyError(f"{what} takes about {_amount(needed)} of memory, and {_amount(free)} are free", why, remedy)


def _amount(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count:,} bytes"


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
