"""Operations with random bits on CUDA: ``dropout.cu``, ``bernoulli.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.backends import kernel_library as library
from gpunet.backends import launch_plans as plans
from gpunet.backends.arrays import Array
from gpunet.backends.cuda_arrays import CudaArrays
from gpunet.backends.devices.device import Argument
from gpunet.random import dropout_threshold


class CudaStochastic(CudaArrays):
    """Dropout and sampling; :class:`gpunet.backends.stochastic.StochasticOperations` specifies them."""

    def dropout_forward(
        self, x: Array, out: Array, mask: Array, rate: float, seed: int, layer: int, step: Array
    ) -> None:
        kernel, grid = self._dropout_kernel("dropout_forward", x, out, mask)
        scale = library.arithmetic_type(x.dtype)(1 / (1 - rate))
        numbers = (np.int64(x.size), np.uint32(dropout_threshold(rate)), scale)
        self._launch(kernel, grid, plans.THREADS, (x, out, mask, *numbers, *_key(seed, layer), step))

    def dropout_backward(self, dy: Array, mask: Array, rate: float, dx: Array) -> None:
        kernel, grid = self._dropout_kernel("dropout_backward", dy, dx, mask)
        scale = library.arithmetic_type(dy.dtype)(1 / (1 - rate))
        self._launch(kernel, grid, plans.THREADS, (dy, mask, dx, np.int64(dy.size), scale))

    def _dropout_kernel(self, name: str, source: Array, out: Array, mask: Array) -> tuple[Any, int]:
        aligned = plans.is_aligned(plans.WIDEST_ACCESS, source, out) and plans.is_aligned(4, mask)
        storage = library.storage_type(source.dtype)
        kernel = self._kernels.get(
            "dropout", f"{name}<{storage}, {str(aligned).lower()}>", library.dropout_group(storage)
        )
        return kernel, self._quad_grid(source)

    def sample_bernoulli(self, probabilities: Array, out: Array, seed: int, layer: int, step: Array) -> None:
        aligned = plans.is_aligned(plans.WIDEST_ACCESS, probabilities, out)
        storage = library.storage_type(out.dtype)
        kernel = self._kernels.get(
            "bernoulli", f"sample_bernoulli<{storage}, {str(aligned).lower()}>", library.bernoulli_group(storage)
        )
        arguments = (probabilities, out, np.int64(out.size), *_key(seed, layer), step)
        self._launch(kernel, self._quad_grid(out), plans.THREADS, arguments)

    def _quad_grid(self, array: Array) -> int:
        """Return the blocks for one thread per four elements."""
        return plans.flat_grid(plans.ceiling(array.size, 4), self.device.multiprocessor_count, plans.STREAMING_WAVES)


def _key(seed: int, layer: int) -> tuple[Argument, ...]:
    """Return seed (two words) and layer as the kernels take them."""
    return np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32), np.uint32(layer)
