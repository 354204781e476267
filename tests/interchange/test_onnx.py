"""Exported networks compute what the network computes, under ONNX's own reference evaluator."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet import export_onnx
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
    labels, probabilities, logits = session.run(None, {"X": X.astype(np.float32)})
    np.testing.assert_array_equal(labels, logits.argmax(axis=1))
    np.testing.assert_allclose(logits, network.logits(X), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probabilities, network.predict_proba(X), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["squared_error", "huber(0.5)", "quantile(0.2, 0.8)"])
def test_losses_of_numbers_have_no_probabilities(tmp_path, loss):
    network = gpunet.Network([5, 4, 2], loss=loss, device="cpu", dtype="float64")
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
    whole = reference.ReferenceEvaluator(str(export_onnx(network, tmp_path / "model.onnx")))
    assert whole.output_names == ["variable"]
    session = reference.ReferenceEvaluator(str(export_onnx(network, tmp_path / "model.onnx", bare=True)))
    assert session.output_names == ["logits" if activation == "identity" else "outputs"]
    (outputs,) = session.run(None, {"X": X})
    np.testing.assert_array_equal(whole.run(None, {"X": X})[0], outputs)
    np.testing.assert_allclose(outputs, network.predict(X), rtol=1e-6, atol=1e-7)


def test_sigmoid_probabilities(tmp_path):
    network = gpunet.Network([5, 4, 3], loss="sigmoid_cross_entropy", device="cpu", dtype="float64")
    X, _ = random_problem(7, 5, 2)
    session = reference.ReferenceEvaluator(str(export_onnx(network, tmp_path / "model.onnx")))
    labels, probabilities, logits = session.run(None, {"X": X})
    np.testing.assert_array_equal(labels, network.predict(X))
    np.testing.assert_allclose(logits, network.logits(X), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(probabilities, network.predict_proba(X), rtol=1e-6, atol=1e-7)


def test_an_activation_of_the_users_own(tmp_path):
    cube = gpunet.Activation("cube", forward=lambda s: s**3, derivative=lambda s: 3 * s**2, derivative_of="input")
    for arguments in ({"activation": cube}, {"output_activation": cube, "loss": "squared_error"}):
        with pytest.raises(
            gpunet.InvalidValueError, match=r"has no ONNX nodes\. Expected an activation made with onnx="
        ):
            export_onnx(gpunet.Network([2, 2, 2], device="cpu", **arguments), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def softsign(onnx):
    return gpunet.Activation(
        "softsign", forward=lambda s: s / (1 + np.abs(s)), derivative=lambda y: (1 - np.abs(y)) ** 2, onnx=onnx
    )


def softsign_nodes(graph, s, output):
    return graph.add("Div", [s, graph.add("Add", [graph.add("Abs", [s]), graph.constant(1.0)])], output)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nodes_of_the_users_own(tmp_path, dtype):
    arguments = {"activation": softsign(softsign_nodes), "output_activation": softsign(softsign_nodes)}
    network = gpunet.Network([5, 4, 4, 3], loss="squared_error", device="cpu", dtype=dtype, **arguments)
    X = random_problem(7, 5, 2)[0].astype(dtype)
    session = reference.ReferenceEvaluator(str(export_onnx(network, tmp_path / "model.onnx")))
    (outputs,) = session.run(None, {"X": X})
    np.testing.assert_allclose(outputs, network.predict(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            lambda graph, s, output: graph.add("Softsign", [s]),
            "onnx: that of 'softsign' returned 'softsign_.*Expected 'x1'",
        ),
        (lambda graph, s, output: output, "network: onnx refuses its nodes"),
        (lambda graph, s, output: graph.add("Sofftsign", [s], output), "network: onnx refuses its nodes: .*Sofftsign"),
        (lambda graph, s: s, "onnx: that of 'softsign' raised TypeError"),
    ],
)
def test_wrong_nodes_of_the_users_own(tmp_path, nodes, message):
    network = gpunet.Network([2, 2, 2], activation=softsign(nodes), device="cpu")
    with pytest.raises(gpunet.InvalidValueError, match=message):
        export_onnx(network, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
    with pytest.raises(gpunet.InvalidTypeError, match="onnx: got 'Softsign'"):
        softsign("Softsign")


def test_another_ending(tmp_path):
    with pytest.raises(gpunet.InvalidValueError, match=r"Expected \.onnx"):
        export_onnx(gpunet.Network([2, 2], device="cpu"), tmp_path / "model.pb")
