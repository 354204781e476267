"""NCCL on the stand-in for CuPy: arrays of threads with a device each, on streams where everything runs late."""

from __future__ import annotations

import gc
import inspect
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends import Backend, NumpyBackend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices import cupy as cupy_device
from gpunet.backends.devices import nccl as nccl_device
from gpunet.distributed import one_rank, ordered_sum
from gpunet.distributed.nccl import NcclExchange, nccl_exchange
from tests.distributed.test_bits import train
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy, fake_nccl
from tests.helpers.planting import planted
from tests.helpers.threaded_ranks import ThreadCommunicator, run_ranks

SIZES = (2, 3)


@pytest.fixture(autouse=True)
def nccl(monkeypatch: pytest.MonkeyPatch) -> fake_nccl.FakeNccl:
    """A stand-in for CuPy with three devices, and one for NCCL."""
    cupy = fake_cupy.FakeCupy(EmulatedDevice(multiprocessor_count=4, compute_capability=(8, 0)), devices=3)
    fake_cupy.install(monkeypatch, cupy)
    fake = fake_nccl.FakeNccl(cupy)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", fake)
    return fake


def of_device(rank: int) -> CudaBackend:
    return CudaBackend(cupy_device.CupyDevice(rank))


def on_ranks(size: int, work: Callable[[int, CudaBackend, NcclExchange], Any]) -> list[Any]:
    """Return what each rank returns, a thread with a device of its own."""

    def run(ranks: Any) -> Any:
        communicator = ranks.communicator
        backend = of_device(communicator.rank)
        exchange = nccl_exchange(communicator, backend)
        assert exchange is not None
        return work(communicator.rank, backend, exchange)

    return run_ranks(size, None, run)


def numbers(rank: int, *shape: int, dtype: Any = np.float32) -> Any:
    return (100 * (rank + 1) + np.arange(np.prod(shape))).reshape(shape).astype(dtype)


# --- numbers and order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint16", "int32", "uint8"])
@pytest.mark.parametrize("size", SIZES)
def test_parts_of_all_ranks_are_gathered_and_exchanged(size: int, dtype: str) -> None:
    def work(rank: int, backend: CudaBackend, exchange: NcclExchange) -> Any:
        part = backend.asarray(numbers(rank, 2, 3, dtype=dtype))
        gathered, exchanged = backend.zeros((size, 2, 3), dtype), backend.zeros((size, 5), dtype)
        first = exchange.all_gather(part, gathered)
        second = exchange.all_to_all(backend.asarray(numbers(rank, size, 5, dtype=dtype)), exchanged)
        first()
        second()
        return backend.to_numpy(gathered), backend.to_numpy(exchanged)

    for rank, (gathered, exchanged) in enumerate(on_ranks(size, work)):
        np.testing.assert_array_equal(gathered, [numbers(other, 2, 3, dtype=dtype) for other in range(size)])
        np.testing.assert_array_equal(exchanged, [numbers(other, size, 5, dtype=dtype)[rank] for other in range(size)])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64"])
@pytest.mark.parametrize("size", SIZES)
def test_arrays_are_added_up_in_place(size: int, dtype: str) -> None:
    def work(rank: int, backend: CudaBackend, exchange: NcclExchange) -> Any:
        array = backend.asarray(numbers(rank, 7, dtype=dtype))
        exchange.all_reduce(array)()
        return backend.to_numpy(array)

    for found in on_ranks(size, work):
        np.testing.assert_array_equal(found, sum(numbers(rank, 7, dtype=dtype) for rank in range(size)))


def in_order(size: int = 2) -> None:
    """What goes away is what the device had been asked for; what it is asked for next sees what has come."""

    def work(rank: int, backend: CudaBackend, exchange: NcclExchange) -> Any:
        part, out, copied = (backend.zeros(shape, np.float32) for shape in ((4,), (size, 4), (size, 4)))
        results = []
        for turn in range(3):
            backend.copy(backend.asarray(numbers(rank, 4) + turn), part)
            wait = exchange.all_gather(part, out)
            if turn == 1:  # whoever looks at the moving stream alone finds what was asked for before
                exchange._lane._moving.synchronize()  # type: ignore[attr-defined]
            wait()
            backend.copy(out, copied)
            backend.copy(backend.zeros(4, np.float32), part)
            results.append(backend.to_numpy(copied))
        return results

    for results in on_ranks(size, work):
        for turn, found in enumerate(results):
            np.testing.assert_array_equal(found, [numbers(other, 4) + turn for other in range(size)])


@pytest.mark.parametrize("size", SIZES)
def test_order_of_the_streams(size: int) -> None:
    in_order(size)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("            self._moving.wait_event(self._asked)\n", ""),
        ("            self._compute.wait_event(done)\n", ""),
        ("            done.record(self._moving)\n", "            done.record(self._compute)\n"),
        ("part.nbytes, self._nccl.NCCL_UINT8", "part.size, self._nccl.NCCL_UINT8"),
    ],
    ids=["sent before it is there", "read before it has come", "an event of the wrong stream", "elements for bytes"],
)
def test_a_wrong_order_is_found(old: str, new: str) -> None:
    with planted(nccl_device, old, new), pytest.raises(AssertionError):
        in_order()


