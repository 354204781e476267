"""The compiled kernels of one device, compiled when the first of a group is needed."""

from __future__ import annotations

from typing import Any

from gpunet.activations import Activation
from gpunet.backends.cuda.instantiation import NoKernelError
from gpunet.backends.cuda.sources import source_with
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
        self._kernels: dict[tuple[str | None, ...], Any] = {}

    def get(self, module: str, expression: str, group: Group, activation: Activation | None = None) -> Any:
        """Return a kernel, compiled together with the others of its group.

        Parameters
        ----------
        module : str
            The file, without ``.cu``.
        expression : str
            The C++ name with template arguments; one of ``group``.
        activation : Activation, optional
            The one among the template arguments.

        Raises
        ------
        NoKernelError
            The activation has no CUDA text.
        """
        if activation is None:
            texts: tuple[str | None, ...] = ()
        elif activation.cuda_forward is None:
            raise NoKernelError
        else:
            texts = activation.cuda_forward, activation.cuda_derivative, activation.derivative_of
        kernel = self._kernels.get((module, expression, *texts))
        if kernel is None:
            file = f"{module}.cu" + ("" if activation is None else f" with {activation.name}")
            loaded = self._device.load(source_with(module, activation), OPTIONS, group, file)
            self._kernels.update({(module, name, *texts): compiled for name, compiled in loaded.items()})
            kernel = loaded[expression]
        return kernel
