"""What a backend is: arrays on a device, and operations on them, each with a version that is easy to read."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Concatenate, ParamSpec, Protocol, cast

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation
from gpunet.backends.arrays import Array, aligned_empty
from gpunet.backends.feed import Feed
from gpunet.backends.half import run_on_numbers
from gpunet.backends.kinds import like_host, torch_of
from gpunet.backends.narrow_stack import NarrowStack
from gpunet.backends.reference import (
    activation,
    batch_norm,
    bernoulli,
    custom_loss,
    dropout,
    gather,
    huber,
    linear,
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
from gpunet.environment import cpu_arithmetic
from gpunet.errors import InvalidTypeError
from gpunet.turns import TurnLock

P = ParamSpec("P")


def as_method(
    method: Callable[Concatenate[Any, P], None], function: Callable[Concatenate[Any, P], None]
) -> Callable[Concatenate[Any, P], None]:
    """Give a method the name, documentation and parameters of the function that it calls, whose first is its own."""
    functools.update_wrapper(method, function)
    signature = inspect.signature(function)
    first, *others = signature.parameters.values()
    itself = first.replace(name="self", annotation=first.empty)
    cast(Any, method).__signature__ = signature.replace(parameters=[itself, *others])
    return method


def operation(reference: Callable[Concatenate[Any, P], None]) -> Callable[Concatenate[Any, P], None]:
    """Make the reference of an operation the method of every backend that has no version of its own."""

    def method(self: Backend, /, *args: P.args, **kwargs: P.kwargs) -> None:
        self._run_reference(reference, *args, **kwargs)

    return as_method(method, reference)


class RecordedPass(Protocol):
    """Repeats what was recorded, on another array in the place of the one that was given then, which it has let go."""

    def accepts(self, x: Array) -> bool:
        """Say whether it may be given an array of that one's shape and dtype."""

    def __call__(self, x: Array, /) -> None: ...


class PassRecorder(Protocol):
    """A backend that records passes on arrays that are given."""

    def capture_pass(self, run: Callable[[Array], object], x: Array) -> RecordedPass | None:
        """Return a recording of ``run(x)``, which is not done meanwhile, with the numbers and buffers of this time.

        None where it could not be repeated on other arrays: x is not contiguous, or is in one of the buffers.
        """


