"""What 16 bits stand for, and operations on them by way of float32."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from gpunet.activations import ReLU
from gpunet.backends import Backend, NumpyBackend
from gpunet.backends.half import HALF_DTYPES, narrow, widen
from gpunet.backends.half_numpy import HalfNumpyBackend

ORACLES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}


@pytest.mark.parametrize("precision", HALF_DTYPES)
def test_every_half_precision_number_is_itself(precision: str) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    halves = bits.view(HALF_DTYPES[precision])
    numbers = widen(np, halves)
    np.testing.assert_array_equal(numbers, bits.view(ORACLES[precision]).astype(np.float32))
    again, is_number = narrow(np, numbers, HALF_DTYPES[precision]), ~np.isnan(numbers)
    np.testing.assert_array_equal(again.view(np.uint16)[is_number], bits[is_number])
    assert np.isnan(widen(np, again[~is_number])).all()


@pytest.mark.parametrize("precision", HALF_DTYPES)
def test_rounding_is_that_of_an_independent_library(precision: str) -> None:
    """Every exponent, with what is cut off below, at and above half of a unit; NaN of every kind stays NaN."""
    mantissas = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x18000, 0x7FFFFF, 0xFFF, 0x1000, 0x3000], np.uint32)
    numbers = (np.arange(512, dtype=np.uint32)[:, None] << 23 | mantissas).reshape(-1).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = numbers.astype(ORACLES[precision]).astype(np.float32)
    np.testing.assert_array_equal(widen(np, narrow(np, numbers, HALF_DTYPES[precision])), expected)


@pytest.mark.parametrize("backend", [Backend, HalfNumpyBackend])
@pytest.mark.parametrize("precision", HALF_DTYPES)
def test_operations_compute_in_float32_and_round_once(backend: type[Backend], precision: str) -> None:
    rng, dtype = np.random.default_rng(0), HALF_DTYPES[precision]
    a, b, s = (narrow(np, rng.standard_normal((9, 9)).astype(np.float32), dtype) for _ in range(3))
    bias, dbias, out = rng.standard_normal(9).astype(np.float32), np.zeros(9, np.float32), np.zeros((9, 9), dtype)
    backend().gemm(a, b, out, transpose_b=True)
    np.testing.assert_array_equal(out, narrow(np, widen(np, a) @ widen(np, b).T, dtype))
    sums = np.zeros((9, 9), np.float32)
    backend().gemm(a, b, sums)
    np.testing.assert_array_equal(sums, widen(np, a) @ widen(np, b))  # not rounded
    expected = np.maximum(widen(np, s) + bias, 0)
    backend().bias_activation_forward(s, bias, ReLU(), out=s)  # in place
    np.testing.assert_array_equal(s, narrow(np, expected, dtype))
    before = a.copy()
    backend().bias_activation_backward(b, s, ReLU(), ds=b, dbias=dbias, bias=bias)
    assert (widen(np, b)[widen(np, s) == 0] == 0).all()
    np.testing.assert_array_equal(a, before)


def test_the_plain_cpu_backend_says_that_it_has_none() -> None:
    assert (Backend.has_half, NumpyBackend.has_half, HalfNumpyBackend.has_half) == (True, False, True)
