"""Activations and their derivatives (L3), and the fused bias."""

from __future__ import annotations

import math
import pickle
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunet
from gpunet.activations import get_activation
from gpunet.activations.normal_distribution import normal_distribution
from gpunet.backends import NumpyBackend
from gpunet.lecture.derivations.activations import activation_named
from tests.helpers.networks import ACTIVATIONS, gradient_error, random_problem, randomise

EXTREMES = np.array([-np.inf, -1e30, -1000, -90, -30, -5, -1e-3, -1e-40, 0, 1e-40, 1e-3, 5, 30, 90, 1000, 1e30, np.inf])


def oracle(name: str):
    """Return the lecture's function and derivative, both of s."""
    base = name.split("(")[0]
    return activation_named(base, slope=0.1, alpha=0.7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_function_and_derivative_are_the_lectures(name):
    s = np.linspace(-20, 20, 4001)
    activation = get_activation(name)
    np.testing.assert_allclose(activation.forward(s), oracle(name).function(s), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(activation.derivative_at(s), oracle(name).derivative(s), rtol=1e-9, atol=1e-15)


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
    derivative = activation.derivative_at(s)
    assert y.dtype == derivative.dtype == dtype
    assert not np.isnan(y).any()
    assert np.isfinite(derivative).all()
    np.testing.assert_allclose(y[[0, -1]], activation.limits, rtol=1e-6)
    if activation.derivative_of == "output":  # these are monotonous, so that s can be told from y
        assert (np.diff(y[np.isfinite(y)]) >= 0).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_is_said_about_each(name):
    """Slopes, and which ends are flat: what initialisers, balancing and diagnostics ask."""
    activation = get_activation(name)
    s = np.linspace(-9, 9, 101)
    homogeneous = all(
        np.allclose(activation.forward(factor * s), factor * activation.forward(s)) for factor in (0.3, 2.0)
    )
    assert activation.is_homogeneous == homogeneous
    if activation.slopes is not None:
        np.testing.assert_allclose(activation.derivative_at(np.array([-1.0, 1.0])), activation.slopes)
    flat = np.abs(activation.derivative_at(np.array([-1e8, 1e8]))) < 1e-12
    np.testing.assert_array_equal(flat, np.isfinite(activation.limits))
    assert activation.saturates == (flat.any() and not homogeneous)


def normal_probability(s: float) -> Decimal:
    """Return Phi(s) for s <= 0 to 40 digits: by its power series, or far out by the continued fraction of Laplace."""
    with localcontext() as context:
        context.prec = 60
        x = -Decimal(s)
        density = (-x * x / 2).exp() / (2 * Decimal("3.14159265358979323846264338327950288419716939937511")).sqrt()
        if x > 6:
            fraction = x
            for k in range(400, 0, -1):
                fraction = x + k / fraction
            return density / fraction
        total = term = x
        for k in range(1, 250):
            term *= x * x / (2 * k + 1)
            total += term
        return Decimal("0.5") - density * total


@pytest.mark.parametrize(("dtype", "lowest"), [(np.float32, -12.9), (np.float64, -37.5)])
def test_the_normal_distribution_is_right_to_the_last_bits_far_out_as_well(dtype, lowest):
    s = np.random.default_rng(0).uniform(lowest, 0, 300).astype(dtype)
    exact = [normal_probability(float(value)) for value in s]
    below, density = normal_distribution(s)
    error = [float(abs(Decimal(float(found)) / value - 1)) for found, value in zip(below, exact, strict=True)]
    assert max(error) < 4 * np.finfo(dtype).eps
    above = [float(1 - value) for value in exact]
    np.testing.assert_allclose(normal_distribution(-s)[0], above, rtol=2 * np.finfo(dtype).eps)
    expected = [math.exp(-(float(value) ** 2) / 2) / math.sqrt(2 * math.pi) for value in s]
    of_the_square = np.square(s, dtype=np.float64).max() * np.finfo(np.float64).eps
    np.testing.assert_allclose(density, expected, rtol=4 * np.finfo(dtype).eps + of_the_square)


def test_gelu_against_the_error_function_of_the_c_library():
    s = np.linspace(-5, 5, 2001)
    expected = [x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in s]
    np.testing.assert_allclose(get_activation("gelu").forward(s), expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if get_activation(name).derivative_of == "input"])
def test_float32_is_float64_rounded(name):
    """Where f itself is steep, the rounding of s counts: s f'(s) units."""
    s = np.linspace(-12, 12, 5001).astype(np.float32)
    activation, eps = get_activation(name), np.finfo(np.float32).eps
    exact = s.astype(np.float64)
    for function in (activation.forward, activation.derivative):
        np.testing.assert_allclose(function(s), function(exact), rtol=16 * eps, atol=8 * eps)


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
    kept = {"input": s, "output": y}[activation.derivative_of]
    backend.bias_activation_backward(dy, kept, activation, ds, db, bias=b)
    expected = dy * oracle(name).derivative(z)
    np.testing.assert_allclose(ds, expected, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(db, expected.sum(axis=0), rtol=1e-9, atol=1e-12)

    in_place, gradient = s.copy(), dy.copy()
    backend.bias_activation_forward(in_place, b, activation, in_place)
    backend.bias_activation_backward(gradient, kept, activation, gradient, None, bias=b)
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
        ("geluu", "Did you mean 'gelu'"),
        ("gelu(1)", "takes no number"),
    ],
)
def test_unreadable_names(given_name, message):
    with pytest.raises(gpunet.InvalidValueError, match=message):
        get_activation(given_name)


