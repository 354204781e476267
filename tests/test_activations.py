"""Activations and their derivatives (L3), and the fused bias."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunet
from gpunet.activations import get_activation
from gpunet.backends import NumpyBackend
from gpunet.lecture.derivations.activations import activation_named
from tests.helpers.networks import ACTIVATIONS

EXTREMES = np.array([-np.inf, -1e30, -1000, -90, -30, -5, -1e-3, -1e-40, 0, 1e-40, 1e-3, 5, 30, 90, 1000, 1e30, np.inf])


def oracle(name: str):
    """Return the lecture's function and derivative, both of s."""
    base = name.split("(")[0]
    return activation_named(base, slope=0.1, alpha=0.7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_function_and_derivative_are_the_lectures(name):
    s = np.linspace(-20, 20, 4001)
    activation = get_activation(name)
    y = activation.forward(s)
    np.testing.assert_allclose(y, oracle(name).function(s), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(activation.derivative(y), oracle(name).derivative(s), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("number", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", ["leaky_relu", "elu"])
def test_slopes_and_alphas_on_either_side_of_one(name, number):
    s = np.linspace(-3, 3, 601)
    activation = get_activation(f"{name}({number})")
    expected = activation_named(name, slope=number, alpha=number)
    y = activation.forward(s)
    np.testing.assert_allclose(y, expected.function(s), rtol=1e-13, atol=1e-15)
    kept = (s > 0) | (y != 0)  # where number is 0, y = 0 holds no sign
    np.testing.assert_allclose(activation.derivative(y)[kept], expected.derivative(s)[kept], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_extreme_inputs_stay_right(name, dtype):
    """No NaN, no warning (pytest turns warnings into errors), and the dtype is kept."""
    with np.errstate(over="ignore", under="ignore"):
        s = EXTREMES.astype(dtype)
    activation = get_activation(name)
    y = activation.forward(s)
    derivative = activation.derivative(y)
    assert y.dtype == derivative.dtype == dtype
    assert not np.isnan(y).any()
    assert np.isfinite(derivative).all()
    assert (np.diff(y[np.isfinite(y)]) >= 0).all()


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu(0.7)"])
def test_the_derivative_takes_the_branch_of_the_forward_pass(name):
    s = np.array([-np.float32(1e-45), np.float32(0), np.float32(1e-45)])
    activation = get_activation(name)
    np.testing.assert_array_equal(activation.derivative(activation.forward(s)) == 1, s > 0)


def test_nan_goes_through():
    for name in ACTIVATIONS:
        assert np.isnan(get_activation(name).forward(np.array([np.nan]))).all(), name


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 300), columns=st.integers(1, 130), name=st.sampled_from(ACTIVATIONS), bias=st.booleans())
def test_fused_forward_and_backward(rows, columns, name, bias):
    generator = np.random.default_rng(rows * 1000 + columns)
    s, dy = generator.standard_normal((2, rows, columns))
    b = generator.standard_normal(columns) if bias else None
    backend, activation = NumpyBackend(), get_activation(name)
    y, ds, db = np.full_like(s, np.nan), np.full_like(s, np.nan), np.full(columns, np.nan)
    backend.bias_activation_forward(s, b, activation, y)
    z = s if b is None else s + b
    np.testing.assert_allclose(y, oracle(name).function(z), rtol=1e-12, atol=1e-14)
    backend.bias_activation_backward(dy, y, activation, ds, db)
    expected = dy * oracle(name).derivative(z)
    np.testing.assert_allclose(ds, expected, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(db, expected.sum(axis=0), rtol=1e-9, atol=1e-12)

    in_place, gradient = s.copy(), dy.copy()
    backend.bias_activation_forward(in_place, b, activation, in_place)
    backend.bias_activation_backward(gradient, in_place, activation, gradient, None)
    np.testing.assert_array_equal(in_place, y)
    np.testing.assert_array_equal(gradient, ds)


def test_names_with_numbers():
    assert gpunet.LeakyReLU(0.2) == get_activation("leaky_relu(0.2)") == get_activation(" Leaky_ReLU( 0.2 ) ")
    assert get_activation("leaky_relu") == gpunet.LeakyReLU(0.01)
    assert get_activation("elu") == gpunet.ELU(1.0)
    for name in ACTIVATIONS:
        assert str(get_activation(name)) == name


@pytest.mark.parametrize(
    ("given_name", "message"),
    [
        ("rellu", "Did you mean 'relu'"),
        ("", "Expected a name"),
        ("relu(2)", "takes no number"),
        ("elu(x)", "not a number"),
        ("elu(-1)", "elu alpha: -1.0 is not valid"),
        ("elu(nan)", "elu alpha: nan is not valid"),
        ("softplus?", "Expected a name"),
    ],
)
def test_unreadable_names(given_name, message):
    with pytest.raises(gpunet.InvalidValueError, match=message):
        get_activation(given_name)


def test_a_name_of_another_type():
    with pytest.raises(gpunet.InvalidTypeError, match="activation: got int"):
        get_activation(3)
