"""Whether the memory of this machine holds what `verify` needs, asked before anything large is loaded."""

from __future__ import annotations

from hf_bias_patch.checkpoint.capacity import available_memory
from hf_bias_patch.errors import VerifyError

__all__ = ["require_memory"]


def require_memory(needed: int, name: str) -> None:
    """Refuse what would not fit.

    Args:
        needed: bytes.
        name: of the checkpoint.

    Raises:
        VerifyError: fewer bytes are free; the message names both numbers.
    """
    free = available_memory()
    if free is not None and needed > free:
        raise VerifyError(
            f"Verifying {name} takes about {needed:,} bytes of memory, and {free:,} are free",
            why="The source is run in float64",
            remedy="Certify it one attention site at a time: --layerwise (layerwise=True)",
        )
