"""What a CUDA device has shown that it can do, before anything is trained on it.

That there is a driver says little: the compiler or its headers may be missing, the libraries may be of another version,
a launch may be refused. What a network needs is therefore tried once in a process, on a few numbers, and what comes
back is compared with NumPy's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

import numpy as np

from gpunet.activations import ReLU
from gpunet.backends.arrays import Array
from gpunet.backends.cuda.activation import bias_activation_forward
from gpunet.backends.cuda.backend import EPILOGUES
from gpunet.backends.cuda.batch_norm import DeviceLimits, launch_plan, plan_forward, vector_width
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.devices.cupy import CupyDevice
from gpunet.backends.devices.device import Argument, Device
from gpunet.backends.devices.probe import FORKED, is_forked
from gpunet.backends.switches import CLUSTERS, CUBLAS_LT, CUDA_GRAPH, Switch
from gpunet.errors import DeviceError, OutOfDeviceMemoryError

ROWS, COLUMNS, OUTPUTS = 6, 8, 3
EPSILON = 1e-5


@dataclass(frozen=True)
class Proof:
    """What was tried on a device.

    Attributes
    ----------
    results : mapping from str to (str or None)
        In the order of the trials: ``"device"``, which was opened, ``"kernel"``, compiled and run, ``"product"``,
        ``"cublasLt bias"`` and ``"cublasLt relu"``, done together with a product, ``"recording"``, recorded and
        replayed, ``"clusters"`` where there are any. None where the trial succeeded,
        otherwise one sentence. What a failure makes pointless and what is turned off was not tried.
    problem : str or None
        One sentence that says why nothing can be trained on the device; None where it can.
    lacks_memory : bool
        Whether a trial failed for want of memory, which may be there the next time.
    """

    results: Mapping[str, str | None]
    problem: str | None = None
    lacks_memory: bool = False

    @property
    def records(self) -> bool:
        """Whether nothing speaks against recording steps."""
        return self.results.get("recording") is None

    @property
    def epilogues(self) -> tuple[str, ...]:
        """What nothing speaks against doing together with a product."""
        return tuple(takewhile(lambda name: self.results.get(_trial_of(name)) is None, EPILOGUES.values()))

    @property
    def has_clusters(self) -> bool:
        """Whether nothing speaks against clusters."""
        return self.results.get("clusters") is None


def _trial_of(epilogue: str) -> str:
    return f"cublasLt {epilogue}"


def _unusable(error: DeviceError | str) -> Proof:
    sentence = _sentence(error)
    return Proof({"device": sentence}, sentence, isinstance(error, OutOfDeviceMemoryError))


_proofs: dict[int, Proof] = {}
_lock = threading.Lock()


def proof_of(index: int) -> Proof:
    """Return what CUDA device ``index`` has shown, good or bad; it is tried when a process first asks.

    Where memory was missing, it is tried again when the process asks again.

    Parameters
    ----------
    index : int
    """
    # First: in a fork, the lock may have been left closed, and the cache says what the parent could do.
    if is_forked():
        return _unusable(FORKED)
    with _lock:
        if index not in _proofs or _proofs[index].lacks_memory:
            _proofs[index] = _try(index)
        return _proofs[index]


def _try(index: int) -> Proof:
    try:
        device = CupyDevice(index)
    except DeviceError as error:
        return _unusable(error)
    proof = prove(device)
    return replace(proof, results={"device": None, **proof.results})


def prove(device: Device) -> Proof:
    """Try on a device what training needs: milliseconds, once its kernels are in the compiler's cache.

    Parameters
    ----------
    device : Device
    """
    # What a network can do without has a switch that turns it off.
    trials: list[tuple[str, Callable[[_Bench], None], Switch | None]] = [
        ("kernel", _try_kernel, None),
        ("product", _try_product, None),
        *((_trial_of(name), partial(_try_epilogue, name), CUBLAS_LT) for name in EPILOGUES.values()),
        ("recording", _try_recording, CUDA_GRAPH),
    ]
    if device.max_cluster_size > 1:
        trials.append(("clusters", _try_clusters, CLUSTERS))
    results: dict[str, str | None] = {}
    try:
        bench = _Bench(device)
    except DeviceError as error:
        return replace(_unusable(error), results={"kernel": _sentence(error)})
    lacks_memory = False
    without: set[Switch] = set()
    for name, trial, switch in trials:
        if switch is not None and (switch in without or not switch.is_on()):
            continue
        failure = _failure(trial, bench)
        results[name] = None if failure is None else _sentence(failure)
        if failure is None:
            continue
        lacks_memory |= isinstance(failure, OutOfDeviceMemoryError)
        if switch is None:
            return Proof(results, results[name], lacks_memory)
        without.add(switch)
        if _failure(_try_kernel, bench) is not None:  # some faults end CUDA in this process
            return Proof(results, f"{results[name]}. The environment variable {switch.variable}=0 spares the attempt")
    return Proof(results, lacks_memory=lacks_memory)


def _failure(trial: Callable[[_Bench], None], bench: _Bench) -> DeviceError | None:
    try:
        trial(bench)
    except DeviceError as error:
        return error
    return None


def _sentence(error: DeviceError | str) -> str:
    """Return an error's message on one line, without a point: what compilers and loaders say has several."""
    return " ".join(str(error).split()).rstrip(".")


