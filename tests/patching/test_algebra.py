"""The identities on real layer norms and random numbers; rounding against exact arithmetic."""

from __future__ import annotations

import struct
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import TypeCheckError

from hf_bias_patch.patching.algebra import repeat_groups, round_once, solve_shift, witness

BF16 = np.dtype(ml_dtypes.bfloat16)
F16, F32, F64 = np.dtype("<f2"), np.dtype("<f4"), np.dtype("<f8")


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high) | st.floats(-high, -low)


def vectors(width: int, low: float = 0.05, high: float = 3.0) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, width, elements=numbers(low, high))


def norm_outputs(gamma: np.ndarray, beta: np.ndarray, tokens: int = 20, seed: int = 0) -> np.ndarray:
    """Outputs of torch's own LayerNorm on random inputs of several sizes."""
    random = torch.Generator().manual_seed(seed)
    inputs = torch.randn(tokens, len(gamma), generator=random, dtype=torch.float64)
    inputs = inputs * torch.logspace(-2, 2, tokens, dtype=torch.float64)[:, None] + 3
    weight, bias = torch.from_numpy(gamma), torch.from_numpy(beta)
    return torch.nn.functional.layer_norm(inputs, (len(gamma),), weight, bias, eps=1e-5).numpy()


class TestWitness:
    @given(st.integers(2, 24).flatmap(lambda width: st.tuples(vectors(width), vectors(width))))
    def test_sees_the_same_in_every_output(self, parts: tuple[np.ndarray, np.ndarray]) -> None:
        gamma, beta = parts
        found = witness(gamma, beta)
        if found is None:
            assert np.sum(beta / gamma) == 0
            return
        seen = norm_outputs(gamma, beta) @ found.direction
        # The amplification is the promise of how much of the rounding comes through.
        assert np.abs(seen - 1).max() <= 1e-13 * len(gamma) * found.amplification

    @given(
        st.integers(2, 16).flatmap(
            lambda width: st.tuples(vectors(width), vectors(width), st.sets(st.integers(0, width - 1), min_size=1))
        )
    )
    def test_a_dead_channel_is_a_constant_of_its_own(self, parts: tuple[np.ndarray, np.ndarray, set[int]]) -> None:
        gamma, beta, dead = parts
        gamma[list(dead)] = 0
        found = witness(gamma, beta)
        assert found is not None
        (index,) = np.flatnonzero(found.direction)
        assert index in dead and abs(beta[index]) == max(abs(beta[place]) for place in dead)
        np.testing.assert_allclose(norm_outputs(gamma, beta) @ found.direction, 1, rtol=1e-13)
        assert found.amplification == pytest.approx(1)

    def test_a_dead_channel_without_bias_is_no_constant(self) -> None:
        assert witness(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0])) is None

    def test_a_zero_constant_is_none(self) -> None:
        assert witness(np.array([1.0, 2.0, 4.0]), np.array([1.0, -4.0, 4.0])) is None
        assert witness(np.ones(3), np.zeros(3)) is None

    def test_a_constant_beyond_numbers_is_none(self) -> None:
        assert witness(np.full(2, 5e-324), np.ones(2)) is None
        assert witness(np.array([1e-200, 1.0]), np.array([1e-220, 1.0])) is None

    @settings(max_examples=30)
    @given(st.integers(4, 24).flatmap(lambda width: st.tuples(vectors(width), vectors(width))))
    def test_the_amplification_is_measured_on_outputs(self, parts: tuple[np.ndarray, np.ndarray]) -> None:
        """Root mean square of ‖d∘x‖ over tokens whose z has the size the layer norm gives it."""
        gamma, beta = parts
        found = witness(gamma, beta)
        if found is None:
            return
        outputs = norm_outputs(gamma, beta, tokens=2000)
        measured = np.sqrt(np.mean(np.sum((outputs * found.direction) ** 2, axis=1)))
        assert found.amplification == pytest.approx(measured, rel=0.2)
        assert found.amplification >= 1 / np.sqrt(len(gamma)) - 1e-12

    def test_a_small_constant_is_amplified(self) -> None:
        beta = np.array([1.0, -1.0, 1.0, -1.0 + 1e-6])
        found = witness(np.ones(4), beta)
        assert found is not None and found.amplification > 1e6


