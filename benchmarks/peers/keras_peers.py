"""Keras 3 on JAX, as usually written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from benchmarks.peers.jax_peers import Jax
from benchmarks.peers.peer import Array, NetworkWork, Work, missing_package
from benchmarks.problem import (
    ADAM_BETA_1,
    ADAM_BETA_2,
    ADAM_EPSILON_BEFORE_CORRECTION,
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    LEARNING_RATE,
    MOMENTUM,
    Problem,
)
from benchmarks.report.results import Case
from gpunet.activations import get_activation


class Keras(Jax):
    """``Sequential`` of ``Dense``, ``BatchNormalization`` and an activation, compiled by JAX."""

    def missing(self) -> str | None:
        return missing_package("keras", "Keras") or super().missing()

    def refuses(self, case: Case) -> str | None:
        if not case.is_network:
            return "Keras is measured on networks; its operations are JAX's"
        if case.mode == "forward_backward":
            return "Keras has no public call that returns gradients"
        return super().refuses(case)

    def is_worth(self, case: Case) -> bool:
        """Networks, but for c on a CPU: nearly all of it is JAX's matrix products, for a long time."""
        return case.is_network and case.sweep is None and (self.on_device or case.label != "c")

    def versions(self) -> dict[str, str]:
        return {"keras": import_keras().__version__, "jax": super().versions()["jax"]}

    def prepare(self, case: Case, problem: Problem) -> Work:
        self.import_jax(case)
        import_keras().utils.clear_session()
        from benchmarks.peers.jax_work import JaxDevice

        network = KerasNetwork(case, problem)
        network.device = JaxDevice(self.device)
        return network


class KerasNetwork(NetworkWork):
    """A compiled ``keras.Model``, by its public methods. Each returns NumPy arrays or numbers, so that it has waited.

    The bias before batch norm, which ``Dense`` has unless told otherwise, starts at 0.
    """

    def __init__(self, case: Case, problem: Problem) -> None:
        super().__init__(case, problem)
        keras = import_keras()
        layers, last = keras.layers, len(case.sizes) - 1
        stack, names = [keras.Input((case.sizes[0],))], list[str]()
        for index, size in enumerate(case.sizes[1:], start=1):
            stack.append(layers.Dense(size))
            names += [f"W{index}", f"b{index}"]
            if index < last and case.batch_norm:
                stack.append(layers.BatchNormalization(momentum=1 - BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON))
                names += [f"{name}{index}" for name in ("gamma", "beta", "running_mean", "running_variance")]
            if index < last:
                stack.append(_new_activation(layers, case.activation))
        self.model = keras.Sequential(stack)
        variables = [variable for layer in self.model.layers for variable in layer.weights]
        self.variables = dict(zip(names, variables, strict=True))
        for name, value in (problem.parameters | problem.state).items():
            self.variables[name].assign(value.T)
        self.names = list(problem.parameters)
        optimizers = keras.optimizers
        optimizer = (
            optimizers.Adam(LEARNING_RATE, ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON_BEFORE_CORRECTION)
            if case.optimizer == "adam"
            else optimizers.SGD(LEARNING_RATE, MOMENTUM)
        )
        self.model.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def place(self, batches: list[tuple[Array, Array]]) -> list[tuple[Any, ...]]:
        import jax.numpy as jnp

        return [(jnp.array(X), jnp.array(y)) for X, y in batches]

    def forward(self, X: Any, y: Any) -> Array:
        """``predict_on_batch``."""
        logits: Array = self.model.predict_on_batch(X)
        return logits

    def step(self, X: Any, y: Any) -> None:
        """``train_on_batch``, which returns the loss."""
        self.model.train_on_batch(X, y)

    def epoch(self, X: Array, y: Array, shuffle: bool = True) -> None:
        """``fit(epochs=1)`` on arrays of the host."""
        self.model.fit(X, y, batch_size=self.case.rows, epochs=1, shuffle=shuffle, verbose=0)

    def parameters(self) -> Mapping[str, Any]:
        return {name: self.variables[name].value.T for name in self.names}


def import_keras() -> Any:
    """Import Keras on JAX; JAX has its platform by then."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    return keras


def _new_activation(layers: Any, name: str) -> Any:
    activation = get_activation(name)
    if activation.name == "leaky_relu":
        return layers.LeakyReLU(negative_slope=activation.parameter)
    if activation.name == "elu":
        return layers.ELU(alpha=activation.parameter)
    return layers.Activation("linear" if activation.name == "identity" else activation.name)
