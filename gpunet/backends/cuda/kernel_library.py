"""The compiled kernels of one device, compiled when the first of a group is needed."""

from __future__ import annotations

from typing import Any

from gpunet.backends.cuda.sources import source
from gpunet.backends.devices.device import Device

OPTIONS = ("-std=c++17", "-lineinfo")

Group = tuple[str, ...]


class KernelLibrary:
    """Compiles groups of kernels on first use and keeps them.

    Parameters
    ----------
    device : Device
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._kernels: dict[tuple[str, str], Any] = {}

    def get(self, module: str, expression: str, group: Group) -> Any:
        """Return a kernel, compiled together with the others of its group.

        Parameters
        ----------
        module : str
            The file, without ``.cu``.
        expression : str
            The C++ name with template arguments; one of ``group``.
        """
        kernel = self._kernels.get((module, expression))
        if kernel is None:
            loaded = self._device.load(source(module), OPTIONS, group, f"{module}.cu")
            self._kernels.update({(module, name): compiled for name, compiled in loaded.items()})
            kernel = self._kernels[module, expression]
        return kernel
