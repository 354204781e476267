"""Networks and single operations of gpunet, on any backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import gpunet
from benchmarks.peers.peer import Array, NetworkWork, as_host
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
from gpunet.backends import Backend
from gpunet.training.evaluation import DeviceData
from gpunet.training.step import TrainingSteps

# Does the work once; and the arrays that it writes, by their names.
Operation = tuple[Callable[[], object], dict[str, Array]]


class GpunetNetwork(NetworkWork):
    """A ``gpunet.Network`` on a backend."""

    def __init__(self, backend: Backend, case: Case, problem: Problem) -> None:
        self.backend = backend
        self.network = gpunet.Network(
            case.sizes,
            activation=case.activation,
            batch_norm=case.batch_norm,
            dtype=case.dtype,
            precision=case.precision if hasattr(backend, "device") else "float32",
            device=backend,
        )
        self.network.set_parameters(problem.parameters | problem.state)
        self.optimizer: gpunet.Optimizer = (
            gpunet.Adam(LEARNING_RATE) if case.optimizer == "adam" else gpunet.SGD(LEARNING_RATE, momentum=MOMENTUM)
        )
        super().__init__(case, problem)

    def place(self, batches: list[tuple[Array, Array]]) -> list[tuple[Any, ...]]:
        if self.case.mode != "step":
            return [(self.backend.asarray(X), self.backend.asarray(y)) for X, y in batches]
        X, y = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        self.data = DeviceData(self.network, X, y)
        self.optimizer.attach(self.backend, self.network.flat_parameters)
        self.sizes = [self.case.rows] * len(batches)
        self.training_steps = self.new_steps()
        return [(number,) for number in range(len(batches))]

    def new_steps(self) -> TrainingSteps:
        """Return the steps of ``fit``, not yet recorded, at the beginning of an epoch in the order of the data."""
        steps = TrainingSteps(self.network, self.optimizer, self.data, self.sizes, l2=0.0, clip_norm=None)
        steps.begin(np.arange(self.data.rows, dtype=np.int32))
        return steps

    def forward(self, X: Array, y: Array) -> Array:
        """``Network.forward`` in inference mode."""
        return self.network.forward(X)

    def forward_backward(self, X: Array, y: Array) -> Array:
        """``Network.forward`` in training mode, the loss, ``Network.backward``, operation by operation."""
        network = self.network
        network.differentiate(X, y, None)
        return network.loss_layer.value[:1]

    def step(self, number: int) -> None:
        """The step of ``fit``: it gathers the batch from the data set on the device, which the peers' steps are spared.

        On CUDA the second and later steps are one launch of a recorded graph, and an epoch of all batches begins with
        two small copies.
        """
        if number == 0:
            self.training_steps.begin(None)
        self.training_steps(number, number + 1)

    def epoch(self, X: Array, y: Array, shuffle: bool = True) -> None:
        """``gpunet.fit(epochs=1)`` on arrays of the host: checks, copies, steps, a look at the result."""
        gpunet.fit(self.network, X, y, epochs=1, batch_size=self.case.rows, optimizer=self.optimizer, shuffle=shuffle)

    def unrecorded(self) -> None:
        """Do a unit of work that repeats no recorded step, for counting launches."""
        if self.case.mode == "step":
            self.new_steps()(0, 1)
        else:
            self.unit(*self.batches[0])

    def parameters(self) -> Mapping[str, Any]:
        return self.network.parameters

    def gradients(self) -> Mapping[str, Any]:
        return self.network.gradients

    def to_host(self, value: Any) -> Array:
        return as_host(self.backend.to_numpy(value))


def build_operation(backend: Backend, case: Case, host: Mapping[str, Array]) -> Operation:
    """Return a function that calls the backend's method, and the arrays that it writes, by their names.

    ``out`` and ``ds`` are buffers of their own, so that every repetition finds the same inputs.
    """
    arrays = {name: backend.asarray(array.copy()) for name, array in host.items()}
    operation = _bind(backend, case, arrays)
    backend.synchronize()  # arrays that this operation does not take go now, and not before they have been written
    return operation


def _bind(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    def empty(*shape: int) -> Array:
        return backend.empty(shape, case.dtype)

    rows, columns, activation = case.rows, case.sizes[-1], get_activation(case.activation)
    if case.operation == "copy":
        out = empty(columns)
        return partial(backend.copy, arrays["source"], out), {"out": out}
    if case.operation == "gemm":
        out = empty(rows, columns)
        return partial(backend.gemm, arrays["a"], arrays["b"], out, transpose_b=True), {"out": out}
    if case.operation == "softmax_cross_entropy":
        dlogits, loss = empty(rows, columns), backend.zeros(2, case.dtype)
        run = partial(backend.softmax_cross_entropy, arrays["logits"], arrays["labels"], None, dlogits, loss)
        return run, {"dlogits": dlogits, "loss": loss[:1]}
    if case.operation.endswith("_step"):
        return _bind_step(backend, case, arrays)

    s, dy, gamma, beta = (arrays[name] for name in ("s", "dy", "gamma", "beta"))
    out = empty(rows, columns)
    if case.operation == "bias_activation":
        run = partial(backend.bias_activation_forward, s, arrays["bias"], activation, out)
        if case.mode == "forward":
            return run, {"out": out}
        run()
        ds, dbias = empty(rows, columns), empty(columns)
        return partial(backend.bias_activation_backward, dy, out, activation, ds, dbias), {"ds": ds, "dbias": dbias}
    ones = backend.asarray(np.ones(columns, case.dtype))
    running = {"running_mean": backend.zeros(columns, case.dtype), "running_variance": ones}
    statistics = {"mean": empty(columns), "inverse_std": empty(columns)}
    constants: dict[str, Any] = {"momentum": BATCH_NORM_MOMENTUM, "epsilon": BATCH_NORM_EPSILON}
    forward: Callable[..., None] = backend.batch_norm_activation_forward
    backward: Callable[..., None] = backend.batch_norm_activation_backward
    run = partial(forward, s, gamma, beta, activation, out=out, **statistics, **running, **constants)
    if case.mode == "forward":  # other libraries keep the batch's statistics to themselves
        return run, {"out": out, **running}
    run()
    written = {"ds": empty(rows, columns), "dgamma": empty(columns), "dbeta": empty(columns)}
    return partial(backward, dy, s, out, gamma, beta, activation, *statistics.values(), **written), written


def _bind_step(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    """Return an optimiser's first step on one flat vector of weights, with a finite loss and no clipping."""
    step: Callable[..., None] = partial(backend.sgd_step, momentum=MOMENTUM, nesterov=False)
    scalars = [LEARNING_RATE]
    if case.operation == "adam_step":
        scalars += [1 / (1 - ADAM_BETA_1), 1 / (1 - ADAM_BETA_2)]
        step = partial(
            backend.adam_step, beta_1=ADAM_BETA_1, beta_2=ADAM_BETA_2, epsilon=ADAM_EPSILON, weight_decay=0.0
        )
    run = partial(
        step,
        **arrays,
        weight_count=case.sizes[-1],
        scalars=backend.asarray(np.array(scalars, case.dtype)),
        clip=None,
        loss=backend.asarray(np.ones(2, case.dtype)),
        l2=0.0,
    )
    return run, {name: array for name, array in arrays.items() if name != "gradients"}