class TestShift:
    @given(st.integers(1, 12), st.integers(0, 2**32 - 1))
    def test_solves(self, width: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        weight, bias = random.standard_normal((width, width)), random.standard_normal(width)
        found = solve_shift(weight, bias)
        assert found is not None
        assert np.abs(weight @ found.delta - bias).max() <= 1e-14 * width * found.amplification * np.abs(bias).max()
        assert found.conditioning == pytest.approx(np.linalg.cond(weight, 1))
        assert found.amplification == pytest.approx(np.linalg.norm(weight * found.delta) / np.linalg.norm(bias))

    def test_what_has_no_inverse_is_none(self) -> None:
        assert solve_shift(np.ones((3, 3)), np.ones(3)) is None
        assert solve_shift(np.zeros((2, 2)), np.ones(2)) is None
        assert solve_shift(np.ones((2, 3)), np.ones(2)) is None

    def test_a_zero_bias_needs_no_shift(self) -> None:
        found = solve_shift(np.eye(3), np.zeros(3))
        assert found is not None and not found.delta.any()


class TestRepeatGroups:
    @given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
    def test_as_a_loop_over_query_heads_says(self, groups: int, per_group: int, dim: int) -> None:
        heads = groups * per_group
        value = np.arange(groups * dim, dtype=np.float64)
        expected = [value[head // per_group * dim + i] for head in range(heads) for i in range(dim)]
        np.testing.assert_array_equal(repeat_groups(value, heads * dim, heads), expected)

    def test_is_what_grouped_query_attention_does(self) -> None:
        """A value bias through torch's grouped attention and an output map is W_o times the repeated bias."""
        random = torch.Generator().manual_seed(0)
        query = torch.randn(1, 6, 5, 4, generator=random, dtype=torch.float64)
        key, value = (torch.randn(1, 2, 7, 4, generator=random, dtype=torch.float64) for _ in range(2))
        bias = torch.randn(2, 4, generator=random, dtype=torch.float64)
        output = torch.randn(24, 24, generator=random, dtype=torch.float64)

        def through(values: torch.Tensor) -> torch.Tensor:
            mixed = torch.nn.functional.scaled_dot_product_attention(query, key, values, enable_gqa=True)
            return mixed.transpose(1, 2).reshape(5, 24) @ output.T

        moved = through(value + bias[None, :, None]) - through(value)
        expected = output.numpy() @ repeat_groups(bias.numpy().reshape(-1), 24, 6)
        np.testing.assert_allclose(moved.numpy(), np.broadcast_to(expected, (5, 24)), rtol=1e-12, atol=1e-12)


def test_shapes_are_checked_under_test() -> None:
    """Else the promises in the signatures would be decoration."""
    with pytest.raises(TypeCheckError):
        witness(np.ones(3), np.ones(4))
    with pytest.raises(TypeCheckError):
        solve_shift(np.eye(3), np.ones(2))
    with pytest.raises(TypeCheckError):
        witness(np.ones((2, 2)), np.ones((2, 2)))


# Bits of precision (the hidden one included), exponent of the largest number, exponent of the smallest one.
FORMATS = {F16: (11, 15, -24), BF16: (8, 127, -133), F32: (24, 127, -149)}


def rounded(value: float, dtype: np.dtype) -> float:
    """To nearest, ties to even, once, in exact arithmetic."""
    precision, top, bottom = FORMATS[dtype]
    exact = abs(Fraction(value))
    if exact == 0:
        return value
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
    if Fraction(2) ** exponent > exact:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - precision + 1, bottom)
    steps, rest = divmod(exact / unit, 1)
    if rest > Fraction(1, 2) or (rest == Fraction(1, 2) and steps % 2):
        steps += 1
    result = steps * unit
    size = float("inf") if result >= Fraction(2) ** (top + 1) else float(result)
    return -size if value < 0 else size


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


ordinary = st.floats(allow_nan=False, allow_infinity=False)
near = st.builds(  # close to numbers of bfloat16 and float16, and to the middles between them
    lambda sign, mantissa, exponent, tail: sign * (1 + mantissa / 2**12) * 2.0**exponent * (1 + tail * 2.0**-40),
    st.sampled_from([-1, 1]),
    st.integers(0, 2**12 - 1),
    st.integers(-150, 128),
    st.integers(-3, 3),
)


class TestRoundOnce:
    @pytest.mark.parametrize("dtype", FORMATS, ids=str)
    @settings(max_examples=300)
    @given(value=ordinary | near)
    @example(value=1 + 2**-8 + 2**-40)  # above a middle of bfloat16, but on it once in float32
    @example(value=-(1 + 2**-8 + 2**-40))
    @example(value=1 + 3 * 2**-8 - 2**-40)
    @example(value=1 + 2**-11 + 2**-40)
    @example(value=1 + 2**-24 + 2**-50)
    @example(value=2**-134 + 2**-170)
    @example(value=2**-134)
    @example(value=2**-150 + 2**-190)
    @example(value=65520.0)
    @example(value=65519.99999999999)
    @example(value=3.3961775292304807e38)
    @example(value=3.396177529230481e38)
    @example(value=-0.0)
    def test_against_exact_arithmetic(self, dtype: np.dtype, value: float) -> None:
        found = float(round_once(np.array([value]), dtype)[0])
        assert bits(found) == bits(rounded(value, dtype))

    def test_a_cast_of_numpy_would_round_bfloat16_twice(self) -> None:
        """The case this is for: if plain casts get it right one day, the detour can go."""
        value = np.array([1 + 2**-8 + 2**-40])
        assert value.astype(np.float32).astype(BF16)[0] == 1
        assert round_once(value, BF16)[0] == 1 + 2**-7

    @pytest.mark.parametrize("dtype", [*FORMATS, F64], ids=str)
    def test_numbers_of_the_format_stay(self, dtype: np.dtype) -> None:
        words = np.random.default_rng(0).integers(0, 256, 40_000 * dtype.itemsize, np.uint8)
        values = words.view(dtype)
        with np.errstate(invalid="ignore"):  # signalling NaNs are among them
            values = values[np.isfinite(values)]
        assert len(values) > 10_000
        again = round_once(values.astype(np.float64), dtype)
        assert again.dtype == dtype and again.tobytes() == values.tobytes()

    @pytest.mark.parametrize("dtype", FORMATS, ids=str)
    def test_infinities_stay_and_shapes_too(self, dtype: np.dtype) -> None:
        found = round_once(np.array([[np.inf, -np.inf, np.nan]]), dtype)
        assert found.shape == (1, 3) and found[0, 0] == np.inf and found[0, 1] == -np.inf and np.isnan(found[0, 2])
