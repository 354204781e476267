"""What is verified where there is no GPU: the emulated device, also one with a bug in its kernels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.verification.check import Check
from gpunet.verification.operation import Operation, compare
from gpunet.verification.run import Verification, all_checks
from gpunet.verification.subject import Cuda
from tests.conftest import MULTIPROCESSORS
from tests.emulation import EmulatedDevice, EmulationError, Kernel

Replacement = tuple[str, str]
# Of the device's memory: what an emulated one would take from the host.
MEMORY_BYTES = 32 * 2**20


class PlantedDevice(EmulatedDevice):
    """An emulated device that compiles the kernels with one piece of text replaced.

    Parameters
    ----------
    replacement : (old, new), or None
        None for the kernels as they are. What is replaced has to be in the file once.
    kernels : str
        Pattern of the kernels that a test launches: the others of their group are not compiled.
    module : str
        The file that the replacement is in, without ``.cu``; by default, every file that is loaded.
    **options
        Of :class:`EmulatedDevice`.
    """

    def __init__(self, replacement: Replacement | None, kernels: str = "", module: str = "", **options: Any) -> None:
        super().__init__(**{"multiprocessor_count": MULTIPROCESSORS, **options})
        self._replacement = replacement
        self._kernels = re.compile(kernels)
        self._module = module

    def load(self, source: str, options: Sequence[str], kernels: Sequence[str], name: str) -> Mapping[str, Kernel]:
        wanted = [kernel for kernel in kernels if self._kernels.match(kernel)]
        if self._replacement is not None and name.startswith(self._module):
            old, new = self._replacement
            assert source.count(old) == 1, f"{name} has {source.count(old)} times: {old}"
            source = source.replace(old, new)
        try:
            return super().load(source, options, wanted, name)
        except EmulationError as error:
            pytest.fail(f"no bug that a compiler lets through: {error}")


class SmallDevice(EmulatedDevice):
    """An emulated device that runs out of memory as a real one does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(multiprocessor_count=MULTIPROCESSORS, **options)

    def empty(self, shape: Any, dtype: Any) -> Any:
        size = int(np.prod(shape, dtype=float)) * np.dtype(dtype).itemsize
        if size > MEMORY_BYTES:
            raise gpunet.OutOfDeviceMemoryError(f"no room for {size:,} bytes")
        return super().empty(shape, dtype)


def verify(device: Any, *words: str) -> Verification:
    """Do the checks of a device whose names have all of the words; networks share it."""
    subject = Cuda(lambda precision: CudaBackend(device, precision))
    verification = Verification(subject, all_checks(subject, words))
    assert verification.checks
    verification.run(lambda done, what: None)
    return verification


def confirm_operations(device: Any, *operations: Operation, repeats: int = 2) -> None:
    """Assert that a device does operations as specified, and gives the same bits every time.

    The emulated device runs blocks and threads in another order each time.
    """
    backend = CudaBackend(device)
    for operation in operations:
        assert [found.text for found in compare(backend, operation, repeats=repeats) if found.text] == []


def confirm(device: Any, module: Any, *words: str) -> None:
    """Assert that the checks of a module whose names have all of the words pass."""
    subject = Cuda(lambda precision: CudaBackend(device, precision))
    checks = [check for check in module.checks(subject) if all(map(check.has, words))]
    assert checks
    verification = Verification(subject, checks)
    verification.run(lambda done, what: None)
    assert [f"{one.check.name}: {one.text}" for one in verification.outcomes if not one.is_right] == []


def check(name: str, run: Any, **more: Any) -> Check:
    """Return a check that is not about gpunet."""
    return Check(name, "float32", "", run, **more)
