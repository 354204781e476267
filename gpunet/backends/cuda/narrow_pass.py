"""Forward and backward pass of a narrow network in one launch: ``narrow_pass.cu``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpunet.activations import Activation
from gpunet.backends.arrays import Array
from gpunet.backends.cuda.activation import kernel_with
from gpunet.backends.cuda.grids import THREADS, ceiling
from gpunet.backends.cuda.instantiation import Variants
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.narrow_stack import NarrowStack

# As in narrow_pass.cu: units of a layer, and rows of a block, at most.
SIDE = 64
TILE_BYTES = 4 * SIDE * SIDE


def narrow_pass_group(activation: Activation, batch_norm: bool) -> Group:
    """Return the kernel for one activation, alone: it takes seconds to compile."""
    return (f"narrow_pass<float, {activation.cuda_name}, {str(batch_norm).lower()}>",)


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    activations = variants.activations if "float" in variants.storages else ()
    return (narrow_pass_group(activation, batch_norm) for activation in activations for batch_norm in (False, True))


def shared_bytes(depth: int) -> int:
    """Return the shared memory of a block: X, W, Y, dS and every S; statistics of every S, and sums over blocks."""
    return (depth + 3) * TILE_BYTES + 4 * SIDE * 2 * depth


def fits(cuda: Launcher, stack: NarrowStack, rows: int) -> bool:
    """Return whether a batch's pass can be one launch: all of it is on the device's multiprocessors at once."""
    return (
        all(max(layer.inputs, layer.outputs) <= SIDE for layer in stack.layers)
        and ceiling(rows, SIDE) <= cuda.device.multiprocessor_count
        and shared_bytes(len(stack.layers)) <= cuda.device.shared_memory_per_block
        and stack.activation.cuda_forward is not None
    )


def narrow_pass(
    cuda: Launcher,
    x: Array,
    labels: Array,
    stack: NarrowStack,
    parameters: Array,
    state: Array,
    gradients: Array,
    loss: Array,
) -> None:
    """Launch :func:`gpunet.backends.reference.narrow_pass.narrow_pass`; float32, and only where :func:`fits`."""
    rows, depth, count = len(x), len(stack.layers), parameters.size
    blocks = ceiling(rows, SIDE)
    group = narrow_pass_group(stack.activation, stack.batch_norm)
    kernel = kernel_with(cuda, stack.activation, "narrow_pass", group[0], group, x)
    sizes = (np.int32(rows), np.int32(depth), np.int32(count))
    numbers = map(np.float32, (stack.momentum, stack.epsilon, stack.activation.parameter))
    cuda.launch(
        kernel,
        (1, blocks),
        THREADS,
        (
            x,
            labels,
            cuda.table(stack.layers),
            parameters,
            state,
            gradients,
            loss,
            cuda.scratch("partial", (blocks, count + 1), np.float32),
            cuda.scratch("moments", (depth, 2, blocks, SIDE), np.float32),
            cuda.zeroed_counters(2 * depth - 1),
            *sizes,
            *numbers,
        ),
        shared_memory=shared_bytes(depth),
        cooperative=True,
    )
