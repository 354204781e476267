"""Results on the host are arrays of the library that the data came from."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpunet

X = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
Y = np.arange(30) % 3


class Tensor:
    """A tensor of the host: it shares its memory with NumPy."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.values

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for PyTorch."""
    module = SimpleNamespace(Tensor=Tensor, from_dlpack=lambda exporter: Tensor(np.from_dlpack(exporter)))
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


def network(**arguments: Any) -> gpunet.Network:
    return gpunet.Network([5, 8, 3], device="cpu", **arguments)


def test_a_tensor_gets_tensors(torch: Any) -> None:
    model, x = network(), Tensor(X)
    cost, gradients = model.loss_and_gradients(x, Tensor(Y), input_gradient=True)
    expected_cost, expected = model.loss_and_gradients(X, Y, input_gradient=True)
    assert cost == expected_cost
    results = {name: getattr(model, name)(x) for name in ("logits", "finite_logits", "predict", "predict_proba")}
    expected |= {name: getattr(model, name)(X) for name in results}
    results |= gradients
    assert results.keys() == expected.keys()
    for name, result in results.items():
        assert type(result) is Tensor
        assert result.values.dtype == expected[name].dtype
        np.testing.assert_array_equal(result.values, expected[name])


def test_x_alone_decides(torch: Any) -> None:
    model = network()
    assert type(model.loss_and_gradients(X, Tensor(Y))[1]["W1"]) is np.ndarray
    assert type(model.loss_and_gradients(Tensor(X), Y)[1]["W1"]) is Tensor


def test_a_tensor_is_read_where_it_is(torch: Any) -> None:
    assert np.shares_memory(network().check_inputs(Tensor(X)), X)


def test_what_pytorch_does_not_know_gets_numpys(torch: Any) -> None:
    for values in (X, X.tolist(), np.asfortranarray(X), SimpleNamespace(__array__=lambda *_, **__: X)):
        assert type(network().predict(values)) is np.ndarray


def test_a_module_that_only_has_the_name_is_no_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    assert type(network().predict(X)) is np.ndarray


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_gradients_stay_what_they_were(l2: float) -> None:
    model = network(batch_norm=False)
    gradients = model.loss_and_gradients(X, Y, l2=l2, input_gradient=True)[1]
    kept = {name: value.copy() for name, value in gradients.items()}
    model.loss_and_gradients(2 * X, Y, l2=l2, input_gradient=True)
    for name, value in kept.items():
        np.testing.assert_array_equal(gradients[name], value)
