"""The CUDA backend: which kernel runs each operation, on which grid, with which arguments.

The kernels are in the package :mod:`gpunet.kernels`; each file says what its threads do and how many bytes they move.
Everything that touches the hardware is behind :class:`~gpunet.backends.devices.device.Device`.

This file has the operations of the layers, :mod:`gpunet.backends.cuda_stochastic` those with random bits,
:mod:`gpunet.backends.cuda_losses` those of the losses, :mod:`gpunet.backends.cuda_updates` those of the optimisers, and
:mod:`gpunet.backends.cuda_arrays` what they stand on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.activations import Activation, Identity
from gpunet.backends import kernel_library as library
from gpunet.backends import launch_plans as plans
from gpunet.backends.arrays import Array
from gpunet.backends.batch_norm_plan import (
    BatchNormPlan,
    DeviceLimits,
    plan_backward,
    plan_forward,
    plan_inference,
    vector_width,
)
from gpunet.backends.cuda_losses import CudaLosses
from gpunet.backends.cuda_stochastic import CudaStochastic
from gpunet.backends.cuda_updates import CudaUpdates
from gpunet.backends.devices.device import Argument, Device


class CudaBackend(CudaStochastic, CudaLosses, CudaUpdates):
    """Runs every operation with the CUDA kernels, on the stream of one device.

    Operations return before the device has done them; they run in the order of the calls. The first use of an
    operation compiles its kernels. Like every backend it belongs to one network, and to one thread at a time.

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

    def __init__(self, device: Device, precision: str = "float32") -> None:
        super().__init__(device, precision)
        self._limits = DeviceLimits.of(device)

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
