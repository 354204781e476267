"""The losses on CUDA: ``softmax_cross_entropy.cu``, ``sigmoid_cross_entropy.cu``, ``squared_error.cu``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpunet.backends import kernel_library as library
from gpunet.backends import launch_plans as plans
from gpunet.backends.arrays import Array
from gpunet.backends.cuda_arrays import CudaArrays

SOFTMAX_LANES_THREADS = 128
SOFTMAX_BLOCK_THREADS = 512
TOTAL_WEIGHT_THREADS = 1024
# What softmax_cross_entropy_block has of static shared memory, and what the driver keeps of each block's.
SOFTMAX_RESERVED_BYTES = 2048


class CudaLosses(CudaArrays):
    """Operations of the losses; :class:`gpunet.backends.losses.LossOperations` specifies them."""

    def softmax_cross_entropy(
        self, logits: Array, labels: Array, weights: Array | None, dlogits: Array, loss: Array
    ) -> None:
        rows, columns = logits.shape
        storage, number = library.storage_type(logits.dtype), library.arithmetic_type(logits.dtype)
        group = library.softmax_cross_entropy_group(storage)
        self._write_total_weight("softmax_cross_entropy", group, weights, loss)
        shared_memory = 0
        shape = next((shape for shape in library.SOFTMAX_SHAPES if columns <= shape[0] * shape[1]), None)
        if shape is not None:
            expression = f"softmax_cross_entropy_lanes<{storage}, {shape[0]}, {shape[1]}>"
            threads, items = SOFTMAX_LANES_THREADS, rows * shape[0]
        else:
            row_bytes = columns * np.dtype(number).itemsize
            staged = row_bytes + SOFTMAX_RESERVED_BYTES <= self.device.shared_memory_per_block
            shared_memory = row_bytes if staged else 0
            expression = f"softmax_cross_entropy_block<{storage}, {str(staged).lower()}>"
            threads, items = SOFTMAX_BLOCK_THREADS, rows * SOFTMAX_BLOCK_THREADS
        blocks = plans.flat_grid(items, self.device.multiprocessor_count, threads=threads)
        self._launch(
            self._kernels.get("softmax_cross_entropy", expression, group),
            blocks,
            threads,
            (
                logits,
                labels,
                weights,
                dlogits,
                loss,
                self.scratch("partial", (blocks,), number),
                self._zeroed_counters(1),
                np.int32(rows),
                np.int32(columns),
            ),
            shared_memory=shared_memory,
        )

    def sigmoid_cross_entropy(
        self, outputs: Array, targets: Array, weights: Array | None, gradient: Array, loss: Array
    ) -> None:
        self._elementwise_loss(
            "sigmoid_cross_entropy", library.sigmoid_cross_entropy_group, outputs, targets, weights, gradient, loss
        )

    def squared_error(
        self, outputs: Array, targets: Array, weights: Array | None, doutputs: Array, loss: Array
    ) -> None:
        self._elementwise_loss("squared_error", library.squared_error_group, outputs, targets, weights, doutputs, loss)

    def _elementwise_loss(
        self,
        name: str,
        group_of: Callable[[str], library.Group],
        outputs: Array,
        targets: Array,
        weights: Array | None,
        gradient: Array,
        loss: Array,
    ) -> None:
        """Launch a loss whose elements do not depend on one another; module and kernel have one name."""
        rows, columns = outputs.shape
        storage, number = library.storage_type(outputs.dtype), library.arithmetic_type(outputs.dtype)
        group = group_of(storage)
        self._write_total_weight(name, group, weights, loss)
        blocks = plans.flat_grid(outputs.size, self.device.multiprocessor_count)
        self._launch(
            self._kernels.get(name, f"{name}<{storage}>", group),
            blocks,
            plans.THREADS,
            (
                outputs,
                targets,
                weights,
                gradient,
                loss,
                self.scratch("partial", (blocks,), number),
                self._zeroed_counters(1),
                np.int32(rows),
                np.int32(columns),
            ),
        )

    def _write_total_weight(self, module: str, group: library.Group, weights: Array | None, loss: Array) -> None:
        if weights is not None:
            kernel = self._kernels.get(module, next(name for name in group if name.startswith("total_weight")), group)
            self._launch(kernel, 1, TOTAL_WEIGHT_THREADS, (weights, loss, np.int32(weights.size)))
