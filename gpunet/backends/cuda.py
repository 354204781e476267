"""The CUDA backend: which kernel runs each operation, on which grid, with which arguments.

The kernels are in the package :mod:`gpunet.kernels`; each file says what its threads do and how many bytes they move.
Everything that touches the hardware is behind :class:`~gpunet.backends.devices.device.Device`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation, Identity
from gpunet.backends import kernel_library as library
from gpunet.backends import launch_plans as plans
from gpunet.backends.arrays import Array
from gpunet.backends.base import Backend
from gpunet.backends.batch_norm_plan import (
    BatchNormPlan,
    DeviceLimits,
    plan_backward,
    plan_forward,
    plan_inference,
    vector_width,
)
from gpunet.backends.devices.device import NULL, Argument, Device, Dimensions, Replay
from gpunet.random import dropout_threshold

# How often the blocks of an element-wise kernel fill the device: few long-lived blocks would all end at once.
STREAMING_WAVES = 4
SOFTMAX_LANES_THREADS = 128
SOFTMAX_BLOCK_THREADS = 512
TOTAL_WEIGHT_THREADS = 1024
# What softmax_cross_entropy_block has of static shared memory, and what the driver keeps of each block's.
SOFTMAX_RESERVED_BYTES = 2048


class CudaBackend(Backend):
    """Runs every operation with the CUDA kernels, on the stream of one device.

    Operations return before the device has done them; they run in the order of the calls. The first use of an
    operation compiles its kernels. Like every backend it belongs to one network and one thread.

    Parameters
    ----------
    device : Device
        :class:`~gpunet.backends.devices.cupy.CupyDevice`, or another with the same methods.
    precision : str
        ``"float32"``, or ``"tf32"`` to multiply float32 matrices on the tensor cores, which round the factors to 10
        bits of mantissa.

    Attributes
    ----------
    device : Device
    precision : str
    """

    name = "cuda"
    synchronous = False

    def __init__(self, device: Device, precision: str = "float32") -> None:
        super().__init__()
        self.device = device
        self.precision = precision
        self._limits = DeviceLimits.of(device)
        self._kernels = library.KernelLibrary(device)
        self._counters: Array | None = None
        self._held: list[Array] | None = None

    @property
    def device_name(self) -> str:
        return self.device.name

    # --- arrays ---------------------------------------------------------------------------------------------------

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        return self.device.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        return self.device.zeros(shape, dtype)

    def asarray(self, array: Array) -> Array:
        return self.device.asarray(array)

    def to_numpy(self, array: Array) -> Array:
        return self.device.to_numpy(array)

    def copy(self, source: Array, destination: Array) -> None:
        if isinstance(source, np.ndarray) and not source.flags.c_contiguous:
            source = np.ascontiguousarray(source)
        self._hold(source, destination)
        self.device.copy(destination, source)

    def synchronize(self) -> None:
        self.device.synchronize()

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return a callable that repeats ``step`` by one launch of a recorded graph.

        The recording holds the arrays that ``step`` used, scratch buffers included: a later and larger batch may
        replace those, and the graph goes on with its own.
        """
        held: list[Array] = []
        self._held = held
        try:
            replay = self.device.capture(step)
        finally:
            self._held = None
        return _Recording(replay, held)

    # --- launching ------------------------------------------------------------------------------------------------

    def _launch(
        self,
        kernel: Any,
        grid: Dimensions,
        block: Dimensions,
        args: Sequence[Argument | None],
        shared_memory: int = 0,
        cluster: Dimensions | None = None,
    ) -> None:
        """Launch a kernel; None stands for a null pointer."""
        arguments = [NULL if argument is None else argument for argument in args]
        self._hold(*(argument for argument in args if argument is not None and not isinstance(argument, np.generic)))
        self.device.launch(kernel, grid, block, arguments, shared_memory=shared_memory, cluster=cluster)

    def _hold(self, *arrays: Array) -> None:
        """Keep arrays alive with the recording that is being made, if one is."""
        if self._held is not None:
            self._held.extend(arrays)

    def _zeroed_counters(self, count: int) -> Array:
        """Return words of device memory that are 0, and that every kernel leaves 0."""
        if self._counters is None or self._counters.size < count:
            self._counters = self.zeros(plans.power_of_two(max(count, 64)), np.uint32)
        return self._counters

    # --- linear layer (L1) ------------------------------------------------------------------------------------------

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
    ) -> None:
        self._hold(a, b, out)
        self.device.gemm(a, b, out, transpose_a, transpose_b, accumulate, self.precision)

    # --- bias and activation (L1, L3) -------------------------------------------------------------------------------

    def bias_activation_forward(self, s: Array, bias: Array | None, activation: Activation, out: Array) -> None:
        if bias is None and out is s and isinstance(activation, Identity):
            return
        width = plans.vector_width(s.shape[1], s, out)
        kernel = self._activation_kernel("bias_activation_forward", s, activation, width)
        rows, columns = s.shape
        tiles = plans.column_tiles(rows, columns, width, self.device.multiprocessor_count)
        number = library.arithmetic_type(s.dtype)
        self._launch(
            kernel,
            tiles.grid,
            tiles.block,
            (s, bias, out, np.int32(rows), np.int32(columns), number(activation.parameter)),
        )

    def bias_activation_backward(
        self, dy: Array, y: Array, activation: Activation, ds: Array, dbias: Array | None
    ) -> None:
        width = plans.vector_width(y.shape[1], dy, y, ds)
        kernel = self._activation_kernel("bias_activation_backward", y, activation, width)
        rows, columns = y.shape
        tiles = plans.column_tiles(rows, columns, width, self.device.multiprocessor_count)
        number = library.arithmetic_type(y.dtype)
        partial = counters = None
        if dbias is not None and tiles.grid[1] > 1:
            partial = self.scratch("partial", (tiles.grid[1], columns), number)
            counters = self._zeroed_counters(tiles.grid[0])
        self._launch(
            kernel,
            tiles.grid,
            tiles.block,
            (
                dy,
                y,
                ds,
                dbias,
                partial,
                counters,
                np.int32(rows),
                np.int32(columns),
                number(activation.parameter),
            ),
        )

    def _activation_kernel(self, name: str, matrix: Array, activation: Activation, width: int) -> Any:
        storage, code = library.storage_type(matrix.dtype), library.activation_code(activation)
        group = library.activation_group(storage, code)
        return self._kernels.get("activation", f"{name}<{storage}, {code}, {width}>", group)

    # --- batch normalisation and activation (L22-L24) -----------------------------------------------------------------

    def batch_norm_activation_forward(
        self,
        s: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        out: Array,
        mean: Array,
        inverse_std: Array,
        running_mean: Array,
        running_variance: Array,
        momentum: float,
        epsilon: float,
    ) -> None:
        rows, columns = s.shape
        plan = plan_forward(rows, columns, s.itemsize, vector_width(columns, s, out), self._limits)
        number = library.arithmetic_type(s.dtype)
        values: dict[str, Argument | None] = {
            "s": s,
            "gamma": gamma,
            "beta": beta,
            "y": out,
            "mean": mean,
            "inverse_std": inverse_std,
            "running_mean": running_mean,
            "running_variance": running_variance,
            "momentum": number(momentum),
            "epsilon": number(epsilon),
        }
        self._run_batch_norm(plan, values, s, activation)

    def batch_norm_activation_backward(
        self,
        dy: Array,
        s: Array,
        y: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        mean: Array,
        inverse_std: Array,
        ds: Array,
        dgamma: Array | None,
        dbeta: Array | None,
    ) -> None:
        rows, columns = s.shape
        plan = plan_backward(rows, columns, s.itemsize, vector_width(columns, dy, s, ds), self._limits)
        number = library.arithmetic_type(s.dtype)
        values: dict[str, Argument | None] = {
            "dy": dy,
            "s": s,
            "gamma": gamma,
            "beta": beta,
            "mean": mean,
            "inverse_std": inverse_std,
            "ds": ds,
            "dgamma": self.scratch("dgamma", (columns,), number) if dgamma is None else dgamma,
            "dbeta": self.scratch("dbeta", (columns,), number) if dbeta is None else dbeta,
        }
        self._run_batch_norm(plan, values, s, activation)

    def batch_norm_activation_inference(
        self,
        s: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        out: Array,
        running_mean: Array,
        running_variance: Array,
        epsilon: float,
    ) -> None:
        rows, columns = s.shape
        plan = plan_inference(rows, columns, s.itemsize, vector_width(columns, s, out), self._limits)
        values: dict[str, Argument | None] = {
            "s": s,
            "gamma": gamma,
            "beta": beta,
            "y": out,
            "running_mean": running_mean,
            "running_variance": running_variance,
            "epsilon": library.arithmetic_type(s.dtype)(epsilon),
        }
        self._run_batch_norm(plan, values, s, activation)

    def _run_batch_norm(
        self, plan: BatchNormPlan, values: dict[str, Argument | None], s: Array, activation: Activation
    ) -> None:
        """Run a plan; ``values`` has the arguments that depend on the operation, by their names in the plan."""
        storage, number = library.storage_type(s.dtype), library.arithmetic_type(s.dtype)
        code = library.activation_code(activation)
        values["rows"], values["columns"] = map(np.int32, s.shape)
        values["stripe_tiles"], values["chunks"] = np.int32(plan.stripe_tiles), np.int32(plan.parts)
        values["parameter"] = number(activation.parameter)
        if plan.partial_size:
            values["partial"] = self.scratch("partial", (plan.partial_size,), number)
        if plan.counter_count:
            values["counters"] = self._zeroed_counters(plan.counter_count)
        expression = plan.expression(storage, code)
        self._launch(
            self._kernels.get("batch_norm", expression, (expression,)),
            plan.grid,
            plan.block,
            [values[name] for name in plan.arguments],
            shared_memory=plan.shared_bytes,
            cluster=plan.cluster,
        )

    # --- dropout ----------------------------------------------------------------------------------------------------

    def dropout_forward(
        self, x: Array, out: Array, mask: Array, rate: float, seed: int, layer: int, step: Array
    ) -> None:
        kernel, grid = self._dropout_kernel("dropout_forward", x, out, mask)
        self._launch(
            kernel,
            grid,
            plans.THREADS,
            (
                x,
                out,
                mask,
                np.int64(x.size),
                np.uint32(dropout_threshold(rate)),
                library.arithmetic_type(x.dtype)(1 / (1 - rate)),
                np.uint32(seed & 0xFFFFFFFF),
                np.uint32(seed >> 32),
                np.uint32(layer),
                step,
            ),
        )

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
        quads = plans.ceiling(source.size, 4)
        return kernel, plans.flat_grid(quads, self.device.multiprocessor_count, STREAMING_WAVES)

    # --- losses (L4, L12) -------------------------------------------------------------------------------------------

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

    def squared_error(
        self, outputs: Array, targets: Array, weights: Array | None, doutputs: Array, loss: Array
    ) -> None:
        rows, columns = outputs.shape
        storage, number = library.storage_type(outputs.dtype), library.arithmetic_type(outputs.dtype)
        group = library.squared_error_group(storage)
        self._write_total_weight("squared_error", group, weights, loss)
        blocks = plans.flat_grid(outputs.size, self.device.multiprocessor_count)
        self._launch(
            self._kernels.get("squared_error", f"squared_error<{storage}>", group),
            blocks,
            plans.THREADS,
            (
                outputs,
                targets,
                weights,
                doutputs,
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

    # --- optimisers -------------------------------------------------------------------------------------------------

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
            self._optimizer_grid(parameters, width, STREAMING_WAVES),
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
            self._optimizer_grid(parameters, width, STREAMING_WAVES),
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

    # --- data -------------------------------------------------------------------------------------------------------

    def gather_rows(self, source: Array, index: Array, out: Array) -> None:
        plan = plans.row_copy(source, out)
        word = library.GATHER_WORDS[plan.word_bytes]
        self._launch(
            self._kernels.get("gather", f"gather_rows<{word}>", library.gather_group()),
            plan.grid,
            plan.block,
            (source, index, out, np.int32(out.shape[0]), np.int32(plan.words)),
        )


class _Recording:
    """A recorded step, with the arrays that it reads and writes."""

    def __init__(self, replay: Replay, held: list[Array]) -> None:
        self._replay = replay
        self._held = held

    def __call__(self) -> None:
        self._replay.launch()
