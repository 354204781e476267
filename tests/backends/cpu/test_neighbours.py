"""The compiled backend beside other libraries' threads and processes: it comes to an end, with the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT

pytestmark = pytest.mark.slow

SCRIPT = """
import multiprocessing, os, sys, threading, warnings
warnings.simplefilter("ignore")
import numpy as np
import gpunet
import gpunet.backends.cpu.pool as pool
pool.usable_cores = lambda: 3  # whatever this machine has

def train(network=None):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((2000, 20)), rng.integers(0, 3, 2000)
    network = network or gpunet.Network([20, 200, 100, 3], device="cpu:compiled")
    gpunet.fit(network, X, y, epochs=2)
    return network.get_parameters()["W1"].tobytes()

def into(queue):
    queue.put(train())

if __name__ == "__main__":
    expected = train()
"""

NEIGHBOURS = {
    "processes of joblib": """
        import joblib
        found = joblib.Parallel(n_jobs=2)(joblib.delayed(train)() for _ in range(2))
    """,
    "threads of joblib": """
        import joblib
        found = joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(train)() for _ in range(4))
    """,
    "scikit-learn's OpenMP, also between two steps": """
        from sklearn.ensemble import HistGradientBoostingClassifier
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((60, 5)), rng.integers(0, 2, 60)
        class Between(gpunet.Callback):
            def on_epoch_end(self, run, record):
                HistGradientBoostingClassifier(max_iter=2).fit(X, y)
        network = gpunet.Network([20, 200, 100, 3], device="cpu:compiled")
        rng = np.random.default_rng(0)
        inputs, labels = rng.standard_normal((2000, 20)), rng.integers(0, 3, 2000)
        gpunet.fit(network, inputs, labels, epochs=2, callbacks=[Between()])
        found = [network.get_parameters()["W1"].tobytes(), train()]
    """,
    "NumPy's products in another thread": """
        stop, x = threading.Event(), np.ones((400, 400))
        def multiply():
            while not stop.is_set():
                x @ x
        thread = threading.Thread(target=multiply)
        thread.start()
        found = [train(), train()]
        stop.set()
        thread.join()
    """,
    "a user's limit, which stays": """
        import threadpoolctl
        def now():
            return {one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"}
        found = []
        for limit in (1, 2):
            with threadpoolctl.threadpool_limits(limit, user_api="blas"):
                found.append(train())
                assert now() == {limit}, now()
    """,
    "multiprocessing's fork": """
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=into, args=(queue,))
        process.start()
        found = [queue.get(timeout=100)]
        process.join()
    """,
    "multiprocessing's spawn": """
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=into, args=(queue,))
        process.start()
        found = [queue.get(timeout=100)]
        process.join()
    """,
    "a fork that trains a network on": """
        network = gpunet.Network([20, 200, 100, 3], device="cpu:compiled")
        train(network)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            train(network)
            found = network.get_parameters()["W1"].tobytes()
            workers = sum(thread.name.startswith("gpunet-") for thread in threading.enumerate())
            os.write(writer, found + bytes([workers]))
            os._exit(0)
        os.waitpid(pid, 0)
        found = os.read(reader, 60000)
        assert found[-1] == 2, found[-1]
        train(network)
        expected, found = network.get_parameters()["W1"].tobytes(), [found[:-1]]
    """,
    "PyTorch": """
        import torch
        a = torch.ones(300, 300)
        torch.mm(a, a)
        class Between(gpunet.Callback):
            def on_step_end(self, run):
                torch.mm(a, a)
        network = gpunet.Network([20, 200, 100, 3], device="cpu:compiled")
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((2000, 20)), rng.integers(0, 3, 2000)
        gpunet.fit(network, X, y, epochs=2, callbacks=[Between()])
        found = [network.get_parameters()["W1"].tobytes(), train()]
    """,
}
FORKS = ("multiprocessing's fork", "a fork that trains a network on")


def marks(name: str) -> list[pytest.MarkDecorator]:
    if name == "PyTorch":
        return [pytest.mark.oracle]
    return [pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")] if name in FORKS else []


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in NEIGHBOURS])
def test_a_run_ends_with_the_same_bits_beside(name: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"  # a file: spawned processes import it
    body = (
        NEIGHBOURS[name]
        + """
        assert found and all(one == expected for one in found)
    """
    )
    script.write_text(SCRIPT + textwrap.indent(textwrap.dedent(body), "    "))
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    process = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )
    assert process.returncode == 0, process.stderr
    assert not process.stderr


def test_a_process_that_compiles_has_the_bits_of_one_that_loads(tmp_path: Path) -> None:
    body = """
        import hashlib
        more = [train(gpunet.Network([20, 30, 3], device="cpu:compiled", **options)) for options in (
            {"activation": "gelu"}, {"activation": "tanh", "batch_norm": False}, {"dtype": "float64", "dropout": 0.1}
        )]
        print(hashlib.sha256(b"".join([expected, *more])).hexdigest())
    """
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + textwrap.indent(textwrap.dedent(body), "    "))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    run = [sys.executable, str(script)]
    first, second = (
        subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout
        for _ in range(2)
    )
    assert first == second
