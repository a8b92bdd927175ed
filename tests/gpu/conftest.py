"""Tests that a CPU cannot make. `GPU_CHECKS_DEVICE=cpu` runs what a CPU can of them, to test the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Read when CUDA starts: with it cuBLAS adds up in the same order each time.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch

_ASKED = os.environ.get("GPU_CHECKS_DEVICE", "cuda")


@pytest.fixture(scope="session")
def device() -> str:
    """The device under test; a test that asks for it is skipped where there is none."""
    if _ASKED != "cpu" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU: scripts/gpu_checks.sh runs these where there is one")
    return _ASKED


@pytest.fixture
def deterministic(device: str) -> Iterator[None]:
    """The same sums in the same order, so that two runs may be compared to the last bit."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # the comparison tells whether they were
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """Products of float32 in float32 and not in TF32, which some versions of torch choose by themselves."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)
