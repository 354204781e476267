"""Exported models compute what the network computes, under ONNX's own reference evaluator."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.onnx_export import export_onnx
from tests.helpers.networks import ACTIVATIONS, random_problem, randomise

reference = pytest.importorskip("onnx.reference", reason="onnx is in the extra 'onnx'")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("batch_norm", "scale_shift"), [(False, True), (True, True), (True, False)])
def test_the_exported_model_is_the_network(tmp_path, activation, batch_norm, scale_shift):
    network = gpunet.Network(
        [5, 8, 6, 3],
        activation=activation,
        batch_norm=batch_norm,
        scale_shift=scale_shift,
        bias_before_batch_norm=batch_norm and scale_shift,
        batch_norm_epsilon=0.1,
        dropout=0.3,
        device="cpu",
    )
    X, y = random_problem(70, 5, 3)
    gpunet.fit(network, X, y, epochs=3, batch_size=16, optimizer=gpunet.SGD(0.05))
    randomise(network)
    path = export_onnx(network, tmp_path / "new" / "model.onnx")
    session = reference.ReferenceEvaluator(str(path))
    logits, probabilities = session.run(None, {"X": X.astype(np.float32)})
    np.testing.assert_allclose(logits, network.logits(X), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probabilities, network.predict_proba(X), rtol=1e-4, atol=1e-6)


def test_squared_error_has_no_probabilities(tmp_path):
    network = gpunet.Network([5, 4, 2], loss="squared_error", device="cpu", dtype="float64")
    X, _ = random_problem(7, 5, 2)
    session = reference.ReferenceEvaluator(str(export_onnx(network, tmp_path / "model.onnx")))
    (outputs,) = session.run(None, {"X": X})
    np.testing.assert_allclose(outputs, network.predict(X), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_output_activations(tmp_path, activation):
    network = gpunet.Network(
        [5, 4, 3], output_activation=activation, loss="squared_error", device="cpu", dtype="float64"
    )
    X, _ = random_problem(7, 5, 2)
    session = reference.ReferenceEvaluator(str(export_onnx(network, tmp_path / "model.onnx")))
    assert session.output_names == ["logits" if activation == "identity" else "outputs"]
    (outputs,) = session.run(None, {"X": X})
    np.testing.assert_allclose(outputs, network.predict(X), rtol=1e-6, atol=1e-7)


def test_sigmoid_probabilities(tmp_path):
    network = gpunet.Network([5, 4, 3], loss="sigmoid_cross_entropy", device="cpu", dtype="float64")
    X, _ = random_problem(7, 5, 2)
    session = reference.ReferenceEvaluator(str(export_onnx(network, tmp_path / "model.onnx")))
    logits, probabilities = session.run(None, {"X": X})
    np.testing.assert_allclose(logits, network.logits(X), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(probabilities, network.predict_proba(X), rtol=1e-6, atol=1e-7)


def test_an_activation_of_the_users_own(tmp_path):
    cube = gpunet.Activation("cube", forward=lambda s: s**3, derivative=lambda s: 3 * s**2, derivative_of="input")
    for arguments in ({"activation": cube}, {"output_activation": cube, "loss": "squared_error"}):
        with pytest.raises(gpunet.InvalidValueError, match="has no ONNX nodes"):
            export_onnx(gpunet.Network([2, 2, 2], device="cpu", **arguments), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_another_ending(tmp_path):
    with pytest.raises(gpunet.InvalidValueError, match=r"Expected \.onnx"):
        export_onnx(gpunet.Network([2, 2], device="cpu"), tmp_path / "model.pb")
