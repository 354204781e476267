"""Batch normalisation and activation in parts, for a batch in shards: ``batch_norm_shards.cu``.

Tiles, chunks and blocks are those that ``batch_norm.cu`` would have for the rows of the shard: pure functions of shape,
type and device. So the same rows give the same bits in every process on such a device, wherever in a buffer they begin.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunet.activations import Activation
from gpunet.backends.arrays import Array
from gpunet.backends.cuda.activation import kernel_with
from gpunet.backends.cuda.batch_norm import (
    BatchNormPlan,
    DeviceLimits,
    plan_backward,
    plan_forward,
    plan_inference,
    vector_width,
)
from gpunet.backends.cuda.grids import THREADS, ceiling
from gpunet.backends.cuda.instantiation import (
    PARAMETER_TYPES,
    Variants,
    arithmetic_type,
    storage_type,
    widest_vector,
)
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher

MODULE = "batch_norm_shards"
WITH_ACTIVATION = ("batch_norm_apply", "batch_norm_sums", "batch_norm_input_gradient")


def statistics_group(storage: str) -> Group:
    """Return the kernels without activation for one storage type."""
    merge = (f"batch_norm_merge<{storage}>",) if storage in PARAMETER_TYPES else ()
    return (*(f"batch_norm_statistics<{storage}, {width}>" for width in _widths(storage)), *merge)


def _widths(storage: str) -> list[int]:
    return [width for width in (1, 2, 4, 8) if width <= widest_vector(storage)]


def expression(name: str, storage: str, width: int, activation: Activation) -> str:
    """Return the C++ name of a kernel with an activation."""
    return f"{name}<{storage}, {width}, {activation.cuda_name}>"


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that a check compiles together."""
    for storage in variants.storages:
        yield statistics_group(storage)
        for activation in variants.activations:
            names = itertools.product(WITH_ACTIVATION, _widths(storage))
            yield tuple(expression(name, storage, width, activation) for name, width in names)


def batch_norm_statistics(cuda: Launcher, s: Array, statistics: Array) -> None:
    """Launch :func:`gpunet.backends.reference.batch_norm.batch_norm_statistics`."""
    width, storage = vector_width(s.shape[1], s), storage_type(s.dtype)
    plan = plan_forward(*s.shape, s.itemsize, width, DeviceLimits.of(cuda.device, 1, cuda.tuning), "striped")
    kernel = cuda.kernels.get(MODULE, f"batch_norm_statistics<{storage}, {width}>", statistics_group(storage))
    _launch_chunks(cuda, kernel, plan, s, (s, statistics))


def batch_norm_merge(
    cuda: Launcher,
    statistics: Array,
    counts: Array,
    mean: Array,
    inverse_std: Array,
    running_mean: Array,
    running_variance: Array,
    momentum: float,
    epsilon: float,
) -> None:
    """Launch :func:`gpunet.backends.reference.batch_norm.batch_norm_merge`."""
    shards, _, columns = statistics.shape
    storage, number = storage_type(mean.dtype), arithmetic_type(mean.dtype)
    kernel = cuda.kernels.get(MODULE, f"batch_norm_merge<{storage}>", statistics_group(storage))
    vectors = (statistics, counts, mean, inverse_std, running_mean, running_variance)
    numbers = (np.int32(shards), np.int32(columns), number(momentum), number(epsilon))
    cuda.launch(kernel, ceiling(columns, THREADS), THREADS, (*vectors, *numbers))


def batch_norm_activation_apply(
    cuda: Launcher,
    s: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    out: Array,
    mean: Array,
    inverse_std: Array,
) -> None:
    """Launch :func:`gpunet.backends.reference.batch_norm.batch_norm_activation_apply`."""
    width = vector_width(s.shape[1], s, out)
    plan = plan_inference(*s.shape, s.itemsize, width, DeviceLimits.of(cuda.device, 1, cuda.tuning))
    kernel = _kernel(cuda, "batch_norm_apply", width, activation, s)
    sizes = map(np.int32, s.shape)
    arguments = (s, gamma, beta, mean, inverse_std, out, *sizes, arithmetic_type(s.dtype)(activation.parameter))
    cuda.launch(kernel, plan.grid, plan.block, arguments)


def batch_norm_activation_sums(
    cuda: Launcher,
    dy: Array,
    s: Array,
    y: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    mean: Array,
    inverse_std: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Launch :func:`gpunet.backends.reference.batch_norm.batch_norm_activation_sums`."""
    width = vector_width(s.shape[1], dy, s)
    plan = plan_backward(*s.shape, s.itemsize, width, DeviceLimits.of(cuda.device, 1, cuda.tuning), "striped")
    kernel = _kernel(cuda, "batch_norm_sums", width, activation, s)
    arguments = (dy, s, gamma, beta, mean, inverse_std, dgamma, dbeta)
    _launch_chunks(cuda, kernel, plan, s, arguments, arithmetic_type(s.dtype)(activation.parameter))


def batch_norm_activation_input_gradient(
    cuda: Launcher,
    dy: Array,
    s: Array,
    y: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    mean: Array,
    inverse_std: Array,
    dgamma: Array,
    dbeta: Array,
    ds: Array,
    *,
    rows: int,
) -> None:
    """Launch :func:`gpunet.backends.reference.batch_norm.batch_norm_activation_input_gradient`."""
    width = vector_width(s.shape[1], dy, s, ds)
    plan = plan_inference(*s.shape, s.itemsize, width, DeviceLimits.of(cuda.device, 1, cuda.tuning))
    kernel = _kernel(cuda, "batch_norm_input_gradient", width, activation, s)
    sizes = map(np.int32, (*s.shape, rows))
    arguments = (dy, s, gamma, beta, mean, inverse_std, dgamma, dbeta, ds, *sizes)
    cuda.launch(kernel, plan.grid, plan.block, (*arguments, arithmetic_type(s.dtype)(activation.parameter)))


def _kernel(cuda: Launcher, name: str, width: int, activation: Activation, s: Array) -> Any:
    chosen = expression(name, storage_type(s.dtype), width, activation)
    return kernel_with(cuda, activation, MODULE, chosen, (chosen,), s)


def _launch_chunks(
    cuda: Launcher, kernel: Any, plan: BatchNormPlan, s: Array, arguments: tuple[Any, ...], *more: Any
) -> None:
    """Launch a kernel with a block for each chunk of rows of each tile of columns, which one sweep over s has."""
    tiles = ceiling(s.shape[1], plan.tile_columns)
    partial = cuda.scratch("partial", (plan.partial_size,), arithmetic_type(s.dtype))
    sizes = (*map(np.int32, s.shape), np.int32(plan.parts))
    given = (*arguments, partial, cuda.zeroed_counters(tiles), *sizes, *more)
    cuda.launch(kernel, tiles * plan.parts, plan.block, given, shared_memory=plan.shared_bytes)
