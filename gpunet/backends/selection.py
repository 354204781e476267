"""Which backend runs a network: ``auto``, ``cpu``, ``cuda``, ``cuda:1``."""

from __future__ import annotations

import re

from gpunet.backends.base import Backend
from gpunet.backends.devices.probe import GpuReport, probe_gpu
from gpunet.errors import DeviceError, InvalidTypeError, unknown_name

_CUDA = re.compile(r"cuda(?::(\d+))?\Z")


def select_backend(device: str = "auto") -> Backend:
    """Return a new backend for a device.

    Parameters
    ----------
    device : str
        ``"auto"``: CUDA where it works, otherwise the CPU; never fails. ``"cpu"``. ``"cuda"``, ``"cuda:0"``,
        ``"cuda:1"``, ...: that CUDA device.

    Raises
    ------
    DeviceError
        CUDA was asked for and cannot be used; the message says exactly what is missing.
    InvalidValueError, InvalidTypeError
        The name is none of the above.
    """
    if not isinstance(device, str):
        raise InvalidTypeError(f"device: got {type(device).__name__}. Expected 'auto', 'cpu', 'cuda' or 'cuda:N'.")
    if device in ("auto", "cpu"):
        return Backend()
    match = _CUDA.match(device)
    if match is None:
        raise unknown_name("device", device, ("auto", "cpu", "cuda", "cuda:0", "cuda:1"))
    raise DeviceError(f"device: {device!r} cannot be used: {cuda_problem(probe_gpu(), int(match[1] or 0))}.")


def cuda_problem(report: GpuReport, index: int) -> str:
    """Say what keeps CUDA device ``index`` from running a network."""
    if report.problem is not None:
        return report.problem
    if index >= len(report.devices):
        names = ", ".join(f"cuda:{number} ({name})" for number, name in enumerate(report.devices))
        return f"this machine has {names}"
    return "this version of gpunet has no CUDA backend yet; device='cpu' works"
