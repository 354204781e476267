"""Which backend runs a network: ``auto``, ``cpu``, ``cuda``, ``cuda:1``."""

from __future__ import annotations

import re
from importlib.util import find_spec

from gpunet.backends.backend import Backend
from gpunet.backends.by_work import CpuByWork, compiled_backend, kernels_problem
from gpunet.backends.devices.probe import GpuReport, probe_gpu
from gpunet.backends.half import HALF_DTYPES
from gpunet.backends.half_numpy import HalfNumpyBackend
from gpunet.backends.notices import say_once
from gpunet.backends.numpy import NumpyBackend
from gpunet.backends.switches import COMPILED_CPU
from gpunet.errors import DeviceError, InvalidTypeError, unknown_name

_CUDA = re.compile(r"cuda(?::(\d+))?\Z")
_NAMES = ("auto", "cpu", "cpu:numpy", "cpu:compiled")
_OLDEST_CUPY = 14


def select_backend(device: str | Backend = "auto", precision: str = "float32") -> Backend:
    """Return a new backend for a device.

    Parameters
    ----------
    device : str or Backend
        ``"auto"``: CUDA where it works, otherwise the CPU, with one warning that names the reason where a GPU and CuPy
        are there; never a DeviceError. ``"cpu"``: NumPy, and compiled kernels for large work where Numba is installed
        (:mod:`gpunet.backends.by_work`); ``"cpu:numpy"`` and ``"cpu:compiled"``: the one or the other for all work.
        ``"cuda"``, ``"cuda:0"``, ``"cuda:1"``, ...: that CUDA device. The
        first use of a device in a process tries whether it works (:mod:`gpunet.backends.cuda.proof`). A backend is
        returned as it is.
    precision : str
        ``"float32"``, or ``"tf32"`` to let CUDA multiply float32 matrices on the tensor cores; the CPU has no such
        thing and multiplies in float32. ``"bfloat16"`` and ``"float16"`` are emulated on the CPU.

    Raises
    ------
    DeviceError
        CUDA or compiled kernels were asked for and cannot be used; the message says exactly what is missing.
    InvalidValueError, InvalidTypeError
        The name is none of the above; or a variable of :mod:`gpunet.backends.switches` that matters to the device has
        another value than those it takes.
    """
    check_device(device)
    if isinstance(device, Backend):
        return device
    if device.startswith("cpu"):
        return _cpu(device, precision)
    match = _CUDA.match(device)
    if match is None:
        return _automatic(precision)
    index = int(match[1] or 0)
    problem = cuda_problem(probe_gpu(), index)
    if problem is not None:
        raise DeviceError(f"device: {device!r} cannot be used: {problem}.")
    return _cuda(index, precision)


def check_device(device: str | Backend) -> None:
    """Raise where ``device`` is no name of a device and no backend; whether it can be used is not looked at.

    Raises
    ------
    InvalidValueError, InvalidTypeError
    """
    if isinstance(device, Backend):
        return
    if not isinstance(device, str):
        raise InvalidTypeError(f"device: got {type(device).__name__}. Expected 'auto', 'cpu', 'cuda' or 'cuda:N'.")
    if device not in _NAMES and not _CUDA.match(device):
        raise unknown_name("device", device, (*_NAMES, "cuda", "cuda:0", "cuda:1"))


def cuda_problem(report: GpuReport, index: int) -> str | None:
    """Say what keeps CUDA device ``index`` from running a network; None where nothing is known to.

    Parameters
    ----------
    report : GpuReport
    index : int
    """
    if report.problem is not None:
        return report.problem
    if index >= len(report.devices):
        names = ", ".join(f"cuda:{number} ({name})" for number, name in enumerate(report.devices))
        return f"this machine has {names}"
    major = (report.cupy or "").split(".")[0]
    if major.isdigit() and int(major) < _OLDEST_CUPY:
        return (
            f"CuPy {report.cupy} is installed, and gpunet needs {_OLDEST_CUPY} or newer: "
            f"pip install 'gpunet[{report.extra}]'"
        )
    return None


def _automatic(precision: str) -> Backend:
    report = probe_gpu()
    problem: object = cuda_problem(report, 0)
    if problem is None:
        try:
            return _cuda(0, precision)
        except DeviceError as error:
            problem = error
    if report.cupy is not None and (report.devices or report.refusal):
        say_once("device='auto' takes the CPU, because CUDA does not work", problem)
    return _cpu("cpu", precision)


def _has_numba() -> bool:
    return find_spec("numba") is not None and find_spec("threadpoolctl") is not None


def compiled_problem() -> str | None:
    """Say what keeps compiled kernels from running on the CPU; None where nothing does. They are tried once."""
    if not _has_numba():
        return "they need Numba: pip install 'gpunet[cpu]'"
    return kernels_problem()


def _cpu(device: str, precision: str) -> Backend:
    if precision in HALF_DTYPES:
        if device == "cpu:compiled":
            raise DeviceError(f"device: {device!r} has no half precision; 'cpu' emulates it.")
        return HalfNumpyBackend()
    if device == "cpu:compiled":
        problem = compiled_problem()
        if problem is not None:
            raise DeviceError(f"device: the compiled kernels of {device!r} cannot be used: {problem}")
        return compiled_backend()
    return CpuByWork() if device == "cpu" and COMPILED_CPU.is_on() and _has_numba() else NumpyBackend()


def _cuda(index: int, precision: str) -> Backend:
    # Imported here: the kernels' Python is of no use to a network on the CPU, and `import gpunet` is to be fast.
    from gpunet.backends.cuda import CudaBackend
    from gpunet.backends.cuda.proof import proof_of
    from gpunet.backends.cuda.tuning import tuning_of
    from gpunet.backends.devices.cupy import CupyDevice

    proof = proof_of(index)
    if proof.problem is not None:
        raise DeviceError(f"{proof.problem}. `gpunet info` says what was tried; device='cpu' does without CUDA.")
    for name, loss in (
        ("recording", "training steps are not recorded and run one operation at a time"),
        ("cublasLt bias", "matrix products do without cublasLt"),
        ("cublasLt relu", "matrix products do without the ReLU of cublasLt"),
        ("clusters", "batch norm does without clusters of blocks"),
    ):
        if proof.results.get(name) is not None:
            say_once(f"on cuda:{index}, {loss}", proof.results[name])
    device = CupyDevice(index)
    return CudaBackend(
        device,
        precision,
        records=proof.records,
        has_clusters=proof.has_clusters,
        tuning=tuning_of(device),
        epilogues=proof.epilogues,
    )
