"""The peers of the benchmarks that are heavy to install do the work of their case too."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.peers import PEERS
from benchmarks.problem import Problem
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


@pytest.mark.oracle
@pytest.mark.parametrize("name", [name for name, (path, _) in PEERS.items() if path.partition(":")[0] in NEEDS])
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


@pytest.mark.oracle
def test_kernels_of_torch_are_counted_without_copies():
    import torch

    from benchmarks.peers.torch_work import count_kernels

    with torch.profiler.profile() as profiler:
        torch.ones(3) @ torch.ones(3)
    host = profiler.events()
    assert len(host) > 0
    assert count_kernels(host) == 0

    class Seen:
        device_type = torch.autograd.DeviceType.CUDA

        def __init__(self, name: str) -> None:
            self.name = name

    seen = [Seen(name) for name in ("ampere_sgemm_128x64_tn", "Memcpy HtoD (Pinned -> Device)", "Memset (Device)")]
    assert count_kernels([*host, *seen]) == 1