class Backend:
    """The reference of every operation, on NumPy arrays. Faster backends override what they do better.

    A backend belongs to one network and serves one thread at a time, the one that holds its ``lock``: it may keep
    scratch buffers between calls. What an operation computes is said at its reference, in
    :mod:`gpunet.backends.reference`.

    Attributes
    ----------
    name : str
        ``"numpy"``, ``"cuda"``: what benchmark rows call the backend.
    synchronous : bool
        Whether reading a result costs nothing, because operations finish before they return.
    has_narrow_passes : bool
        Whether networks use :meth:`narrow_pass` where :meth:`fits_narrow_pass` says so.
    has_half : bool
        Whether its operations take matrices of half precision.
    records_calls : bool
        Whether a step that it records may call functions of Python, by :meth:`call`.
    lock : TurnLock
        Whoever uses the backend holds it: scratch buffers, and on a device the stream, serve one thread at a time.
    """

    name = "reference"
    synchronous = True
    has_narrow_passes = False
    has_half = True
    records_calls = False

    gemm = operation(linear.gemm)
    bias_activation_forward = operation(activation.bias_activation_forward)
    bias_activation_backward = operation(activation.bias_activation_backward)
    batch_norm_activation_forward = operation(batch_norm.batch_norm_activation_forward)
    batch_norm_activation_backward = operation(batch_norm.batch_norm_activation_backward)
    batch_norm_activation_inference = operation(batch_norm.batch_norm_activation_inference)
    batch_norm_statistics = operation(batch_norm.batch_norm_statistics)
    batch_norm_merge = operation(batch_norm.batch_norm_merge)
    batch_norm_activation_apply = operation(batch_norm.batch_norm_activation_apply)
    batch_norm_activation_sums = operation(batch_norm.batch_norm_activation_sums)
    batch_norm_activation_input_gradient = operation(batch_norm.batch_norm_activation_input_gradient)
    weigh_shard = operation(shards.weigh_shard)
    sum_shards = operation(shards.sum_shards)
    divide_sums = operation(shards.divide_sums)
    dropout_forward = operation(dropout.dropout_forward)
    dropout_backward = operation(dropout.dropout_backward)
    sample_bernoulli = operation(bernoulli.sample_bernoulli)
    softmax_cross_entropy = operation(softmax_cross_entropy.softmax_cross_entropy)
    soft_cross_entropy = operation(soft_cross_entropy.soft_cross_entropy)
    sigmoid_cross_entropy = operation(sigmoid_cross_entropy.sigmoid_cross_entropy)
    squared_error = operation(squared_error.squared_error)
    huber = operation(huber.huber)
    quantile = operation(quantile.quantile)
    custom_loss = operation(custom_loss.custom_loss)
    clip_factor = operation(optimizer.clip_factor)
    sgd_step = operation(optimizer.sgd_step)
    adam_step = operation(optimizer.adam_step)
    gather_batch = operation(gather.gather_batch)
    count_step = operation(training.count_step)
    keep_weights = operation(training.keep_weights)
    summarize = operation(training.summarize)
    accumulate_gradients = operation(training.accumulate_gradients)
    average_weights = operation(training.average_weights)
    score_classes = operation(score.score_classes)
    score_soft_classes = operation(score.score_soft_classes)
    score_switches = operation(score.score_switches)
    narrow_pass = operation(narrow_pass.narrow_pass)
    round_rows = operation(rounding.round_rows)
    round_matrices = operation(rounding.round_matrices)
    unscale_gradients = operation(loss_scale.unscale_gradients)

    def __init__(self) -> None:
        self.lock = TurnLock()

    def linear_activation_forward(
        self, x: Array, weight: Array, bias: Array, activation: Activation, out: Array
    ) -> None:
        """out = f(x W^T + b): a linear layer and the bias and activation after it.

        Parameters
        ----------
        x : ndarray, (n, d)
        weight : ndarray, (m, d)
        bias : ndarray, (m,)
        out : ndarray, (n, m)
        """
        self.gemm(x, weight, out, transpose_b=True)
        self.bias_activation_forward(out, bias, activation, out)

    def _run_reference(self, reference: Callable[Concatenate[Any, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run an operation that the backend has no version of its own for, on the backend's arrays."""
        run_on_numbers(reference, np, np, *args, **kwargs)

    @property
    def device_name(self) -> str:
        """Where the arrays are."""
        return "cpu"

    @property
    def arithmetic(self) -> dict[str, str | None]:
        """What the bits of its results depend on, beside the numbers; None for what nobody can tell."""
        return cpu_arithmetic()

    def fits_narrow_pass(self, stack: NarrowStack, rows: int) -> bool:
        """Return whether :meth:`narrow_pass` is one launch for batches of so many rows; float32."""
        return False

    def is_compiled_for(self, work: float) -> bool:
        """Return whether :meth:`working` lets compiled kernels do so much on a CPU that it does less with NumPy.

        Parameters
        ----------
        work : float
            In floating-point operations.
        """
        return False

    def working(self, work: float) -> AbstractContextManager[None]:
        """Return a context for about so much work, by which a backend may choose how to do it: by nothing else.

        Parameters
        ----------
        work : float
            In floating-point operations.
        """
        return nullcontext()

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return an uninitialised array on the device."""
        return aligned_empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return an array of zeros on the device."""
        array = aligned_empty(shape, dtype)
        array.fill(0)
        return array

    def asarray(self, array: Array) -> Array:
        """Return a host array as an array on the device (here: the same array)."""
        return array

    def upload(self, values: Array, dtype: npt.DTypeLike) -> Array:
        """Return host numbers of any dtype and layout as a C-contiguous array of ``dtype`` on the device.

        Here ``values`` where they are that.
        """
        return values.astype(dtype, order="C", copy=False)

    def free_bytes(self) -> int | None:
        """Return how much memory the device has left for arrays; None where it is the host's."""
        return None

    def feed(self, sources: Sequence[Array], dtypes: Sequence[npt.DTypeLike], rows: int) -> Feed:
        """Return what brings batches of host arrays, which stay there, into buffers on the device.

        Parameters
        ----------
        sources : sequence of ndarray, (N, ...)
            Numbers of any dtype and layout.
        dtypes : sequence of dtype
            Of the buffers.
        rows : int
            Of the largest batch.
        """
        return Feed(sources)

    def take(self, argument: str, values: Any) -> Array:
        """Return a user's array in CUDA memory (CuPy, PyTorch, RAPIDS, Numba) as one of the device, without a copy.

        It may be any view, of any dtype; what still writes it is waited for.

        Raises
        ------
        InvalidTypeError
            The backend is on the CPU, or on another GPU than the array; or the object does not give its values.
        """
        copy = f"{argument}.cpu()" if torch_of(values) is not None else f"cupy.asnumpy({argument})"
        raise InvalidTypeError(
            f"{argument}: got an array on a CUDA device for a network on the CPU. Expected a host array: "
            f"convert it with {copy}, or make the network with device='cuda'."
        )

    def give(self, values: Array, like: Any) -> Any:
        """Return a result, which lies where ``like`` does, as an array of the library of ``like``.

        In CUDA memory it is a finished copy, which may be used on any stream; on the host it shares the memory.
        """
        return like_host(values, like)

    def array_module(self) -> AbstractContextManager[Any]:
        """Return a context in which array expressions run on this device, in order with its other operations.

        Its value is the library to write them with. Expressions of NumPy's functions alone work as well.
        """
        return nullcontext(np)

    def to_numpy(self, array: Array) -> Array:
        """Return an array of the device as a host array (here: the same array)."""
        return array

    def copy(self, source: Array, destination: Array) -> None:
        """Copy ``source``, on the host or on the device, into ``destination``, on the device."""
        np.copyto(destination, source)

    def synchronize(self) -> None:
        """Wait until every operation has finished."""

    def flush_denormals(self, arrays: Iterable[Array]) -> None:
        """Set what is denormal to 0, where computing with denormal numbers takes longer than with others.

        Weights of inputs that are always zero become so by L2, and moments of units that are never active by their
        beta.
        """

    def mark(self) -> Any:
        """Return a point in time: when the operations asked for so far have finished."""
        return time.perf_counter()

    def seconds_between(self, start: Any, stop: Any) -> float:
        """Return the seconds from one :meth:`mark` to another, which a device waits for."""
        return float(stop - start)

    def beside(self) -> AbstractContextManager[None]:
        """Return a context whose operations may run beside those after it, until :meth:`join`.

        Neither of them may write what the other reads or writes, scratch buffers of operations included: it is for
        products. Beginning another one joins the one before. Only a recording (:meth:`capture`) makes use of it.
        """
        return nullcontext()

    def join(self) -> None:
        """Let the operations from now on wait for those of :meth:`beside`."""

    def call(self, function: Callable[[], None]) -> None:
        """Call a function when the operations before have been done; in a recorded step, at each repetition.

        Where the backend records no calls, it is called at once.
        """
        function()

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return a callable that repeats ``step`` on the same buffers.

        ``step`` has run at least once before, so its kernels are compiled and its buffers exist. Everything that
        changes between steps must live in arrays: a device may record the launches once and replay them.
        """
        return step

    @property
    def pass_recorder(self) -> PassRecorder | None:
        """What records passes in inference mode now; None where nothing does, and within a recording."""
        return None
