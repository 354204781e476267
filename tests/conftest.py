"""Fixtures that tests share: the devices that the CUDA backend runs on; signals as a terminal's shell leaves them."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.emulation import EmulatedDevice


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave large shapes to the GPU."""
    items[:] = [item for item in items if "large" not in item.keywords or "gpu" in item.keywords]


@pytest.fixture(autouse=True, scope="session")
def _signals() -> None:
    """Let signals end child processes, also where the tests run in the background of a shell or under ``nohup``.

    Children ignore what their parent ignores.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


# Small enough that kernels go round their loops over the grid even for small arrays.
MULTIPROCESSORS = 2


@functools.cache
def cupy_device() -> Any:
    """Return the GPU of this machine; skip the test without one, or fail where GPUNET_REQUIRE_GPU=1 promises one."""
    from gpunet.backends.devices.cupy import CupyDevice
    from gpunet.errors import DeviceError

    try:
        return CupyDevice(0)
    except DeviceError as error:
        if os.environ.get("GPUNET_REQUIRE_GPU") == "1":
            pytest.fail(f"GPUNET_REQUIRE_GPU=1, but {error}")
        pytest.skip(str(error))


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A device for CudaBackend: the emulated one, and the GPU where there is one.

    After the test, the emulated device checks that nothing was written outside any array.
    """
    if request.param == "cuda":
        yield cupy_device()
        return
    emulated = EmulatedDevice(multiprocessor_count=MULTIPROCESSORS)
    yield emulated
    emulated.check_guards()
