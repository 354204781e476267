"""What is compiled for batches in shards: the same bits wherever rows lie, sums over one tree, digits far from zero."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.activations import get_activation
from gpunet.backends import NumpyBackend
from gpunet.backends.cpu import CpuBackend
from gpunet.backends.cpu.pool import address
from tests.helpers.operations import CASES, Arrays, Operands

OPERATIONS = {
    "batch_norm_statistics",
    "batch_norm_merge",
    "batch_norm_activation_apply",
    "batch_norm_activation_sums",
    "batch_norm_activation_input_gradient",
    "weigh_shard",
    "sum_shards",
    "divide_sums",
}
OURS = [(name, make) for name, make in CASES if name in OPERATIONS]
of_all = pytest.mark.parametrize(
    ("name", "make"), OURS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(OURS)]
)
SHAPES = [(16, 67), (700, 300)]  # one block of rows, and several of rows and columns


def placed(arguments: Arrays, dtype: str, first: int) -> Arrays:
    """Return arguments whose arrays begin at this element of a buffer; numbers are of a dtype."""
    found = {}
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            values = value.astype(dtype) if value.dtype == np.float64 else value
            buffer = np.empty(value.size + first, values.dtype)
            found[name] = buffer[first:].reshape(value.shape)
            found[name][...] = values
        else:
            found[name] = value
    return found


def assert_same_bits(found: Arrays, expected: Arrays) -> None:
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@of_all
def test_where_rows_begin_in_a_buffer_changes_no_bit(
    name: str, make: Callable[[Operands], Arrays], dtype: str, shape: tuple[int, int]
) -> None:
    first, *others = (placed(make(Operands(shape)), dtype, start) for start in (0, 1, 3, 8))
    for arguments in (first, *others):
        getattr(CpuBackend(), name)(**arguments)
    for other in others:
        assert_same_bits(other, first)


@pytest.mark.parametrize("shape", SHAPES)
@of_all
def test_what_is_recorded_has_the_bits_of_the_call(
    name: str, make: Callable[[Operands], Arrays], shape: tuple[int, int]
) -> None:
    backend, called, recorded, untouched = CpuBackend(), *(make(Operands(shape)) for _ in range(3))
    getattr(backend, name)(**called)
    replay = backend.capture(lambda: getattr(backend, name)(**recorded))
    assert_same_bits(recorded, untouched)
    replay()
    assert_same_bits(recorded, called)


@pytest.mark.parametrize("name", ["tanh", "silu"])
def test_the_gradient_of_the_input_may_take_the_place_of_the_outputs(name: str) -> None:
    p = Operands((700, 300))
    dy, s, y = p.matrix(), p.matrix(), p.matrix()
    given = (p.row(), p.row(), get_activation(name), p.row(), p.row(0.5), p.row(), p.row())
    apart = np.empty_like(dy)
    CpuBackend().batch_norm_activation_input_gradient(dy, s, y, *given, apart, rows=900)
    CpuBackend().batch_norm_activation_input_gradient(dy, s, y, *given, dy, rows=900)
    np.testing.assert_array_equal(dy, apart)


def test_activations_that_cannot_be_compiled_run_on_numpy() -> None:
    softsign = gpunet.Activation(
        "softsign",
        forward=lambda s: s / (1 + np.abs(s)),
        derivative=lambda s: (1 + np.abs(s)) ** -2,
        derivative_of="input",
    )
    for name, make in OURS:
        ours, expected = ({**make(Operands((37, 5)))} for _ in range(2))
        if "activation" in ours:
            for backend, arguments in ((CpuBackend(), ours), (NumpyBackend(), expected)):
                getattr(backend, name)(**arguments | {"activation": softsign})
            assert_same_bits(ours, expected)


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("counts", [(700, 0, 16, 1), (2, 300), (64,) * 16])
def test_statistics_of_shards_keep_their_digits_far_from_zero(far: float, counts: tuple[int, ...]) -> None:
    """The values are exact in float32, so float64 knows the answer."""
    rng, columns, rows, backend = np.random.default_rng(0), 70, sum(counts), CpuBackend()
    s = (far + np.round(rng.standard_normal((rows, columns)) * 64) / 64).astype(np.float32)
    statistics = np.full((len(counts), 2, columns), np.nan, np.float32)
    ends = np.cumsum(counts)
    for count, end, own in zip(counts, ends, statistics, strict=True):
        if count:
            backend.batch_norm_statistics(s[end - count : end], own)
    mean, inverse_std, average, variance = (np.zeros(columns, np.float32) for _ in range(4))
    numbers = np.array(counts, np.int32)
    backend.batch_norm_merge(statistics, numbers, mean, inverse_std, average, variance, 1.0, 1e-5)

    exact, eps = s.astype(np.float64), float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=eps, atol=eps)
    np.testing.assert_array_equal(average, mean)
    # Each shard's mean, of at most |far| + 4, is rounded; a block's at most 512 squares are added up four at a time.
    means = np.array([exact[end - count : end].mean(axis=0) for count, end in zip(counts, ends, strict=True) if count])
    distances = np.abs(means - exact.mean(axis=0)).max()
    rounded = 2 * distances * eps / 2 * (abs(far) + 4)
    expected = exact.var(axis=0)
    tolerance = 128 * eps + rounded / expected.min()
    np.testing.assert_allclose(variance, exact.var(axis=0, ddof=1), rtol=tolerance)
    np.testing.assert_allclose(inverse_std, 1 / np.sqrt(expected + 1e-5), rtol=tolerance / 2 + eps)


# --- sums -------------------------------------------------------------------------------------------------------------


def summed(backend: Any, parts: Any, *levels: int) -> Any:
    out = np.full_like(parts[0], np.nan)
    backend.sum_shards(parts, np.array(levels, np.int32), out)
    return out


def summed_in_pairs(parts: Any) -> Any:
    """Add up the largest power of two of them, and to that sum the rest."""
    if len(parts) == 1:
        return parts[0]
    half = 1 << (len(parts) - 1).bit_length() - 1
    return summed_in_pairs(parts[:half]) + summed_in_pairs(parts[half:])


@pytest.mark.parametrize("size", [1, 255, 257, 70_000])
@pytest.mark.parametrize("shards", [1, 2, 3, 7, 16, 100])
def test_shards_are_summed_over_one_tree(shards: int, size: int) -> None:
    """Whose sums differ in their last bits from those in any other order."""
    parts = np.random.default_rng(shards).lognormal(0, 3, (shards, size)).astype(np.float32)
    np.testing.assert_array_equal(summed(CpuBackend(), parts, *(0,) * shards), summed_in_pairs(parts))


def test_sums_over_nodes_have_the_bits_of_those_over_their_shards() -> None:
    """Whatever ranks have summed before; a vector of level -1 is none."""
    backend, parts = CpuBackend(), np.random.default_rng(0).lognormal(0, 3, (13, 300)).astype(np.float32)
    expected = summed(backend, parts, *(0,) * 13)
    none = np.full(300, np.nan, np.float32)
    for levels in ((2, 2, 2, 0), (-1, 3, -1, 2, 0, -1), (0, 0, 1, 2, 1, 1, 0), (1, 1, 0, 0, 0, 0, 2, 0)):
        firsts = np.cumsum([0, *(1 << level if level >= 0 else 0 for level in levels)])
        nodes = [summed(backend, parts[a:b], *(0,) * (b - a)) if a < b else none for a, b in itertools.pairwise(firsts)]
        np.testing.assert_array_equal(summed(backend, np.stack(nodes), *levels), expected, err_msg=str(levels))


def test_sums_take_the_place_of_the_first_part_and_parts_lie_apart() -> None:
    """As columns of a wider matrix, whose others nobody touches."""
    backend, wide = CpuBackend(), np.random.default_rng(0).standard_normal((3, 80_000))
    parts, before = wide[:, 7:75_000], wide.copy()
    expected = summed(backend, parts.copy(), 0, 0, 0)
    backend.sum_shards(parts, np.zeros(3, np.int32), parts[0])
    np.testing.assert_array_equal(parts[0], expected)
    wide[0, 7:75_000] = before[0, 7:75_000]
    np.testing.assert_array_equal(wide, before)


def test_the_address_of_any_array_is_found() -> None:
    read_only = np.arange(6.0)
    read_only.flags.writeable = False
    for array in (np.arange(6.0)[2:], read_only, np.ones((4, 3))[:, 1:], np.empty((0, 3)), np.ones(1, np.float16)):
        assert address(array) == array.__array_interface__["data"][0]
