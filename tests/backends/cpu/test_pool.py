"""The pool of threads: every stripe once, forked children, several callers, the end of the process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
from typing import Any

import numpy as np
import pytest
from numba import cfunc, int64, void

from gpunet.backends.cpu.blas import Blas, find_blas
from gpunet.backends.cpu.machine_code import add
from gpunet.backends.cpu.pool import Pool, address
from tests.helpers.checkout import ROOT


@cfunc(void(int64, int64))
def count(counts: Any, stripe: Any) -> Any:
    add(counts + 8 * stripe, 1)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_every_stripe_of_every_phase_is_done_once(threads: int) -> None:
    pool = Pool(threads, find_blas())
    counts = np.zeros(1000, np.int64)
    stripes = [1, 2, 3, 1000, 17]
    steps = np.array([(count.address, address(counts), number) for number in stripes] * 200, np.int64)
    for _ in range(5):
        pool.run(steps)
    expected = sum(1000 * (np.arange(1000) < number) for number in stripes)
    np.testing.assert_array_equal(counts, expected)
    pool.stop()
    pool.run(steps)  # alone
    np.testing.assert_array_equal(counts, expected + expected // 5)


def test_threads_end_with_their_pool() -> None:
    before = set(threading.enumerate())
    pool = Pool(3, None)
    pool.run(np.array([(count.address, address(np.zeros(5, np.int64)), 5)], np.int64))
    started = set(threading.enumerate()) - before
    assert len(started) == 2
    del pool
    gc.collect()
    assert not any(thread.is_alive() for thread in started)


def test_threads_of_python_that_take_turns_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(2, None)
    steps = np.array([(count.address, address(np.zeros(5, np.int64)), 5)], np.int64)
    pool.run(steps)
    other = threading.Thread(target=pool.run, args=(steps,))
    other.start()
    other.join()
    assert pool.times_refused == 1  # the other one, beside this
    pool.run(steps)
    assert pool.times_refused == 2
    monkeypatch.setattr("gpunet.backends.cpu.pool._LATELY_SECONDS", 0.0)
    pool.run(steps)
    assert pool.times_refused == 2  # the other one has not called of late


def test_two_threads_of_python_use_one_pool() -> None:
    pool = Pool(3, find_blas())
    counts = np.zeros((4, 50), np.int64)

    def work(mine: Any) -> None:
        steps = np.array([(count.address, address(mine), 50)] * 20, np.int64)
        for _ in range(100):
            pool.run(steps)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counts == 2000).all()


def numpys_blas() -> Blas:
    from gpunet.backends.cpu.blas import _openblas

    blas = _openblas()
    assert blas is not None
    return blas


def test_the_threads_of_blas_are_as_before_after_a_call() -> None:
    import threadpoolctl

    pool = Pool(2, numpys_blas())
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        pool.run(np.array([(count.address, address(np.zeros(5, np.int64)), 5)], np.int64))
        assert {one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"} == {2}


SCRIPT = """
import os, sys, threading
import numpy as np
import gpunet
from gpunet.backends.cpu import CpuBackend
from gpunet.backends.cpu.pool import shared_pool

def train():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 20)), rng.integers(0, 3, 300)
    network = gpunet.Network([20, 100, 3], device=CpuBackend())
    gpunet.fit(network, X, y, epochs=2)
    return network.get_parameters()["W1"].tobytes()
"""


def run(script: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert not process.stderr
    return process.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_threads_of_its_own() -> None:
    script = """
        import warnings
        warnings.simplefilter("ignore")
        here = train()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, b"same" if train() == here else b"other")
            os._exit(0)
        same = train() == here
        print(os.read(reader, 9), os.waitpid(pid, 0)[1], same)
    """
    assert run(script) == "b'same' 0 True\n"


def test_two_networks_train_in_two_threads() -> None:
    script = """
        found = [None] * 4
        def work(index):
            found[index] = train()
        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(set(found)), None in found)
    """
    assert run(script) == "1 False\n"


def test_a_process_ends_while_workers_sleep_or_work() -> None:
    assert run("train()\n") == ""
    assert run("threading.Thread(target=lambda: [train() for _ in range(100)], daemon=True).start(); train()") == ""


def test_training_in_an_exit_handler_runs_alone() -> None:
    script = """
        import atexit
        atexit.register(lambda: print(train() == here))
        here = train()
    """
    assert run(script) == "True\n"
