"""Machines on which something of CUDA is missing or broken, made of the stand-in for CuPy."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpunet.backends.devices import resources
from tests.helpers import fake_cupy
from tests.helpers.fake_cublas_lt import FakeCublasLt
from tests.helpers.fake_cupy import CUDADriverError, CUDARuntimeError, FakeCupy

Fault = Callable[[pytest.MonkeyPatch, FakeCupy], None]


def _compiling_raises(error: Exception) -> Fault:
    def install(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
        def fail(*arguments: Any, **options: Any) -> Any:
            raise error

        monkeypatch.setattr(cupy.emulated, "load", fail)

    return install


def _kernel(behaviour: Callable[..., None]) -> Fault:
    """Let ``behaviour``, instead of the device, get the arguments of every launch when the stream gets to it."""

    def install(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
        monkeypatch.setattr(cupy.emulated, "launch", behaviour)

    return install


def _raises(error: Exception) -> Callable[..., Any]:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    return fail


def _launch_refused(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    function = cupy._function

    def refusing(kernel: Any) -> Any:
        made = function(kernel)
        error = CUDADriverError("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: too many resources requested for launch")
        return type("Function", (), {"ptr": made.ptr, "__call__": staticmethod(_raises(error))})()

    monkeypatch.setattr(cupy, "_function", refusing)


def _product(status: int, error: float) -> Fault:
    def install(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
        gemm = fake_cupy.FakeCublas._gemm

        def wrong(self: Any, *arguments: Any) -> int:
            done = status or gemm(self, *arguments)
            out = arguments[-5]
            stream = fake_cupy.Stream.by_address[self.open[arguments[0]].stream]
            stream.submit(lambda: cupy._move(out, bytes(4), 4))
            return done

        monkeypatch.setattr(fake_cupy.FakeCublas, "_gemm", wrong if error else lambda self, *arguments: status)

    return install


def _capture_refused(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    error = CUDARuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing")
    monkeypatch.setattr(fake_cupy.Stream, "begin_capture", _raises(error))


def _replay(behaviour: Callable[..., None]) -> Fault:
    def install(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
        monkeypatch.setattr(fake_cupy.Graph, "launch", behaviour)

    return install


def _replays_half(graph: Any, stream: Any) -> None:
    stream.submit(graph.operations[0])


def _fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, every wait tells of a fault that ends CUDA in this process."""
    error = CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")
    monkeypatch.setattr(fake_cupy.Stream, "synchronize", _raises(error))


