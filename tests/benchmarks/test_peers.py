"""The peers of the benchmarks do the work of their case: the same numbers as gpunet in float64.

Here gpunet and scikit-learn; ``test_oracle_peers.py`` has PyTorch, JAX and Keras,
``tests/backends/cuda/test_benchmark_peers.py`` CUDA.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import gpunet
from benchmarks.peers import BESIDE_OTHERS, PEERS, find_peer, is_worth, peers_for
from benchmarks.peers.peer import Peer, as_logits, refuse_single_row
from benchmarks.problem import make_problem
from benchmarks.report.results import BESIDE, Case
from gpunet.backends import Backend
from gpunet.errors import InvalidValueError
from tests.emulation import EmulatedDevice
from tests.helpers.benchmark_work import (
    ROWS,
    assert_equal_work,
    check,
    network,
    network_cases,
    operation_cases,
    peer_for_test,
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "case",
    [
        *network_cases(),
        *network_cases(activation="tanh", batch_norm=False),
        *operation_cases(("relu", "tanh", "sigmoid", "leaky_relu(0.01)", "elu(1.0)", "identity")),
    ],
    ids=lambda case: case.key,
)
def test_gpunet_numpy(case, dtype):
    check(peer_for_test("gpunet-numpy"), case.replace(dtype=dtype))


@pytest.mark.parametrize(
    "case", [*network_cases(), *network_cases(batch_norm=False), *operation_cases()], ids=lambda case: case.key
)
def test_gpunet_compiled(case: Case) -> None:
    pytest.importorskip("numba")
    check(find_peer("gpunet-compiled"), case)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "identity"])
@pytest.mark.parametrize(
    ("mode", "optimizer"), [("forward", "adam"), ("step", "adam"), ("epoch", "adam"), ("step", "sgd")]
)
def test_sklearn(mode, optimizer, activation, dtype):
    case = network(mode, batch_norm=False, optimizer=optimizer, activation=activation, dtype=dtype)
    peer = peer_for_test("sklearn")
    if mode != "forward" and optimizer == "adam" and dtype == "float64":
        # Its epsilon is not the paper's (see ADAM_EPSILON_BEFORE_CORRECTION), but as near as float32 can see.
        outputs = peer.prepare(case, make_problem(case)).outputs()
        assert_equal_work(case.replace(dtype="float32"), outputs)
    else:
        check(peer, case)


# --- plain CuPy expressions -------------------------------------------------------------------------------------------


@pytest.fixture
def numpy_as_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unfused backend's expressions on NumPy: the emulated device has NumPy arrays."""
    monkeypatch.setitem(sys.modules, "cupy", np)


def unfused_peer(device: EmulatedDevice | None = None) -> Peer:
    from benchmarks.peers.gpunet_peers import GpunetCudaUnfused, unfused

    class OnEmulatedDevice(GpunetCudaUnfused):
        def new_backend(self, case: Case) -> Backend:
            return unfused(device or EmulatedDevice(multiprocessor_count=2), "float32")

    return OnEmulatedDevice()


@pytest.mark.parametrize(
    "case",
    [
        *network_cases(),
        *network_cases(activation="tanh", batch_norm=False, dtype="float64"),
        *operation_cases(("relu", "tanh", "sigmoid", "leaky_relu(0.01)", "elu(1.0)", "identity")),
    ],
    ids=lambda case: case.key,
)
@pytest.mark.usefixtures("numpy_as_cupy")
def test_unfused(case):
    check(unfused_peer(), case)


@pytest.mark.usefixtures("numpy_as_cupy")
def test_unfused_launches_no_kernel_of_gpunet():
    """Otherwise the comparison would show less than what fusion buys; keeping track of steps is no part of that."""
    device = EmulatedDevice(multiprocessor_count=2)
    launch = device.launch

    def refuse(kernel: Any, *arguments: Any, **options: Any) -> None:
        if kernel.name.partition("<")[0] not in ("count_step", "keep_weights", "summarize"):
            pytest.fail("a fused kernel was launched")
        launch(kernel, *arguments, **options)

    device.launch = refuse
    peer = unfused_peer(device)
    for case in [*network_cases(), *network_cases(batch_norm=False), *operation_cases()]:
        peer.prepare(case, make_problem(case)).run(1)


