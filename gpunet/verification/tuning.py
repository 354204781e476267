"""Measures which constants of launch plans are the fastest on a device: what ``gpunet tune`` does."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from gpunet.activations import get_activation
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.batch_norm import DeviceLimits
from gpunet.backends.cuda.tuning import CANDIDATES, ESTIMATES, Tuning
from gpunet.errors import OutOfDeviceMemoryError
from gpunet.verification import batch_norm, optimizer
from gpunet.verification.operation import Operation, Placed
from gpunet.verification.speed import device_seconds
from gpunet.verification.storage import FLOAT32

# Batch norm where the algorithms differ: of few microseconds, in the L2 cache, narrow, at the end of what is resident,
# beyond it; and parameters beyond the caches. Elsewhere than on a GPU only that all of it runs.
LARGE_SHAPES, LARGE_SIZE = ((256, 256), (1024, 1024), (8192, 64), (16384, 1024), (65536, 128)), 2**24
SMALL_SHAPES, SMALL_SIZE = ((64, 64), (1100, 8)), 2**18
# In turns, and calls of a turn.
ROUNDS, CALLS = 5, 16
# A constant departs from its estimate for so much of the time of the work that it changes: less is noise.
MARGIN = 0.02


@dataclass(frozen=True)
class Choice:
    """What was chosen for a constant.

    Attributes
    ----------
    name : str
    estimate, chosen : int
    ratios : dict of int to float
        Of each candidate, the time of the work whose plan it changes over that with the choices before it.
    """

    name: str
    estimate: int
    chosen: int
    ratios: dict[int, float]


class _Work:
    """An operation on a device, whose plans are compared."""

    def __init__(self, backend: CudaBackend, operation: Operation) -> None:
        self._backend, self._operation = backend, operation
        self._placed = Placed(backend, operation)
        self._recorded: dict[Hashable, Callable[[], None]] = {}
        self._ratios: dict[tuple[Hashable, Hashable], float] = {}

    def plan(self, tuning: Tuning) -> Hashable:
        """Return what the launch depends on."""
        if self._operation.method == "adam_step":
            return tuning.streaming_waves
        limits = DeviceLimits.of(self._backend.device, self._backend.launcher.max_cluster_size, tuning)
        s = self._operation.given["s"]
        return batch_norm.plan(self._operation.method, s.shape, s.itemsize, batch_norm.Way(), {}, limits)

    def ratio(self, candidate: Tuning, present: Tuning) -> float:
        """Return the time with one plan over that with another, measured in turns: clocks rise and fall meanwhile."""
        plans = self.plan(candidate), self.plan(present)
        if plans not in self._ratios:
            runs = [self._run(plan, tuning) for plan, tuning in zip(plans, (candidate, present), strict=True)]
            rounds = [[device_seconds(self._backend.device, run, rounds=1) for run in runs] for _ in range(ROUNDS)]
            self._ratios[plans] = statistics.median(one / other for one, other in rounds)
        return self._ratios[plans]

    def _run(self, plan: Hashable, tuning: Tuning) -> Callable[[], None]:
        """Return what does the operation several times, recorded: a small kernel is over before the host asks again."""
        launcher = self._backend.launcher

        def several_times() -> None:
            launcher.tuning = tuning  # where nothing is recorded, the other's turn was before
            for _ in range(CALLS):
                self._placed.call()

        if plan not in self._recorded:
            launcher.tuning = tuning
            self._placed.call()  # compiles, and allocates
            self._recorded[plan] = self._backend.capture(several_times)
        return self._recorded[plan]


def measure(
    backend: CudaBackend, is_large: bool, on_progress: Callable[[int, str], object]
) -> tuple[Tuning, list[Choice]]:
    """Measure the candidates for one constant after the other, each with the best of those before it.

    Parameters
    ----------
    backend : CudaBackend
        Keeps what was chosen.
    is_large : bool
        Whether the device is a GPU.
    on_progress : callable
        Is given how many constants are done, and which one is next.
    """
    works = list(_works(backend, is_large))
    tuning, choices = ESTIMATES, []
    for done, (name, values) in enumerate(CANDIDATES.items()):
        on_progress(done, name)
        present: int = getattr(tuning, name)
        ratios = {value: _ratio(works, replace(tuning, **{name: value}), tuning) for value in values}
        fastest = min(values, key=lambda value: ratios[value])
        chosen = fastest if ratios[fastest] < 1 - MARGIN else present
        choices.append(Choice(name, present, chosen, ratios))
        tuning = replace(tuning, **{name: chosen})
    backend.launcher.tuning = tuning
    return tuning, choices


def _ratio(works: list[_Work], candidate: Tuning, present: Tuning) -> float:
    """Return the time with a candidate over the present one, as the mean of the work whose plan it changes."""
    changed = [work for work in works if work.plan(candidate) != work.plan(present)]
    logarithms = [math.log(work.ratio(candidate, present)) for work in changed]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else 1.0


def _works(backend: CudaBackend, is_large: bool) -> Iterator[_Work]:
    relu, size = get_activation("relu"), LARGE_SIZE if is_large else SMALL_SIZE
    makers = [partial(optimizer.adam_step, FLOAT32, size, size)]
    for shape in LARGE_SHAPES if is_large else SMALL_SHAPES:
        makers += [partial(make, FLOAT32, shape, relu) for make in (batch_norm.forward, batch_norm.backward)]
    for make in makers:
        operation = make()
        try:
            yield _Work(backend, operation)
        except OutOfDeviceMemoryError:
            continue  # what has no room here is no part of the choice
