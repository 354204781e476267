"""scikit-learn: a network as a fitted ``MLPClassifier`` or ``MLPRegressor``, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.data.scaling import Scaling
from gpunet.errors import InvalidTypeError, InvalidValueError, ShapeError, counted, optional_package, shown
from gpunet.interchange.state_dict import named_steps
from gpunet.interchange.whole_model import FilledIn, WholeModel, whole_model
from gpunet.labels import CLASSES
from gpunet.network import Network
from gpunet.validation import check_flag

Array = npt.NDArray[Any]

_ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}


def to_sklearn(network: Any, classes: npt.ArrayLike | None = None, *, bare: bool = False) -> Any:
    """Return a model as fitted estimators of scikit-learn with the same probabilities or predictions.

    Parameters
    ----------
    network : Network, MLPClassifier or MLPRegressor
        Without batch norm, with one of scikit-learn's activations in all hidden layers. Scaling, units and class names
        are those that ``gpunet train`` left in ``network.metadata``, or those of gpunet's fitted estimator.
    classes : array_like, (c,), or None
        What the labels stand for, if not what the model says; by default 0 to c - 1. Not with sigmoid cross-entropy or
        squared error.
    bare : bool
        Whether to leave scaling and units out: the estimator takes what the network takes.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or MLPRegressor
        Or, where inputs are scaled, an ``sklearn.pipeline.Pipeline`` of a ``StandardScaler`` and such an estimator, a
        ``SimpleImputer`` before them where missing values are filled in. The units of targets are in the weights of its
        last layer.

    Raises
    ------
    MissingDependencyError
        scikit-learn is not installed.
    InvalidTypeError
        It is neither a network nor a fitted estimator.
    InvalidValueError, ShapeError
        The network has what such an estimator has not, or another number of classes.
    """
    whole = whole_model(network, bare=check_flag("bare", bare))
    with optional_package("scikit-learn", extra="sklearn", purpose="an estimator of scikit-learn", module="sklearn"):
        from sklearn.pipeline import Pipeline

    with whole.network.lock:
        estimator = _estimator(whole, whole.classes if classes is None else np.asarray(classes))
    steps = [
        (name, _imputer(step) if isinstance(step, FilledIn) else _scaler(step)) for name, step in named_steps(whole)
    ]
    if not steps:
        return estimator
    if whole.feature_names is not None:
        steps[0][1].feature_names_in_ = np.array(whole.feature_names, object)
    return Pipeline([*steps, ("network", estimator)])


def _imputer(step: FilledIn) -> Any:
    from sklearn.impute import SimpleImputer

    rows = np.array([step.fill, step.fill])  # of which the mean is exact
    rows[1, step.indicated] = np.nan
    return SimpleImputer(add_indicator=True).fit(rows)


def _scaler(scaling: Scaling) -> Any:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    scaler.mean_, scaler.scale_ = np.array(scaling.offset), np.array(scaling.scale)
    scaler.var_ = scaler.scale_**2
    scaler.n_features_in_, scaler.n_samples_seen_ = len(scaling.offset), 0
    return scaler


def _estimator(whole: WholeModel, classes: Array | None) -> Any:
    """Return the network as an estimator, which takes scaled inputs."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.preprocessing import LabelBinarizer

    network = whole.network
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
    if network.is_classifier:
        labels = np.arange(outputs) if classes is None else classes
        if labels.shape != (outputs,) or len(np.unique(labels)) < outputs:
            raise ShapeError(f"classes: got {shown(classes)}. Expected {counted(outputs, 'label')}, each once.")
        order = np.argsort(labels)  # theirs are always sorted
        W[-1], b[-1] = W[-1][:, order], b[-1][order]
        if outputs == 2:  # one output there: the difference
            W[-1], b[-1], outputs = W[-1][:, 1:] - W[-1][:, :1], b[-1][1:] - b[-1][:1], 1
    else:
        several = np.vstack([np.eye(outputs, dtype=int), np.ones((1, outputs), int)])
        labels = several if outputs > 1 else np.arange(2)
    if network.has_probabilities:
        estimator = MLPClassifier(**parameters)
        estimator._label_binarizer = LabelBinarizer().fit(labels)
        estimator.classes_ = estimator._label_binarizer.classes_
        estimator.out_activation_ = "softmax" if network.is_classifier and outputs > 1 else "logistic"
    else:
        estimator = MLPRegressor(**parameters)
        estimator.out_activation_ = "identity"
        if whole.target_scaling is not None:
            scale, offset = np.array(whole.target_scaling.scale), np.array(whole.target_scaling.offset)
            W[-1], b[-1] = W[-1] * scale, b[-1] * scale + offset
    estimator.coefs_, estimator.intercepts_ = [np.ascontiguousarray(one) for one in W], b
    estimator.n_features_in_, estimator.n_outputs_ = network.layer_sizes[0], outputs
    estimator.n_layers_, estimator.n_iter_ = len(network.layer_sizes), 0
    return estimator


def from_sklearn(estimator: Any, *, seed: int = 0, device: str | Backend = "auto") -> Network:
    """Return a fitted estimator of ``sklearn.neural_network`` as a network with the same probabilities or predictions.

    A scaler before it, as in what :func:`to_sklearn` returns, becomes part of the first layer, in double precision: the
    network takes the pipeline's rows. To train it further, take ``estimator[-1]`` and rows that are scaled.

    It predicts the estimator's labels: text, booleans and integers, which its metadata hold. Of labels of another kind
    they are the places.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or MLPRegressor
        Or an ``sklearn.pipeline.Pipeline`` of ``StandardScaler`` and such an estimator.
    seed, device
        As of :class:`gpunet.Network`.

    Returns
    -------
    Network
        With copies of the weights, and their dtype; float64 behind a scaler.

    Raises
    ------
    InvalidTypeError
        It is no such estimator, or is not fitted, or something else stands before it.
    """
    *scalers, estimator = getattr(estimator, "named_steps", {"": estimator}).values()
    if not hasattr(estimator, "coefs_") or not hasattr(estimator, "out_activation_"):
        raise InvalidTypeError(
            f"estimator: got {type(estimator).__name__}. Expected a fitted MLPClassifier or MLPRegressor."
        )
    W = [np.asarray(one).T for one in estimator.coefs_]
    b = [np.asarray(one) for one in estimator.intercepts_]
    for scaler in reversed(scalers):
        W[0], b[0] = _of_unscaled(scaler, W[0], b[0])
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
    if classes is not None and network.is_classifier:
        network.metadata[CLASSES] = np.asarray(classes).tolist()
    return network


def _of_unscaled(scaler: Any, W: Array, b: Array) -> tuple[Array, Array]:
    """Return W and b of a layer of scaled inputs as those of one of inputs as they are."""
    if type(scaler).__name__ != "StandardScaler" or not hasattr(scaler, "scale_"):
        raise InvalidTypeError(
            f"estimator: got {type(scaler).__name__} before the network. Expected a fitted StandardScaler or nothing; "
            "estimator[-1] is the network alone, for what the steps before it make."
        )
    W = W / (1.0 if scaler.scale_ is None else scaler.scale_)
    return W, b - W @ scaler.mean_ if scaler.with_mean else b
