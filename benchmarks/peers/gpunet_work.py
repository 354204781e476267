"""Networks and single operations of gpunet, on any backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import gpunet
from benchmarks.peers.peer import Array, PeerNetwork, as_host
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
from gpunet.training.step import TrainingStep

# Does the work once; and the arrays that it writes, by their names.
Operation = tuple[Callable[[], object], dict[str, Array]]


class GpunetNetwork(PeerNetwork):
    """A ``gpunet.Network`` on a backend."""

    def __init__(self, backend: Backend, case: Case, problem: Problem) -> None:
        self.backend = backend
        self.case = case
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

    def place(self, batches: list[tuple[Array, Array]]) -> list[tuple[Any, ...]]:
        if self.case.mode != "step":
            return [(self.backend.asarray(X), self.backend.asarray(y)) for X, y in batches]
        X, y = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        self.data = DeviceData(self.network, X, y)
        self.optimizer.attach(self.backend, self.network.flat_parameters)
        self.training_step = self.new_step()
        return [(index,) for index in np.split(np.arange(len(X), dtype=np.int32), len(batches))]

    def new_step(self) -> TrainingStep:
        """Return the step of ``fit``, not yet recorded."""
        return TrainingStep(self.network, self.optimizer, self.data, self.case.rows, l2=0.0, clip_norm=None)

    def forward(self, X: Array, y: Array) -> Array:
        """``Network.forward`` in inference mode."""
        return self.network.forward(X)

    def forward_backward(self, X: Array, y: Array) -> Array:
        """``Network.forward`` in training mode, the loss, ``Network.backward``, operation by operation."""
        network = self.network
        network.backward(network.loss_layer(network.forward(X, training=True), y, None))
        return network.loss_layer.value[:1]

    def step(self, index: Array) -> None:
        """The step of ``fit``: it gathers the batch from the data set on the device, which the peers' steps are spared.

        On CUDA the second and later steps are one launch of a recorded graph.
        """
        self.training_step(index)

    def epoch(self, X: Array, y: Array, shuffle: bool = True) -> None:
        """``gpunet.fit(epochs=1)`` on arrays of the host: checks, copies, steps, a look at the result."""
        gpunet.fit(self.network, X, y, epochs=1, batch_size=self.case.rows, optimizer=self.optimizer, shuffle=shuffle)

    def unrecorded(self, *batch: Any) -> Callable[[], object]:
        """Return a unit of work that repeats no recorded step, for counting launches."""
        mode = self.case.mode
        return lambda: (self.new_step() if mode == "step" else getattr(self, mode))(*batch)

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
    operation = _BUILDERS[case.operation, case.mode](backend, case, arrays)
    backend.synchronize()  # arrays that this operation does not take go now, and not before they have been written
    return operation


def _copy(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    out = backend.empty(case.sizes[-1], case.dtype)
    return partial(backend.copy, arrays["source"], out), {"out": out}


def _gemm(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    out = backend.empty((case.rows, case.sizes[-1]), case.dtype)
    return partial(backend.gemm, arrays["a"], arrays["b"], out, transpose_b=True), {"out": out}


def _bias_activation(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    s, out = arrays["s"], backend.empty(arrays["s"].shape, case.dtype)
    return partial(backend.bias_activation_forward, s, arrays["bias"], _activation(case), out), {"out": out}


def _bias_activation_backward(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    forward, written = _bias_activation(backend, case, arrays)
    forward()
    dy, y = arrays["dy"], written["out"]
    ds, dbias = backend.empty(dy.shape, case.dtype), backend.empty(case.sizes[-1], case.dtype)
    run = partial(backend.bias_activation_backward, dy, y, _activation(case), ds, dbias)
    return run, {"ds": ds, "dbias": dbias}


def _batch_norm(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    columns = case.sizes[-1]
    written: dict[str, Any] = {
        "out": backend.empty(arrays["s"].shape, case.dtype),
        "mean": backend.empty(columns, case.dtype),
        "inverse_std": backend.empty(columns, case.dtype),
        "running_mean": backend.zeros(columns, case.dtype),
        "running_variance": backend.asarray(np.ones(columns, case.dtype)),
    }
    inputs = arrays["s"], arrays["gamma"], arrays["beta"], _activation(case)
    constants: dict[str, Any] = {"momentum": BATCH_NORM_MOMENTUM, "epsilon": BATCH_NORM_EPSILON}
    forward: Callable[..., None] = backend.batch_norm_activation_forward
    return partial(forward, *inputs, **written, **constants), written


def _batch_norm_forward(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    run, written = _batch_norm(backend, case, arrays)
    # Other libraries keep the batch's statistics to themselves.
    return run, {name: written[name] for name in ("out", "running_mean", "running_variance")}


def _batch_norm_backward(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    forward, kept = _batch_norm(backend, case, arrays)
    forward()
    inputs = arrays["dy"], arrays["s"], kept["out"], arrays["gamma"], arrays["beta"]
    written = {name: backend.empty(case.sizes[-1], case.dtype) for name in ("dgamma", "dbeta")}
    written["ds"] = backend.empty(arrays["dy"].shape, case.dtype)
    statistics = kept["mean"], kept["inverse_std"]
    return partial(backend.batch_norm_activation_backward, *inputs, _activation(case), *statistics, **written), written


def _softmax_cross_entropy(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    dlogits, loss = backend.empty(arrays["logits"].shape, case.dtype), backend.zeros(2, case.dtype)
    run = partial(backend.softmax_cross_entropy, arrays["logits"], arrays["labels"], None, dlogits, loss)
    return run, {"dlogits": dlogits, "loss": loss[:1]}


def _sgd_step(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    step = partial(backend.sgd_step, momentum=MOMENTUM, nesterov=False)
    return _step(step, backend, case, arrays, (LEARNING_RATE,))


def _adam_step(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    step = partial(backend.adam_step, beta_1=ADAM_BETA_1, beta_2=ADAM_BETA_2, epsilon=ADAM_EPSILON, weight_decay=0.0)
    return _step(step, backend, case, arrays, (LEARNING_RATE, 1 / (1 - ADAM_BETA_1), 1 / (1 - ADAM_BETA_2)))


def _step(
    step: Callable[..., None], backend: Backend, case: Case, arrays: dict[str, Array], scalars: tuple[float, ...]
) -> Operation:
    """Return the step on one flat vector of weights, with a finite loss and no clipping."""
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


def _activation(case: Case) -> Any:
    return get_activation(case.activation)


_BUILDERS: dict[tuple[str, str], Callable[[Backend, Case, dict[str, Array]], Operation]] = {
    ("copy", "forward"): _copy,
    ("gemm", "forward"): _gemm,
    ("bias_activation", "forward"): _bias_activation,
    ("bias_activation", "backward"): _bias_activation_backward,
    ("batch_norm_activation", "forward"): _batch_norm_forward,
    ("batch_norm_activation", "backward"): _batch_norm_backward,
    ("softmax_cross_entropy", "forward"): _softmax_cross_entropy,
    ("sgd_step", "forward"): _sgd_step,
    ("adam_step", "forward"): _adam_step,
}
