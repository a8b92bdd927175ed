"""What rounding took away comes back, bit for bit, whatever the numbers are."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_bias_patch.patching.algebra import round_once
from hf_bias_patch.patching.undo.matrix import decode, encode

DTYPES = {name: np.dtype(kind) for name, kind in (("F64", "<f8"), ("F32", "<f4"), ("F16", "<f2"))}
DTYPES["BF16"] = np.dtype(ml_dtypes.bfloat16)

shapes = st.tuples(st.integers(1, 4), st.integers(1, 5))
updates = st.floats(allow_nan=False, allow_infinity=False, width=64) | st.just(0.0) | st.floats(-1, 1)


def words(size: int) -> st.SearchStrategy[int]:
    """Bit patterns: any, and those of zeros, subnormals, infinities and the largest numbers of either sign."""
    top = 1 << (8 * size - 1)
    edges = [0, 1, 2, top - 1, top, top + 1, 2 * top - 1]
    return st.integers(0, 2 * top - 1) | st.sampled_from(edges)


@pytest.mark.parametrize("name", DTYPES)
@settings(max_examples=200)
@given(data=st.data())
def test_any_old_values_come_back(name: str, data: st.DataObject) -> None:
    """Also NaN, infinities, -0.0 and subnormals, and new values that have nothing to do with the old ones."""
    dtype = DTYPES[name]
    shape = data.draw(shapes)
    unsigned = np.dtype(f"<u{dtype.itemsize}")
    old = data.draw(arrays(unsigned, shape, elements=words(dtype.itemsize))).view(dtype)
    update = data.draw(arrays(np.float64, shape, elements=updates))
    with np.errstate(all="ignore"):
        new = round_once(old.astype(np.float64) + update, dtype)
        for stored in (new, np.zeros_like(new)):
            back = decode(stored, update, encode(old, stored, update))
            assert back.dtype == dtype and back.shape == shape and back.tobytes() == old.tobytes()


@pytest.mark.parametrize("name", DTYPES)
def test_a_fold_leaves_little_to_keep(name: str) -> None:
    """The point of keeping differences: mostly zeros. Plain copies of random weights do not get smaller."""
    random = np.random.default_rng(0)
    old = round_once(random.standard_normal((200, 300)) * 0.02, DTYPES[name])
    update = np.outer(random.standard_normal(200), random.standard_normal(300)) * 0.01
    new = round_once(old.astype(np.float64) + update, DTYPES[name])
    residual = encode(old, new, update)
    assert decode(new, update, residual).tobytes() == old.tobytes()
    assert len(residual) < 0.45 * old.nbytes


def test_a_residual_of_other_values_is_refused() -> None:
    old = np.ones((2, 3), np.float32)
    residual = encode(old, old, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="24 bytes for 36 bytes"):
        decode(np.ones((3, 3), np.float32), np.zeros((3, 3)), residual)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, lambda a: np.repeat(a, 2, 1)[:, ::2]])
def test_values_in_any_memory_order(layout: Callable[[np.ndarray], np.ndarray]) -> None:
    random = np.random.default_rng(1)
    old, update = (layout(random.standard_normal((5, 7))) for _ in range(2))
    new = layout(old + update)
    assert np.array_equal(decode(new, update, encode(old, new, update)), old)
