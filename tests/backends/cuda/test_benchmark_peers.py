"""gpunet's peer for CUDA, with a stand-in for CuPy and the kernels on the emulated device."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from benchmarks.peers import find_peer
from benchmarks.peers.peer import Peer
from benchmarks.problem import make_problem
from benchmarks.report.results import Case
from gpunet.backends import Backend
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy
from tests.helpers.benchmark_work import check, network, operation_cases

LAYERS = 3


class Pool:
    """CuPy's memory pool: what was freed stays in it."""

    def __init__(self) -> None:
        self.used, self.total = 0, 0

    def total_bytes(self) -> int:
        return self.total

    def free_bytes(self) -> int:
        return self.total - self.used

    def used_bytes(self) -> int:
        return self.used

    def get_limit(self) -> int:
        return 0

    def free_all_blocks(self, stream: Any = None) -> None:
        self.total = self.used


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for CuPy that the peer imports."""
    cupy: Any = fake_cupy.FakeCupy(EmulatedDevice(multiprocessor_count=4, compute_capability=(8, 0)))
    pool, empty = Pool(), cupy.empty

    def counted(shape: Any, dtype: Any) -> Any:
        array = empty(shape, dtype)
        pool.total += array.nbytes
        return array

    cupy.empty, cupy.get_default_memory_pool = counted, lambda: pool
    fake_cupy.install(monkeypatch, cupy)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


@pytest.fixture
def peer(cupy: Any) -> Peer:
    return find_peer("gpunet-cuda")


@pytest.mark.parametrize(
    "case",
    [
        network("forward"),
        network("forward_backward"),
        network("step"),
        network("epoch"),
        network("step", optimizer="sgd", batch_norm=False),
        *operation_cases(),
    ],
    ids=lambda case: case.key,
)
def test_equal_work(peer, case):
    check(peer, case)


def operations_of(case: Case) -> int:
    """Return the kernels of a unit of work: each operation of the network is one launch."""
    forward = LAYERS + (LAYERS - 1)  # products, the last with its bias, and batch norms
    backward = LAYERS + (LAYERS - 1) + (LAYERS - 1)  # products for W and X, batch norms
    gather, loss, update = 1, 1, 1
    there_and_back = forward + loss + backward  # the loss has the last bias, and its gradient, and counts the step
    step = gather + there_and_back + update
    return {
        "forward": forward,
        "forward_backward": there_and_back,
        "step": step,
        # Good weights and running averages are kept, and looked at in the end; two full batches and one that is
        # shorter; the loss after the last update.
        "epoch": 2 + 3 * step + forward + loss + 2,
    }[case.mode]


@pytest.mark.parametrize("mode", ["forward", "forward_backward", "step", "epoch"])
def test_launches_are_counted(peer, mode):
    case = network(mode, sizes=(6, 5, 4, 3), rows=7, examples=17)
    work = peer.prepare(case, make_problem(case))
    work.run(2)
    assert work.launches() == operations_of(case)
    assert work.launches() == operations_of(case)
    work.run(2)  # goes on with its recorded step
    work.device.synchronize()


def test_one_kernel_for_an_operation(peer):
    case = Case("batch_norm_activation", "backward", "test", 9, (5,))
    assert peer.prepare(case, make_problem(case)).launches() == 1


def test_a_recording_is_repeated_from_the_second_step_on(peer, cupy):
    case = network("step", sizes=(6, 5, 3), rows=7)
    work: Any = peer.prepare(case, make_problem(case))
    work.run(2)

    def refuse(*arguments: Any, **options: Any) -> None:
        pytest.fail("a kernel was launched one by one")

    work.device.backend.device.launch = refuse
    work.run(3)


def test_batches_lie_on_the_device_and_rotate(peer):
    case = network("forward", sizes=(6, 5, 3), rows=7)
    work: Any = peer.prepare(case, make_problem(case, batches=4))
    seen = []
    work.unit = lambda X, y: seen.append(X)
    work.run(3)
    work.run(3)
    assert all(isinstance(X, fake_cupy.ndarray) for X in seen)
    assert seen[:4] == [X for X, _ in work.batches]
    assert seen[4:] == seen[:2]


def test_time_is_that_of_events_in_the_stream(peer, cupy):
    cupy.cuda.get_elapsed_time = lambda start, stop: 30.0  # milliseconds
    case = network("forward", sizes=(6, 5, 3), rows=7)
    host, device = peer.prepare(case, make_problem(case)).time(3)
    assert device == pytest.approx(0.01)
    assert host > 0


def test_memory_is_that_of_the_case(peer, cupy):
    cupy.get_default_memory_pool().total = 10**9  # freed by an earlier case
    case = network("step", sizes=(6, 5, 3), rows=7)
    problem = make_problem(case)
    work = peer.prepare(case, problem)
    work.run(1)
    peak = work.device.peak_bytes()
    assert peak is not None
    assert sum(X.nbytes for X, _ in problem.batches) < peak < 10**6


def test_precision_reaches_the_products(peer):
    case = network("forward", precision="tf32")
    work: Any = peer.prepare(case, make_problem(case))
    assert work.backend.precision == work.network.precision == "tf32"


def test_unfused_work_runs_on_the_stream_of_its_device(peer, cupy, monkeypatch):
    """CuPy's expressions go to the current stream, products and copies to the device's: they must be the same one."""
    streams = []

    def watched(*arguments: Any, **options: Any) -> None:
        streams.append(fake_cupy.current.streams[-1])

    monkeypatch.setattr(fake_cupy.current, "streams", [fake_cupy.Stream.null])
    monkeypatch.setattr(Backend, "bias_activation_forward", watched)
    case = Case("bias_activation", "forward", "test", 9, (5,))
    work: Any = find_peer("gpunet-cuda-unfused").prepare(case, make_problem(case))
    work.run(2)
    work.outputs()
    assert [stream is work.device.backend.device._stream for stream in streams] == [True] * 3
    assert work.launches() is None  # the kernels are CuPy's
    case = case.replace(mode="backward")
    find_peer("gpunet-cuda-unfused").prepare(case, make_problem(case))  # its forward ran, on the stream
    assert len(streams) == 4


def test_versions(peer):
    assert peer.versions()["cupy"] == fake_cupy.FakeCupy.__version__
    assert peer.versions().keys() == {"gpunet", "numpy", "cupy", "launch plans"}
    assert peer.versions()["launch plans"] == "estimates"
