"""Whether the memory of this machine holds what `verify` needs, asked before anything large is loaded."""

from __future__ import annotations

from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.models.memory import available_memory
from hf_bias_patch.patching.plan import Plan

__all__ = ["memory_to_verify", "require_memory"]


def memory_to_verify(files: Checkpoint, plan: Plan | None, texts: int) -> int:
    """Bytes of the float64 model, of what `apply` keeps of it, and of the reference outputs.

    Args:
        files: the source's.
        plan: what leads to the variant, if that is known.
        texts: how many are given as inputs.
    """
    touched = sum(files.tensors[name].size for name in (plan.touched if plan else ()))
    widest = max((info.shape[0] for info in files.tensors.values() if info.shape and info.nbytes), default=1)
    outputs = (1000 + 128 * texts) * widest
    return 8 * files.parameters + 16 * touched + 16 * outputs


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
