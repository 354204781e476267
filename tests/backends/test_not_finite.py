"""NaN, infinity and overflow: every backend makes of them what the reference does, and training says the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends import Backend, NumpyBackend
from gpunet.backends.cpu import CpuBackend
from gpunet.backends.cuda import CudaBackend
from gpunet.optimizers import OPTIMIZERS
from tests.helpers.cuda import tolerance
from tests.helpers.networks import random_problem
from tests.helpers.operations import CASES, Arrays, Operands

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SHAPE = (37, 5)
# What is finite wherever it comes from: checked where data enter, or made of checked numbers.
FINITE = ("weights", "class_weights", "targets", "scalars")


def backends(device: Any) -> list[Backend]:
    return [NumpyBackend(), CpuBackend(), CudaBackend(device)]


def spoilt(make: Callable[[Operands], Arrays], argument: str, place: int, value: float) -> Arrays:
    """Return arguments of which one number is ``value``, and what follows from it as the forward pass would."""
    arrays = make(Operands(SHAPE))
    arrays[argument].flat[place] = value
    activation = arrays.get("activation")
    if "dgamma" in arrays and activation is not None:
        with np.errstate(all="ignore"):
            z = (arrays["s"] - arrays["mean"]) * arrays["inverse_std"]
            arrays["y"] = activation.forward(z if arrays["gamma"] is None else arrays["gamma"] * z + arrays["beta"])
    return arrays


def run(backend: Backend, name: str, arrays: Arrays) -> Arrays:
    """Return what an operation leaves in its arrays."""
    there = {}
    for argument, values in arrays.items():
        there[argument] = values
        if isinstance(values, np.ndarray):
            there[argument] = backend.empty(values.shape, values.dtype)
            backend.copy(values, there[argument])
    with np.errstate(all="ignore"):
        getattr(backend, name)(**there)
    return {name: backend.to_numpy(there[name]) for name, values in arrays.items() if isinstance(values, np.ndarray)}


def places(arrays: Arrays, value: float) -> list[tuple[str, int]]:
    """Return arguments, and an element of each, that could have this value."""
    found = []
    for argument, values in arrays.items():
        is_written = isinstance(values, np.ndarray) and (values == 99).all()
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or is_written or argument in FINITE:
            continue
        if argument == "skipped":  # a count
            continue
        if argument == "y":  # follows from s; a kernel computes it again
            continue
        if argument == "inverse_std" and not np.isnan(value):  # bounded by epsilon
            continue
        last = 0 if argument == "loss" else values.size - 1  # behind the loss stands the sum of the weights
        found += [(argument, place) for place in sorted({0, min(values.size // 2, last), last})]
    return found


def check(device: Any, name: str, value: float) -> None:
    """Compare all that an operation makes of a value."""
    for make in (make for case, make in CASES if case == name):
        for argument, place in places(make(Operands(SHAPE)), value):
            expected = run(Backend(), name, spoilt(make, argument, place, value))
            for backend in backends(device):
                found = run(backend, name, spoilt(make, argument, place, value))
                for result, values in expected.items():
                    what = f"{result} for {argument}[{place}], {backend.name}"
                    np.testing.assert_allclose(found[result], values, rtol=1e-9, atol=1e-10, err_msg=what)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200], ids=str)
@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_an_operation_makes_of_it_what_the_reference_does(device: Any, name: str, value: float) -> None:
    check(device, name, value)


# --- clipping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("values", [[np.nan], [np.inf], [-np.inf], [np.inf, np.nan]], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_that_is_not_finite_spoils_its_own_parameter(
    device: Any, name: str, values: list[float], clipped: bool, dtype: str
) -> None:
    """And the step, with clipping, changes the others by what their moments have: the same bits on every backend."""
    rng = np.random.default_rng(0)
    size, weights, spoilt_at = 20_000, 12_345, [17_000 + 1000 * place for place in range(len(values))]
    before, gradients = rng.standard_normal(size).astype(dtype), rng.standard_normal(size).astype(dtype)
    results = []
    for backend in [Backend(), *backends(device)]:
        optimizer = OPTIMIZERS[name](0.05, **({"momentum": 0.9} if name == "sgd" else {}))
        parameters, there = backend.zeros(size, dtype), backend.zeros(size, dtype)
        backend.copy(before, parameters)
        factor = backend.zeros(1, dtype) if clipped else None
        loss = backend.zeros(2, dtype)
        optimizer.attach(backend, parameters)
        bad = gradients.copy()
        bad[spoilt_at] = values
        backend.copy(bad, there)
        if factor is not None:
            backend.clip_factor(parameters, there, weights, 1e-2, 0.7, factor)
            assert backend.to_numpy(factor)[0] == 0
        optimizer.advance()
        optimizer.update(parameters, there, weights, 1e-2, factor, loss)
        results.append([np.array(backend.to_numpy(array)) for array in (parameters, *optimizer.moments.values())])
    reference, numpy, *others = results
    for other in others:
        for expected, found in zip(numpy, other, strict=True):
            assert np.flatnonzero(~np.isfinite(found)).tolist() == spoilt_at
            if clipped:
                np.testing.assert_array_equal(found, expected)
    for one in (numpy, *others):
        for expected, found in zip(reference, one, strict=True):
            np.testing.assert_allclose(found, expected, **tolerance(dtype))


@pytest.mark.parametrize("size", [1, 3, 30_000])
def test_gradients_whose_squares_overflow_are_clipped_all_the_same(device: Any, size: int) -> None:
    gradients = np.random.default_rng(0).standard_normal(size) * 1e200
    expected = 1 / np.linalg.norm(gradients / 1e200) / 1e200
    for backend in [Backend(), *backends(device)]:
        out = run(backend, "clip_factor", {
            "parameters": np.ones(size), "gradients": gradients, "weight_count": size, "l2": 0.1, "maximum_norm": 1.0,
            "out": np.zeros(1),
        })["out"]  # fmt: skip
        np.testing.assert_allclose(out[0], expected, rtol=1e-12, err_msg=backend.name)


def overflowing_gradient(backend: Backend | str) -> gpunet.Network:
    """Return a network with finite outputs and loss, whose gradient is infinite in W2 alone."""
    network = gpunet.Network([5, 8, 8, 3], activation=["identity", "tanh"], batch_norm=False, device=backend, seed=1)
    values = network.get_parameters()
    scales = {"W1": 1e10, "W2": 1e-10, "W3": 1e30}
    network.set_parameters({name: values[name] * scale for name, scale in scales.items()})
    return network


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_training_says_where_it_diverged(device: Any, clip_norm: float | None) -> None:
    X, y = random_problem(32, 5, 3)
    said = []
    for backend in ("cpu", CudaBackend(device)):
        network = overflowing_gradient(backend)
        _, gradients = network.loss_and_gradients(X[:8], y[:8])
        assert [name for name, values in gradients.items() if not np.isfinite(values).all()] == ["W2"]
        before = network.get_parameters()
        with pytest.raises(gpunet.TrainingDivergedError) as caught:
            gpunet.fit(network, X, y, epochs=2, batch_size=8, shuffle=False, clip_norm=clip_norm)
        said.append((caught.value.step, caught.value.layer, str(caught.value)))
        for name, value in network.get_parameters().items():
            np.testing.assert_array_equal(value, before[name])
    assert said[0] == said[1]
    assert said[0][:2] == (2, "parameter W2")
