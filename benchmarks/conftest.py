"""What the benchmarks of ``bench_*.py`` share: a backend on each device there is, and a clock that waits for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gpunet.backends import Backend, select_backend
from gpunet.errors import DeviceError, MissingDependencyError


@pytest.fixture(params=["cpu", "cuda"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """A backend on the CPU, and one on the GPU; without one, the reason is shown."""
    try:
        return select_backend(request.param)
    except (DeviceError, MissingDependencyError) as error:
        pytest.skip(str(error))


@pytest.fixture
def timed(benchmark: BenchmarkFixture, backend: Backend) -> Callable[[Callable[[], object]], None]:
    """Return a function that times another one, from its call until the device has done the work."""

    def run(unit: Callable[[], object]) -> None:
        def done() -> None:
            unit()
            backend.synchronize()

        done()  # compiles, makes buffers
        benchmark(done)

    return run
