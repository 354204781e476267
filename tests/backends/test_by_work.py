"""The backend of ``device="cpu"``: NumPy for little work, compiled kernels for much, decided by the work alone."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends import Backend, NumpyBackend, by_work, selection
from gpunet.backends.by_work import CpuByWork
from gpunet.backends.cpu import CpuBackend
from tests.helpers.checkout import ROOT

ROWS, SIZES = 90, [4, 6, 3]
WEIGHTS = 4 * 6 + 6 * 3


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let training on ROWS rows be worth compiling, and predictions for as many times 60; forget what was tried."""
    monkeypatch.setattr(by_work, "WORTH_COMPILING", 20 * 6.0 * ROWS * WEIGHTS)
    monkeypatch.setattr("gpunet.backends.notices._said", set())
    by_work.kernels_problem.cache_clear()
    yield
    by_work.kernels_problem.cache_clear()


def new(device: Any = "cpu", seed: int = 0) -> gpunet.Network:
    return gpunet.Network(SIZES, seed=seed, device=device)


def data(rows: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(rows)
    return rng.standard_normal((rows, 4)).astype(np.float32), rng.integers(0, 3, rows)


def trained(device: Any, rows: int, epochs: int = 2, **options: Any) -> dict[str, Any]:
    network = new(device)
    gpunet.fit(network, *data(rows), epochs=epochs, batch_size=20, validation=data(30), **options)
    return network.get_parameters()


def is_same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return all(np.array_equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("device", ["cpu", "auto"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_training_is_compiled_from_so_many_rows_on_whatever_the_epochs(device: str, epochs: int) -> None:
    assert is_same(trained(device, ROWS, epochs), trained(CpuBackend(), ROWS, epochs))
    assert is_same(trained(device, ROWS - 1, epochs), trained(NumpyBackend(), ROWS - 1, epochs))
    assert not is_same(trained(device, ROWS, epochs), trained(NumpyBackend(), ROWS, epochs))


@pytest.mark.parametrize(("device", "backend"), [("cpu:numpy", NumpyBackend), ("cpu:compiled", CpuBackend)])
def test_one_of_them_does_everything_where_it_is_asked_for(device: str, backend: Any) -> None:
    network = new(device)
    assert type(network.backend) is backend
    assert type(copy.deepcopy(network).backend) is backend
    assert is_same(trained(device, ROWS - 1), trained(backend(), ROWS - 1))
    assert is_same(trained(device, ROWS), trained(backend(), ROWS))


def test_what_the_compiled_backend_does_its_own_way_is_passed_on_to_it() -> None:
    """But for what is asked of the backend that records passes, which it is itself."""
    own = {name for name in vars(CpuBackend).keys() & set(dir(Backend)) if name[0] != "_"}
    assert own <= vars(CpuByWork).keys()


def test_predictions_follow_their_own_rows_and_nothing_that_happened_before() -> None:
    few, many = data(40)[0], data(60 * ROWS)[0]
    network = new()
    assert np.array_equal(network.logits(few), new("cpu:numpy").logits(few))
    assert np.array_equal(network.logits(many), new("cpu:compiled").logits(many))
    assert np.array_equal(network.logits(few), new("cpu:numpy").logits(few))
    labels = data(60 * ROWS)[1]
    assert gpunet.evaluate(network, many, labels) == gpunet.evaluate(new("cpu:compiled"), many, labels)
    assert gpunet.evaluate(network, few, labels[:40]) == gpunet.evaluate(new("cpu:numpy"), few, labels[:40])


def test_predictions_within_a_run_and_beside_it_change_nothing() -> None:
    few = data(40)[0]
    found = []

    class Predicting(gpunet.Callback):
        def on_step_end(self, run: Any) -> None:
            found.append(run.network.logits(few))

    network, stop = new(), threading.Event()

    def predict() -> None:
        while not stop.is_set():
            network.logits(few)

    thread = threading.Thread(target=predict)
    thread.start()
    gpunet.fit(network, *data(ROWS), epochs=2, batch_size=20, validation=data(30), callbacks=[Predicting()])
    stop.set()
    thread.join()
    assert is_same(network.get_parameters(), trained(CpuBackend(), ROWS))
    same = new("cpu:numpy")
    same.set_parameters(network.get_parameters() | network.get_state())
    np.testing.assert_array_equal(found[-1], same.logits(few))
    np.testing.assert_array_equal(network.logits(few), same.logits(few))


def test_what_a_callback_computes_during_a_run_is_as_after_it() -> None:
    x, labels = data(40)
    found = []

    class Looking(gpunet.Callback):
        def on_epoch_end(self, run: Any, record: Any) -> None:
            found.append(run.network.loss_and_gradients(x, labels))

    network = new()
    gpunet.fit(network, *data(ROWS), epochs=1, callbacks=[Looking()])
    cost, gradients = network.loss_and_gradients(x, labels)
    assert found[0][0] == cost
    assert is_same(found[0][1], gradients)


def test_runs_that_share_a_backend_and_overlap_change_nothing_for_one_another() -> None:
    backend = CpuByWork()
    large, small = new(backend), new(backend)
    begun, inside, over = threading.Event(), threading.Event(), threading.Event()

    class Meeting(gpunet.Callback):
        def on_epoch_end(self, run: Any, record: Any) -> None:
            if run.network is large and record.epoch == 1:
                begun.set()
                assert inside.wait(60)
            if run.network is small:
                inside.set()
                assert over.wait(60)

    def train_small() -> None:
        assert begun.wait(60)
        gpunet.fit(small, *data(30), epochs=1, batch_size=20, callbacks=[Meeting()])

    thread = threading.Thread(target=train_small)
    thread.start()
    try:
        gpunet.fit(large, *data(ROWS), epochs=2, batch_size=20, callbacks=[Meeting()])
    finally:
        over.set()
        thread.join()
    assert is_same(large.get_parameters(), trained(CpuBackend(), ROWS))
    assert backend.arithmetic == NumpyBackend().arithmetic


def test_an_interrupted_run_goes_on_with_the_same_kernels(tmp_path: Any) -> None:
    path = tmp_path / "run.npz"
    trained("cpu", ROWS, 1, checkpoint=path)
    assert is_same(trained("cpu", ROWS, 3, checkpoint=path, resume=True), trained("cpu", ROWS, 3))
    trained("cpu", ROWS, 1, checkpoint=path)
    with pytest.warns(gpunet.ResumeWarning) as told:  # of the BLAS library too, where compiled kernels have MKL
        trained("cpu:numpy", ROWS, 2, checkpoint=path, resume=True)
    assert any(re.search("CPU backend compiled .*, and this is CPU backend NumPy", str(one.message)) for one in told)


def test_the_arithmetic_of_compiled_kernels_has_no_number_of_threads() -> None:
    backend = CpuByWork()
    assert "BLAS threads" in backend.arithmetic
    with backend.working(1e30):
        assert backend.arithmetic == CpuBackend().arithmetic
        assert "BLAS threads" not in backend.arithmetic


def test_the_switch_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUNET_COMPILED_CPU", "0")
    assert type(new().backend) is NumpyBackend
    monkeypatch.setenv("GPUNET_COMPILED_CPU", "off")
    with pytest.raises(gpunet.InvalidValueError, match=r"GPUNET_COMPILED_CPU: .*'off'"):
        new()


@pytest.mark.parametrize("package", ["numba", "threadpoolctl"])
def test_without_numba_numpy_does_everything_silently(
    package: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find_spec = selection.find_spec
    monkeypatch.setattr(selection, "find_spec", lambda name: None if name == package else find_spec(name))
    assert type(new().backend) is NumpyBackend
    assert not caplog.messages
    with pytest.raises(gpunet.DeviceError, match=r"Numba: pip install 'gpunet\[cpu\]'"):
        new("cpu:compiled")


FAULTS = {
    "does not support this Python": """
        import pathlib, sys, tempfile
        folder = pathlib.Path(tempfile.mkdtemp())
        (folder / "numba.py").write_text("raise ImportError('Numba needs another Python')")
        sys.path.insert(0, str(folder))
    """,
    "cannot write its cache": """
        import numba.core.caching as caching
        for kind in (caching.CacheImpl, *caching.CacheImpl.__subclasses__()):
            kind._locator_classes = []
    """,
    "computes wrongly": """
        import gpunet.backends.cpu as cpu
        cpu.CpuBackend.gemm = lambda self, a, b, out, *how: out.fill(1)
    """,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_where_it_does_not_work_numpy_does_everything_after_one_warning(fault: str) -> None:
    script = f"""
        import sys
        import numpy as np
        import gpunet
        from gpunet.backends import by_work
        {textwrap.indent(textwrap.dedent(FAULTS[fault]), " " * 8).strip()}
        by_work.WORTH_COMPILING = 0
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((50, 4)), rng.integers(0, 3, 50)
        for device in ("cpu", "cpu", "cpu:numpy"):
            network = gpunet.Network([4, 6, 3], device=device)
            gpunet.fit(network, X, y, epochs=1)
            print(network.parameters["W1"].sum())
        try:
            gpunet.Network([4, 6, 3], device="cpu:compiled")
        except gpunet.DeviceError:
            print("refused")
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        check=True,
    )
    *sums, refused = process.stdout.split()
    assert len(set(sums)) == 1
    assert (len(sums), refused) == (3, "refused")
    assert process.stderr.count("\n") == 1
    assert process.stderr.startswith("on a CPU everything runs on NumPy, because the compiled kernels do not work: ")


def test_numba_is_imported_when_much_work_comes_and_not_before() -> None:
    script = """
        import sys
        import numpy as np
        import gpunet
        network = gpunet.Network([4, 6, 3], device="cpu")
        X, y = np.ones((50, 4)), np.zeros(50, int)
        gpunet.fit(network, X, y, epochs=1)
        network.predict(X)
        print("numba" in sys.modules)
        with network.backend.working(1e12):
            print("numba" in sys.modules)
    """
    run = [sys.executable, "-c", textwrap.dedent(script)]
    assert subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True).stdout == "False\nTrue\n"


def test_compilation_is_told_once_and_loading_is_not(tmp_path: Any) -> None:
    script = """
        import logging, sys
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        import gpunet
        backend = gpunet.Network([4, 6, 3], device="cpu").backend
        with backend.working(1e12):
            pass
    """
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PATH": ""}
    for said in ("compiling kernels for this processor, once: they are kept on disk\n", ""):
        run = [sys.executable, "-c", textwrap.dedent(script)]
        assert subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True, env=environment).stdout == said