class _Bench:
    """The few numbers that the trials compute with: small whole ones, on which every precision agrees to the last bit.

    y = relu(s + bias), out = y w^T.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.launcher = Launcher(device)
        self.random = np.random.default_rng(0)
        self.bias, self.w = self.numbers(COLUMNS), self.numbers(OUTPUTS, COLUMNS)
        self.device_bias, self.device_w = device.asarray(self.bias), device.asarray(self.w)
        self.s = device.empty((ROWS, COLUMNS), np.float32)
        self.y = device.empty((ROWS, COLUMNS), np.float32)
        self.out = device.empty((ROWS, OUTPUTS), np.float32)
        self.draw()

    def numbers(self, *shape: int) -> Array:
        """Return small whole numbers for the host."""
        return self.random.integers(-4, 5, shape).astype(np.float32)

    def draw(self) -> None:
        """Give s new numbers."""
        host_s = self.numbers(ROWS, COLUMNS)
        self.device.copy(self.s, host_s)
        self.expected_y = np.maximum(host_s + self.bias, 0)
        self.expected_out = self.expected_y @ self.w.T

    def run_kernel(self) -> None:
        bias_activation_forward(self.launcher, self.s, self.device_bias, ReLU(), self.y)

    def run_product(self) -> None:
        self.device.gemm(self.y, self.device_w, self.out, transpose_b=True)

    def step(self) -> None:
        self.run_kernel()
        with self.device.beside():
            self.run_product()
        self.device.join()

    def compare(self, what: str, found: Array, expected: Array, tolerance: float = 0) -> None:
        if not np.allclose(self.device.to_numpy(found), expected, rtol=0, atol=tolerance, equal_nan=True):
            raise DeviceError(
                f"{self.device.name}: {what} gave wrong numbers. The driver, CuPy's CUDA or the device is at fault"
            )


def _try_kernel(bench: _Bench) -> None:
    bench.run_kernel()
    bench.compare("a kernel", bench.y, bench.expected_y)


def _try_product(bench: _Bench) -> None:
    bench.run_product()
    bench.compare("a matrix product", bench.out, bench.expected_out)


def _try_epilogue(name: str, bench: _Bench) -> None:
    """Let cublasLt do what :data:`EPILOGUES` calls ``name`` together with a product, of numbers and of a NaN."""
    x = bench.numbers(ROWS, COLUMNS)
    x[-1, 0] = np.nan  # which is to be told, and not to become 0
    bias = bench.numbers(OUTPUTS)
    expected = x @ bench.w.T + bias
    device = bench.device
    found = device.gemm_bias(
        device.asarray(x), bench.device_w, device.asarray(bias), bench.out, transpose_b=True, relu=name == "relu"
    )
    if not found:
        raise DeviceError(f"{device.name}: cublasLt has no algorithm for a product with the epilogue {name!r}")
    bench.compare(
        f"a product with the epilogue {name!r}", bench.out, np.maximum(expected, 0 if name == "relu" else -np.inf)
    )


def _try_recording(bench: _Bench) -> None:
    replay = bench.launcher.record(bench.step)
    bench.draw()
    replay()
    for found, expected in ((bench.y, bench.expected_y), (bench.out, bench.expected_out)):
        bench.compare("the replay of a recorded step", found, expected)


def _try_clusters(bench: _Bench) -> None:
    """Run batch norm in the largest cluster, with as much shared memory as there is: then every plan's has room."""
    device, blocks = bench.device, bench.device.max_cluster_size
    host_s = bench.numbers(4 * blocks, COLUMNS)
    s, y = device.asarray(host_s), device.empty(host_s.shape, np.float32)
    vectors = [device.zeros(COLUMNS, np.float32) for _ in range(4)]
    values: dict[str, Argument | None] = {
        "s": s,
        "gamma": None,
        "beta": None,
        "y": y,
        "mean": vectors[0],
        "inverse_std": vectors[1],
        "running_mean": vectors[2],
        "running_variance": vectors[3],
        "momentum": np.float32(0.1),
        "epsilon": np.float32(EPSILON),
    }
    width, limits = vector_width(COLUMNS, s, y), DeviceLimits.of(device)
    plan = plan_forward(*host_s.shape, s.itemsize, width, limits, "resident", blocks)
    launch_plan(bench.launcher, replace(plan, shared_bytes=device.shared_memory_per_block), values, s, ReLU())
    normalised = (host_s - host_s.mean(axis=0)) / np.sqrt(host_s.var(axis=0) + EPSILON)
    bench.compare("a cluster of blocks", y, np.maximum(normalised, 0), tolerance=1e-4)
