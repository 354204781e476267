"""What ``gpunet tune`` chooses, by a clock that the test turns: no time of this machine counts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.batch_norm import BatchNormPlan, DeviceLimits, plan_backward, plan_forward
from gpunet.backends.cuda.tuning import CANDIDATES, ESTIMATES, Tuning
from gpunet.verification import tuning
from tests.helpers.gpu_models import GPU_MODELS
from tests.helpers.verification import SmallDevice

LIMITS = [
    DeviceLimits(
        model["multiProcessorCount"],
        model["sharedMemPerBlockOptin"],
        model["sharedMemPerMultiprocessor"],
        model["l2CacheSize"],
        8 if model["major"] >= 9 else 1,
    )
    for model in GPU_MODELS.values()
]


def plans(limits: DeviceLimits, chosen: Tuning) -> list[tuple[Any, BatchNormPlan]]:
    """Return the plans of the shapes that a GPU is measured with."""
    tuned = replace(limits, tuning=chosen)
    return [
        (shape, make(*shape, 4, 4, tuned)) for shape in tuning.LARGE_SHAPES for make in (plan_forward, plan_backward)
    ]


@pytest.mark.parametrize("name", [name for name in CANDIDATES if name != "streaming_waves"])
def test_every_candidate_changes_a_plan_of_some_gpu(name: str) -> None:
    """Else it would be measured for nothing; and there are few enough of them for a measurement of seconds."""
    for value in set(CANDIDATES[name]) - {getattr(ESTIMATES, name)}:
        candidate = replace(ESTIMATES, **{name: value})
        assert any(plans(limits, candidate) != plans(limits, ESTIMATES) for limits in LIMITS)


def test_the_measurement_is_short() -> None:
    for limits in LIMITS:
        tried = [replace(ESTIMATES, **{name: value}) for name, values in CANDIDATES.items() for value in values]
        different = {plan for candidate in tried for plan in plans(limits, candidate)}
        assert len(different) <= 40
        assert len({(plan.kernel, plan.cluster, plan.width) for _, plan in different}) < 10


class PlantedDevice(SmallDevice):
    """Runs nothing; a kernel takes as long as ``seconds`` says of its name, its grid and its block."""

    def __init__(self, seconds: Any) -> None:
        super().__init__(compute_capability=(9, 0))
        self.seconds, self.clock = seconds, 0.0

    def load(self, source: str, options: Any, kernels: Any, name: str) -> Any:
        return {kernel: kernel for kernel in kernels}

    def launch(self, kernel: Any, grid: Any, block: Any, *args: Any, cluster: int = 1, **options: Any) -> None:
        self.clock += self.seconds(kernel.partition("<")[0], grid, block, cluster or 1)

    def capture(self, step: Any) -> Any:
        before = self.clock
        step()
        seconds, self.clock = self.clock - before, before

        def launch() -> None:
            self.clock += seconds

        return SimpleNamespace(nodes=None, launch=launch)

    def record_event(self) -> float:
        return self.clock


def measured(seconds: Any, records: bool = True) -> tuple[Tuning, list[tuning.Choice]]:
    backend = CudaBackend(PlantedDevice(seconds), records=records)
    found = tuning.measure(backend, False, lambda done, what: None)
    assert backend.launcher.tuning == found[0]
    return found


def test_what_is_equal_stays_with_the_estimates() -> None:
    found, choices = measured(lambda kernel, grid, block, cluster: 1e-3)
    assert found == ESTIMATES
    assert [choice.name for choice in choices] == list(CANDIDATES)
    for choice in choices:
        assert choice.ratios == pytest.approx(dict.fromkeys(CANDIDATES[choice.name], 1))


def test_a_gain_within_the_noise_is_none() -> None:
    def seconds(kernel: str, grid: Any, block: Any, cluster: int) -> float:
        return 1e-3 * (1 - 0.9 * tuning.MARGIN * (block == (1, 128) or grid == 1))

    assert measured(seconds)[0] == ESTIMATES


@pytest.mark.parametrize("waves", CANDIDATES["streaming_waves"])
def test_waves(waves: int) -> None:
    """A wave of this device is 16 blocks of 256 threads."""

    def seconds(kernel: str, grid: Any, block: Any, cluster: int) -> float:
        return 1e-3 if kernel != "adam_step" or grid == 16 * waves else 2e-3

    found, choices = measured(seconds)
    assert found == Tuning(streaming_waves=waves)
    assert choices[0].ratios[waves] == pytest.approx(1 if waves == ESTIMATES.streaming_waves else 0.5)


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("threads", CANDIDATES["resident_threads"])
def test_threads_of_a_block(threads: int, records: bool) -> None:
    def seconds(kernel: str, grid: Any, block: Any, cluster: int) -> float:
        is_resident = kernel.endswith("resident")
        return 2e-3 if is_resident and block[0] * block[1] != threads else 1e-3

    assert measured(seconds, records)[0] == Tuning(resident_threads=threads)


@pytest.mark.parametrize("is_slow", [True, False])
def test_clusters(is_slow: bool) -> None:
    """Barriers that cost more than estimated make their cost the larger one, and fewer plans have clusters."""

    def seconds(kernel: str, grid: Any, block: Any, cluster: int) -> float:
        return 1e-3 * (3 if (cluster > 1) == is_slow else 1)

    found = measured(seconds)[0].cluster_bytes
    assert (found > ESTIMATES.cluster_bytes) if is_slow else (found <= ESTIMATES.cluster_bytes)


def test_a_device_that_gets_faster_meanwhile_changes_nothing() -> None:
    """As a GPU does whose clock rises with the first work that it gets."""
    seconds = 1.0

    def falling(*launch: Any) -> float:
        nonlocal seconds
        seconds *= 0.9999
        return seconds

    assert measured(falling, records=False)[0] == ESTIMATES


def test_what_has_no_room_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tuning.Placed

    def without_room(backend: Any, operation: Any) -> Any:
        if operation.method == "adam_step":
            raise gpunet.OutOfDeviceMemoryError("no room for it")
        return made(backend, operation)

    monkeypatch.setattr(tuning, "Placed", without_room)
    kernels: set[str] = set()

    def seconds(kernel: str, *launch: Any) -> float:
        kernels.add(kernel)
        return 1e-3

    assert measured(seconds)[0] == ESTIMATES
    assert kernels
    assert all("batch_norm" in kernel for kernel in kernels)