# --- what peers say of themselves ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("gpunet-numpy", {"precision": "tf32"}, "tensor cores"),
        ("gpunet-numpy", {"mode": "backward"}, "no mode 'backward'"),
        ("gpunet-numpy", {"operation": "gemm", "mode": "backward"}, "no operation 'gemm' with mode 'backward'"),
        ("sklearn", {}, "no batch norm"),
        ("sklearn", {"batch_norm": False, "mode": "forward_backward"}, "no gradients"),
        ("sklearn", {"batch_norm": False, "activation": "elu(1.0)"}, "no elu"),
        ("sklearn", {"batch_norm": False, "sizes": (4, 3, 2)}, "two classes"),
        ("sklearn", {"operation": "gemm", "mode": "forward"}, "no single operations"),
        ("torch-eager", {"precision": "tf32"}, "tensor cores"),
        ("torch-eager", {"mode": "epoch", "examples": 2 * ROWS + 1}, "one row"),
        ("torch-compile", {"operation": "gemm", "mode": "forward"}, "networks"),
        ("jax", {"dtype": "float64"}, "64-bit"),
        ("keras", {"mode": "forward_backward"}, "no public call"),
        ("keras", {"operation": "gemm", "mode": "forward"}, "networks"),
    ],
)
def test_refusals_say_why(name, changes, reason):
    assert reason in (find_peer(name).refuses(network("step").replace(**changes)) or "")


def test_gpunet_cuda_takes_tf32():
    assert find_peer("gpunet-cuda").refuses(network("step", precision="tf32")) is None


@pytest.mark.parametrize(("examples", "refused"), [(2 * ROWS, False), (2 * ROWS + 1, True), (2 * ROWS + 2, False)])
def test_an_epoch_that_ends_in_one_row(examples, refused):
    assert bool(refuse_single_row(network("epoch", examples=examples))) is refused
    assert refuse_single_row(network("epoch", examples=examples, batch_norm=False)) is None


def test_epochs_are_shuffled_when_they_are_timed(monkeypatch):
    orders = []
    fit = gpunet.fit
    monkeypatch.setattr(gpunet, "fit", lambda *a, shuffle, **k: orders.append(shuffle) or fit(*a, shuffle=shuffle, **k))
    case = network("epoch")
    work = find_peer("gpunet-numpy").prepare(case, make_problem(case))
    work.outputs()
    work.run(2)
    assert orders == [False, True, True]


def test_logits_are_compared_up_to_what_softmax_does_not_see():
    logits = np.random.default_rng(0).standard_normal((4, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(as_logits(np.log(probabilities)), as_logits(logits), rtol=0, atol=1e-14)
    assert not np.allclose(as_logits(logits), as_logits(logits[::-1]))


def test_a_peer_is_told_a_number_of_threads_by_its_name() -> None:
    peer = find_peer("torch-tuned@1")
    assert (peer.name, peer.label, peer.threads) == ("torch-tuned@1", "PyTorch (tuned), 1 thread", 1)
    for name in ("torch-tuned@", "torch-tuned@one", "torch-tnued@1"):
        with pytest.raises(InvalidValueError, match="torch-tuned"):
            find_peer(name)


def test_a_peer_that_is_told_a_number_of_threads_tries_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    from gpunet.backends.cpu import backend, pool

    shared, numbers = pool.Pool(2, None), []
    for module in (backend, pool):
        monkeypatch.setattr(module, "shared_pool", lambda: shared)
    work = find_peer("gpunet-compiled@2").prepare(case := network("step"), make_problem(case))
    work.run(2)  # the second is recorded
    [choice] = {id(shared.choice(number)): shared.choice(number) for number in range(3)}.values()
    for seconds in (0.1, 0.1, 10.0) * 20:
        choice.note(seconds)
        numbers.append(choice.threads)
    work.run(1)
    shared.stop()
    assert (set(numbers), shared.chosen) == ({2}, 2)


def test_numbers_of_threads_are_compared_in_cases_of_their_own() -> None:
    flights = network("epoch", label=BESIDE)
    names = [name for name in peers_for("cpu") if is_worth(find_peer(name), flights, 2)]
    assert set(names) == set(BESIDE_OTHERS)
    assert "gpunet-compiled@2" not in [name for name in names if is_worth(find_peer(name), flights, 1)]
    assert not any("@" in name for name in peers_for("cpu") if is_worth(find_peer(name), network("step"), 2))
    assert not any("@" in name for name in peers_for("cuda"))


def test_mkl_is_used_by_the_peer_that_has_it_in_its_name_alone() -> None:
    assert find_peer("gpunet-compiled").environment == {"GPUNET_MKL": "0"}
    assert find_peer("gpunet-compiled-mkl").environment == {"GPUNET_MKL": "1"}


@pytest.mark.parametrize("name", list(PEERS))
def test_every_peer_can_be_loaded_without_its_library(name):
    peer = find_peer(name)
    assert peer.name == name
    assert peer.label
    assert peer.on_device == ("cuda" in name)
