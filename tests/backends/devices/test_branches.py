"""Operations beside others in a recording: what waits for what, on the emulated device and on the stand-in for CuPy."""

from __future__ import annotations

import collections
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices import cupy as cupy_device
from gpunet.backends.devices import graph_nodes
from gpunet.verification.speed import watch_recordings
from tests.backends.cuda.test_device import backend as backend  # fixtures
from tests.backends.cuda.test_device import cupy as cupy
from tests.emulation import EmulatedDevice, EmulationError
from tests.emulation.graph import Graph
from tests.helpers import fake_cupy

RNG = np.random.default_rng(0)
DEEP = [6, 9, 8, 7, 5, 3]


@pytest.fixture(params=["emulated", "cupy"])
def device(request: pytest.FixtureRequest, cupy: fake_cupy.FakeCupy) -> Any:
    return EmulatedDevice(multiprocessor_count=4) if request.param == "emulated" else cupy_device.CupyDevice(0)


class Copies:
    """Arrays that are copied from one to the next: 1 from 0, 2 from 0, 3 from 1, ..."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.arrays = [device.asarray(np.full(3, value)) for value in range(5)]

    def __call__(self, source: int, destination: int) -> None:
        self.device.copy(self.arrays[destination], self.arrays[source])

    def values(self) -> list[int]:
        return [int(self.device.to_numpy(array)[0]) for array in self.arrays]


def test_a_branch_begins_after_what_was_asked_for_before_and_is_joined(device: Any) -> None:
    copy = Copies(device)

    def step() -> None:
        copy(0, 1)
        with device.beside():
            copy(1, 2)
        copy(1, 3)
        device.join()
        copy(2, 4)

    replay = device.capture(step)
    assert copy.values() == [0, 1, 2, 3, 4], "nothing has run"
    for number in range(5, 25):
        device.copy(copy.arrays[0], np.full(3, number))
        replay.launch()
        assert copy.values() == [number] * 5


def test_without_a_recording_operations_run_in_order(device: Any) -> None:
    copy = Copies(device)
    with device.beside():
        copy(1, 2)
    copy(2, 3)
    copy(0, 2)
    device.join()
    assert copy.values() == [0, 1, 0, 1, 4]


def test_a_branch_may_be_the_last_to_be_asked_for(device: Any) -> None:
    copy = Copies(device)

    def step() -> None:
        with device.beside():
            copy(0, 1)
        device.join()

    device.capture(step).launch()
    assert copy.values()[1] == 0


@pytest.mark.parametrize(
    ("inside", "after"),
    [((0, 1), (1, 2)), ((0, 1), (2, 0)), ((0, 1), (2, 1))],
    ids=["reads what the branch writes", "writes what the branch reads", "writes what the branch writes"],
)
def test_a_race_is_found(device: Any, inside: tuple[int, int], after: tuple[int, int]) -> None:
    copy = Copies(device)

    def step(joins_first: bool) -> None:
        with device.beside():
            copy(*inside)
        if joins_first:
            device.join()
        copy(*after)
        device.join()

    with pytest.raises((EmulationError, AssertionError), match=r"race|write what others use"):
        device.capture(lambda: step(joins_first=False))
    device.capture(lambda: step(joins_first=True))


def test_a_branch_that_is_not_joined(device: Any) -> None:
    copy = Copies(device)

    def step() -> None:
        with device.beside():
            copy(0, 1)

    with pytest.raises((EmulationError, gpunet.DeviceError), match=r"not joined|CaptureUnjoined"):
        device.capture(step)
    device.capture(lambda: copy(0, 2)).launch()  # the next recording has nothing of it
    assert copy.values()[:3] == [0, 1, 0]


def test_a_step_that_fails_in_a_branch(device: Any) -> None:
    copy = Copies(device)

    def step() -> None:
        with device.beside():
            copy(0, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        device.capture(step)
    device.join()
    device.capture(lambda: copy(0, 2)).launch()
    copy(0, 3)
    assert copy.values() == [0, 1, 0, 0, 4]


def test_every_order_that_fits_comes_up() -> None:
    graph = Graph()
    start = graph.add("start", frozenset())
    left, right = graph.add("left", start), graph.add("right", start)
    graph.add("end", left | right)
    orders = {tuple(graph.shuffled(seed)) for seed in range(30)}
    assert orders == {("start", "left", "right", "end"), ("start", "right", "left", "end")}
    assert (graph.longest_chain(), graph.longest_chain(lambda name: name in ("left", "right"))) == (3, 1)


# --- events of a capture ----------------------------------------------------------------------------------------------


def test_events_of_a_capture_belong_to_it(cupy: fake_cupy.FakeCupy) -> None:
    """The stand-in refuses what the driver does."""
    stream, other = (fake_cupy.Stream(non_blocking=True) for _ in range(2))
    before = other.record()
    stream.begin_capture()
    within = stream.record()
    with pytest.raises(RuntimeError, match="CapturedEvent"):
        within.synchronize()
    with pytest.raises(RuntimeError, match="Isolation"):
        stream.wait_event(before)
    with pytest.raises(RuntimeError, match="Invalidated"):
        stream.end_capture()
    with pytest.raises(RuntimeError, match="Merge"):
        other.wait_event(within)


# --- the step of a network --------------------------------------------------------------------------------------------


def recorded_step(backend: CudaBackend, sizes: list[int], weighted: bool = False, **arguments: Any) -> Any:
    """Return the recording of a training step; losses and weights, also of recorded epochs, are those of NumPy."""
    recordings = watch_recordings(backend.device)
    X, y = RNG.standard_normal((40, sizes[0])), RNG.integers(0, sizes[-1], 40)
    if not arguments.get("loss", "softmax").startswith("softmax"):
        y = np.eye(sizes[-1])[y]
    weights = RNG.uniform(0, 2, 40) if weighted else None
    found = []
    for device in (backend, "cpu"):
        network = gpunet.Network(sizes, seed=1, dtype="float64", device=device, **arguments)
        optimizer = gpunet.SGD(0.1, momentum=0.9)
        settings: dict[str, Any] = {"epochs": 6, "batch_size": 8, "l2": 1e-3, "sample_weight": weights}
        history = gpunet.fit(network, X, y, optimizer=optimizer, **settings)
        found.append((history["loss"], network.get_parameters()))
    (losses, parameters), (expected_losses, expected) = found
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-10)
    for name, values in expected.items():
        np.testing.assert_allclose(parameters[name], values, rtol=0, atol=1e-10, err_msg=name)
    assert recordings, "the step was not recorded"
    return recordings[0]


@pytest.mark.parametrize(
    "arguments", [{"batch_norm": False}, {"batch_norm": True}, {"dropout": 0.3}, {"activation": "gelu"}], ids=str
)
def test_gradients_of_weights_are_computed_beside_those_of_inputs(arguments: dict[str, Any]) -> None:
    """All but the first linear layer have both; the race check of the emulated device looks at every recording."""
    replay = recorded_step(CudaBackend(EmulatedDevice(multiprocessor_count=4)), DEEP, **arguments)
    assert replay.nodes - replay.longest_chain == len(DEEP) - 2


def test_a_recorded_step_of_a_deep_network(cupy: fake_cupy.FakeCupy) -> None:
    """Replayed in other orders, and checked for races, workspaces of cuBLAS included."""
    replay = recorded_step(CudaBackend(cupy_device.CupyDevice(0)), DEEP, batch_norm=True)
    graph = replay._graph.recording
    assert len(graph.operations) - graph.longest_chain() == len(DEEP) - 2


def test_a_buffer_that_a_branch_still_reads_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if dW of all layers were joined at the end: dX of the layer after the next is written to what one reads."""
    device = EmulatedDevice(multiprocessor_count=4)

    @contextmanager
    def beside() -> Iterator[None]:
        begun = device._last
        yield
        device._last, device._branch = begun, device._branch | device._last

    monkeypatch.setattr(device, "beside", beside)
    with pytest.raises(EmulationError, match="a race: gemm does not wait for gemm"):
        recorded_step(CudaBackend(device), DEEP)


