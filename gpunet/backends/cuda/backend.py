"""The CUDA backend: arrays on a device, and which file launches each operation's kernel.

The CUDA C++ is in ``kernels/``; each file says what its threads do and how many bytes they move. The Python file of the
same name here has its instantiations, its launch plan and its launches. Everything that touches the hardware is behind
:class:`~gpunet.backends.devices.device.Device`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation, Identity, ReLU
from gpunet.backends.arrays import Array
from gpunet.backends.backend import Backend, as_method
from gpunet.backends.cuda import (
    activation,
    batch_norm,
    batch_norm_shards,
    bernoulli,
    dropout,
    gather,
    huber,
    loss_scale,
    narrow_pass,
    optimizer,
    quantile,
    rounding,
    score,
    shards,
    sigmoid_cross_entropy,
    soft_cross_entropy,
    softmax_cross_entropy,
    squared_error,
    training,
)
from gpunet.backends.cuda.instantiation import NoKernelError
from gpunet.backends.cuda.lane_feed import LaneFeed
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.cuda.tuning import ESTIMATES, Tuning
from gpunet.backends.devices.device import ClusterRefusedError, Device, RecordingRefusedError
from gpunet.backends.feed import Feed, is_as_wanted
from gpunet.backends.half import run_on_numbers
from gpunet.backends.narrow_stack import NarrowStack
from gpunet.backends.notices import say_once
from gpunet.backends.reference.custom_loss import LossFunctions
from gpunet.backends.switches import CUBLAS_LT, CUDA_GRAPH, NARROW_PASS
from gpunet.errors import GpunetError, InvalidTypeError, NoKernelWarning
from gpunet.validation import is_on_cuda, pieces

P = ParamSpec("P")

# What may follow a product in the same operation.
EPILOGUES: dict[type[Activation], str] = {Identity: "bias", ReLU: "relu"}


def kernel(launch: Callable[Concatenate[Launcher, P], None]) -> Callable[Concatenate[Any, P], None]:
    """Make the launch of a kernel a method; where there is none for what is asked, the reference runs."""
    reference = getattr(Backend, launch.__name__)

    def method(self: CudaBackend, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            launch(self.launcher, *args, **kwargs)
        except NoKernelError:
            reference(self, *args, **kwargs)

    return as_method(method, launch)


class CudaBackend(Backend):
    """Runs every operation with the CUDA kernels, on the stream of one device.

    Operations return before the device has done them; they run in the order of the calls. The first use of an
    operation compiles its kernels. An operation or an activation without a kernel runs as array expressions on the same
    device, and warns once. Like every backend it belongs to one network, and to one
    thread at a time.

    Parameters
    ----------
    device : Device
        :class:`~gpunet.backends.devices.cupy.CupyDevice`, or another with the same methods.
    precision : str
        ``"tf32"`` multiplies float32 matrices on the tensor cores, which round the factors to 10 bits of mantissa; any
        other does not. Matrices of half precision are multiplied as what they are.
    records : bool
        False where the device is known not to record steps. Never with ``GPUNET_CUDA_GRAPH=0``.
    has_clusters : bool
        False where the device is known to refuse clusters. Never with ``GPUNET_CLUSTERS=0``.
    tuning : Tuning
        Constants of the launch plans: by default, estimates.
    epilogues : collection of str
        ``"bias"`` and ``"relu"``: what the device is not known to do wrongly together with a product. None with
        ``GPUNET_CUBLASLT=0``.

    Attributes
    ----------
    device : Device
    precision : str
        ``"tf32"`` or ``"float32"``.
    launcher : Launcher
        What it launches kernels with, for checks of them.
    records : bool
        Whether :meth:`capture` records.
    epilogues : frozenset of str
        What it has the device do together with a product.
    has_narrow_passes : bool
        With ``GPUNET_NARROW_PASS=1``, where products are in float32.

    Raises
    ------
    InvalidValueError
        An environment variable of :mod:`gpunet.backends.switches` has a value that means nothing.
    """

    name = "cuda"
    synchronous = False

    bias_activation_forward = kernel(activation.bias_activation_forward)
    bias_activation_backward = kernel(activation.bias_activation_backward)
    batch_norm_activation_forward = kernel(batch_norm.batch_norm_activation_forward)
    batch_norm_activation_backward = kernel(batch_norm.batch_norm_activation_backward)
    batch_norm_activation_inference = kernel(batch_norm.batch_norm_activation_inference)
    batch_norm_statistics = kernel(batch_norm_shards.batch_norm_statistics)
    batch_norm_merge = kernel(batch_norm_shards.batch_norm_merge)
    batch_norm_activation_apply = kernel(batch_norm_shards.batch_norm_activation_apply)
    batch_norm_activation_sums = kernel(batch_norm_shards.batch_norm_activation_sums)
    batch_norm_activation_input_gradient = kernel(batch_norm_shards.batch_norm_activation_input_gradient)
    weigh_shard = kernel(shards.weigh_shard)
    sum_shards = kernel(shards.sum_shards)
    divide_sums = kernel(shards.divide_sums)
    dropout_forward = kernel(dropout.dropout_forward)
    dropout_backward = kernel(dropout.dropout_backward)
    sample_bernoulli = kernel(bernoulli.sample_bernoulli)
    softmax_cross_entropy = kernel(softmax_cross_entropy.softmax_cross_entropy)
    soft_cross_entropy = kernel(soft_cross_entropy.soft_cross_entropy)
    sigmoid_cross_entropy = kernel(sigmoid_cross_entropy.sigmoid_cross_entropy)
    squared_error = kernel(squared_error.squared_error)
    huber = kernel(huber.huber)
    quantile = kernel(quantile.quantile)
    clip_factor = kernel(optimizer.clip_factor)
    sgd_step = kernel(optimizer.sgd_step)
    adam_step = kernel(optimizer.adam_step)
    gather_batch = kernel(gather.gather_batch)
    count_step = kernel(training.count_step)
    keep_weights = kernel(training.keep_weights)
    summarize = kernel(training.summarize)
    accumulate_gradients = kernel(training.accumulate_gradients)
    average_weights = kernel(training.average_weights)
    score_classes = kernel(score.score_classes)
    score_soft_classes = kernel(score.score_soft_classes)
    score_switches = kernel(score.score_switches)
    narrow_pass = kernel(narrow_pass.narrow_pass)
    round_rows = kernel(rounding.round_rows)
    round_matrices = kernel(rounding.round_matrices)
    unscale_gradients = kernel(loss_scale.unscale_gradients)

    def __init__(
        self,
        device: Device,
        precision: str = "float32",
        *,
        records: bool = True,
        has_clusters: bool = True,
        tuning: Tuning = ESTIMATES,
        epilogues: Collection[str] = EPILOGUES.values(),
    ) -> None:
        super().__init__()
        self.device = device
        self.precision = "tf32" if precision == "tf32" else "float32"
        self.records = CUDA_GRAPH.is_on() and records
        self.epilogues = frozenset(epilogues if CUBLAS_LT.is_on() else ())
        self.has_narrow_passes = NARROW_PASS.is_on() and precision == "float32"
        self.launcher = Launcher(device, has_clusters, tuning)
        self._without_kernel: set[str] = set()

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
    ) -> None:
        self.launcher.hold(a, b, out)
        self.device.gemm(a, b, out, transpose_a, transpose_b, accumulate, self.precision)

    def linear_activation_forward(
        self, x: Array, weight: Array, bias: Array, activation: Activation, out: Array
    ) -> None:
        self.launcher.hold(x, weight, bias, out)
        epilogue = EPILOGUES.get(type(activation))
        if epilogue not in self.epilogues or not self.device.gemm_bias(
            x, weight, bias, out, transpose_b=True, relu=epilogue == "relu", precision=self.precision
        ):
            Backend.linear_activation_forward(self, x, weight, bias, activation, out)  # in two

    def fits_narrow_pass(self, stack: NarrowStack, rows: int) -> bool:
        return narrow_pass.fits(self.launcher, stack, rows)

    # --- what has no kernel -----------------------------------------------------------------------------------------

    def _run_reference(self, reference: Callable[Concatenate[Any, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        if self.launcher.is_recording:
            raise _NotRecordableError
        own = Activation, LossFunctions
        function = next((str(value) for value in (*args, *kwargs.values()) if isinstance(value, own)), "")
        what = reference.__name__ + (f" with {function}" if function else "")
        if what not in self._without_kernel:
            self._without_kernel.add(what)
            warnings.warn(
                f"{what} has no CUDA kernel: array expressions compute it on {self.device.name}, step by step, slower",
                NoKernelWarning,
                stacklevel=4,
            )
        with self.array_module() as xp:
            run_on_numbers(reference, xp, xp, *args, **kwargs)

    # --- arrays -----------------------------------------------------------------------------------------------------

    @property
    def device_name(self) -> str:
        return self.device.name

    @property
    def arithmetic(self) -> dict[str, str | None]:
        return {
            "device": getattr(self.device, "model", self.device.name),
            "NumPy": np.__version__,  # draws the order of the examples
            "CuPy": getattr(sys.modules.get("cupy"), "__version__", None),
            "launch plans": self.launcher.tuning.order_of_sums,
        }

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        return self.device.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        return self.device.zeros(shape, dtype)

    def asarray(self, array: Array) -> Array:
        return self.device.asarray(array)

    def upload(self, values: Array, dtype: npt.DTypeLike) -> Array:
        """Return host numbers of any dtype and layout as a C-contiguous array of ``dtype`` on the device.

        They are converted piece by piece: the host needs no memory for a copy.
        """
        if is_as_wanted(values, dtype):
            return self.asarray(values)
        array = self.empty(values.shape, dtype)
        for rows in pieces(values):
            self.copy(values[rows].astype(dtype, order="C"), array[rows])
        return array

    def free_bytes(self) -> int:
        return self.device.free_bytes()

    def feed(self, sources: Sequence[Array], dtypes: Sequence[npt.DTypeLike], rows: int) -> Feed:
        return LaneFeed(sources, self.device, dtypes, rows)

    def take(self, argument: str, values: Any) -> Array:
        try:
            return self.device.take(argument, values)
        except (GpunetError, MemoryError):
            raise
        except Exception as error:  # the object's own methods run here
            reason = " ".join(str(error).split())
            raise InvalidTypeError(
                f"{argument}: {type(values).__name__} cannot be read as an array ({reason}). Expected dense numbers, "
                "without gradients."
            ) from None

    def give(self, values: Array, like: Any) -> Any:
        return self.device.give(values, like) if is_on_cuda(like) else super().give(values, like)

    def array_module(self) -> AbstractContextManager[Any]:
        return self.device.array_module()

    def to_numpy(self, array: Array) -> Array:
        return self.device.to_numpy(array)

    def copy(self, source: Array, destination: Array) -> None:
        if isinstance(source, np.ndarray) and not source.flags.c_contiguous:
            source = np.ascontiguousarray(source)
        self.launcher.hold(source, destination)
        self.device.copy(destination, source)

    def synchronize(self) -> None:
        self.device.synchronize()

    def mark(self) -> Any:
        return self.device.record_event()

    def seconds_between(self, start: Any, stop: Any) -> float:
        return self.device.elapsed(start, stop)

    def beside(self) -> AbstractContextManager[None]:
        return self.device.beside()

    def join(self) -> None:
        self.device.join()

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return a callable that repeats ``step`` by one launch of a recorded graph.

        A step in which the reference stands in for a kernel is not recorded, and repeated as it is. So is one that the
        driver refuses to record, one whose clusters it refuses, of which there are none the next time, and every step
        where :attr:`records` is False.
        """
        if not self.records:
            return step
        try:
            return self.launcher.record(step)
        except RecordingRefusedError as error:
            say_once(f"on {self.device.name}, training steps are not recorded and run one operation at a time", error)
            return step
        except (_NotRecordableError, ClusterRefusedError):
            return step


class _NotRecordableError(Exception):
    """Part of a step runs as array expressions, which allocate memory and may wait for the device."""
