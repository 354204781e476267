"""The peers of the benchmarks that are heavy to install do the work of their case too."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from benchmarks.peers import PEERS
from benchmarks.problem import Problem, make_problem
from benchmarks.report.results import Case
from tests.helpers.benchmark_work import NEEDS, check, network, network_cases, operation_cases, peer_for_test


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["torch-eager", "torch-tuned"])
@pytest.mark.parametrize(
    "case",
    [
        *network_cases(),
        *network_cases(batch_norm=False, dtype="float64"),
        *network_cases(activation="tanh", dtype="float64"),
        network("forward", activation="sigmoid"),
        network("forward", activation="leaky_relu(0.1)"),
        network("forward", activation="elu(0.5)"),
        network("forward_backward", activation="identity", batch_norm=False),
        *operation_cases(("relu", "tanh", "sigmoid", "leaky_relu(0.01)", "elu(1.0)", "identity")),
    ],
    ids=lambda case: case.key,
)
def test_torch(name, case):
    check(peer_for_test(name), case)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
def test_torch_compile():
    peer = peer_for_test("torch-compile")
    if reason := peer.missing():
        pytest.skip(reason)
    check(peer, network("step", sizes=(5, 4, 3)))


@pytest.mark.oracle
@pytest.mark.parametrize(
    "case", [*network_cases(), network("epoch", activation="tanh", batch_norm=False)], ids=lambda c: c.key
)
def test_torch_cuda_graph(case):
    """All of it but the recording itself, for which the CPU repeats the Python."""
    torch = pytest.importorskip("torch")
    from benchmarks.peers.torch_compiled import GraphNetwork
    from benchmarks.peers.torch_peers import TorchTuned
    from benchmarks.peers.torch_work import TunedNetwork

    class Repeating(GraphNetwork):
        def __init__(self, *arguments: Any) -> None:
            compile_, torch.compile = torch.compile, lambda function, **options: function
            try:
                super().__init__(*arguments)
            finally:
                torch.compile = compile_

        new_optimizer = TunedNetwork.new_optimizer  # the capturable one is for CUDA

        def warm_up(self, work: Any) -> None:
            for _ in range(3):
                work()

        def capture(self, work: Any) -> Any:
            result = work()
            return lambda: result.copy_(work()) if not result.is_inference() else self._infer(work, result), result

        def _infer(self, work: Any, result: Any) -> None:
            with torch.inference_mode():
                result.copy_(work())

    class Graphs(TorchTuned):
        def new_network(self, case: Case, problem: Problem) -> Any:
            return Repeating(case, problem, "cpu")

    check(Graphs(), case)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "case",
    [
        *network_cases(),
        *network_cases(activation="tanh", batch_norm=False)[:3],
        *(network("forward", activation=name) for name in ("sigmoid", "leaky_relu(0.1)", "elu(0.5)", "identity")),
        *operation_cases(("relu", "tanh")),
    ],
    ids=lambda case: case.key,
)
def test_jax(case):
    check(peer_for_test("jax"), case)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "case",
    [
        network("forward", activation="leaky_relu(0.1)"),
        network("step"),
        network("step", optimizer="sgd", activation="elu(0.5)", batch_norm=False),
        network("epoch", activation="tanh"),
    ],
    ids=lambda case: case.key,
)
def test_keras(case):
    check(peer_for_test("keras"), case)


class _FakeCuda:
    """The recording part of ``torch.cuda``, which only notes what happens inside."""

    def __init__(self) -> None:
        self.inside: list[str] = []

    def _enter(self, name: str) -> Any:
        @contextlib.contextmanager
        def manager() -> Iterator[None]:
            self.inside.append(name)
            yield
            self.inside.pop()

        return manager()

    def stream(self, stream: Any) -> Any:
        return self._enter("stream")

    def graph(self, graph: Any, stream: Any) -> Any:
        assert stream is not None
        return self._enter("recording")

    def Stream(self) -> Any:
        return types.SimpleNamespace(wait_stream=lambda other: None)

    def CUDAGraph(self, keep_graph: bool) -> Any:
        assert keep_graph
        return types.SimpleNamespace(raw_cuda_graph=lambda: 0xABC)

    def current_stream(self) -> None:
        return None

    def synchronize(self) -> None:
        return None


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["torch-eager", "torch-tuned"])
@pytest.mark.parametrize("case", [*network_cases()[:5], *operation_cases()], ids=lambda case: case.key)
def test_kernels_are_counted_in_a_recording_of_one_unit(name, case, monkeypatch):
    """Its Python at least: a unit outside the recording, another inside, on the stream of the first."""
    from benchmarks.peers import torch_work

    peer = peer_for_test(name)
    work: Any = peer.prepare(case, make_problem(case))
    work.run(1)
    assert work.launches() is None  # on a CPU
    fake, units = _FakeCuda(), []
    new_unit, _ = work.count.args

    def watched() -> Any:
        unit = new_unit()
        return None if unit is None else lambda: (units.append(list(fake.inside)), unit())

    work.count = partial(torch_work.count_recorded, watched, fake)
    monkeypatch.setattr(torch_work, "count_kernels", lambda graph: 7 if graph == 0xABC else None)
    assert work.launches() == (None if case.mode == "epoch" else 7)
    assert units == ([] if case.mode == "epoch" else [["stream"], ["recording"]])


@pytest.mark.oracle
def test_optimisers_may_be_recorded_for_counting():
    torch = pytest.importorskip("torch")
    from benchmarks.peers.torch_work import allow_recording

    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
    names = [name for name in dir(optimizer) if name.endswith("_graph_capture_health_check")]
    assert names  # PyTorch has renamed it before
    allow_recording(optimizer)
    assert all(name in vars(optimizer) for name in names)


@pytest.mark.oracle
@pytest.mark.parametrize("name", [name for name, path in PEERS.items() if path.partition(":")[0] in NEEDS])
def test_names_and_versions_of_peers(name):
    peer = peer_for_test(name)
    assert peer.name == name
    assert peer.on_device == ("cuda" in name)
    assert peer.label
    if not peer.on_device and not peer.missing():
        assert all(peer.versions().values())


@pytest.mark.oracle
@pytest.mark.parametrize("name", [name for name in PEERS if "cuda" in name])
def test_without_a_gpu_every_peer_that_needs_one_says_so(name):
    """In a process of its own, as in a run: JAX starts its platforms once in a process."""
    from benchmarks.process import WorkerProcess
    from gpunet.backends.devices.probe import probe_gpu

    if probe_gpu().devices:
        pytest.skip("this machine has a GPU")
    worker = WorkerProcess(name, 1)
    worker.start(120)
    assert worker.missing
    worker.stop()
