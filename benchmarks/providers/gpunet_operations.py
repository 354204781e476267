"""Single operations of a gpunet backend, on arrays that were allocated before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cases import Case
from benchmarks.problem import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, LEARNING_RATE, MOMENTUM
from benchmarks.providers.common import ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON
from gpunet.activations import get_activation
from gpunet.backends import Backend

Array = npt.NDArray[Any]
Operation = tuple[Callable[[], None], dict[str, Array]]


def build_operation(backend: Backend, case: Case, host: Mapping[str, Array]) -> Operation:
    """Return a function that calls the backend's method, and the arrays that it writes, by their names.

    ``out`` and ``ds`` are buffers of their own, so that every repetition finds the same inputs.
    """
    arrays = {name: backend.asarray(array.copy()) for name, array in host.items()}
    build = _BACKWARD if case.mode == "backward" else _FORWARD
    operation = build[case.operation](backend, case, arrays)
    backend.synchronize()  # arrays that this operation does not take go now, and not before they have been written
    return operation


def _gemm(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    out = backend.empty((case.rows, case.sizes[-1]), case.dtype)
    return partial(backend.gemm, arrays["a"], arrays["b"], out, transpose_b=True), {"out": out}


def _bias_activation(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    s, out = arrays["s"], backend.empty(arrays["s"].shape, case.dtype)
    activation = get_activation(case.activation)
    return partial(backend.bias_activation_forward, s, arrays["bias"], activation, out), {"out": out}


def _bias_activation_backward(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    forward, written = _bias_activation(backend, case, arrays)
    forward()
    dy, y = arrays["dy"], written["out"]
    ds, dbias = backend.empty(dy.shape, case.dtype), backend.empty(case.sizes[-1], case.dtype)
    activation = get_activation(case.activation)
    run = partial(backend.bias_activation_backward, dy, y, activation, ds, dbias)
    return run, {"ds": ds, "dbias": dbias}


def _batch_norm(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    columns = case.sizes[-1]
    written = {
        "out": backend.empty(arrays["s"].shape, case.dtype),
        "mean": backend.empty(columns, case.dtype),
        "inverse_std": backend.empty(columns, case.dtype),
        "running_mean": backend.zeros(columns, case.dtype),
        "running_variance": backend.asarray(np.ones(columns, case.dtype)),
    }
    run = partial(
        backend.batch_norm_activation_forward,
        arrays["s"],
        arrays["gamma"],
        arrays["beta"],
        get_activation(case.activation),
        **written,
        momentum=BATCH_NORM_MOMENTUM,
        epsilon=BATCH_NORM_EPSILON,
    )
    return run, written


def _batch_norm_forward(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    run, written = _batch_norm(backend, case, arrays)
    # Other libraries keep the batch's statistics to themselves.
    return run, {name: written[name] for name in ("out", "running_mean", "running_variance")}


def _batch_norm_backward(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    forward, statistics = _batch_norm(backend, case, arrays)
    forward()
    written = {
        "ds": backend.empty(arrays["dy"].shape, case.dtype),
        "dgamma": backend.empty(case.sizes[-1], case.dtype),
        "dbeta": backend.empty(case.sizes[-1], case.dtype),
    }
    run = partial(
        backend.batch_norm_activation_backward,
        arrays["dy"],
        arrays["s"],
        statistics["out"],
        arrays["gamma"],
        arrays["beta"],
        get_activation(case.activation),
        statistics["mean"],
        statistics["inverse_std"],
        **written,
    )
    return run, written


def _softmax_cross_entropy(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    dlogits, loss = backend.empty(arrays["logits"].shape, case.dtype), backend.zeros(2, case.dtype)
    run = partial(backend.softmax_cross_entropy, arrays["logits"], arrays["labels"], None, dlogits, loss)
    return run, {"dlogits": dlogits, "loss": loss[:1]}


def _sgd_step(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    scalars = backend.asarray(np.array([LEARNING_RATE], case.dtype))
    return _step(partial(backend.sgd_step, momentum=MOMENTUM, nesterov=False), backend, case, arrays, scalars)


def _adam_step(backend: Backend, case: Case, arrays: dict[str, Array]) -> Operation:
    first = (LEARNING_RATE, 1 / (1 - ADAM_BETA_1), 1 / (1 - ADAM_BETA_2))
    scalars = backend.asarray(np.array(first, case.dtype))
    step = partial(backend.adam_step, beta_1=ADAM_BETA_1, beta_2=ADAM_BETA_2, epsilon=ADAM_EPSILON, weight_decay=0.0)
    return _step(step, backend, case, arrays, scalars)


def _step(
    step: Callable[..., None], backend: Backend, case: Case, arrays: dict[str, Array], scalars: Array
) -> Operation:
    """Return the step on one flat vector of weights, with a finite loss and no clipping."""
    loss = backend.asarray(np.ones(2, case.dtype))
    run = partial(step, **arrays, weight_count=case.sizes[-1], scalars=scalars, clip=None, loss=loss, l2=0.0)
    return run, {name: array for name, array in arrays.items() if name != "gradients"}


_FORWARD: dict[str, Callable[[Backend, Case, dict[str, Array]], Operation]] = {
    "gemm": _gemm,
    "bias_activation": _bias_activation,
    "batch_norm_activation": _batch_norm_forward,
    "softmax_cross_entropy": _softmax_cross_entropy,
    "sgd_step": _sgd_step,
    "adam_step": _adam_step,
}
_BACKWARD: dict[str, Callable[[Backend, Case, dict[str, Array]], Operation]] = {
    "bias_activation": _bias_activation_backward,
    "batch_norm_activation": _batch_norm_backward,
}
