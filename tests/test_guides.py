"""The guides: their code runs as it stands, and what they say of messages, bytes and tests is so."""

from __future__ import annotations

import copy
import re
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from tests.backends.cuda.test_reference import Recorded
from tests.helpers.checkout import ROOT
from tests.helpers.networks import random_problem
from tests.test_docs import DOCS, run
from tests.test_memory import CONSTANT_BYTES

NETWORKS: list[tuple[list[int], dict[str, Any]]] = [
    ([300, 400, 500, 20], {"batch_norm": True}),
    ([300, 400, 500, 600, 20], {"batch_norm": True, "dropout": 0.2, "activation": "gelu"}),
    ([300, 400, 500, 20], {"batch_norm": False, "dtype": "float64"}),
    ([300, 400, 500, 20], {"batch_norm": False, "activation": "gelu", "dropout": 0.1}),
    ([300, 20], {}),
]
# By the moments that each has.
OPTIMIZERS: dict[int, Callable[[], gpunet.Optimizer]] = {
    0: lambda: gpunet.SGD(0.1),
    1: lambda: gpunet.SGD(0.1, momentum=0.9),
    2: lambda: gpunet.Adam(),
}
KEEP_TWO = {"gelu", "gelu_tanh", "silu", "mish", "hard_swish"}


def peak_of(call: Callable[[], object]) -> int:
    """Return the most bytes that a call had allocated at a time."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moments", OPTIMIZERS)
@pytest.mark.parametrize(("layers", "arguments"), NETWORKS)
def test_training_takes_the_bytes_that_the_guide_computes(
    layers: list[int], arguments: dict[str, Any], moments: int
) -> None:
    """Beside what does not grow with the network: one copy of the weights more or less would show, but for the last."""
    predicted = run("memory.md", "What training takes")["training_bytes"]
    rows, dtype = 1500, np.dtype(arguments.get("dtype", "float32"))
    X, y = np.zeros((rows, layers[0]), dtype), np.zeros(rows, np.int32)
    expected = predicted(
        layers,
        rows,
        batch_norm=arguments.get("batch_norm", True),
        of_input="activation" in arguments,
        dropout="dropout" in arguments,
        moments=moments,
        s=dtype.itemsize,
    )

    def train() -> None:
        network = gpunet.Network(layers, device="cpu:numpy", **arguments)
        gpunet.fit(network, X, y, epochs=1, batch_size=rows, optimizer=OPTIMIZERS[moments]())

    train()  # which imports what is imported once
    assert expected < peak_of(train) < expected + 1.5 * CONSTANT_BYTES


def test_an_epoch_takes_the_order_of_its_rows() -> None:
    rows, steps = 200_000, 1000
    X, y = np.zeros((rows, 2), np.float32), np.zeros(rows, np.int32)
    network = gpunet.Network([2, 2], device="cpu:numpy")
    gpunet.fit(network, X[:10], y[:10], epochs=1)

    def train(epochs: int) -> None:
        gpunet.fit(network, X, y, epochs=epochs, batch_size=rows // steps)

    few, many = peak_of(partial(train, 3)), peak_of(partial(train, 6))
    assert 8 * rows < few < 12 * rows + 300 * steps + CONSTANT_BYTES / 8
    assert many < few + 4096


@pytest.mark.parametrize("rows", [100, 10_000])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_predicting_takes_the_bytes_that_the_guide_computes(rows: int, batch_norm: bool) -> None:
    layers = [30, 400, 500, 20]
    predicted = run("memory.md")["prediction_bytes"](layers, rows, batch_norm=batch_norm)
    network = gpunet.Network(layers, batch_norm=batch_norm, device="cpu:numpy")
    X, y = np.zeros((rows, 30), np.float32), np.zeros(rows, np.int32)
    assert predicted < peak_of(lambda: network.logits(X)) < predicted + CONSTANT_BYTES / 8
    assert not copy.deepcopy(network).workspace.nbytes
    held = network.workspace.nbytes
    gpunet.evaluate(network, X, y)
    assert network.workspace.nbytes == held + 4 * 20 * min(rows, 4096)  # for the gradient of the outputs
    assert peak_of(lambda: gpunet.evaluate(network, X, y)) < CONSTANT_BYTES / 8 + X.size


def test_which_activations_keep_two_arrays() -> None:
    kinds = gpunet.activations.ACTIVATIONS
    assert {name for name, kind in kinds.items() if kind.derivative_of == "input"} == KEEP_TWO


# --- reproducibility --------------------------------------------------------------------------------------------------


def test_what_is_equal_is_shown_by_tests_that_there_are() -> None:
    cited = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "reproducibility.md").read_text(encoding="utf-8"))
    assert len(cited) > 25
    for file, test in cited:
        assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8"), (file, test)


def trained_on(backend: CudaBackend) -> gpunet.Network:
    X, y = random_problem(90, 6, 3)
    network = gpunet.Network([6, 17, 9, 3], dropout=0.2, seed=2, device=backend)
    gpunet.fit(network, X, y, epochs=4, batch_size=16, optimizer=gpunet.Adam(gpunet.CosineRate(0.01, 24)))
    return network


def test_recorded_steps_have_the_bits_of_steps_one_by_one() -> None:
    device = Recorded(multiprocessor_count=2)
    recorded, alone = (trained_on(CudaBackend(device, records=records)) for records in (True, False))
    assert device.recordings > 2
    for name, value in (alone.get_parameters() | alone.get_state()).items():
        np.testing.assert_array_equal((recorded.get_parameters() | recorded.get_state())[name], value, err_msg=name)


@pytest.mark.parametrize("initializer", ["he_normal", "xavier_uniform", "orthogonal", "random_walk"])
def test_a_network_begins_with_the_same_bits_on_cuda(initializer: str, device: Any) -> None:
    there, here = (
        gpunet.Network([6, 17, 9, 3], initializer=initializer, seed=2, device=where)
        for where in (CudaBackend(device), "cpu")
    )
    for name, value in here.get_parameters().items():
        np.testing.assert_array_equal(there.get_parameters()[name], value, err_msg=name)


def test_the_example_of_the_same_bits_runs() -> None:
    assert run("reproducibility.md")["first"]


# --- functions of the user's own --------------------------------------------------------------------------------------


def test_functions_of_ones_own_run_as_they_stand() -> None:
    names = run("own-functions.md")
    assert np.corrcoef(names["means"], np.exp(0.5 * names["X"][:, 0] - 0.3 * names["X"][:, 1]))[0, 1] > 0.8
    assert gpunet.evaluate(names["classifier"], names["X"], names["labels"]).accuracy > 0.9
    assert max(names["errors"].values()) < 1e-6
    assert 1 < len(names["stopped"]) < 100
    assert (names["network"].seed, len(names["rates"])) == (0, 5)
