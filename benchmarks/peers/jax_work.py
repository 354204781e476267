"""Networks and single operations as compiled functions of JAX.

What a unit of work updates (parameters, running averages, moments) is donated to the function that updates it.
``backward`` of an operation is ``jax.vjp``'s: the forward pass runs once beforehand, and what it kept is an argument of
the compiled function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.peer import Array, Device, NetworkWork, OperationWork, Work, as_host, hidden_layers
from benchmarks.problem import (
    ADAM_BETA_1,
    ADAM_BETA_2,
    ADAM_EPSILON,
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    LEARNING_RATE,
    MOMENTUM,
    Problem,
)
from benchmarks.report.results import Case
from gpunet.activations import get_activation

Arrays = dict[str, jax.Array]


class JaxDevice(Device):
    """A platform of JAX.

    A GPU runs functions in the order of the calls, so that waiting for the last one waits for all. A CPU may run calls
    that do not depend on each other side by side: there, units of work that leave nothing to the next are waited for.
    """

    def __init__(self, platform: str) -> None:
        self.platform = platform
        self.latest: Any = None
        self.peak_before = self._peak()

    def submitted(self, results: Any, *, leaves_nothing: bool) -> None:
        """Note what a unit of work computes."""
        self.latest = results
        if leaves_nothing and self.platform == "cpu":
            self.synchronize()

    def synchronize(self) -> None:
        jax.block_until_ready(self.latest)

    def peak_bytes(self) -> int | None:
        """Return the peak of the process, which JAX cannot set back: None where an earlier case was larger."""
        peak = self._peak()
        return peak if peak > self.peak_before else None

    def _peak(self) -> int:
        return int((jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


# --- networks ---


class JaxNetwork(NetworkWork):
    """A network as pure functions, each unit of work one call of a compiled one."""

    device: JaxDevice

    def __init__(self, case: Case, problem: Problem, device: JaxDevice) -> None:
        super().__init__(case, problem)
        self.device = device
        self.activation = find_activation(case.activation)
        self.weights: Arrays = {name: jnp.array(value) for name, value in problem.parameters.items()}
        self.state: Arrays = {name: jnp.array(value) for name, value in problem.state.items()}
        count = {"adam": 2, "sgd": 1}[case.optimizer] if case.mode in ("step", "epoch") else 0
        moments = tuple(jax.tree.map(jnp.zeros_like, self.weights) for _ in range(count))
        # What a step changes: parameters, running averages, moments, and how many steps there were.
        self.training: Any = self.weights, self.state, moments, jnp.zeros((), jnp.int32)
        self.generator = np.random.default_rng(0)
        self._infer = jax.jit(lambda weights, state, X: self._logits(weights, state, X, training=False)[0])
        self._gradients = jax.jit(self._loss_and_gradients, donate_argnums=1)
        self._train = jax.jit(self._step, donate_argnums=0)
        self._train_gathered = jax.jit(
            lambda training, X, y, index: self._step(training, X[index], y[index]), donate_argnums=0
        )

    def place(self, batches: list[tuple[Array, Array]]) -> list[tuple[Any, ...]]:
        return [(jnp.array(X), jnp.array(y)) for X, y in batches]

    def forward(self, X: jax.Array, y: jax.Array) -> jax.Array:
        """The logits in inference mode."""
        logits: jax.Array = self._infer(self.weights, self.state, X)
        self.device.submitted(logits, leaves_nothing=True)
        return logits

    def forward_backward(self, X: jax.Array, y: jax.Array) -> jax.Array:
        """Loss, gradients and running averages; the old averages are donated."""
        loss, self.latest_gradients, self.state = self._gradients(self.weights, self.state, X, y)
        self.device.submitted((loss, self.latest_gradients, self.state), leaves_nothing=not self.state)
        return loss

    def step(self, X: jax.Array, y: jax.Array) -> None:
        """One step; parameters, running averages, moments and the count of steps are donated."""
        self.training, _ = self._train(self.training, X, y)
        self.device.submitted(self.training, leaves_nothing=False)

    def epoch(self, X: Array, y: Array, shuffle: bool = True) -> float:
        """An epoch over arrays of the host: they go to the device, and each step gathers the rows of its batch there.

        NumPy draws the order; the losses are read at the end.
        """
        features, targets = jnp.asarray(X), jnp.asarray(y)
        order = np.arange(len(y), dtype=np.int32)
        if shuffle:
            self.generator.shuffle(order)
        indices = [order[start : start + self.case.rows] for start in range(0, len(order), self.case.rows)]
        losses = []
        for index in indices:
            self.training, loss = self._train_gathered(self.training, features, targets, index)
            losses.append(loss)
        self.device.submitted(self.training, leaves_nothing=False)
        return float(np.average(jax.device_get(losses), weights=[len(index) for index in indices]))

    def parameters(self) -> Mapping[str, Any]:
        weights: Arrays = self.training[0]
        return weights

    def gradients(self) -> Mapping[str, Any]:
        return self.latest_gradients

    def _logits(self, weights: Arrays, state: Arrays, X: jax.Array, training: bool) -> tuple[jax.Array, Arrays]:
        """Return the logits and, of training, new running averages."""
        averages: Arrays = {}
        for index in hidden_layers(self.case):
            s = X @ weights[f"W{index}"].T
            if not self.case.batch_norm:
                X = self.activation(s + weights[f"b{index}"])
                continue
            gamma, beta = weights[f"gamma{index}"], weights[f"beta{index}"]
            mean, variance = state[f"running_mean{index}"], state[f"running_variance{index}"]
            if training:
                z, averages[f"running_mean{index}"], averages[f"running_variance{index}"] = normalise(
                    s, gamma, beta, mean, variance
                )
            else:
                z = gamma * ((s - mean) * jax.lax.rsqrt(variance + BATCH_NORM_EPSILON)) + beta
            X = self.activation(z)
        last = len(self.case.sizes) - 1
        return X @ weights[f"W{last}"].T + weights[f"b{last}"], averages

    def _loss(self, weights: Arrays, state: Arrays, X: jax.Array, y: jax.Array) -> tuple[jax.Array, Arrays]:
        logits, state = self._logits(weights, state, X, training=True)
        return mean_cross_entropy(logits, y), state

    def _loss_and_gradients(self, weights: Arrays, state: Arrays, X: jax.Array, y: jax.Array) -> Any:
        (loss, state), gradients = jax.value_and_grad(self._loss, has_aux=True)(weights, state, X, y)
        return loss, gradients, state

    def _step(self, training: Any, X: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        weights, state, moments, count = training
        loss, gradients, state = self._loss_and_gradients(weights, state, X, y)
        count = count + 1
        weights, moments = _UPDATES[self.case.optimizer](weights, gradients, moments, count.astype(X.dtype))
        return (weights, state, moments, count), loss


# --- mathematics ---


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


def normalise(s: jax.Array, gamma: jax.Array, beta: jax.Array, *running: jax.Array) -> Any:
    """Return batch norm with the batch's biased variance, and the running averages, with the unbiased one."""
    mean, variance = s.mean(axis=0), s.var(axis=0)
    z = gamma * ((s - mean) * jax.lax.rsqrt(variance + BATCH_NORM_EPSILON)) + beta
    found = mean, variance * (s.shape[0] / (s.shape[0] - 1))
    averages = (
        (1 - BATCH_NORM_MOMENTUM) * old + BATCH_NORM_MOMENTUM * new for old, new in zip(running, found, strict=True)
    )
    return z, *averages