def test_a_name_of_another_type():
    with pytest.raises(gpunet.InvalidTypeError, match="activation: got int"):
        get_activation(3)


# --- the user's own ---------------------------------------------------------------------------------------------------


def softsign(s):
    return s / (1 + np.abs(s))


def softsign_derivative(s):
    return (1 + np.abs(s)) ** -2


def softsign_derivative_of_y(y):
    return (1 - np.abs(y)) ** 2


def own(**changes):
    """Return softsign, or what becomes of it with other arguments."""
    arguments = {"forward": softsign, "derivative": softsign_derivative, "derivative_of": "input"} | changes
    return gpunet.Activation(arguments.pop("name", "softsign"), **arguments)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    "activation", [own(), own(derivative=softsign_derivative_of_y, derivative_of="output")], ids=["input", "output"]
)
def test_a_function_of_the_users_own_trains(activation, batch_norm):
    network = gpunet.Network(
        [5, 7, 6, 3], activation=activation, batch_norm=batch_norm, dtype="float64", device="cpu", seed=1
    )
    randomise(network)
    X, y = random_problem(9, 5, 3)
    _, gradients = network.loss_and_gradients(X, y, l2=0.1)
    for name, view in network.parameters.items():
        assert gradient_error(gradients[name], lambda: network.loss_and_gradients(X, y, l2=0.1)[0], view) < 1e-6, name


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"derivative_of": "output"},
            gpunet.InvalidValueError,
            r"derivative: f'\(-5.9863\) of 'softsign' is .* output",
        ),
        ({"derivative": np.sign}, gpunet.InvalidValueError, "differences of forward give 0.0204"),
        ({"derivative": lambda s: s * np.nan}, gpunet.InvalidValueError, "is nan"),
        ({"derivative": lambda s: 1.0}, gpunet.InvalidTypeError, "derivative: returned float"),
        ({"forward": lambda s: s.sum()}, gpunet.InvalidTypeError, r"forward: returned float32, of shape \(\)"),
        ({"forward": lambda s: s.astype(np.float64)}, gpunet.InvalidTypeError, "returned float64.* for float32"),
        ({"forward": None}, gpunet.InvalidTypeError, "forward: got None"),
        ({"forward": lambda s: s[:, 0]}, gpunet.InvalidValueError, "forward: raised IndexError"),
        ({"derivative_of": 1}, gpunet.InvalidTypeError, "derivative_of: got 1"),
        ({"derivative_of": "s"}, gpunet.InvalidValueError, "derivative_of: got 's'"),
        ({"name": "Soft sign"}, gpunet.InvalidValueError, "name: 'Soft sign' is not valid"),
        ({"name": 3}, gpunet.InvalidTypeError, "name: got 3"),
        ({"cuda_forward": "s"}, gpunet.InvalidValueError, "cuda_derivative: missing"),
        ({"cuda_derivative": "s"}, gpunet.InvalidValueError, "cuda_forward: missing"),
        ({"cuda_forward": 1, "cuda_derivative": "s"}, gpunet.InvalidTypeError, "cuda_forward: got 1"),
    ],
)
def test_functions_that_cannot_be(changes, error, message):
    with pytest.raises(error, match=message):
        own(**changes)


def test_the_names_of_gpunets_own_are_taken():
    with pytest.raises(gpunet.InvalidValueError, match="activation: 'relu' is one of gpunet's own"):
        gpunet.Network([2, 2, 2], activation=own(name="relu"), device="cpu")


def test_functions_of_a_module_are_pickled():
    activation = own()
    copy = pickle.loads(pickle.dumps(activation))
    assert copy == activation
    assert hash(copy) == hash(activation)
    assert copy != own(derivative=softsign_derivative_of_y, derivative_of="output")
    network = gpunet.Network([3, 4, 2], activation=activation, device="cpu")
    X, _ = random_problem(5, 3, 2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(network)).logits(X), network.logits(X))


def test_files_hold_the_name(tmp_path):
    arguments = {"activation": ["relu", own()], "output_activation": own(name="other"), "loss": "squared_error"}
    network = gpunet.Network([3, 4, 4, 2], **arguments, dtype="float64", device="cpu")
    path = network.save(tmp_path / "network.npz")
    X, _ = random_problem(5, 3, 2)
    loaded = gpunet.load(path, device="cpu", activations=[own(name="other"), own(), own(name="third")])
    np.testing.assert_array_equal(loaded.predict(X), network.predict(X))
    with pytest.raises(gpunet.InvalidValueError, match=r"activations: .* has the activation 'other', .*, got softsign"):
        gpunet.load(path, device="cpu", activations=[own()])
    with pytest.raises(gpunet.InvalidValueError, match=r"'softsign', which is none of gpunet's own.*got none"):
        gpunet.load(path, device="cpu")
    with pytest.raises(gpunet.InvalidTypeError, match="activations: got 'softsign'"):
        gpunet.load(path, device="cpu", activations="softsign")
