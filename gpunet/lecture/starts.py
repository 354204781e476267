"""Pre-trained and random starts of deep sigmoid classifiers and auto-encoders, trained alike (lecture row L13)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.classic import RestrictedBoltzmannMachine, encoder_network, pretrain_stack, unroll
from gpunet.data import load_for_training
from gpunet.lecture.experiment import Array, Settings
from gpunet.lecture.probing import EveryEpoch
from gpunet.network import Network
from gpunet.optimizers import SGD
from gpunet.random import Purpose, host_generator
from gpunet.training import History, fit

PRETRAINED = "pre-trained"
XAVIER, MEDIUM, LARGE = "Xavier", "N(0, 0.1²)", "N(0, 0.25²)"
RELU = "ReLU + batch norm"
# Random starts. The last of each is not historical: of those that were tried it suits this depth and width best.
INITIALIZERS = {XAVIER: "xavier_normal", MEDIUM: "normal(0.1)", LARGE: "normal(0.25)"}
CODE_INITIALIZERS = {XAVIER: "xavier_normal", "N(0, 0.2²)": "normal(0.2)"}

PIXEL_LEVELS = 100  # pictures are kept as integers from 0 to this
FILTERS, PICTURES = 25, 8


def compare_starts(settings: Settings, sizes: dict[str, Any]) -> dict[str, Any]:
    """Return ``sizes`` and what was measured with them: errors by start, seed and epoch, weights, reconstructions."""
    data = load_for_training(sizes["data"])
    assert data.targets is not None
    X, y = data.features / (data.raw.largest or 1.0), data.targets
    measured: dict[str, Any] = {"errors": {}, "later_errors": [], "reconstruction_errors": {}, "pca_errors": []}
    numbers = sizes | measured
    for number in range(numbers["seeds"]):
        seed = settings.seed + number
        order = host_generator(seed, Purpose.SPLIT).permutation(data.rows)
        train, test = order[: numbers["train_rows"]], order[-numbers["test_rows"] :]
        split = X[train], y[train], X[test], y[test]
        machines = _classifiers(settings, numbers, seed, *split)
        if number < numbers["code_seeds"]:
            networks = _autoencoders(settings, numbers, seed, X[train], X[test])
        if number == 0:
            numbers["filters"] = _filters(machines[0])
            shown = X[test][[int(np.argmax(y[test] == digit)) for digit in range(PICTURES)]]
            numbers["pictures"] = {"test image": _levels(shown)} | {
                name: _levels(network.predict_proba(shown)) for name, network in networks.items()
            }
            numbers["pictures"]["PCA"] = _levels(pca_reconstruction(X[train], shown, numbers["code"][-1]))
    return numbers


def _pretrained(
    settings: Settings, numbers: dict[str, Any], seed: int, X: Array, layers: str, **arguments: Any
) -> list[RestrictedBoltzmannMachine]:
    arguments |= {"epochs": numbers["pretraining"], "batch_size": numbers["pretraining_batch_size"]}
    return pretrain_stack(X, numbers[layers], seed=seed, device=settings.device, **arguments)


def _classifiers(
    settings: Settings, numbers: dict[str, Any], seed: int, X: Array, y: Array, X_test: Array, y_test: Array
) -> list[RestrictedBoltzmannMachine]:
    """Add the test error after each epoch of every start, and return the pre-trained machines."""
    machines = _pretrained(settings, numbers, seed, X, "hidden")
    layers = [X.shape[1], *numbers["hidden"], 10]
    sigmoid: dict[str, Any] = {"activation": "sigmoid", "batch_norm": False, "seed": seed}
    networks = {PRETRAINED: encoder_network(machines, 10, seed=seed, device=settings.device)}
    for name, initializer in INITIALIZERS.items():
        networks[name] = settings.network(layers, initializer=initializer, **sigmoid)
    networks[RELU] = settings.network(layers, activation="relu", seed=seed)
    for name, network in networks.items():
        arguments: dict[str, Any] = {"batch_size": numbers["batch_size"], "validation": (X_test, y_test)}
        arguments["optimizer"] = SGD(numbers["learning_rate"], momentum=0.9)
        history = fit(network, X, y, epochs=numbers["epochs"], **arguments)
        numbers["errors"].setdefault(name, []).append(_test_errors(history))
        if name == LARGE:
            history = fit(network, X, y, epochs=numbers["more_epochs"], **arguments)
            numbers["later_errors"].append(_test_errors(history)[-1])
    return machines


def _test_errors(history: History) -> list[float]:
    """Return the share of the test images that were wrong after each epoch."""
    return [1 - float(record.validation_accuracy or 0) for record in history.records]


def _autoencoders(
    settings: Settings, numbers: dict[str, Any], seed: int, X: Array, X_test: Array
) -> dict[str, Network]:
    """Add the test error of every start before and after each epoch, and PCA's; return what was trained."""
    machines = _pretrained(settings, numbers, seed, X, "code", linear_code=True)
    networks = {PRETRAINED: unroll(machines, seed=seed, device=settings.device)}
    for name, initializer in CODE_INITIALIZERS.items():
        first = networks[PRETRAINED]
        shape: dict[str, Any] = {"activation": first.activations, "batch_norm": False, "loss": "sigmoid_cross_entropy"}
        networks[name] = settings.network(list(first.layer_sizes), initializer=initializer, seed=seed, **shape)
    for name, network in networks.items():
        watch = EveryEpoch(lambda network: _squared_error(network.predict_proba(X_test), X_test), network)
        optimizer = SGD(numbers["code_learning_rate"], momentum=0.9)
        sizes = {"epochs": numbers["code_epochs"], "batch_size": numbers["batch_size"] // 2}
        fit(network, X, X, optimizer=optimizer, callbacks=[watch], **sizes)
        numbers["reconstruction_errors"].setdefault(name, []).append(watch.seen)
    numbers["pca_errors"].append(_squared_error(pca_reconstruction(X, X_test, numbers["code"][-1]), X_test))
    return networks


def pca_reconstruction(X: Array, X_test: Array, components: int) -> Array:
    """Return the rows of X_test projected on the first principal components of X, the best linear code of that size."""
    mean = X.mean(axis=0)
    centred = X - mean
    directions = np.linalg.eigh(centred.T @ centred)[1][:, -components:]
    return mean + (X_test - mean) @ directions @ directions.T


def _squared_error(reconstruction: Array, X: Array) -> float:
    return float(np.square(reconstruction.astype(np.float64) - X).mean())


def _filters(machine: RestrictedBoltzmannMachine) -> list[list[float]]:
    """Return the weights of the first hidden units, each divided by its largest."""
    weights = machine.components_[:FILTERS].astype(np.float64)
    return np.round(weights / np.abs(weights).max(axis=1, keepdims=True), 2).tolist()


def _levels(images: Array) -> list[list[int]]:
    return np.rint(PIXEL_LEVELS * np.clip(images, 0, 1)).astype(int).tolist()