def test_nobody_waits_on_the_host() -> None:
    """An exchange, the wait for it and what uses it are asked for before anything has run."""

    def work(rank: int, backend: CudaBackend, exchange: NcclExchange) -> Any:
        part, out = backend.asarray(numbers(rank, 4)), backend.zeros((1, 4), np.float32)
        streams = [exchange._lane._moving, exchange._lane._compute]  # type: ignore[attr-defined]
        before = len(streams[1].queue)
        exchange.all_gather(part, out)()
        asked = [bool(streams[0].queue), len(streams[1].queue) > before]
        backend.synchronize()
        return asked

    assert on_ranks(1, work) == [[True, True]]  # alone: another rank would let this one's operations run


def test_memory_stays_until_it_is_waited_for(nccl: fake_nccl.FakeNccl) -> None:
    def work(rank: int, backend: CudaBackend, exchange: NcclExchange) -> Any:
        out = backend.zeros((2, 4), np.float32)
        wait = exchange.all_gather(backend.asarray(numbers(rank, 4)), out)  # which nobody else holds
        gc.collect()
        wait()
        del wait
        return backend.to_numpy(out)

    for found in on_ranks(2, work):
        np.testing.assert_array_equal(found, [numbers(other, 4) for other in range(2)])
    gc.collect()
    assert nccl.open == 0


