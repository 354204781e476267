"""The optimisers' steps: ``optimizer.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, ceiling, flat_grid, flat_vector_width
from gpunet.backends.cuda.instantiation import PARAMETER_TYPES, Variants, arithmetic_type, storage_type, widest_vector
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher


def optimizer_group(parameter: str) -> Group:
    """Return the kernels for one type of parameters."""
    widths = (1, widest_vector(parameter))
    sgd = (f"sgd_step<{parameter}, {width}, {velocity}>" for width in widths for velocity in ("false", "true"))
    others = (f"{name}<{parameter}, {width}>" for width in widths for name in ("adam_step", "clip_factor"))
    return (*sgd, *others)


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return (optimizer_group(storage) for storage in variants.storages if storage in PARAMETER_TYPES)


def clip_factor(
    cuda: Launcher, parameters: Array, gradients: Array, weight_count: int, l2: float, maximum_norm: float, out: Array
) -> None:
    """Launch :func:`gpunet.backends.reference.optimizer.clip_factor`."""
    width = flat_vector_width(parameters, gradients)
    blocks = _grid(cuda, parameters, width, waves=1)
    sizes = _sizes(parameters, weight_count, l2)
    numbers = (arithmetic_type(parameters.dtype)(2 * l2), np.float64(maximum_norm))
    partial, counters = cuda.scratch("partial", (blocks,), np.float64), cuda.zeroed_counters(1)
    arguments = (parameters, gradients, *sizes, *numbers, out, partial, counters)
    cuda.launch(_kernel(cuda, "clip_factor", parameters, width), blocks, THREADS, arguments)


def sgd_step(
    cuda: Launcher,
    parameters: Array,
    gradients: Array,
    velocity: Array | None,
    weight_count: int,
    scalars: Array,
    clip: Array | None,
    loss: Array,
    *,
    l2: float,
    momentum: float,
    nesterov: bool,
) -> None:
    """Launch :func:`gpunet.backends.reference.optimizer.sgd_step`."""
    moments = [] if velocity is None else [velocity]
    width = flat_vector_width(parameters, gradients, *moments)
    sizes = _sizes(parameters, weight_count, l2)
    numbers = map(arithmetic_type(parameters.dtype), (2 * l2, momentum))
    arguments = (parameters, gradients, velocity, *sizes, scalars, clip, loss, *numbers, np.int32(nesterov))
    kernel = _kernel(cuda, "sgd_step", parameters, width, str(velocity is not None).lower())
    cuda.launch(kernel, _grid(cuda, parameters, width, cuda.tuning.streaming_waves), THREADS, arguments)


def adam_step(
    cuda: Launcher,
    parameters: Array,
    gradients: Array,
    first_moment: Array,
    second_moment: Array,
    weight_count: int,
    scalars: Array,
    clip: Array | None,
    loss: Array,
    *,
    l2: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    """Launch :func:`gpunet.backends.reference.optimizer.adam_step`."""
    width = flat_vector_width(parameters, gradients, first_moment, second_moment)
    sizes = _sizes(parameters, weight_count, l2 or weight_decay)
    numbers = (2 * l2, beta_1, beta_2, 1 - beta_1, 1 - beta_2, epsilon, weight_decay)
    rounded = map(arithmetic_type(parameters.dtype), numbers)
    arguments = (parameters, gradients, first_moment, second_moment, *sizes, scalars, clip, loss, *rounded)
    kernel = _kernel(cuda, "adam_step", parameters, width)
    cuda.launch(kernel, _grid(cuda, parameters, width, cuda.tuning.streaming_waves), THREADS, arguments)


def _sizes(parameters: Array, weight_count: int, shrinking: float) -> tuple[np.int64, np.int64]:
    """Return the number of parameters, and of those that shrink: none by 0, which times infinity would be NaN."""
    return np.int64(parameters.size), np.int64(weight_count if shrinking else 0)


def _kernel(cuda: Launcher, name: str, parameters: Array, width: int, *more: str) -> Any:
    storage = storage_type(parameters.dtype)
    arguments = ", ".join((storage, str(width), *more))
    return cuda.kernels.get("optimizer", f"{name}<{arguments}>", optimizer_group(storage))


def _grid(cuda: Launcher, parameters: Array, width: int, waves: int) -> int:
    return flat_grid(ceiling(parameters.size, width), cuda.device, waves)
