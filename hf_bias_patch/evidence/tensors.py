"""Compares the tensors of two checkpoints in their files: untouched ones byte for byte, touched ones with the plan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import ml_dtypes
import numpy as np

from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.dtypes import numpy_dtype, unit_roundoff
from hf_bias_patch.evidence.certificate import TensorComparison
from hf_bias_patch.patching.plan import Edit, Plan
from hf_bias_patch.patching.rewrite import Rewrite

__all__ = ["compare_tensors", "norm_bound"]

_STEP = 4 << 20
_SLACK = 1e-12  # of the largest value: what float64 sums may differ by between two machines

Progress = Callable[[int], None]


def norm_bound(edits: Collection[Edit]) -> float:
    """Relative error that solving for `query:norm` may leave in float64: conditioning · 2⁻⁵³ · width; 0 without any."""
    return max(((edit.conditioning or 0.0) * 2.0**-53 * edit.slot.view.size for edit in edits), default=0.0)


def compare_tensors(
    source: Checkpoint,
    variant: Checkpoint,
    plan: Plan | None,
    free: Collection[str] | None = None,
    gone: Collection[str] = (),
    progress: Progress | None = None,
) -> TensorComparison:
    """Compare every tensor of two checkpoints, holding a few MB at a time.

    Args:
        source, variant: the two.
        plan: what was done to the source; touched tensors must be what it gives, rounded once.
        free: without a plan, the tensors that may differ; any may if None.
        gone: without a plan, the tensors that may be missing from the variant.
        progress: called with the number of bytes compared since the last call.
    """
    absent = set(plan.absent) if plan else set()
    expected = _Expected(source, plan) if plan else None
    wrong, identical, exact = [], 0, 0
    for name, info in source.tensors.items():
        if name not in variant.tensors:
            exact += name in absent
            if name not in (absent if plan else gone):
                wrong.append(f"{name}: not in the variant")
        elif name in absent:
            wrong.append(f"{name}: still in the variant")
        elif (variant.tensors[name].dtype, variant.tensors[name].shape) != (info.dtype, info.shape):
            wrong.append(f"{name}: another dtype or shape")
        elif expected is not None and expected.changes(name):
            equal, problem = expected.compare(name, variant)
            exact += equal
            wrong += [f"{name}: {problem}"] if problem else []
        elif _same_bytes(source, variant, name):
            identical += 1
        elif plan is not None or (free is not None and name not in free):
            wrong.append(f"{name}: differs, and nothing was to change it")
        if progress is not None:
            progress(info.nbytes)
    wrong += [f"{name}: not in the source" for name in variant.tensors if name not in source.tensors]
    planned = None if plan is None else len(absent | (expected.names if expected else set()))
    return TensorComparison(
        compared=len(source.tensors), identical=identical, planned=planned, exact=exact, wrong=tuple(wrong)
    )


class _Expected:
    """What a plan gives for the tensors it touches."""

    def __init__(self, source: Checkpoint, plan: Plan) -> None:
        self._source = source
        self._rewrite = Rewrite(plan, source)
        self._bound = max(_SLACK, norm_bound(plan.edits))
        self.names = {*self._rewrite.vectors, *self._rewrite.matrices}

    def changes(self, name: str) -> bool:
        return name in self.names

    def compare(self, name: str, variant: Checkpoint) -> tuple[bool, str]:
        """Whether a tensor is exactly what is expected, and what is wrong with it if it is not nearly so."""
        exact, off, largest = True, 0.0, 0.0
        dtype = self._source.tensors[name].dtype
        for wanted, found in self._pairs(name, variant):
            exact = exact and wanted.tobytes() == found.tobytes()
            if not exact:
                off = max(off, _beyond_rounding(found, wanted, dtype))
                largest = max(largest, float(np.abs(wanted.astype(np.float64)).max(initial=0.0)))
        # Another machine may add up in another order, and so round a value to the neighbour.
        if exact or off <= self._bound * largest:
            return exact, ""
        return False, f"off by {off:.2g} beyond rounding"

    def _pairs(self, name: str, variant: Checkpoint) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if name in self._rewrite.vectors:
            yield self._rewrite.vectors[name], variant.read(name)
            return
        for block in self._rewrite.blocks(name):
            yield block.new, variant.rows(name, block.start, block.stop)


def _beyond_rounding(found: np.ndarray, wanted: np.ndarray, dtype: str) -> float:
    """Largest difference, less one step of the dtype; infinite where a value is not finite."""
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    if not np.isfinite(a).all():
        return float("inf")
    smallest = float(ml_dtypes.finfo(numpy_dtype(dtype)).smallest_subnormal)
    step = np.maximum(2 * unit_roundoff(dtype) * np.abs(b), smallest)
    return float((np.abs(a - b) - step).max(initial=0.0))


def _same_bytes(source: Checkpoint, variant: Checkpoint, name: str) -> bool:
    first, second = source.tensors[name], variant.tensors[name]
    with (
        open(source.folder / source.file_of(name), "rb") as a,
        open(variant.folder / variant.file_of(name), "rb") as b,
    ):
        a.seek(first.start)
        b.seek(second.start)
        left = first.nbytes
        while left:
            ours, theirs = a.read(min(_STEP, left)), b.read(min(_STEP, left))
            if ours != theirs or not ours:
                return False
            left -= len(ours)
    return True