def test_training_by_nccl_has_the_bits_of_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums large and small, ordered and not, batch norm and dropout: all arrays go on the moving stream."""
    monkeypatch.setattr(ThreadCommunicator, "exchange", nccl_exchange)
    monkeypatch.setattr(ordered_sum, "ALL_TO_ONE_BYTES", 200)
    fit = {"epochs": 1, "batch_size": 100}

    def work(ranks: Any) -> Any:
        return train(ranks, of_device(ranks.communicator.rank), {"dropout": 0.3}, fit, "float32")

    alone = train(one_rank(6), of_device(0), {"dropout": 0.3}, fit, "float32")  # and compiles all kernels
    for size in (2, 3):
        assert {found[0].tobytes() for found in run_ranks(size, 6, work)} == {alone[0].tobytes()}
    first, second = run_ranks(2, None, work)
    assert first[0].tobytes() == second[0].tobytes()
    np.testing.assert_allclose(first[0], alone[0], rtol=2e-3, atol=2e-3)


# --- what does not fit ------------------------------------------------------------------------------------------------


def test_what_nccl_says_is_told(nccl: fake_nccl.FakeNccl) -> None:
    def work(rank: int, backend: CudaBackend, exchange: NcclExchange) -> Any:
        array, messages = backend.zeros((1, 4), np.float32), []
        for name, call in (
            ("allReduce", lambda: exchange.all_reduce(array)),
            ("allGather", lambda: exchange.all_gather(array[0], array)),
            ("send", lambda: exchange.all_to_all(array, backend.zeros((1, 4), np.float32))),
        ):
            nccl.failures[name] = "INTERNAL_ERROR: internal error"
            with pytest.raises(gpunet.DeviceError) as caught:
                call()
            messages.append(str(caught.value))
        nccl.failures["check_async_error"] = "SYSTEM_ERROR: unhandled system error"
        nccl.failures.pop("allReduce")
        wait = exchange.all_reduce(array)
        with pytest.raises(gpunet.DeviceError, match=r"waiting for an all-reduce of NCCL: NCCL_ERROR_SYSTEM_ERROR"):
            wait()
        return messages

    for rank, messages in enumerate(on_ranks(1, work)):
        for message, name in zip(messages, ("all-reduce", "all-gather", "all-to-all"), strict=True):
            expected = f"cuda:{rank} (NVIDIA Fake), an {name} of NCCL: NCCL_ERROR_INTERNAL_ERROR: internal error"
            assert message == expected


def test_arrays_that_do_not_fit_are_refused_before_anything_is_sent(nccl: fake_nccl.FakeNccl) -> None:
    def work(rank: int, backend: CudaBackend, exchange: NcclExchange) -> Any:
        array = backend.zeros((1, 4), np.float32)
        with pytest.raises(gpunet.InvalidTypeError, match=r"all_reduce: got uint16\. Expected one of: float16, "):
            exchange.all_reduce(backend.zeros(4, np.uint16))
        with pytest.raises(gpunet.InvalidTypeError, match="an all-gather of NCCL: got a ndarray of the host"):
            exchange.all_gather(np.zeros(4, np.float32), array)
        with pytest.raises(ValueError, match="an all-gather of NCCL among 1 of 16 bytes into 12"):
            exchange.all_gather(array, backend.zeros(3, np.float32))
        with pytest.raises(ValueError, match="an all-to-all of NCCL among 1 of 16 bytes into 32"):
            exchange.all_to_all(array, backend.zeros(4, np.float64))
        with pytest.raises(gpunet.DeviceError, match="an all-reduce of NCCL is not possible while a step is captured"):
            backend.capture(lambda: exchange.all_reduce(array))

    on_ranks(1, work)
    assert nccl.log == []


# --- where there is none ----------------------------------------------------------------------------------------------


def agreed(
    caplog: pytest.LogCaptureFixture, new_backend: Callable[[int], Backend], size: int = 2
) -> tuple[list[Any], list[str]]:
    """Return what ranks get, and what is said."""
    with caplog.at_level(logging.WARNING):
        found = run_ranks(
            size, None, lambda ranks: nccl_exchange(ranks.communicator, new_backend(ranks.communicator.rank))
        )
    return found, [record.message for record in caplog.records]


HOST = "ranks exchange the arrays of their GPUs by way of the host, not by NCCL: "


def test_two_ranks_on_one_gpu(caplog: pytest.LogCaptureFixture) -> None:
    found, said = agreed(caplog, lambda rank: of_device(min(rank, 1)), 3)
    assert (found, said) == ([None] * 3, [HOST + "ranks 1 and 2 share one GPU"])


def test_ranks_without_a_gpu_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert agreed(caplog, lambda rank: NumpyBackend()) == ([None, None], [])


def test_a_rank_without_a_gpu(caplog: pytest.LogCaptureFixture) -> None:
    found, said = agreed(caplog, lambda rank: NumpyBackend() if rank else of_device(rank))
    assert (found, said) == ([None] * 2, [HOST + "rank 1 has no GPU"])


def test_an_emulated_device_has_none(caplog: pytest.LogCaptureFixture) -> None:
    found, said = agreed(caplog, lambda rank: CudaBackend(EmulatedDevice()))
    assert found == [None] * 2
    assert [message.startswith(HOST + "rank 0: emulated sm_90") for message in said] == [True]


def test_other_versions(caplog: pytest.LogCaptureFixture, nccl: fake_nccl.FakeNccl) -> None:
    versions = {threading.get_ident(): 1}
    nccl.get_version = lambda: 22703 + versions.setdefault(threading.get_ident(), len(versions))  # type: ignore[method-assign]
    found, said = agreed(caplog, of_device)
    assert found == [None] * 2
    assert len(said) == 1
    assert said[0].startswith(HOST + "rank 0 has NCCL 2270")


def test_no_id_for_the_job(caplog: pytest.LogCaptureFixture, nccl: fake_nccl.FakeNccl) -> None:
    """Of rank 0, which alone asks for it: the others hear of it instead of waiting."""
    nccl.failures["get_unique_id"] = "SYSTEM_ERROR: no interface"
    found, said = agreed(caplog, of_device)
    assert found == [None] * 2
    assert len(said) == 1
    assert said[0].endswith("beginning a job of NCCL: NCCL_ERROR_SYSTEM_ERROR: no interface")


def test_a_job_that_nccl_refuses(nccl: fake_nccl.FakeNccl) -> None:
    nccl.failures["NcclCommunicator"] = "INVALID_USAGE: invalid usage"
    with pytest.raises(gpunet.DeviceError, match="joining a job of NCCL: NCCL_ERROR_INVALID_USAGE"):
        on_ranks(2, lambda *_: None)


@pytest.mark.parametrize("is_missing", [False, True])
def test_cupy_without_nccl(is_missing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the stand-in

    def import_module(name: str) -> Any:
        assert name == "cupy.cuda.nccl"
        if is_missing:
            raise ModuleNotFoundError("No module named 'cupy'")
        return type("Module", (), {"available": False})

    monkeypatch.setattr(nccl_device, "import_module", import_module)
    reason = (
        "cannot be imported: No module named" if is_missing else "CuPy finds no NCCL: the packages nvidia-nccl-cu12"
    )
    with pytest.raises(gpunet.DeviceError, match=reason):
        nccl_device.load_nccl()


# --- the stand-in -----------------------------------------------------------------------------------------------------


def test_the_stand_in_has_the_signatures_of_cupy() -> None:
    assert {name: fake_nccl.parameters(name) for name in fake_nccl.SIGNATURES} == fake_nccl.SIGNATURES


def test_every_name_exists_in_cupy() -> None:
    pytest.importorskip("cupy")
    real = pytest.importorskip("cupy_backends.cuda.libs.nccl", exc_type=ImportError)
    for name in inspect.getmembers(fake_nccl.FakeNccl):
        if not name[0].startswith(("_", "fail", "submit", "available")):
            assert hasattr(real, name[0])
    for name in fake_nccl.SIGNATURES:
        assert hasattr(real.NcclCommunicator, name)
