"""The optimisers on CUDA: ``optimizer.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.backends import kernel_library as library
from gpunet.backends import launch_plans as plans
from gpunet.backends.arrays import Array
from gpunet.backends.cuda_arrays import CudaArrays


class CudaUpdates(CudaArrays):
    """Operations of the optimisers; :class:`gpunet.backends.updates.UpdateOperations` specifies them."""

    def clip_factor(
        self, parameters: Array, gradients: Array, weight_count: int, l2: float, maximum_norm: float, out: Array
    ) -> None:
        width = plans.flat_vector_width(parameters, gradients)
        blocks = self._optimizer_grid(parameters, width, waves=1)
        self._launch(
            self._optimizer_kernel("clip_factor", parameters, width),
            blocks,
            plans.THREADS,
            (
                parameters,
                gradients,
                np.int64(parameters.size),
                np.int64(weight_count),
                library.arithmetic_type(parameters.dtype)(2 * l2),
                np.float64(maximum_norm),
                out,
                self.scratch("partial", (blocks,), np.float64),
                self._zeroed_counters(1),
            ),
        )

    def sgd_step(
        self,
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
        moments = [] if velocity is None else [velocity]
        width = plans.flat_vector_width(parameters, gradients, *moments)
        number = library.arithmetic_type(parameters.dtype)
        self._launch(
            self._optimizer_kernel("sgd_step", parameters, width, str(velocity is not None).lower()),
            self._optimizer_grid(parameters, width, plans.STREAMING_WAVES),
            plans.THREADS,
            (
                parameters,
                gradients,
                velocity,
                np.int64(parameters.size),
                np.int64(weight_count),
                scalars,
                clip,
                loss,
                number(2 * l2),
                number(momentum),
                np.int32(nesterov),
            ),
        )

    def adam_step(
        self,
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
        width = plans.flat_vector_width(parameters, gradients, first_moment, second_moment)
        numbers = (2 * l2, beta_1, beta_2, 1 - beta_1, 1 - beta_2, epsilon, weight_decay)
        self._launch(
            self._optimizer_kernel("adam_step", parameters, width),
            self._optimizer_grid(parameters, width, plans.STREAMING_WAVES),
            plans.THREADS,
            (
                parameters,
                gradients,
                first_moment,
                second_moment,
                np.int64(parameters.size),
                np.int64(weight_count),
                scalars,
                clip,
                loss,
                *map(library.arithmetic_type(parameters.dtype), numbers),
            ),
        )

    def _optimizer_kernel(self, name: str, parameters: Array, width: int, *more: str) -> Any:
        storage = library.storage_type(parameters.dtype)
        arguments = ", ".join((storage, str(width), *more))
        return self._kernels.get("optimizer", f"{name}<{arguments}>", library.optimizer_group(storage))

    def _optimizer_grid(self, parameters: Array, width: int, waves: int) -> int:
        packs = plans.ceiling(parameters.size, width)
        return plans.flat_grid(packs, self.device.multiprocessor_count, waves)
