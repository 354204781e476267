"""The contenders of the benchmarks do the work of their case: the same numbers as gpunet in float64.

The emulated and the simulated CUDA device have :mod:`test_cuda_benchmark_providers`.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import math
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from emulation import EmulatedDevice

import gpunet
from benchmarks.cases import Case
from benchmarks.problem import Problem, make_problem
from benchmarks.providers import PROVIDERS, find_provider
from benchmarks.providers.base import Outputs, Provider, Work
from benchmarks.providers.common import OPERATIONS, as_logits, refuse_single_row
from gpunet.backends import Backend

# Units of rounding that one layer loses at most, in a forward or a backward pass.
LOST_PER_LAYER = 32
ROUNDING = {"float32": 2.0**-24, "float64": 2.0**-53}
SIZES = (13, 17, 9, 5)
ROWS = 33
EPOCH = 3 * ROWS + 7
EPOCH_STEPS = 4

NEEDS = {"torch": "torch", "torch_compiled": "torch", "jax": "jax", "keras": "keras", "sklearn": "sklearn"}


def provider_for_test(name: str) -> Provider:
    """Return a provider; skip the test where its package is not there."""
    needed = NEEDS.get(PROVIDERS[name][0])
    if needed and importlib.util.find_spec(needed) is None:  # not imported: the provider decides how
        pytest.skip(f"{needed} is not installed")
    return find_provider(name)


def network(mode: str, **changes: Any) -> Case:
    case = Case("network", mode, "test", ROWS, SIZES, examples=EPOCH if mode == "epoch" else 0)
    return case.replace(**changes)


def network_cases(**changes: Any) -> list[Case]:
    """Return every mode of a network, the ones that update it with both optimisers."""
    cases = [network(mode, **changes) for mode in ("forward", "forward_backward")]
    for mode in ("step", "epoch"):
        cases += [network(mode, optimizer=optimizer, **changes) for optimizer in ("adam", "sgd")]
    return cases


def operation_cases(activations: tuple[str, ...] = ("relu",)) -> list[Case]:
    cases = []
    for operation, mode in OPERATIONS:
        sizes = (1001,) if operation.endswith("_step") else (13, 17) if operation == "gemm" else (17,)
        case = Case(operation, mode, "test", ROWS, sizes, optimizer=operation.removesuffix("_step"))
        if operation.endswith("activation"):
            cases += [case.replace(activation=activation) for activation in activations]
        else:
            cases.append(case)
    return cases


def reference(case: Case) -> Outputs:
    """Return the outputs in float64."""
    double = case.replace(dtype="float64")
    return find_provider("gpunet-numpy").prepare(double, make_problem(double)).outputs()


def norm(arrays: Outputs) -> float:
    return math.sqrt(sum(float(np.sum(np.square(array))) for array in arrays.values()))


def assert_equal_work(case: Case, outputs: Outputs) -> None:
    """The outputs are those of the reference, up to rounding.

    Each array's error is compared with the norm of all of them (a bias whose gradient is small is no more exact than
    the others). Of parameters it is the change that counts; they are rounded themselves after every step, which is a
    large part of a small change.
    """
    expected, rounding = reference(case), ROUNDING[case.dtype]
    assert outputs.keys() == expected.keys()
    limit = LOST_PER_LAYER * rounding * (len(case.sizes) - 1 if case.operation == "network" else 1)
    scale = norm({name: array for name, array in expected.items() if name != "loss"})
    if case.mode in ("step", "epoch"):
        before: Outputs = make_problem(case).parameters
        change = norm({name: expected[name] - before[name] for name in expected})
        assert change > 0
        steps = EPOCH_STEPS if case.mode == "epoch" else make_problem(case).checked_steps
        scale, limit = change, limit + steps * rounding * scale / change
    for name, values in expected.items():
        assert outputs[name].shape == values.shape, name
        assert outputs[name].dtype == np.float64, name
        error = norm({name: outputs[name] - values})
        assert error <= limit * (norm({name: values}) if name == "loss" else scale), name


def check(provider: Provider, case: Case) -> Work:
    """Do a case, compare it, run it as the timed loop does, and return the work."""
    assert provider.refuses(case) is None
    problem, untouched = make_problem(case), make_problem(case)
    work = provider.prepare(case, problem)
    assert_equal_work(case, work.outputs())
    host, device = work.time(3)
    assert 0 < host < 60
    assert device is None or device > 0
    assert_same(problem, untouched)
    if case.mode in ("step", "epoch"):
        assert_goes_on(case, work)
    return work


def assert_same(problem: Problem, expected: Problem) -> None:
    """The arrays of a problem belong to no provider."""
    for name in ("parameters", "state", "arrays"):
        for key, values in getattr(expected, name).items():
            np.testing.assert_array_equal(getattr(problem, name)[key], values)
    for found, batch in zip(problem.batches, expected.batches, strict=True):
        for got, values in zip(found, batch, strict=True):
            np.testing.assert_array_equal(got, values)


def assert_goes_on(case: Case, work: Work) -> None:
    """The timed runs trained: three units further on, one more unit of the checked work ends somewhere else."""
    expected, after = reference(case), work.outputs()
    rounding = LOST_PER_LAYER * len(case.sizes) * ROUNDING[case.dtype]
    assert norm({name: after[name] - expected[name] for name in expected}) > 10 * rounding * norm(expected)


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
    check(provider_for_test("gpunet-numpy"), case.replace(dtype=dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "identity"])
@pytest.mark.parametrize(
    ("mode", "optimizer"), [("forward", "adam"), ("step", "adam"), ("epoch", "adam"), ("step", "sgd")]
)
def test_sklearn(mode, optimizer, activation, dtype):
    case = network(mode, batch_norm=False, optimizer=optimizer, activation=activation, dtype=dtype)
    provider = provider_for_test("sklearn")
    if mode != "forward" and optimizer == "adam" and dtype == "float64":
        # Its epsilon is not the paper's (see ADAM_EPSILON_BEFORE_CORRECTION), but as near as float32 can see.
        outputs = provider.prepare(case, make_problem(case)).outputs()
        assert_equal_work(case.replace(dtype="float32"), outputs)
    else:
        check(provider, case)


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
    check(provider_for_test(name), case)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
def test_torch_compile():
    provider = provider_for_test("torch-compile")
    if reason := provider.missing():
        pytest.skip(reason)
    check(provider, network("step", sizes=(5, 4, 3)))


@pytest.mark.oracle
@pytest.mark.parametrize(
    "case", [*network_cases(), network("epoch", activation="tanh", batch_norm=False)], ids=lambda c: c.key
)
def test_torch_cuda_graph(case):
    """All of it but the recording itself, for which the CPU repeats the Python."""
    torch = pytest.importorskip("torch")
    from benchmarks.providers import torch_provider
    from benchmarks.providers.torch_compiled_networks import GraphNetwork
    from benchmarks.providers.torch_networks import TunedNetwork

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

    class Graphs(torch_provider.TorchTuned):
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
    check(provider_for_test("jax"), case)


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
    check(provider_for_test("keras"), case)


# --- plain CuPy expressions -------------------------------------------------------------------------------------------


@pytest.fixture
def numpy_as_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unfused backend's expressions on NumPy: the emulated device has NumPy arrays."""
    monkeypatch.setitem(sys.modules, "cupy", np)


