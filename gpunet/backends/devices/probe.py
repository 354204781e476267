"""What NVIDIA hardware and software this machine has, asked without importing CuPy and without failing."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from dataclasses import dataclass

CUPY_EXTRAS = {13: "cuda13", 12: "cuda12"}
FORKED = (
    "this process was forked from one that had used CUDA, and CUDA works in no such process: start processes with the "
    "method 'spawn' or 'forkserver' of multiprocessing"
)
# Of cuInit: in a fork of a process that has called it; where there is nothing to use, or CUDA_VISIBLE_DEVICES hides it.
_NOT_INITIALISED, _NO_DEVICE = 3, 100

_initialised_in: int | None = None


def note_initialisation() -> None:
    """Remember that this process is about to use CUDA."""
    global _initialised_in
    if _initialised_in is None:
        _initialised_in = os.getpid()


def is_forked() -> bool:
    """Return whether gpunet used CUDA before this process was forked from the one that did."""
    return _initialised_in not in (None, os.getpid())


@dataclass(frozen=True)
class GpuReport:
    """The state of CUDA on this machine.

    Attributes
    ----------
    driver_cuda : tuple of two ints, or None
        The newest CUDA version that the driver supports, such as (13, 0); None without a driver.
    devices : tuple of str
        Names of the devices, in the driver's order.
    cupy : str or None
        Version of the installed CuPy.
    refusal : str or None
        One sentence that says why the driver does not tell its devices.
    """

    driver_cuda: tuple[int, int] | None
    devices: tuple[str, ...]
    cupy: str | None
    refusal: str | None = None

    @property
    def extra(self) -> str | None:
        """The extra of gpunet that brings the CuPy for this driver; None where no CuPy would help."""
        if self.driver_cuda is None or not self.devices:
            return None
        return next((extra for major, extra in CUPY_EXTRAS.items() if self.driver_cuda[0] >= major), None)

    @property
    def problem(self) -> str | None:
        """One sentence that says what keeps CUDA from working and how to get it; None where nothing does."""
        if self.driver_cuda is None:
            return "no NVIDIA driver was found on this machine (libcuda cannot be loaded)"
        if self.refusal is not None:
            return self.refusal
        if not self.devices:
            return "the NVIDIA driver is installed but reports no device"
        if self.extra is None:
            major, minor = self.driver_cuda
            return f"the NVIDIA driver supports CUDA {major}.{minor}, and CuPy needs a driver for CUDA 12 or newer"
        if self.cupy is None:
            return f"CuPy is not installed: pip install 'gpunet[{self.extra}]'"
        return None


def probe_gpu() -> GpuReport:
    """Ask the driver and the installed packages; never raises."""
    driver_cuda, devices, refusal = _ask_driver()
    return GpuReport(driver_cuda, devices, _cupy_version(), refusal)


def _ask_driver() -> tuple[tuple[int, int] | None, tuple[str, ...], str | None]:
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return None, (), None
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    if cuda.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None, (), None
    supported = (version.value // 1000, version.value % 1000 // 10)
    if is_forked():
        return supported, (), FORKED
    note_initialisation()
    status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status not in (0, _NO_DEVICE):
        return supported, (), FORKED if status == _NOT_INITIALISED else f"the NVIDIA driver fails with status {status}"
    return supported, tuple(_device_name(cuda, index) for index in range(count.value)), None


def _device_name(cuda: ctypes.CDLL, index: int) -> str:
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(128)
    if cuda.cuDeviceGet(ctypes.byref(device), index) != 0 or cuda.cuDeviceGetName(name, len(name), device) != 0:
        return f"device {index}"
    return name.value.decode(errors="replace")


def _cupy_version() -> str | None:
    if importlib.util.find_spec("cupy") is None:
        return None
    from importlib import metadata  # takes 20 ms, which `import gpunet` need not pay

    for distribution in ("cupy-cuda13x", "cupy-cuda12x", "cupy"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"
