"""What is tried on a CUDA device before a network is trained on it, on machines where something is broken."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends import NumpyBackend, select_backend, selection
from gpunet.backends.cuda import CudaBackend, proof
from gpunet.backends.devices import probe
from gpunet.backends.devices.cupy import CupyDevice
from gpunet.backends.devices.probe import GpuReport
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy
from tests.helpers.cuda_faults import FATAL, WITHOUT_CLUSTERS, WITHOUT_CUBLAS_LT, WITHOUT_CUDA, WITHOUT_RECORDING

GPU = GpuReport((13, 0), ("NVIDIA Fake", "NVIDIA Fake"), "14.2.0")
OK = dict.fromkeys(
    ("device", "kernel", "product", "cublasLt bias", "cublasLt relu", "recording", "clusters"),
)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> fake_cupy.FakeCupy:
    """A machine with two GPUs, on which nothing was tried yet."""
    cupy = fake_cupy.FakeCupy(EmulatedDevice(), devices=2)
    fake_cupy.install(monkeypatch, cupy)
    monkeypatch.setattr(selection, "probe_gpu", lambda: GPU)
    return cupy


def train(device: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 5)), rng.integers(0, 3, 40)
    network = gpunet.Network([5, 7, 3], batch_norm=True, seed=1, dtype="float64", device=device)
    gpunet.fit(network, X, y, epochs=3, batch_size=16)
    return network.get_parameters()


def test_a_device_that_works_is_taken(cupy: fake_cupy.FakeCupy, caplog: pytest.LogCaptureFixture) -> None:
    backend = select_backend("auto")
    assert isinstance(backend, CudaBackend)
    assert backend.records
    assert dict(proof.proof_of(0).results) == OK
    assert not caplog.text


def test_the_devices_of_the_tests_pass(device: Any) -> None:
    """The emulated one, and the GPU where there is one."""
    results = proof.prove(device).results
    assert results.keys() >= {"kernel", "product", "recording"}
    assert not any(results.values())


@pytest.mark.parametrize("fault", WITHOUT_CUDA)
def test_a_device_that_does_not_work_is_not_taken(
    fault: str, cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install, trial, message = WITHOUT_CUDA[fault]
    install(monkeypatch, cupy)
    with pytest.raises(gpunet.DeviceError, match=message) as caught:
        gpunet.Network([2, 2], device="cuda")
    assert "device='cpu'" in str(caught.value)
    for _ in range(2):
        assert isinstance(select_backend("auto"), NumpyBackend)
    assert caplog.text.count("device='auto' takes the CPU") == 1
    assert re.search(message, caplog.text)
    results = proof.proof_of(0).results
    names = list(OK)
    assert list(results) == names[: names.index(trial) + 1]  # what comes after would fail, too
    assert [name for name, problem in results.items() if problem] == [trial]


def test_memory_that_was_missing_is_looked_for_again(cupy: fake_cupy.FakeCupy) -> None:
    cupy.free = 10
    with pytest.raises(gpunet.DeviceError, match="no room for"):
        gpunet.Network([2, 2], device="cuda")
    cupy.free = 1 << 30
    gpunet.Network([2, 2], device="cuda")
    assert dict(proof.proof_of(0).results) == OK


def test_memory_that_is_missing_for_a_cluster(cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(bench: object) -> None:
        raise gpunet.OutOfDeviceMemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(proof, "_try_clusters", no_room)
        assert proof.proof_of(0).results["clusters"] == "no room"
        assert proof.proof_of(0).problem is None
    assert dict(proof.proof_of(0).results) == OK


@pytest.mark.parametrize("fault", FATAL)
def test_a_trial_that_ends_cuda_says_how_to_do_without(
    fault: str, cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    install, trial, message = FATAL[fault]
    with monkeypatch.context() as patch:
        install(patch, cupy)
        with pytest.raises(gpunet.DeviceError, match=f"after a restart of the process.*{message}"):
            select_backend("cuda")
        assert isinstance(select_backend("auto"), NumpyBackend)
        assert list(proof.proof_of(0).results)[-1] == trial
    variable, value = message.split("=")
    monkeypatch.setattr(proof, "_proofs", {})
    monkeypatch.setenv(variable, value)
    with monkeypatch.context() as patch:
        install(patch, cupy)
        assert isinstance(select_backend("cuda"), CudaBackend)


@pytest.mark.parametrize("fault", WITHOUT_RECORDING)
def test_a_device_that_records_nothing_trains_step_by_step(
    fault: str, cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install, trial, message = WITHOUT_RECORDING[fault]
    install(monkeypatch, cupy)
    for device in ("auto", "cuda"):
        backend: Any = select_backend(device)
        assert isinstance(backend, CudaBackend)
        assert not backend.records
    assert re.search(message, str(proof.proof_of(0).results[trial]))
    found, expected = train(backend), train("cpu")
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-11, err_msg=name)
    assert len(caplog.records) == 1
    assert re.search(f"training steps are not recorded.*{message}", caplog.text)


@pytest.mark.parametrize("fault", WITHOUT_CLUSTERS)
def test_a_device_without_working_clusters_does_without(
    fault: str, cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install, trial, message = WITHOUT_CLUSTERS[fault]
    install(monkeypatch, cupy)
    backend: Any = select_backend("cuda")
    assert backend.records
    cupy.launched_clusters.clear()
    x = backend.asarray(np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32))
    four = [backend.zeros(4, np.float32) for _ in range(4)]
    backend.batch_norm_activation_forward(x, None, None, gpunet.ReLU(), x, *four, 0.1, 1e-5)
    assert cupy.launched_clusters == [1]
    assert len(caplog.records) == 1
    assert re.search(f"batch norm does without clusters.*{message}", caplog.text)
    assert re.search(message, str(proof.proof_of(0).results[trial]))


@pytest.mark.parametrize("fault", WITHOUT_CUBLAS_LT)
def test_a_device_without_working_cublaslt_does_without(
    fault: str, cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install, trial, message = WITHOUT_CUBLAS_LT[fault]
    install(monkeypatch, cupy)
    backend: Any = select_backend("cuda")
    assert backend.epilogues == (set() if trial == "cublasLt bias" else {"bias"})
    assert re.search(message, str(proof.proof_of(0).results[trial]))
    assert ("cublasLt relu" in proof.proof_of(0).results) is (trial == "cublasLt relu")
    X = np.random.default_rng(0).standard_normal((9, 5))
    X[3, 2] = 1e300
    found, expected = (
        gpunet.Network([5, 7, 3], batch_norm=False, seed=1, dtype="float64", device=device).logits(X)
        for device in (backend, "cpu")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)
    assert len(caplog.records) == 1
    assert re.search(f"matrix products do without .*cublasLt.*: .*{message}", caplog.text)


@pytest.mark.parametrize(
    ("variable", "trials"),
    [
        ("GPUNET_CUDA_GRAPH", {"recording"}),
        ("GPUNET_CLUSTERS", {"clusters"}),
        ("GPUNET_CUBLASLT", {"cublasLt bias", "cublasLt relu"}),
    ],
)
def test_what_is_turned_off_is_not_tried(
    variable: str, trials: set[str], cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "0")
    assert dict(proof.proof_of(0).results) == {name: None for name in OK if name not in trials}


def test_a_device_older_than_clusters_is_not_tried_for_them(
    cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    cupy.has_clusters = False
    assert "clusters" not in proof.proof_of(0).results


def test_it_costs_few_operations_once_for_each_device(
    cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: Counter[str] = Counter()
    for owner, name in ((fake_cupy.Stream, "submit"), (fake_cupy.Graph, "launch"), (cupy, "RawModule")):
        original = getattr(owner, name)

        def counting(*arguments: Any, _name: str = name, _original: Any = original, **options: Any) -> Any:
            counted[_name] += 1
            return _original(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)
    for _ in range(3):
        select_backend("auto")
    assert counted["launch"] == 1
    assert counted["RawModule"] == 2  # of activation.cu, and of batch_norm.cu with clusters
    assert counted["submit"] < 40
    once = Counter(counted)
    select_backend("cuda:0")
    assert counted == once
    select_backend("cuda:1")
    assert counted == {name: 2 * count for name, count in once.items()}


def test_threads_try_a_device_once(cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    tried, prove = [], proof.prove
    monkeypatch.setattr(proof, "prove", lambda device: tried.append(device) or prove(device))
    backends: list[Any] = []
    threads = [threading.Thread(target=lambda: backends.append(select_backend("auto"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tried) == 1
    assert [type(backend) for backend in backends] == [CudaBackend] * 4


def test_a_mistake_of_ours_is_neither_hidden_nor_kept(
    cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(bench: Any) -> None:
        raise KeyError("mistake")

    with monkeypatch.context() as patch:
        patch.setattr(proof, "_try_product", mistaken)
        with pytest.raises(KeyError):
            select_backend("auto")
    assert isinstance(select_backend("auto"), CudaBackend)


# --- forks ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_fork_after_cuda_was_used_says_so() -> None:
    """Whether the parent is just trying the device, in another thread, or has done so."""
    program = """