def unfused_provider() -> Provider:
    from benchmarks.providers.unfused_provider import GpunetCudaUnfused, UnfusedCudaBackend

    class OnEmulatedDevice(GpunetCudaUnfused):
        def prepare(self, case: Case, problem: Problem) -> Work:
            return self.build(UnfusedCudaBackend(EmulatedDevice(multiprocessor_count=2), "float32"), case, problem)

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
    check(unfused_provider(), case)


@pytest.mark.usefixtures("numpy_as_cupy")
def test_unfused_launches_no_kernel_of_gpunet():
    """Otherwise the comparison would show less than what fusion buys."""
    from benchmarks.providers.unfused_provider import UnfusedCudaBackend

    device = EmulatedDevice(multiprocessor_count=2)

    def refuse(*arguments: Any, **options: Any) -> None:
        pytest.fail("a fused kernel was launched")

    device.launch = refuse
    provider = unfused_provider()
    for case in [*network_cases(), *network_cases(batch_norm=False), *operation_cases()]:
        provider.build(UnfusedCudaBackend(device, "float32"), case, make_problem(case)).run(1)


@pytest.mark.usefixtures("numpy_as_cupy")
def test_unfused_kernels_are_counted_in_a_recording(monkeypatch):
    from benchmarks.providers import unfused_provider as module

    kinds = [0, 1, 0, 2, 0]  # kernel, copy, kernel, fill, kernel
    recorded = []

    class Driver:
        @staticmethod
        def cuGraphGetNodes(graph: Any, nodes: Any, size: Any) -> int:
            assert graph.value == 0xABC
            size._obj.value = len(kinds)
            for position in range(len(kinds) if nodes else 0):
                nodes[position] = 100 + position
            return 0

        @staticmethod
        def cuGraphNodeGetType(node: Any, kind: Any) -> int:
            kind._obj.value = kinds[node.value - 100]
            return 0

    class Recorder(EmulatedDevice):
        def capture(self, step: Any) -> Any:
            recorded.append(step)
            return types.SimpleNamespace(_graph=types.SimpleNamespace(graph=0xABC))

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver)
    for mode, expected in (("forward", 3), ("forward_backward", 3), ("step", 3), ("epoch", None)):
        case = network(mode)
        backend = module.UnfusedCudaBackend(Recorder(multiprocessor_count=2), "float32")
        work = unfused_provider().build(backend, case, make_problem(case))
        work.run(1)
        recorded.clear()
        assert work.launches() == expected
        assert len(recorded) == (1 if expected else 2)  # an epoch has two sizes of batch
        assert backend.capture(refuse_single_row) is refuse_single_row


