"""Networks of a case as pure functions of JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.cases import Case
from benchmarks.problem import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, LEARNING_RATE, MOMENTUM
from benchmarks.providers.common import ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON, hidden_layers
from gpunet.activations import get_activation

Arrays = dict[str, jax.Array]


def find_activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """Return the function of an activation."""
    activation = get_activation(name)
    functions: dict[str, Callable[[jax.Array], jax.Array]] = {
        "identity": lambda x: x,
        "sigmoid": jax.nn.sigmoid,
        "tanh": jnp.tanh,
        "relu": jax.nn.relu,
        "leaky_relu": lambda x: jax.nn.leaky_relu(x, activation.parameter),
        "elu": lambda x: jax.nn.elu(x, activation.parameter),
    }
    return functions[activation.name]


def normalise(
    s: jax.Array, gamma: jax.Array, beta: jax.Array, running_mean: jax.Array, running_variance: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return batch norm with the batch's biased variance, and the running averages, with the unbiased one."""
    rows = s.shape[0]
    mean, variance = s.mean(axis=0), s.var(axis=0)
    z = gamma * ((s - mean) * jax.lax.rsqrt(variance + BATCH_NORM_EPSILON)) + beta
    old, new = 1 - BATCH_NORM_MOMENTUM, BATCH_NORM_MOMENTUM
    running_mean = old * running_mean + new * mean
    running_variance = old * running_variance + new * variance * (rows / (rows - 1))
    return z, running_mean, running_variance


def mean_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean loss of a batch."""
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


def sgd(parameters: Any, gradients: Any, velocity: Any) -> tuple[Any, Any]:
    """Return parameters and velocity after a step."""
    velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, gradients)
    return jax.tree.map(lambda p, v: p - LEARNING_RATE * v, parameters, velocity), velocity


def adam(parameters: Any, gradients: Any, moments: tuple[Any, Any], step: jax.Array) -> tuple[Any, tuple[Any, Any]]:
    """Return parameters and moments after a step; ``step`` counts from 1."""
    first = jax.tree.map(lambda m, g: ADAM_BETA_1 * m + (1 - ADAM_BETA_1) * g, moments[0], gradients)
    second = jax.tree.map(lambda v, g: ADAM_BETA_2 * v + (1 - ADAM_BETA_2) * g * g, moments[1], gradients)
    rate = LEARNING_RATE / (1 - ADAM_BETA_1**step)
    correction = 1 / (1 - ADAM_BETA_2**step)
    parameters = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(correction * v) + ADAM_EPSILON), parameters, first, second
    )
    return parameters, (first, second)


class NetworkFunctions:
    """What a network of a case computes; its methods have no side effects, and are compiled by who uses them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.activation = find_activation(case.activation)

    def infer(self, parameters: Arrays, state: Arrays, X: jax.Array) -> jax.Array:
        """Return the logits in inference mode."""
        return self._forward(parameters, state, X, training=False)[0]

    def loss(self, parameters: Arrays, state: Arrays, X: jax.Array, y: jax.Array) -> tuple[jax.Array, Arrays]:
        """Return the mean loss in training mode and the new running averages."""
        logits, state = self._forward(parameters, state, X, training=True)
        return mean_cross_entropy(logits, y), state

    def gradients(
        self, parameters: Arrays, state: Arrays, X: jax.Array, y: jax.Array
    ) -> tuple[jax.Array, Arrays, Arrays]:
        """Return loss, gradients and the new running averages."""
        (loss, state), gradients = jax.value_and_grad(self.loss, has_aux=True)(parameters, state, X, y)
        return loss, gradients, state

    def initial_training(self, parameters: Arrays, state: Arrays) -> Any:
        """Return what a step changes: parameters, running averages, moments and the count of steps."""
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        moments = (zeros, jax.tree.map(jnp.zeros_like, parameters)) if self.case.optimizer == "adam" else zeros
        return parameters, state, moments, jnp.zeros((), jnp.int32)

    def step(self, training: Any, X: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        """Return what a step changes after it, and the loss before it."""
        parameters, state, moments, count = training
        loss, gradients, state = self.gradients(parameters, state, X, y)
        count = count + 1
        if self.case.optimizer == "adam":
            parameters, moments = adam(parameters, gradients, moments, count.astype(X.dtype))
        else:
            parameters, moments = sgd(parameters, gradients, moments)
        return (parameters, state, moments, count), loss

    def gathered_step(self, training: Any, X: jax.Array, y: jax.Array, index: jax.Array) -> tuple[Any, jax.Array]:
        """Return the same for the rows ``index`` of a data set."""
        return self.step(training, X[index], y[index])

    def _forward(
        self, parameters: Mapping[str, jax.Array], state: Arrays, X: jax.Array, training: bool
    ) -> tuple[jax.Array, Arrays]:
        averages: Arrays = {}
        for index in hidden_layers(self.case):
            s = X @ parameters[f"W{index}"].T
            if self.case.batch_norm:
                s = self._batch_norm(index, s, parameters, state, averages, training)
            else:
                s = s + parameters[f"b{index}"]
            X = self.activation(s)
        last = len(self.case.sizes) - 1
        return X @ parameters[f"W{last}"].T + parameters[f"b{last}"], averages

    def _batch_norm(
        self,
        index: int,
        s: jax.Array,
        parameters: Mapping[str, jax.Array],
        state: Arrays,
        averages: Arrays,
        training: bool,
    ) -> jax.Array:
        """Return the normalised batch; in training, new running averages go to ``averages``."""
        gamma, beta = parameters[f"gamma{index}"], parameters[f"beta{index}"]
        names = f"running_mean{index}", f"running_variance{index}"
        mean, variance = (state[name] for name in names)
        if not training:
            return gamma * ((s - mean) * jax.lax.rsqrt(variance + BATCH_NORM_EPSILON)) + beta
        z, *new = normalise(s, gamma, beta, mean, variance)
        averages.update(zip(names, new, strict=True))
        return z
