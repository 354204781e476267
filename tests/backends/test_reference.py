"""The reference of every operation, and the faster NumPy versions against it."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpunet.activations import get_activation
from gpunet.backends import Backend, NumpyBackend, reference
from gpunet.backends.cpu import CpuBackend
from gpunet.backends.numpy import CHUNK
from gpunet.backends.reference.training import Tally
from gpunet.verification import losses
from gpunet.verification.operation import Operation, compare
from gpunet.verification.storage import FLOAT64
from tests.helpers.operations import CASES, SHAPES, Arrays, Operands


def operations() -> set[str]:
    """Names of what is specified: the methods of Backend that stand for a function of the reference."""
    functions = {
        name
        for module in vars(reference).values()
        if isinstance(module, types.ModuleType)
        for name, member in vars(module).items()
        if inspect.isfunction(member) and member.__module__ == module.__name__ and name[0] != "_"
    }
    return functions - {"weighted_mean"}


def test_every_operation_is_a_method_and_every_faster_version_has_a_case() -> None:
    faster = {name for name in operations() if getattr(NumpyBackend, name) is not getattr(Backend, name)}
    compiled = {name for name in operations() if getattr(CpuBackend, name).__module__ == CpuBackend.__module__}
    assert faster | compiled == {name for name, _ in CASES}
    for name in operations():
        for backend in (NumpyBackend, CpuBackend):
            assert inspect.signature(getattr(Backend, name)) == inspect.signature(getattr(backend, name))


def test_the_reference_knows_no_array_library_but_the_one_it_is_given() -> None:
    modules = [module for module in vars(reference).values() if isinstance(module, types.ModuleType)]
    assert len(modules) >= 10
    for module in modules:
        assert np not in vars(module).values(), module.__name__


@pytest.mark.parametrize("backend", [NumpyBackend, CpuBackend])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "make"), CASES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CASES)])
def test_every_version_is_the_reference_to_rounding(
    name: str, make: Callable[[Operands], Arrays], shape: tuple[int, int], backend: type[Backend]
) -> None:
    if name == "batch_norm_activation_forward":
        shape = max(shape[0], 2), shape[1]  # one row has no variance
    ours, expected = make(Operands(shape)), make(Operands(shape))
    getattr(backend(), name)(**ours)
    getattr(Backend(), name)(**expected)
    for argument, value in expected.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(ours[argument], value, rtol=1e-10, atol=1e-11, err_msg=argument)


@pytest.mark.parametrize("backend", [NumpyBackend, CpuBackend])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [2, 37, 1100, 4104])
@pytest.mark.parametrize("value", [0.1, 100.3, 3333.33, 33333.3, 1e20])
def test_constant_columns_have_no_variance(value: float, rows: int, dtype: str, backend: type[Backend]) -> None:
    """But for what the mean was rounded by: float64 also from block to block, of which there are up to nine."""
    s = np.full((rows, 40), value, dtype)
    mean, inverse_std, average, variance = (np.zeros(40, dtype) for _ in range(4))
    statistics = np.zeros((2, 40), dtype)
    ours = backend()
    ours.batch_norm_activation_forward(
        s, None, None, get_activation("identity"), np.empty_like(s), mean, inverse_std, average, variance, 1.0, 1e-5
    )
    ours.batch_norm_statistics(s, statistics)
    rounding = float(np.finfo(dtype).eps) * value * (1 if dtype == "float32" else 10)
    for found in (mean, average, statistics[0]):
        np.testing.assert_allclose(found, s[0], rtol=0, atol=rounding)
    for found in (variance, statistics[1] / rows):
        assert found.max() <= 2 * rounding**2
        assert found.min() >= 0


@pytest.mark.parametrize("backend", [NumpyBackend, CpuBackend])
@pytest.mark.parametrize("make", losses.LOSSES)
@pytest.mark.parametrize(("number", "more"), losses.COUNTS)
def test_losses_count_their_steps(
    make: Callable[..., Operation], number: int, more: dict[str, Any], backend: type[Backend]
) -> None:
    """And :func:`count_step` after a loss that does not is the same."""
    operation = make(FLOAT64, (37, 5), losses.GIVEN, has_bias=True)
    counted = losses.counted(operation, FLOAT64, number, **more)
    assert not [found.text for found in compare(backend(), counted) if found.error > 1]
    _, expected = counted.expected()
    _, apart = operation.expected()
    tally = {name: values.copy() for name, values in counted.given.items() if name in Tally._fields}
    tally["scalars"] = np.zeros(losses.SCALARS)
    backend().count_step(apart["loss"], **tally, rows=37)
    for name, values in {"loss": apart["loss"], **tally}.items():
        if name in expected:
            np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.parametrize("backend", [NumpyBackend, CpuBackend])
@pytest.mark.parametrize("columns", [(), (3,)])
def test_more_rows_than_a_chunk_are_gathered(columns: tuple[int, ...], backend: type[Backend]) -> None:
    rng = np.random.default_rng(0)
    source, index = rng.standard_normal((50, *columns)), rng.integers(0, 50, 2 * CHUNK + 3, np.int32)
    out = np.full((len(index), *columns), np.nan)
    backend().gather_batch(index, source, out)
    np.testing.assert_array_equal(out, source[index])
