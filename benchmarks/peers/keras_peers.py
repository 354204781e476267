"""Keras 3 on JAX, as usually written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.peers.jax_peers import Jax
from benchmarks.peers.peer import Array, NetworkWork, Work, hidden_layers, missing_package
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
        return case.is_network and case.sweep is None

    def versions(self) -> dict[str, str]:
        return {"keras": import_keras().__version__, "jax": super().versions()["jax"]}

    def prepare(self, case: Case, problem: Problem) -> Work:
        self.import_jax(case)
        import_keras().utils.clear_session()
        from benchmarks.peers.jax_work import JaxDevice

        network = KerasNetwork(case, problem)
        network.device = JaxDevice(self.platform)
        return network


class KerasNetwork(NetworkWork):
    """A compiled ``keras.Model``, by its public methods. Each returns NumPy arrays or numbers, so that it has waited.

    The bias before batch norm, which ``Dense`` has unless told otherwise, starts at 0.
    """

    def __init__(self, case: Case, problem: Problem) -> None:
        keras = import_keras()
        layers = keras.layers
        super().__init__(case, problem)
        self.names = list(problem.parameters)
        self.dense = [layers.Dense(size) for size in case.sizes[1:]]
        self.norms: list[Any] = []
        stack: list[Any] = [keras.Input((case.sizes[0],))]
        for index in hidden_layers(case):
            stack.append(self.dense[index - 1])
            if case.batch_norm:
                norm = layers.BatchNormalization(momentum=1 - BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON)
                self.norms.append(norm)
                stack.append(norm)
            stack.append(_new_activation(layers, case.activation))
        self.model = keras.Sequential([*stack, self.dense[-1]])
        for index, layer in enumerate(self.dense, start=1):
            weights = problem.parameters[f"W{index}"]
            layer.set_weights([weights.T, problem.parameters.get(f"b{index}", np.zeros(len(weights), weights.dtype))])
        for index, layer in enumerate(self.norms, start=1):
            values = [problem.parameters[f"{name}{index}"] for name in ("gamma", "beta")]
            layer.set_weights(values + [problem.state[f"running_{name}{index}"] for name in ("mean", "variance")])
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
        found: dict[str, Any] = {}
        for index, layer in enumerate(self.dense, start=1):
            kernel, bias = (variable.value for variable in layer.weights)
            found[f"W{index}"], found[f"b{index}"] = kernel.T, bias
        for index, layer in enumerate(self.norms, start=1):
            found[f"gamma{index}"], found[f"beta{index}"] = (variable.value for variable in layer.weights[:2])
        return {name: found[name] for name in self.names}


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