import os, sys, threading
import pytest
import gpunet
from gpunet.backends import select_backend, selection
from gpunet.backends.cuda import proof
from gpunet.backends.devices.cupy import CupyDevice
from tests.backends.cuda.test_proof import GPU
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy

def refused(make):
    try:
        make()
    except gpunet.DeviceError as error:
        return "spawn" in str(error)

monkeypatch = pytest.MonkeyPatch()
fake_cupy.install(monkeypatch, fake_cupy.FakeCupy(EmulatedDevice()))
monkeypatch.setattr(selection, "probe_gpu", lambda: GPU)
select_backend("cuda")
proof._lock.acquire()
child = os.fork()
if child == 0:
    assert refused(lambda: select_backend("cuda"))
    assert refused(lambda: CupyDevice(0))
    assert select_backend("auto").name == "cpu"
    os._exit(0)
proof._lock.release()
assert os.waitpid(child, 0)[1] == 0
assert select_backend("auto").name == "cuda"
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60)


def test_a_fork_of_a_process_that_used_no_cuda_is_a_process_like_others(
    cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe.os, "getpid", lambda: 12345)
    assert not probe.is_forked()
    assert isinstance(select_backend("auto"), CudaBackend)


def test_a_network_of_the_parent_says_why_it_does_not_work_in_a_fork(
    cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(stream: Any) -> None:
        raise fake_cupy.CUDARuntimeError("cudaErrorInitializationError: initialization error")

    network = gpunet.Network([2, 2], device="cuda")
    monkeypatch.setattr(fake_cupy.Stream, "synchronize", fail)
    with pytest.raises(gpunet.DeviceError, match=r"initialization error\. Perhaps this process was forked"):
        network.predict(np.zeros((1, 2)))


class Driver:
    """Stands for libcuda."""

    def __init__(self, status: int) -> None:
        self.cuInit = lambda flags: status

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 13000
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 1
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"NVIDIA Fake"
        return 0


@pytest.mark.parametrize(
    ("status", "devices", "problem"),
    [
        (0, ("NVIDIA Fake",), None),
        (3, (), "forked from one that had used CUDA"),  # by another library
        (100, (), "reports no device"),
        (803, (), "fails with status 803"),  # the driver was updated and the machine not restarted
    ],
)
def test_what_the_driver_says_at_first(
    status: int, devices: tuple[str, ...], problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cupy.begin_process(monkeypatch)
    monkeypatch.setattr(probe.ctypes, "CDLL", lambda name: Driver(status))
    monkeypatch.setattr(probe, "_cupy_version", lambda: "14.2.0")
    report = probe.probe_gpu()
    assert report.devices == devices
    assert (report.problem is None) if problem is None else re.search(problem, str(report.problem))


def test_the_driver_of_a_fork_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for the devices is what makes a fork unable to use them."""
    fake_cupy.begin_process(monkeypatch)
    monkeypatch.setattr(probe.ctypes, "CDLL", lambda name: Driver(0))
    assert probe.probe_gpu().devices
    monkeypatch.setattr(probe.os, "getpid", lambda: 12345)
    assert probe.probe_gpu().problem == probe.FORKED


@pytest.mark.parametrize(
    ("cuda", "driver", "refusal", "message"),
    [
        (13020, 0, "", "no NVIDIA driver"),
        (13020, 12040, "cudaErrorInsufficientDriver", r"the CuPy of its own: pip install 'gpunet\[cuda12\]'"),
        (12090, 13000, "cudaErrorInitializationError: initialization error", "initialization error. Perhaps .*forked"),
        (13020, 13000, "cudaErrorSystemNotReady: system not ready", "no usable GPU: cudaErrorSystemNotReady"),
        (13020, 13000, None, "no usable GPU: there are 0"),
    ],
)
def test_why_cupy_finds_no_gpu(
    cuda: int, driver: int, refusal: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> int:
        if refusal is not None:
            raise fake_cupy.CUDARuntimeError(refusal)
        return 0

    cupy = fake_cupy.FakeCupy(EmulatedDevice(), devices=0)
    cupy.cuda.runtime.runtimeGetVersion, cupy.cuda.runtime.driverGetVersion = lambda: cuda, lambda: driver
    cupy.cuda.runtime.getDeviceCount = count
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(gpunet.DeviceError, match=message):
        CupyDevice(0)


def test_auto_says_why_a_driver_that_fails_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_cupy.begin_process(monkeypatch)
    monkeypatch.setattr(selection, "probe_gpu", lambda: GpuReport((13, 0), (), "14.2.0", probe.FORKED))
    assert isinstance(select_backend("auto"), NumpyBackend)
    assert "forked" in caplog.text


@pytest.mark.parametrize(
    "report", [GpuReport(None, (), None), GpuReport(None, (), "14.2.0"), GpuReport((13, 0), (), "14.2.0")]
)
def test_auto_is_silent_where_there_is_no_gpu(
    report: GpuReport, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_cupy.begin_process(monkeypatch)
    monkeypatch.setattr(selection, "probe_gpu", lambda: report)
    assert isinstance(select_backend("auto"), NumpyBackend)
    assert not caplog.text