def mean_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean loss of a batch."""
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


def sgd(parameters: Any, gradients: Any, moments: Any, step: Any) -> tuple[Any, Any]:
    """Return parameters and velocity after a step."""
    velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, moments[0], gradients)
    return jax.tree.map(lambda p, v: p - LEARNING_RATE * v, parameters, velocity), (velocity,)


def adam(parameters: Any, gradients: Any, moments: Any, step: Any) -> tuple[Any, Any]:
    """Return parameters and moments after a step; ``step`` counts from 1."""
    first = jax.tree.map(lambda m, g: ADAM_BETA_1 * m + (1 - ADAM_BETA_1) * g, moments[0], gradients)
    second = jax.tree.map(lambda v, g: ADAM_BETA_2 * v + (1 - ADAM_BETA_2) * g * g, moments[1], gradients)
    rate = LEARNING_RATE / (1 - ADAM_BETA_1**step)
    correction = 1 / (1 - ADAM_BETA_2**step)
    parameters = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(correction * v) + ADAM_EPSILON), parameters, first, second
    )
    return parameters, (first, second)


_UPDATES: dict[str, Callable[[Any, Any, Any, Any], tuple[Any, Any]]] = {"sgd": sgd, "adam": adam}


# --- works ---


def build_work(case: Case, problem: Problem, platform: str) -> Work:
    """Return the work of a case."""
    device = JaxDevice(platform)
    if case.is_network:
        return JaxNetwork(case, problem, device)
    function, arguments, carried = _operation(case, {name: jnp.array(value) for name, value in problem.arrays.items()})
    compiled = jax.jit(function, donate_argnums=0)

    def unit() -> Arrays:
        nonlocal carried
        carried, results = compiled(carried, *arguments)
        device.submitted((carried, results), leaves_nothing=not carried)
        return results | carried

    work = OperationWork(unit, lambda results: results, as_host)
    work.device = device
    return work


def _operation(case: Case, arrays: Arrays) -> tuple[Callable[..., tuple[Arrays, Arrays]], list[Any], Arrays]:
    """Return a pure function of what earlier units left and of its other arguments, those, and what the first finds.

    It returns what it leaves, and what else it computed.
    """
    if case.operation == "copy":
        return lambda _, source: ({}, {"out": jnp.copy(source)}), [arrays["source"]], {}
    if case.operation == "gemm":
        return lambda _, a, b: ({}, {"out": a @ b.T}), [arrays["a"], arrays["b"]], {}
    if case.operation == "softmax_cross_entropy":

        def loss(_: Arrays, *batch: jax.Array) -> tuple[Arrays, Arrays]:
            return {}, dict(zip(("loss", "dlogits"), jax.value_and_grad(mean_cross_entropy)(*batch), strict=True))

        return loss, [arrays["logits"], arrays["labels"]], {}
    if case.operation.endswith("_step"):
        gradients = arrays.pop("gradients")
        names = [name for name in arrays if name != "parameters"]

        def update(changing: Arrays, gradients: jax.Array, step: jax.Array) -> tuple[Arrays, Arrays]:
            moments = [changing[name] for name in names]
            parameters, moments = _UPDATES[case.optimizer](changing["parameters"], gradients, moments, step)
            return {"parameters": parameters, **dict(zip(names, moments, strict=True))}, {}

        return update, [gradients, jnp.ones((), gradients.dtype)], arrays
    return _activation(case, arrays)


def _activation(case: Case, arrays: Arrays) -> tuple[Callable[..., tuple[Arrays, Arrays]], list[Any], Arrays]:
    activation = find_activation(case.activation)
    names, running = ["s", "bias"], Arrays()
    if case.operation == "batch_norm_activation":
        names, columns = ["s", "gamma", "beta"], case.sizes[-1]
        running = {"running_mean": jnp.zeros(columns, case.dtype), "running_variance": jnp.ones(columns, case.dtype)}
    inputs = [arrays[name] for name in names]

    def forward(running: Arrays, s: jax.Array, *others: jax.Array) -> tuple[Arrays, Arrays]:
        z, *averages = normalise(s, *others, *running.values()) if running else (s + others[0],)
        return dict(zip(running, averages, strict=True)), {"out": activation(z)}

    if case.mode == "forward":
        return forward, inputs, running
    _, pull_back = jax.vjp(lambda *values: forward(running, *values)[1]["out"], *inputs)

    def backward(_: Arrays, pull_back: Any, dy: jax.Array) -> tuple[Arrays, Arrays]:
        return {}, {f"d{name}": gradient for name, gradient in zip(names, pull_back(dy), strict=True)}

    return backward, [pull_back, arrays["dy"]], {}
