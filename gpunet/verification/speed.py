"""How fast a device is: the bytes per second of every kernel beside a copy, and steps of the five configurations."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from gpunet.activations import get_activation
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices.device import Device, Replay
from gpunet.errors import OutOfDeviceMemoryError
from gpunet.network import Network
from gpunet.optimizers import Adam
from gpunet.training import Callback, Run, fit
from gpunet.validation import PRECISIONS
from gpunet.verification import (
    activation,
    batch_norm,
    batch_norm_shards,
    gather,
    loss_scale,
    losses,
    optimizer,
    products,
    random_bits,
    score,
    shards,
    training,
)
from gpunet.verification.check import NAMES, shape_text
from gpunet.verification.configurations import CONFIGURATIONS, layer_sizes
from gpunet.verification.operation import Operation, Placed
from gpunet.verification.storage import FLOAT16, FLOAT32, Storage
from gpunet.verification.subject import Cuda
from gpunet.verification.traffic import bytes_moved

ROUNDS = 5
# So few that the device's queue does not fill up.
HOST_CALLS = 50
# A round lasts so long at least: the clock of a GPU's events ticks in half microseconds.
ROUND_SECONDS = 0.01
# (rows, columns) for a GPU, beyond its caches; elsewhere only that all of it runs.
LARGE, SMALL = (16384, 1024), (40, 24)
# Numbers in the data set of a configuration, and its batches, with which an epoch is long enough to be timed.
MOST_NUMBERS, MOST_BATCHES, FEWEST_BATCHES = 2**27, 50, 4
SMALL_BATCH, SMALL_WIDTH = 8, 12


@dataclass(frozen=True)
class KernelSpeed:
    """An operation: its time, the bytes that it moves at least, and these beside those of a copy."""

    what: str
    kind: str
    shape: str
    microseconds: float
    gigabytes_per_second: float
    percent_of_copy: float


@dataclass(frozen=True)
class StepSpeed:
    """A step of training a configuration, as ``fit`` does it, recorded and operation by operation.

    ``kernels`` are those of the recorded graph; None where the driver does not tell or records none.
    ``one_launch_milliseconds`` are of the recorded step with ``GPUNET_NARROW_PASS=1``; None where the network or the
    batch does not fit.
    """

    configuration: str
    network: str
    precision: str
    milliseconds: float
    unrecorded_milliseconds: float
    kernels: int | None
    one_launch_milliseconds: float | None


@dataclass(frozen=True)
class ProductSpeed:
    """A hidden layer of a configuration without batch norm: product, bias and ReLU by cublasLt, and in two operations.

    ``microseconds`` and ``kernels``, those of a recording of it, are None where cublasLt has nothing for it.
    """

    configuration: str
    shape: str
    precision: str
    microseconds: float | None
    microseconds_in_two: float
    kernels: int | None


def operations(is_large: bool) -> Iterator[tuple[Storage, Operation]]:
    """Yield every kernel's operation on matrices that no cache holds."""
    shape = LARGE if is_large else SMALL
    relu, size = get_activation("relu"), math.prod(shape)
    for storage in (FLOAT32, FLOAT16):
        for module in (batch_norm, activation):
            yield storage, module.forward(storage, shape, relu)
            yield storage, module.backward(storage, shape, relu)
        yield storage, batch_norm.inference(storage, shape, relu)
        yield storage, batch_norm_shards.statistics(storage, shape)
        for part in (batch_norm_shards.apply, batch_norm_shards.sums, batch_norm_shards.input_gradient):
            yield storage, part(storage, shape, relu)
        yield storage, shards.weigh_shard(storage, shape)
        for make in (random_bits.dropout_forward, random_bits.dropout_backward, random_bits.sample_bernoulli):
            yield storage, make(storage, shape)
        for loss in losses.LOSSES:
            yield storage, loss(storage, shape)
        yield storage, losses.softmax_cross_entropy(storage, (size // 10, 10))
        for scoring in (score.score_classes, score.score_soft_classes, score.score_switches):
            yield storage, scoring(storage, shape)
        yield storage, gather.gather_batch(storage.dtype, shape[1], shape[0], examples=2 * shape[0])
    yield FLOAT32, loss_scale.unscale_gradients(size)
    yield FLOAT32, shards.sum_shards(FLOAT32, size // 8, (0,) * 8)
    yield FLOAT32, shards.divide_sums(FLOAT32, size, 7.5)
    yield FLOAT32, optimizer.sgd_step(FLOAT32, size, size)
    yield FLOAT32, optimizer.adam_step(FLOAT32, size, size)
    yield FLOAT32, optimizer.clip_factor(FLOAT32, size, size)
    yield FLOAT32, training.keep_weights(FLOAT32, size, 0)
    yield FLOAT32, training.summarize(FLOAT32, size, size)
    yield FLOAT32, training.accumulate_gradients(FLOAT32, size)
    yield FLOAT32, training.average_weights(FLOAT32, size, 0)


def steps(subject: Cuda) -> int:
    """Return how many things :func:`measure` measures."""
    products = len(CONFIGURATIONS) * len(subject.precisions)
    return len(CONFIGURATIONS) * len(PRECISIONS) + products + sum(1 for _ in operations(is_large=False))


def measure(
    subject: Cuda, result: dict[str, Any], on_progress: Callable[[int, str], object], seconds: float = math.inf
) -> None:
    """Measure copies, kernels and steps, as far as the time goes.

    Parameters
    ----------
    subject : Cuda
    result : dict
        Gets ``copy_gigabytes_per_second``, ``host_microseconds``, ``kernels``, ``products``, ``steps``, and ``ending``:
        why something is missing. What is measured so far is in it whenever this ends.
    on_progress : callable
        Is given how much is done, and what is being done.
    seconds : float
        Nothing more is begun after so many.
    """
    started = time.perf_counter()
    copy = _copy_rate(subject.operations(), LARGE if subject.is_large else SMALL)
    rows: dict[str, list[dict[str, Any]]] = {"kernels": [], "products": [], "steps": []}
    result.update(
        copy_gigabytes_per_second=_rounded(copy / 1e9),
        host_microseconds=_host_microseconds(subject.operations()),
        ending="",
        **rows,
    )
    for done, (what, table, measure_one) in enumerate(_pieces(subject, copy)):
        if time.perf_counter() - started > seconds:
            result["ending"] = f"{what}: the limit of {round(seconds, 1):g} s was reached"
            break
        on_progress(done, what)
        try:
            rows[table].append(asdict(measure_one()))
        except OutOfDeviceMemoryError as error:
            result["ending"] = f"{what}: {error}"
        except BaseException:
            result["ending"] = f"{what} was not measured to its end"
            raise


def _pieces(
    subject: Cuda, copy_rate: float
) -> Iterator[tuple[str, str, Callable[[], KernelSpeed | ProductSpeed | StepSpeed]]]:
    """Yield what is measured in words, the table that its row is of, and what measures it."""
    for label in CONFIGURATIONS:
        for precision in PRECISIONS:
            yield f"configuration {label}, {precision}", "steps", partial(_step_speed, subject, label, precision)
    for label in CONFIGURATIONS:
        for precision in subject.precisions:
            measure_product = partial(_product_speed, subject, label, precision)
            yield f"a hidden layer of configuration {label}, {precision}", "products", measure_product
    for storage, operation in operations(subject.is_large):
        name = NAMES.get(operation.method, operation.method.replace("_", " "))
        measure_one = partial(_kernel_speed, subject.operations(), name, storage, operation, copy_rate)
        yield f"{name}, {storage}", "kernels", measure_one


def tables(speed: dict[str, Any]) -> Iterator[tuple[str, Sequence[str], list[list[str]]]]:
    """Yield title, columns and rows of what was measured."""
    if "kernels" not in speed:
        return
    rate, host = speed["copy_gigabytes_per_second"], speed["host_microseconds"]
    yield (
        f"Kernels, beside a copy of {rate:g} GB/s on the device; the host takes {host['kernel']:g} microseconds to ask "
        f"for a kernel, {host['product']:g} for a product",
        ("kernel", "type", "shape", "microseconds", "GB/s", "% of a copy"),
        [[str(value) for value in row.values()] for row in speed["kernels"]],
    )
    yield (
        "A training step with Adam and batch norm, as fit does it",
        (
            "configuration",
            "batch x layers",
            "products",
            "ms, recorded",
            "ms, not recorded",
            "kernels in the graph",
            "ms, GPUNET_NARROW_PASS=1",
        ),
        _cells(speed["steps"]),
    )
    if speed.get("products"):
        yield (
            "Product, bias and ReLU of a hidden layer, by cublasLt and in two operations",
            (
                "configuration",
                "rows x inputs x outputs",
                "products",
                "us, cublasLt",
                "us, in two",
                "kernels of cublasLt",
            ),
            _cells(speed["products"]),
        )


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [["-" if value is None else str(value) for value in row.values()] for row in rows]


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def device_seconds(device: Device, call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median time of a call by the device's clock, over rounds of as many calls as one can tell apart."""
    call()  # compiles, and allocates
    repeats = 1
    while (elapsed := _round(device, call, repeats)) < ROUND_SECONDS and repeats < 2**16:
        repeats *= 2 if elapsed <= 0 else max(2, min(64, math.ceil(ROUND_SECONDS / elapsed)))
    return statistics.median(_round(device, call, repeats) for _ in range(rounds)) / repeats


def _round(device: Device, call: Callable[[], object], repeats: int) -> float:
    device.synchronize()
    start = device.record_event()
    for _ in range(repeats):
        call()
    stop = device.record_event()
    device.synchronize()
    return device.elapsed(start, stop)


def _copy_rate(backend: CudaBackend, shape: tuple[int, int]) -> float:
    """Return the bytes read and written per second when an array is copied on the device."""
    source, target = (backend.zeros(shape, np.float32) for _ in range(2))
    return 2 * source.nbytes / device_seconds(backend.device, partial(backend.copy, source, target))


def _host_microseconds(backend: CudaBackend) -> dict[str, float]:
    """Return the least time in which the host asks for a kernel and for a product, small ones."""
    small = {
        "kernel": optimizer.sgd_step(FLOAT32, 32, 32),
        "product": products.gemm(FLOAT32, (8, 8, 8), False, False, False),
    }
    return {name: _rounded(1e6 * _host_seconds(backend, operation)) for name, operation in small.items()}


def _host_seconds(backend: CudaBackend, operation: Operation) -> float:
    call = Placed(backend, operation).call
    call()
    times = []
    for _ in range(ROUNDS):
        backend.synchronize()
        started = time.perf_counter()
        for _ in range(HOST_CALLS):
            call()
        times.append((time.perf_counter() - started) / HOST_CALLS)
    return min(times)


def _kernel_speed(
    backend: CudaBackend, what: str, storage: Storage, operation: Operation, copy_rate: float
) -> KernelSpeed:
    seconds = device_seconds(backend.device, Placed(backend, operation).call)
    rate = bytes_moved(operation) / seconds
    shape = shape_text(next(array.shape for array in operation.given.values() if array.size > 1))
    numbers = map(_rounded, (1e6 * seconds, rate / 1e9, 100 * rate / copy_rate))
    return KernelSpeed(what, storage.name, shape, *numbers)


def _sizes(subject: Cuda, label: str) -> tuple[int, int, int, int]:
    """Return batch, inputs, layers and width of a configuration, as far as the device is one for them."""
    batch, inputs, layers, width = CONFIGURATIONS[label]
    return (batch, inputs, layers, width) if subject.is_large else (SMALL_BATCH, SMALL_WIDTH, layers, SMALL_WIDTH)


def _product_speed(subject: Cuda, label: str, precision: str) -> ProductSpeed:
    batch, _, _, width = _sizes(subject, label)
    shape = batch, width, width
    operation = products.linear_activation(FLOAT32, shape, get_activation("relu"), precision)
    together, kernels = None, None
    with subject.products(precision, has_epilogues=True) as (backend, done):
        call = Placed(backend, operation).call
        call()
        if any(done):
            together = _rounded(1e6 * device_seconds(backend.device, call))
            kernels = backend.device.capture(call).nodes if backend.records else None
    with subject.products(precision, has_epilogues=False) as (backend, _):
        in_two = _rounded(1e6 * device_seconds(backend.device, Placed(backend, operation).call))
    return ProductSpeed(label, shape_text(shape), precision, together, in_two, kernels)


# --- steps ------------------------------------------------------------------------------------------------------------


class _Clock(Callback):
    """Marks the end of the first and of the last step of the last epoch: the first ones compile and record."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._marks: list[Any] = []
        self._steps = 0

    def on_step_end(self, run: Run) -> None:
        if run.epoch == run.epochs and run.step_in_epoch in (1, run.steps_per_epoch):
            self._marks.append(self._device.record_event())
            self._steps = run.step_in_epoch - 1

    @property
    def milliseconds(self) -> float:
        """Of a step."""
        self._device.synchronize()
        return _rounded(1e3 * self._device.elapsed(*self._marks) / self._steps)


def _step_speed(subject: Cuda, label: str, precision: str) -> StepSpeed:
    batch, inputs, layers, width = _sizes(subject, label)
    sizes = layer_sizes(inputs, layers, width)
    batches = max(FEWEST_BATCHES, min(MOST_BATCHES if subject.is_large else 0, MOST_NUMBERS // (batch * inputs)))
    rng = np.random.default_rng(0)
    X = np.resize(rng.standard_normal(2**16, dtype=np.float32), (batches * batch, inputs))
    y = rng.integers(0, sizes[-1], len(X))

    def train(records: bool, narrow: bool = False) -> tuple[float, int | None]:
        backend = subject.for_network(precision)
        backend.records, backend.has_narrow_passes = backend.records and records, narrow
        graphs = watch_recordings(backend.device)
        clock = _Clock(backend.device)
        network = Network(sizes, batch_norm=True, device=backend, precision=precision)
        if narrow and network.narrow_stack(batch) is None:
            return math.nan, None
        epochs = 3 if narrow else 2  # the layers' buffers come at the end of the first, and recordings are made anew
        fit(network, X, y, epochs=epochs, batch_size=batch, optimizer=Adam(1e-4), shuffle=False, callbacks=[clock])
        return clock.milliseconds, graphs[0].nodes if graphs else None

    recorded, kernels = train(records=True)
    unrecorded, _ = train(records=False)
    one_launch = train(records=True, narrow=True)[0] if precision == "float32" else math.nan
    return StepSpeed(
        label,
        f"{batch} x {shape_text(sizes)}",
        precision,
        recorded,
        unrecorded,
        kernels,
        None if math.isnan(one_launch) else one_launch,
    )


def watch_recordings(device: Any) -> list[Replay]:
    """Return the list of the recordings that a device will make."""
    recordings: list[Replay] = []
    capture = device.capture

    def watched(step: Callable[[], object]) -> Replay:
        recordings.append(capture(step))
        return recordings[-1]

    device.capture = watched
    return recordings
