"""scikit-learn: a network as a fitted ``MLPClassifier`` or ``MLPRegressor``, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.errors import InvalidTypeError, InvalidValueError, ShapeError, optional_package, shown
from gpunet.network import Network, on_network

Array = npt.NDArray[Any]

_ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}


@on_network
def to_sklearn(network: Network, classes: npt.ArrayLike | None = None) -> Any:
    """Return a network as a fitted estimator of ``sklearn.neural_network`` with the same probabilities or predictions.

    Parameters
    ----------
    network : Network
        Without batch norm, with one of scikit-learn's activations in all hidden layers.
    classes : array_like, (c,), or None
        What the labels stand for, sorted; None for 0 to c - 1. Not with sigmoid cross-entropy or squared error.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or MLPRegressor

    Raises
    ------
    MissingDependencyError
        scikit-learn is not installed.
    InvalidValueError, ShapeError
        The network has what such an estimator has not, or another number of classes.
    """
    with optional_package("scikit-learn", extra="sklearn", purpose="an estimator of scikit-learn", module="sklearn"):
        from sklearn.neural_network import MLPClassifier, MLPRegressor
        from sklearn.preprocessing import LabelBinarizer

    theirs = {ours: name for name, ours in _ACTIVATIONS.items()}
    hidden = {str(activation) for activation in network.activations}
    if any(network.batch_norm):
        raise InvalidValueError("network: has batch norm, which scikit-learn's have not. Expected batch_norm=False.")
    if len(hidden) > 1 or not hidden <= theirs.keys() or str(network.output_activation) != "identity":
        raise InvalidValueError(
            f"network: has the activations {sorted(hidden)} and {str(network.output_activation)!r} at the end. "
            f"Expected one of {sorted(theirs)} in all hidden layers and none at the end."
        )
    values = network.get_parameters()
    numbers = range(1, len(network.layer_sizes))
    W, b = [values[f"W{number}"].T for number in numbers], [values[f"b{number}"] for number in numbers]
    outputs = network.layer_sizes[-1]
    parameters = {
        "hidden_layer_sizes": network.layer_sizes[1:-1],
        "activation": theirs[hidden.pop()] if hidden else "identity",
    }
    if network.is_classifier and outputs == 2:  # one output there: the difference
        W[-1], b[-1], outputs = W[-1][:, 1:] - W[-1][:, :1], b[-1][1:] - b[-1][:1], 1
    if network.has_probabilities:
        estimator = MLPClassifier(**parameters)
        labels = np.arange(network.layer_sizes[-1]) if classes is None else np.asarray(classes)
        if labels.shape != (network.layer_sizes[-1],) or not np.array_equal(labels, np.unique(labels)):
            raise ShapeError(f"classes: got {shown(classes)}. Expected {network.layer_sizes[-1]} labels, sorted.")
        several = np.eye(len(labels), dtype=int)[[0, 0]] if not network.is_classifier else None
        if several is not None:
            several[1] = 1
        estimator._label_binarizer = LabelBinarizer().fit(labels if several is None else several)
        estimator.classes_ = estimator._label_binarizer.classes_
        estimator.out_activation_ = "softmax" if network.is_classifier and outputs > 1 else "logistic"
    else:
        estimator = MLPRegressor(**parameters)
        estimator.out_activation_ = "identity"
    estimator.coefs_, estimator.intercepts_ = [np.ascontiguousarray(one) for one in W], b
    estimator.n_features_in_, estimator.n_outputs_ = network.layer_sizes[0], outputs
    estimator.n_layers_, estimator.n_iter_ = len(network.layer_sizes), 0
    return estimator


def from_sklearn(estimator: Any, *, seed: int = 0, device: str | Backend = "auto") -> Network:
    """Return a fitted estimator of ``sklearn.neural_network`` as a network with the same probabilities or predictions.

    Labels are the places of the estimator's classes, which ``metadata["classes"]`` lists.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or MLPRegressor
    seed, device
        As of :class:`gpunet.Network`.

    Returns
    -------
    Network
        With copies of the weights, and their dtype.

    Raises
    ------
    InvalidTypeError
        It is no such estimator, or is not fitted.
    """
    if not hasattr(estimator, "coefs_") or not hasattr(estimator, "out_activation_"):
        raise InvalidTypeError(
            f"estimator: got {type(estimator).__name__}. Expected a fitted MLPClassifier or MLPRegressor."
        )
    W = [np.asarray(one).T for one in estimator.coefs_]
    b = [np.asarray(one) for one in estimator.intercepts_]
    classes = getattr(estimator, "classes_", None)
    loss = {"softmax": "softmax_cross_entropy", "logistic": "sigmoid_cross_entropy", "identity": "squared_error"}[
        estimator.out_activation_
    ]
    if loss == "sigmoid_cross_entropy" and classes is not None and len(classes) == 2 and len(b[-1]) == 1:
        # Two classes: the score of the first is 0.
        W[-1], b[-1] = np.vstack([np.zeros_like(W[-1]), W[-1]]), np.append(np.zeros_like(b[-1]), b[-1])
        loss = "softmax_cross_entropy"
    network = Network(
        [W[0].shape[1], *(len(one) for one in W)],
        activation=_ACTIVATIONS[estimator.activation],
        batch_norm=False,
        loss=loss,
        seed=seed,
        dtype=W[0].dtype,
        device=device,
    )
    network.set_parameters(
        {f"{kind}{number}": one for kind, all_ in (("W", W), ("b", b)) for number, one in enumerate(all_, start=1)}
    )
    if classes is not None:
        network.metadata["classes"] = np.asarray(classes).tolist()
    return network