def test_what_a_step_costs() -> None:
    """One gather; a product, or three, and batch norm of each layer; loss, which counts; update."""
    replay = recorded_step(CudaBackend(EmulatedDevice(multiprocessor_count=4)), [64, 128, 128, 10], batch_norm=True)
    count = collections.Counter(name.split("<")[0] for name in replay.names)
    assert (replay.nodes, replay.longest_chain) == (15, 13)
    assert count == {
        "gather_batch": 1,
        "gemm": 3 + 3 + 2,
        "batch_norm_forward_resident": 2,
        "softmax_cross_entropy_lanes": 1,
        "batch_norm_backward_resident": 2,
        "sgd_step": 1,
    }


@pytest.mark.parametrize(
    ("loss", "kernel"),
    [
        ("softmax_cross_entropy", "softmax_cross_entropy_lanes"),
        ("sigmoid_cross_entropy", "sigmoid_cross_entropy"),
        ("squared_error", "squared_error"),
    ],
)
def test_every_loss_has_the_last_bias_and_its_gradient(loss: str, kernel: str) -> None:
    backend = CudaBackend(EmulatedDevice(multiprocessor_count=4))
    names = recorded_step(backend, [6, 5, 3], loss=loss, weighted=True, batch_norm=False).names
    count = collections.Counter(name.split("<")[0] for name in names)
    for name in ("total_weight", kernel, "gather_batch", "gemm_bias", "bias_activation_backward"):
        assert count[name] == 1, name  # gemm_bias and bias_activation_backward are of the hidden layer


