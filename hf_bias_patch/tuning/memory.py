"""How much memory a run took."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["peak_bytes"]


def peak_bytes(device: Any) -> int | None:
    """The most memory held so far: of a GPU what torch allocated, else of the whole process; None where unknown."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
