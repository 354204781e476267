"""Keras 3 on JAX, as usually written."""

from __future__ import annotations

import itertools
import os
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from benchmarks.cases import NETWORK, Case
from benchmarks.problem import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, LEARNING_RATE, MOMENTUM, Problem
from benchmarks.providers.base import Outputs, Provider, Work, as_host
from benchmarks.providers.common import (
    ADAM_BETA_1,
    ADAM_BETA_2,
    ADAM_EPSILON_BEFORE_CORRECTION,
    as_logits,
    first_refusal,
    hidden_layers,
    missing_package,
)
from benchmarks.providers.jax_provider import (
    JaxWork,
    blas_of_xla,
    import_jax,
    missing_jax,
    refuse_in_jax,
    set_precision,
)
from gpunet.activations import get_activation

Array = npt.NDArray[Any]


class _ModelWork(JaxWork):
    """A public method of ``keras.Model``. Each returns NumPy arrays or numbers, so that it has waited by itself."""

    def __init__(self, jax: Any, platform: str, case: Case, problem: Problem) -> None:
        super().__init__(jax, platform)
        self.case = case
        self.problem = problem
        self.model, self.dense, self.norms = new_model(case, problem)
        numpy = jax.numpy
        # On the device, as those of the others; an epoch starts from the host's.
        on_host = case.mode == "epoch"
        self.batches = problem.batches if on_host else [(numpy.array(X), numpy.array(y)) for X, y in problem.batches]
        self.turn = itertools.cycle(self.batches)

    def run(self, repeats: int) -> None:
        for X, y in itertools.islice(self.turn, repeats):
            self.once(X, y)

    def once(self, X: Any, y: Any) -> None:
        """Do the work on one batch or data set."""
        raise NotImplementedError

    def parameters(self) -> Outputs:
        """Return the parameters that the problem has."""
        found: dict[str, Any] = {}
        for index, layer in enumerate(self.dense, start=1):
            kernel, bias = (variable.value for variable in layer.weights)
            found[f"W{index}"], found[f"b{index}"] = kernel.T, bias
        for index, layer in enumerate(self.norms, start=1):
            found[f"gamma{index}"], found[f"beta{index}"] = (variable.value for variable in layer.weights[:2])
        return {name: as_host(found[name]) for name in self.problem.parameters}


class _Forward(_ModelWork):
    """``predict_on_batch``."""

    def once(self, X: Any, y: Any) -> None:
        self.model.predict_on_batch(X)

    def outputs(self) -> Outputs:
        return {"logits": as_logits(self.model.predict_on_batch(self.batches[0][0]))}


class _Step(_ModelWork):
    """``train_on_batch``, which returns the loss."""

    def once(self, X: Any, y: Any) -> None:
        self.model.train_on_batch(X, y)

    def outputs(self) -> Outputs:
        for X, y in self.batches[: self.problem.checked_steps]:
            self.once(X, y)
        return self.parameters()


class _Epoch(_ModelWork):
    """``fit(epochs=1)`` on arrays of the host."""

    shuffle = True

    def once(self, X: Any, y: Any) -> None:
        self.model.fit(X, y, batch_size=self.case.rows, epochs=1, shuffle=self.shuffle, verbose=0)

    def outputs(self) -> Outputs:
        self.shuffle = False
        self.once(*self.batches[0])
        self.shuffle = True
        return self.parameters()


_WORK: dict[str, type[_ModelWork]] = {"forward": _Forward, "step": _Step, "epoch": _Epoch}


class Keras(Provider):
    """``Sequential`` of ``Dense``, ``BatchNormalization`` and an activation, compiled by JAX, on a CPU."""

    name: ClassVar[str] = "keras"
    label: ClassVar[str] = "Keras (JAX)"
    platform: ClassVar[str] = "cpu"

    def missing(self) -> str | None:
        return missing_package("keras", "Keras") or missing_jax(self.platform)

    def refuses(self, case: Case) -> str | None:
        return first_refusal(refuse_in_jax(case, self.on_device), _refuse(case))

    def versions(self) -> dict[str, str]:
        keras = import_keras()
        import jax

        return {"keras": keras.__version__, "jax": jax.__version__}

    def blas(self) -> str:
        return blas_of_xla()

    def prepare(self, case: Case, problem: Problem) -> Work:
        jax = import_jax(self.platform)
        set_precision(jax, case)
        import_keras().utils.clear_session()
        return _WORK[case.mode](jax, self.platform, case, problem)


class KerasCuda(Keras):
    """The same on CUDA."""

    name: ClassVar[str] = "keras-cuda"
    label: ClassVar[str] = "Keras (JAX, CUDA)"
    on_device: ClassVar[bool] = True
    platform: ClassVar[str] = "cuda"


def import_keras() -> Any:
    """Import Keras on JAX; JAX has its platform by then."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    return keras


def _refuse(case: Case) -> str | None:
    if case.operation != NETWORK:
        return "Keras is measured on networks; its operations are JAX's"
    if case.mode not in _WORK:
        return "Keras has no public call that returns gradients"
    return None


def new_model(case: Case, problem: Problem) -> tuple[Any, list[Any], list[Any]]:
    """Return a compiled model with the problem's parameters, its dense layers and its batch norms.

    The bias before batch norm, which ``Dense`` has unless told otherwise, starts at 0.
    """
    keras = import_keras()
    layers = keras.layers
    stack, dense, norms = [keras.Input((case.sizes[0],))], [], []
    for index in hidden_layers(case):
        dense.append(layers.Dense(case.sizes[index]))
        stack.append(dense[-1])
        if case.batch_norm:
            norms.append(layers.BatchNormalization(momentum=1 - BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON))
            stack.append(norms[-1])
        stack.append(_new_activation(layers, case.activation))
    dense.append(layers.Dense(case.sizes[-1]))
    model = keras.Sequential([*stack, dense[-1]])
    for index, layer in enumerate(dense, start=1):
        weights = problem.parameters[f"W{index}"]
        layer.set_weights([weights.T, problem.parameters.get(f"b{index}", np.zeros(len(weights), weights.dtype))])
    for index, layer in enumerate(norms, start=1):
        values = [problem.parameters[f"{name}{index}"] for name in ("gamma", "beta")]
        layer.set_weights(values + [problem.state[f"running_{name}{index}"] for name in ("mean", "variance")])
    optimizer = (
        keras.optimizers.Adam(LEARNING_RATE, ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON_BEFORE_CORRECTION)
        if case.optimizer == "adam"
        else keras.optimizers.SGD(LEARNING_RATE, MOMENTUM)
    )
    model.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, dense, norms


def _new_activation(layers: Any, name: str) -> Any:
    activation = get_activation(name)
    if activation.name == "leaky_relu":
        return layers.LeakyReLU(negative_slope=activation.parameter)
    if activation.name == "elu":
        return layers.ELU(alpha=activation.parameter)
    return layers.Activation("linear" if activation.name == "identity" else activation.name)