# --- what the driver says of a graph ----------------------------------------------------------------------------------


def driver(nodes: dict[int, int], edges: list[tuple[int, int]], refuses: str = "") -> Any:
    """Return what stands for libcuda, with one graph."""

    def write(name: str, *columns: list[int]) -> Callable[..., int]:
        def call(handle: Any, *rest: Any) -> int:
            *arrays, size = rest
            ctypes.cast(size, ctypes.POINTER(ctypes.c_size_t))[0] = len(columns[0])
            for array, column in zip(arrays, columns, strict=True):
                for position, value in enumerate(column if array is not None else ()):
                    array[position] = value
            return int(name == refuses)

        return call

    def kind(node: Any, found: Any) -> int:
        ctypes.cast(found, ctypes.POINTER(ctypes.c_int))[0] = nodes[node.value]
        return int(refuses == "cuGraphNodeGetType")

    starts, stops = [edge[0] for edge in edges], [edge[1] for edge in edges]
    return SimpleNamespace(
        cuGraphGetNodes=write("cuGraphGetNodes", list(nodes)),
        cuGraphGetEdges=write("cuGraphGetEdges", starts, stops),
        cuGraphNodeGetType=kind,
    )


KERNEL, COPY = 0, 1


def test_kernels_of_a_graph_and_the_longest_chain_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(graph: int, found: Any) -> tuple[int | None, int | None]:
        monkeypatch.setattr(graph_nodes, "_driver", lambda: found)
        return graph_nodes.count_kernels(graph), graph_nodes.longest_chain(graph)

    nodes = {16: COPY, 32: KERNEL, 48: KERNEL, 64: KERNEL, 80: KERNEL}
    edges = [(64, 80), (16, 32), (32, 48), (32, 64), (48, 80)]
    assert counted(1, driver(nodes, edges)) == (4, 3)
    assert counted(1, driver({}, [])) == (0, 0)
    assert counted(0, driver(nodes, edges)) == (None, None)
    assert counted(1, driver(nodes, edges, "cuGraphGetNodes")) == (None, None)
    assert counted(1, driver(nodes, edges, "cuGraphNodeGetType")) == (None, None)
    assert counted(1, driver(nodes, edges, "cuGraphGetEdges")) == (4, None)