# --- what providers say of themselves ---------------------------------------------------------------------------------


def test_names_are_those_of_the_list():
    for name, (module, _) in PROVIDERS.items():
        if module in ("gpunet", "unfused", "sklearn"):
            provider = provider_for_test(name)
            assert provider.name == name
            assert provider.on_device == ("cuda" in name)
            assert provider.label


@pytest.mark.oracle
@pytest.mark.parametrize("name", [name for name, (module, _) in PROVIDERS.items() if module in NEEDS])
def test_names_and_versions_of_peers(name):
    provider = provider_for_test(name)
    assert provider.name == name
    assert provider.on_device == ("cuda" in name)
    assert provider.label
    if not provider.on_device and not provider.missing():
        assert all(provider.versions().values())


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
    assert reason in (find_provider(name).refuses(network("step").replace(**changes)) or "")


def test_gpunet_cuda_takes_tf32():
    assert find_provider("gpunet-cuda").refuses(network("step", precision="tf32")) is None


@pytest.mark.parametrize(("examples", "refused"), [(2 * ROWS, False), (2 * ROWS + 1, True), (2 * ROWS + 2, False)])
def test_an_epoch_that_ends_in_one_row(examples, refused):
    assert bool(refuse_single_row(network("epoch", examples=examples))) is refused
    assert refuse_single_row(network("epoch", examples=examples, batch_norm=False)) is None


@pytest.fixture
def cuda_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What asking for JAX on CUDA changes in this process is put back."""
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "false"))
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_platforms", "cpu")


@pytest.mark.oracle
@pytest.mark.usefixtures("cuda_environment")
@pytest.mark.parametrize("name", [name for name in PROVIDERS if "cuda" in name])
def test_without_a_gpu_the_cuda_providers_are_missing(name):
    from gpunet.backends.devices.probe import probe_gpu

    if probe_gpu().devices:
        pytest.skip("this machine has a GPU")
    assert provider_for_test(name).missing()


def test_fast_cpu_waits_for_its_backend(monkeypatch):
    provider: Any = find_provider("gpunet-fast-cpu")
    assert provider.missing() == "gpunet has no fast CPU backend yet"
    module = types.ModuleType(provider.module)
    module.__spec__ = importlib.machinery.ModuleSpec(provider.module, None)
    module.NumbaBackend = Backend
    monkeypatch.setitem(sys.modules, provider.module, module)
    assert provider.missing() is None
    check(provider, network("step"))


def test_epochs_are_shuffled_when_they_are_timed(monkeypatch):
    orders = []
    fit = gpunet.fit
    monkeypatch.setattr(gpunet, "fit", lambda *a, shuffle, **k: orders.append(shuffle) or fit(*a, shuffle=shuffle, **k))
    case = network("epoch")
    work = find_provider("gpunet-numpy").prepare(case, make_problem(case))
    work.outputs()
    work.run(2)
    assert orders == [False, True, True]


def test_logits_are_compared_up_to_what_softmax_does_not_see():
    logits = np.random.default_rng(0).standard_normal((4, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(as_logits(np.log(probabilities)), as_logits(logits), rtol=0, atol=1e-14)
    assert not np.allclose(as_logits(logits), as_logits(logits[::-1]))