def _replays_are_fatal(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    monkeypatch.setattr(fake_cupy.Graph, "launch", lambda graph, stream: _fatal(monkeypatch))


def _clusters_are_fatal(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    launch = cupy.emulated.launch

    def failing(*arguments: Any, cluster: Any, **options: Any) -> None:
        if cluster > 1:
            _fatal(monkeypatch)
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")
        launch(*arguments, cluster=cluster, **options)

    monkeypatch.setattr(cupy.emulated, "launch", failing)


def _clusters_refused(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    cupy.refused_cluster = 2


def _large_clusters_refused(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    cupy.cluster_bytes = cupy.emulated.shared_memory_per_block - 1024


def _clusters_do_nothing(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    launch = cupy.emulated.launch

    def skipping(*arguments: Any, cluster: Any, **options: Any) -> None:
        if cluster == 1:
            launch(*arguments, cluster=cluster, **options)

    monkeypatch.setattr(cupy.emulated, "launch", skipping)


def _clusters_wrong_by_little(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    launch = cupy.emulated.launch

    def inaccurate(
        kernel: Any, grid: Any, block: Any, values: list[Any], *more: Any, cluster: Any, **options: Any
    ) -> None:
        if cluster > 1:
            values = [100 * value if isinstance(value, np.float32) else value for value in values]  # momentum, epsilon
        launch(kernel, grid, block, values, *more, cluster=cluster, **options)

    monkeypatch.setattr(cupy.emulated, "launch", inaccurate)


def _cublas_lt(function: str, behaviour: Callable[..., Any]) -> Fault:
    """Let ``behaviour`` stand for a function of cublasLt."""

    def install(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
        monkeypatch.setattr(FakeCublasLt, function, behaviour)

    return install


def _lacks_cublas_lt(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    monkeypatch.setattr(resources, "load_cublas_lt", lambda cupy, cublas: SimpleNamespace())


def _loses_nan(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    monkeypatch.setattr(FakeCublasLt, "loses_nan", True)


def _products_with_a_bias_are_fatal(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    def fail(*arguments: Any) -> int:
        _fatal(monkeypatch)
        return 0

    monkeypatch.setattr(FakeCublasLt, "_matmul", fail)


def _device_busy(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    error = CUDARuntimeError("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable")
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceProperties", _raises(error))


def no_room_after_all(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy, size: int) -> None:
    """Arrays of more than ``size`` bytes have no room, whatever the driver has said of free memory: it is in pieces."""
    empty = cupy.empty

    def refusing(shape: Any, dtype: Any) -> Any:
        if np.prod(shape) * np.dtype(dtype).itemsize > size:
            raise fake_cupy.OutOfMemoryError
        return empty(shape, dtype)

    monkeypatch.setattr(cupy, "empty", refusing)


def _no_memory(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    cupy.free = 10


# (fault, the trial that shows it, what is said)
WITHOUT_CUDA: dict[str, tuple[Fault, str, str]] = {
    "the device is busy": (_device_busy, "device", "cudaErrorDevicesUnavailable"),
    "no memory is free": (_no_memory, "kernel", "no room for"),
    "no CUDA headers": (
        _compiling_raises(RuntimeError("Failed to find CUDA headers. Please install CUDA toolkit headers.")),
        "kernel",
        r"pip install 'gpunet\[cuda12\]'",
    ),
    "no NVRTC": (
        _compiling_raises(
            RuntimeError('Failure finding "libnvrtc.so": No such file\n  listdir("nvidia/lib"):\n    none')
        ),
        "kernel",
        r"listdir\(\"nvidia/lib\"\): none\. Headers .* pip install 'gpunet\[cuda12\]'",
    ),
    "NVRTC of another version": (
        _compiling_raises(AssertionError("The requested function could not be found in the library.")),
        "kernel",
        "could not be found in the library",
    ),
    "no folder for compiled kernels": (
        _compiling_raises(PermissionError(13, "Permission denied", "/home/nobody/.cupy")),
        "kernel",
        "CUPY_CACHE_DIR",
    ),
    "launches are refused": (_launch_refused, "kernel", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
    "kernels do nothing": (_kernel(lambda *arguments, **options: None), "kernel", "a kernel gave wrong numbers"),
    "kernels fail": (
        _kernel(_raises(CUDARuntimeError("cudaErrorIllegalInstruction: an illegal instruction was encountered"))),
        "kernel",
        "after a restart of the process",
    ),
    "products are refused": (_product(13, 0), "product", "cublasGemmEx failed with status 13"),
    "products are wrong": (_product(0, 1), "product", "a matrix product gave wrong numbers"),
}
# What CUDA could do without, and is ended by.
FATAL: dict[str, tuple[Fault, str, str]] = {
    "products with a bias are fatal": (_products_with_a_bias_are_fatal, "cublasLt bias", "GPUNET_CUBLASLT=0"),
    "replays are fatal": (_replays_are_fatal, "recording", "GPUNET_CUDA_GRAPH=0"),
    "clusters are fatal": (_clusters_are_fatal, "clusters", "GPUNET_CLUSTERS=0"),
}
WITHOUT_RECORDING: dict[str, tuple[Fault, str, str]] = {
    "recording is refused": (_capture_refused, "recording", "cudaErrorStreamCaptureUnsupported"),
    "replays are refused": (
        _replay(_raises(CUDARuntimeError("cudaErrorInvalidValue: invalid argument"))),
        "recording",
        "launching a recorded step: cudaErrorInvalidValue",
    ),
    "replays do nothing": (_replay(lambda *arguments: None), "recording", "replay of a recorded step gave wrong"),
    "replays stop halfway": (_replay(_replays_half), "recording", "replay of a recorded step gave wrong"),
}
WITHOUT_CUBLAS_LT: dict[str, tuple[Fault, str, str]] = {
    "cublasLt is missing": (_lacks_cublas_lt, "cublasLt bias", "cuBLAS lacks the function cublasLtMatmulDescCreate"),
    "cublasLt has no algorithm": (_cublas_lt("_heuristic", lambda *arguments: 0), "cublasLt bias", "has no algorithm"),
    "cublasLt does not support it": (_cublas_lt("_matmul", lambda *arguments: 15), "cublasLt bias", "has no algorithm"),
    "cublasLt refuses": (_cublas_lt("_matmul", lambda *arguments: 7), "cublasLt bias", "failed with status 7"),
    "cublasLt does nothing": (_cublas_lt("_matmul", lambda *arguments: 0), "cublasLt bias", "gave wrong numbers"),
    "cublasLt loses NaN": (_loses_nan, "cublasLt relu", "epilogue 'relu' gave wrong numbers"),
}
WITHOUT_CLUSTERS: dict[str, tuple[Fault, str, str]] = {
    "clusters are refused": (_clusters_refused, "clusters", "CUDA_ERROR_INVALID_CLUSTER_SIZE"),
    "large clusters are refused": (_large_clusters_refused, "clusters", "CUDA_ERROR_INVALID_CLUSTER_SIZE"),
    "clusters do nothing": (_clusters_do_nothing, "clusters", "a cluster of blocks gave wrong numbers"),
    "clusters are wrong by little": (_clusters_wrong_by_little, "clusters", "a cluster of blocks gave wrong numbers"),
}
