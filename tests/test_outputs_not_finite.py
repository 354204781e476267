"""Outputs that are NaN or infinite are no prediction: a typed error names the row."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.layers import LOSSES
from tests.helpers.networks import random_problem


def overflowing(loss, **arguments):
    """Return a network, finite itself, whose outputs overflow float32 for inputs of more than about 1e8."""
    network = gpunet.Network([4, 6, 3], loss=loss, batch_norm=False, **{"device": "cpu", **arguments})
    network.set_parameters({"W1": np.full((6, 4), 1e15), "W2": np.full((3, 6), 1e15)})
    return network


def problem(loss, rows=9):
    X, y = random_problem(rows, 4, 3)
    X = np.abs(X)
    return X, y if LOSSES[loss].is_classifier else (X[:, :3] > 0.5).astype(float)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rows", [9, 5000])
def test_infinite_outputs_of_a_finite_network(loss, rows):
    network = overflowing(loss)
    X, y = problem(loss, rows)
    row = rows - 3
    X[row] = 1e10
    methods = [network.predict, lambda X: gpunet.evaluate(network, X, y)]
    if network.has_probabilities:
        methods.append(network.predict_proba)
    for method in methods:
        with pytest.raises(gpunet.NonFiniteError, match=rf"X: .* row {row} is inf\. This row is too large") as caught:
            method(X)
        assert caught.value.row == row
    with np.errstate(over="ignore"):
        assert np.flatnonzero(~np.isfinite(network.logits(X)).all(axis=1)).tolist() == [row]
    assert network.predict(np.delete(X, row, axis=0)).shape[0] == rows - 1


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["W1", "b2", "running_variance1"])
def test_a_network_that_is_not_finite_is_named(loss, value, name):
    network = gpunet.Network([4, 6, 3], loss=loss, device="cpu")
    (network.parameters | network.state)[name].reshape(-1)[0] = value
    X, y = problem(loss)
    if (name, value) == ("running_variance1", np.inf):  # normalises to 0: the outputs are finite, and right
        assert network.predict(X).shape[0] == 9
        return
    for method in (network.predict, lambda X: gpunet.evaluate(network, X, y)):
        with pytest.raises(gpunet.NonFiniteError, match=rf"X: .* row 0 is (nan|-?inf)\. Not finite .*{name}\."):
            method(X)
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(network.logits(X)).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.filterwarnings("ignore::gpunet.NoKernelWarning")  # of a loss that has none
def test_on_a_device(loss, device):
    network = overflowing(loss, device=CudaBackend(device))
    X, y = problem(loss)
    X[4] = 1e10
    for method in (network.predict, lambda X: gpunet.evaluate(network, X, y)):
        with np.errstate(all="ignore"), pytest.raises(gpunet.NonFiniteError, match="row 4 is inf"):
            method(X)


def test_a_loss_that_overflows_for_finite_outputs_is_infinite():
    network = gpunet.Network([4, 3], loss="squared_error", device="cpu")
    network.set_parameters({"W1": np.full((3, 4), 1e25)})
    X = np.ones((5, 4))
    assert np.isfinite(network.predict(X)).all()
    assert gpunet.evaluate(network, X, X[:, :3]).loss == np.inf
