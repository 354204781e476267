"""What training keeps track of on the device: ``training.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, ceiling, flat_grid, flat_vector_width
from gpunet.backends.cuda.instantiation import PARAMETER_TYPES, Variants, arithmetic_type, storage_type, widest_vector
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.reference.training import Tally

_FLAT = ("keep_weights", "summarize", "accumulate_gradients", "average_weights")


def training_group(parameter: str) -> Group:
    """Return the kernels for one type of parameters."""
    widths = (1, widest_vector(parameter))
    flat = (f"{name}<{parameter}, {width}>" for width in widths for name in _FLAT)
    return (f"count_step<{parameter}>", *flat)


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return (training_group(storage) for storage in variants.storages if storage in PARAMETER_TYPES)


def step_count(tally: Tally | None) -> tuple[Array | np.int32 | None, ...]:
    """Return the arguments of a kernel that counts a step, as ``step_count.cuh`` has them."""
    if tally is None:
        return (*[None] * len(Tally._fields), np.int32(0))
    return (*tally, np.int32(tally.scalars.size))


def count_step(
    cuda: Launcher,
    loss: Array,
    losses: Array,
    table: Array,
    scalars: Array,
    place: Array,
    steps: Array,
    *,
    rows: int,
    skipped: Array | None = None,
) -> None:
    """Launch :func:`gpunet.backends.reference.training.count_step`."""
    arguments = (loss, np.int32(rows), *step_count(Tally(losses, table, scalars, place, steps, skipped)))
    cuda.launch(_kernel(cuda, "count_step", loss), 1, 1, arguments)


def keep_weights(cuda: Launcher, source: Array, kept: Array, losses: Array, place: Array, *, every: int) -> None:
    """Launch :func:`gpunet.backends.reference.training.keep_weights`."""
    width = flat_vector_width(source, kept, kept[1])
    arguments = (source, kept, losses, place, np.int64(source.size), np.int32(every))
    grid = flat_grid(ceiling(source.size, width), cuda.device, cuda.tuning.streaming_waves)
    cuda.launch(_kernel(cuda, "keep_weights", source, width), grid, THREADS, arguments)


def summarize(cuda: Launcher, vector: Array, out: Array, *, weight_count: int) -> None:
    """Launch :func:`gpunet.backends.reference.training.summarize`."""
    width = flat_vector_width(vector)
    blocks = flat_grid(ceiling(vector.size, width), cuda.device)
    partial, counters = cuda.scratch("partial", (2 * blocks,), np.float64), cuda.zeroed_counters(1)
    arguments = (vector, np.int64(vector.size), np.int64(weight_count), out, partial, counters)
    cuda.launch(_kernel(cuda, "summarize", vector, width), blocks, THREADS, arguments)


def accumulate_gradients(
    cuda: Launcher, gradients: Array, accumulated: Array, loss: Array, mean: Array, *, is_first: bool, is_last: bool
) -> None:
    """Launch :func:`gpunet.backends.reference.training.accumulate_gradients`."""
    width = flat_vector_width(gradients, accumulated)
    numbers = np.int32(is_first), np.int32(is_last)
    arguments = (gradients, accumulated, np.int64(gradients.size), loss, mean, *numbers, cuda.zeroed_counters(1))
    grid = flat_grid(ceiling(gradients.size, width), cuda.device)
    cuda.launch(_kernel(cuda, "accumulate_gradients", gradients, width), grid, THREADS, arguments)


def average_weights(
    cuda: Launcher,
    parameters: Array,
    averaged_parameters: Array,
    state: Array,
    averaged_state: Array,
    updates: Array,
    loss: Array,
    *,
    decay: float,
) -> None:
    """Launch :func:`gpunet.backends.reference.training.average_weights`."""
    vectors = [parameters, averaged_parameters, *((state, averaged_state) if state.size else ())]
    width = flat_vector_width(*vectors)
    arguments = (
        *(parameters, averaged_parameters, np.int64(parameters.size)),
        *((state, averaged_state) if state.size else (None, None)),
        *(np.int64(state.size), updates, loss, arithmetic_type(parameters.dtype)(1 - decay), cuda.zeroed_counters(1)),
    )
    grid = flat_grid(ceiling(max(parameters.size, state.size), width), cuda.device)
    cuda.launch(_kernel(cuda, "average_weights", parameters, width), grid, THREADS, arguments)


def _kernel(cuda: Launcher, name: str, vector: Array, *width: int) -> Any:
    storage = storage_type(vector.dtype)
    return cuda.kernels.get("training", f"{name}<{', '.join((storage, *map(str, width)))}>", training_group(storage))
