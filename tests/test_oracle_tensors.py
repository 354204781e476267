"""Tensors of PyTorch itself, on the host: taken without a copy, and returned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.diagnostics import check_gradients

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch", reason="run by `make test-oracle`, which installs it")

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3


def network(**arguments: Any) -> gpunet.Network:
    return gpunet.Network([6, 8, 3], device="cpu", **arguments)


def test_results_are_tensors() -> None:
    model = network()
    gpunet.fit(model, X, Y, epochs=1, sample_weight=torch.ones(40), validation=(X, Y), class_weight=torch.ones(3))
    results = {name: getattr(model, name)(X) for name in ("logits", "finite_logits", "predict", "predict_proba")}
    results |= model.loss_and_gradients(X, Y, input_gradient=True)[1]
    expected = {name: getattr(model, name)(X.numpy()) for name in ("logits", "predict", "predict_proba")}
    for name, result in results.items():
        assert isinstance(result, torch.Tensor), name
        assert result.device.type == "cpu"
        result += 0  # it may be written to
    for name, value in expected.items():
        np.testing.assert_array_equal(results[name].numpy(), value)
    assert results["predict"].dtype == torch.int64
    assert gpunet.evaluate(model, X, Y) == gpunet.evaluate(model, X.numpy(), Y.numpy())
    assert max(check_gradients(network(activation="tanh"), X, Y).values()) < 1e-6


def test_a_tensor_is_read_where_it_is() -> None:
    assert np.shares_memory(network().check_inputs(X), X.numpy())


VIEWS = {
    "float64": X.double(),
    "float16": X.half(),
    "integers": (3 * X).to(torch.int8),
    "booleans": X > 0,
    "transposed": X.T.contiguous().T,
    "every other row": X[::2],
    "no gradient": X.clone().requires_grad_().detach(),
}


@pytest.mark.parametrize("view", VIEWS)
def test_dtypes_and_views(view: str) -> None:
    values = VIEWS[view]
    result = network().logits(values)
    assert result.dtype == torch.float32
    np.testing.assert_array_equal(result.numpy(), network().logits(values.numpy()))


@pytest.mark.parametrize("values", [X.clone().requires_grad_(), X.bfloat16(), X.to_sparse(), X.to("meta")])
def test_what_numpy_cannot_read_is_refused(values: Any) -> None:
    with pytest.raises(gpunet.InvalidTypeError, match="X: Tensor cannot be read as an array"):
        network().predict(values)
