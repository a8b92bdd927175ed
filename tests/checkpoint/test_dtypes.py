"""Number formats: the table is the library's, and the rounding errors are the true ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open

from hf_bias_patch.checkpoint.dtypes import BITS, FLOATS, dtype_name, numpy_dtype, unit_roundoff
from hf_bias_patch.errors import CheckpointError


def library_reads(path: Path, dtype: str, nbytes: int) -> bool:
    entry = {"dtype": dtype, "shape": [8], "data_offsets": [0, nbytes]}
    header = json.dumps({"a": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * nbytes)
    try:
        with safe_open(path, "numpy"):
            return True
    except SafetensorError:
        return False


@pytest.mark.parametrize("name", sorted(BITS))
def test_sizes_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    assert library_reads(tmp_path / "x.safetensors", name, BITS[name])
    assert not library_reads(tmp_path / "x.safetensors", name, BITS[name] + 1)


def test_knows_every_dtype_of_the_library(tmp_path: Path) -> None:
    """The library lists its dtypes when it meets one it does not know."""
    header = b'{"a":{"dtype":"?","shape":[],"data_offsets":[0,0]}}'
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(SafetensorError) as caught:
        safe_open(tmp_path / "x.safetensors", "numpy").__enter__()
    assert set(str(caught.value).split("expected one of")[1].split(" at line")[0].split("`")[1::2]) == set(BITS)


@pytest.mark.parametrize("name", sorted(BITS))
def test_names_go_both_ways(name: str) -> None:
    if BITS[name] % 8:
        with pytest.raises(CheckpointError, match=name):
            numpy_dtype(name)
    else:
        assert numpy_dtype(name).itemsize * 8 == BITS[name]
        assert dtype_name(numpy_dtype(name)) == name


def test_refuses_what_no_file_can_hold() -> None:
    with pytest.raises(CheckpointError, match="complex128"):
        dtype_name(np.dtype(np.complex128))
    with pytest.raises(CheckpointError, match="F31"):
        numpy_dtype("F31")
    with pytest.raises(CheckpointError, match="I64"):
        unit_roundoff("I64")


@pytest.mark.parametrize("name", FLOATS)
def test_unit_roundoff_is_the_largest_rounding_error(name: str) -> None:
    """Never exceeded, and nearly reached, by numbers over a binade."""
    exact = np.random.default_rng(0).uniform(1, 2, 20_000).astype(np.longdouble)
    exact += np.random.default_rng(1).uniform(0, 2.0**-50, 20_000)
    rounded = exact.astype(np.float64).astype(numpy_dtype(name)).astype(np.longdouble)
    worst = float(np.max(np.abs(rounded - exact) / exact))
    # float64 to float16 or bfloat16 rounds twice only by way of float64, far finer than either.
    assert 0.95 * unit_roundoff(name) < worst <= unit_roundoff(name) * 1.001
