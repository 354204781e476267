"""Softmax cross-entropy of smoothed labels and of probabilities, with class weights as PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.layers import SoftmaxCrossEntropy, get_loss
from tests.helpers.networks import gradient_error, random_problem, randomise

LABELS = np.array([0, 2, 1, 2, 0, 1])


def make_network(loss="softmax_cross_entropy(0.1)", **arguments):
    return gpunet.Network([5, 8, 3], loss=loss, device="cpu", dtype="float64", **arguments)


def soft_labels(rows=6, classes=3):
    return np.random.default_rng(7).dirichlet(np.ones(classes), rows)


def cross_entropy(network, X, q):
    logits = network.logits(X)
    return -(q * (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))).sum(axis=1)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "softmax_cross_entropy(0.2)"])
@pytest.mark.parametrize("targets", [LABELS, soft_labels()], ids=["labels", "probabilities"])
@pytest.mark.parametrize("weighted", [False, True])
def test_network_gradients_match_finite_differences(loss, targets, weighted):
    network = make_network(loss, activation="tanh")
    randomise(network)
    X = np.random.default_rng(3).standard_normal((6, 5))
    arguments = {"l2": 0.02, "sample_weight": np.array([0.5, 0, 2, 1, 3.0, 1]) if weighted else None}
    _, gradients = network.loss_and_gradients(X, targets, input_gradient=True, **arguments)
    for name, view in (*network.parameters.items(), ("X", X)):
        error = gradient_error(gradients[name], lambda: network.loss_and_gradients(X, targets, **arguments)[0], view)
        assert error <= 1e-6, name


def test_smoothing_mixes_the_label_with_all_classes_alike():
    network, (X, y) = make_network("softmax_cross_entropy(0.3)"), random_problem(50, 5, 3)
    q = 0.7 * np.eye(3)[y] + 0.1
    assert gpunet.evaluate(network, X, y).loss == pytest.approx(cross_entropy(network, X, q).mean(), rel=1e-12)
    plain = make_network("softmax_cross_entropy")
    assert gpunet.evaluate(plain, X, q).loss == pytest.approx(gpunet.evaluate(network, X, y).loss, rel=1e-12)


def test_probabilities_of_one_class_are_its_label():
    network, (X, y) = make_network("softmax_cross_entropy"), random_problem(50, 5, 3)
    found, expected = (network.loss_and_gradients(X, targets) for targets in (np.eye(3)[y], y))
    assert found[0] == pytest.approx(expected[0], rel=1e-13)
    for name, gradient in expected[1].items():
        np.testing.assert_allclose(found[1][name], gradient, rtol=1e-10, atol=1e-15, err_msg=name)


def test_accuracy_is_that_of_the_most_probable_class():
    network, (X, _) = make_network(), random_problem(5000, 5, 3)  # more than one block of rows
    targets, weights = soft_labels(5000), np.random.default_rng(0).uniform(0, 2, 5000)
    right = network.predict(X) == targets.argmax(axis=1)
    found = gpunet.evaluate(network, X, targets, sample_weight=weights)
    assert found.accuracy == pytest.approx((right * weights).sum() / weights.sum(), rel=1e-12)


@pytest.mark.parametrize("device", ["cpu:numpy", "cpu:compiled"])
def test_training_counts_classes_as_pytorch_does(device):
    """The first loss of a run: each term of a row counts by its class, the sum by the weights of the labels."""
    X, y = random_problem(60, 5, 3)
    w, u = np.array([0.5, 2.0, 1.0]), np.linspace(0.5, 1.5, 60)
    for targets, q, total in (
        (y, w * (0.9 * np.eye(3)[y] + 0.1 / 3), w[y]),
        (soft_labels(60), w * (0.9 * soft_labels(60) + 0.1 / 3), np.ones(60)),
    ):
        network = gpunet.Network([5, 3], loss="softmax_cross_entropy(0.1)", device=device, dtype="float64")
        expected = (u * cross_entropy(network, X, q)).sum() / (u * total).sum()
        arguments = {"class_weight": w, "sample_weight": u, "optimizer": gpunet.SGD(0.0)}
        history = gpunet.fit(network, X, targets, epochs=1, batch_size=60, **arguments)
        assert history["loss"][0] == pytest.approx(expected, rel=1e-12)


def test_a_class_of_weight_zero_leaves_its_rows_out():
    X, y = random_problem(60, 5, 3)
    losses = []
    for rows in (slice(None), y != 1):
        network = make_network(batch_norm=False)
        arguments = {"class_weight": {1: 0}, "optimizer": gpunet.SGD(0.0)}
        losses.append(gpunet.fit(network, X[rows], y[rows], epochs=1, batch_size=60, **arguments)["loss"][0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_balanced_weights_count_probabilities():
    X, _ = random_problem(60, 5, 3)
    targets = soft_labels(60)
    given = {"epochs": 2, "batch_size": 20}
    found = gpunet.fit(make_network(seed=1), X, targets, class_weight="balanced", **given)
    expected = gpunet.fit(make_network(seed=1), X, targets, class_weight=60 / (3 * targets.sum(axis=0)), **given)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-12)


@pytest.mark.parametrize("data_on", ["device", "host"])
def test_learns_from_probabilities(data_on):
    X, _ = random_problem(300, 5, 3)
    y = X[:, :3].argmax(axis=1)
    targets = (0.8 * np.eye(3)[y] + 0.2 / 3).astype(np.float32)
    network = gpunet.Network([5, 16, 3], device="cpu", seed=1)
    history = gpunet.fit(network, X, targets, epochs=20, validation=(X, targets), data_on=data_on)
    found = gpunet.evaluate(network, X, y)
    assert history["validation_accuracy"][-1] == found.accuracy > 0.9


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (np.eye(3, dtype=int)[LABELS], gpunet.ShapeError, "not one-hot rows: use .* or floats for probabilities"),
        (0.5 * np.eye(3)[LABELS], gpunet.InvalidValueError, "y: row 0 sums to 0.5. Expected labels, or the prob"),
        (2 * np.eye(3)[LABELS], gpunet.InvalidValueError, r"y: 2.0 in row 0, column 0 is out of range"),
        (np.eye(3)[LABELS] * np.nan, gpunet.NonFiniteError, "y: nan in row 0"),
        (np.eye(3)[LABELS[:5]], gpunet.ShapeError, r"y: got shape \(5, 3\)"),
        (np.eye(4)[LABELS], gpunet.ShapeError, r"y: got shape \(6, 4\)"),
    ],
)
def test_probabilities_are_checked_at_the_edge(targets, error, message):
    network, X = make_network(), np.zeros((6, 5))
    for call in (network.loss_and_gradients, lambda X, y: gpunet.evaluate(network, X, y)):
        with pytest.raises(error, match=message):
            call(X, targets)


def test_smoothing_is_kept_and_cannot_be_set(tmp_path):
    network = make_network(gpunet.SoftmaxCrossEntropy(label_smoothing=0.2))
    network.save(tmp_path / "network.npz")
    loaded = gpunet.load(tmp_path / "network.npz", device="cpu")
    assert loaded.configuration["loss"] == "softmax_cross_entropy(0.2)"
    assert loaded.loss_layer.label_smoothing == 0.2
    assert (loaded.loss, str(get_loss(SoftmaxCrossEntropy()))) == ("softmax_cross_entropy",) * 2
    with pytest.raises(AttributeError):
        network.loss_layer.label_smoothing = 0.3
    for wrong in ("softmax_cross_entropy(1)", "softmax_cross_entropy(-0.1)"):
        with pytest.raises(gpunet.InvalidValueError, match="label_smoothing: "):
            make_network(wrong)


@pytest.mark.parametrize("soft", [False, True])
def test_batches_of_an_iterable_count_as_those_of_arrays(soft):
    X, y = random_problem(60, 5, 3)
    targets = soft_labels(60) if soft else y
    given = {"epochs": 2, "class_weight": [0.5, 1, 2]}
    batches = [(X[start : start + 20], targets[start : start + 20]) for start in (0, 20, 40)]
    found = gpunet.fit(make_network(), batches=batches, **given)
    expected = gpunet.fit(make_network(), X, targets, batch_size=20, shuffle=False, **given)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-13)
    with pytest.raises(
        gpunet.ShapeError, match=r"batch 2 of epoch 1: y: .* Expected all batches with labels, or with pr"
    ):
        gpunet.fit(make_network(), batches=[(X, y), (X, soft_labels(60))], epochs=1)
