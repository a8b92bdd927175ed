"""How large each bias was, and is: the figure of a card."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hf_bias_patch.attention.find import find_sites
from hf_bias_patch.attention.sites import Slot
from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_model
from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.checkpoint.header import TensorInfo
from hf_bias_patch.checkpoint.sidecar import SIDE_FOLDER
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.record import UNDO
from hf_bias_patch.patching.undo.reader import Undo

__all__ = ["NORMS", "Norm", "dump_norms", "measure_norms", "read_norms"]

NORMS = f"{SIDE_FOLDER}/norms.json"


class Norm(NamedTuple):
    """The Euclidean norm of one bias.

    Attributes:
        site: name of the attention site.
        projection: which of its four.
        before, after: in the base, and in the variant.
    """

    site: str
    projection: str
    before: float
    after: float


def measure_norms(folder: Path, plan: Plan) -> tuple[Norm, ...]:
    """The norms of all attention biases of a variant, and what they were.

    Raises:
        CheckpointError: the variant changed since it was patched, or a file of it is damaged.
    """
    checkpoint = open_model(folder)
    with Undo(folder / UNDO) as undo:
        gone = {
            name: TensorInfo(name, old.dtype, old.shape, 0, old.nbytes)
            for name, old in undo.manifest.tensors.items()
            if name not in checkpoint.tensors
        }
        tensors = {**checkpoint.tensors, **gone}
        sites = plan.sites or find_sites(checkpoint.config, tensors)
        found = []
        for site in sites:
            for projection, slot in site.slots.items():
                if slot.bias is not None and slot.bias in tensors:
                    before, after = _before(checkpoint, undo, slot.bias), _after(checkpoint, slot.bias)
                    found.append(Norm(site.name, projection, _norm(slot, before), _norm(slot, after)))
        return tuple(found)


def _after(checkpoint: Checkpoint, name: str) -> np.ndarray | None:
    return checkpoint.read(name) if name in checkpoint.tensors else None


def _before(checkpoint: Checkpoint, undo: Undo, name: str) -> np.ndarray | None:
    if name not in undo.manifest.tensors:
        return _after(checkpoint, name)
    old = undo.manifest.tensors[name]
    content = b"".join(undo.restored(name, checkpoint))
    return np.frombuffer(content, numpy_dtype(old.dtype)).reshape(old.shape)


def _norm(slot: Slot, values: np.ndarray | None) -> float:
    """Six digits: the last ones of a sum differ between machines, and the card must not."""
    if values is None:
        return 0.0
    return float(f"{np.linalg.norm(slot.view.take(values.astype(np.float64).reshape(-1))):.6g}")


def read_norms(path: Path) -> tuple[Norm, ...]:
    """Norms that were measured before.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        return tuple(Norm(str(site), str(name), float(before), float(after)) for site, name, before, after in found)
    except (OSError, ValueError, TypeError, RecursionError):
        raise CheckpointError(f"{path} is damaged", remedy="Remove it, and write the card again") from None


def dump_norms(norms: Iterable[Norm]) -> bytes:
    """The norms as JSON, a bias a line."""
    lines = ",\n ".join(json.dumps(norm) for norm in norms)
    return f"[{lines}]\n".encode()
