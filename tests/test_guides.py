"""The guides: their code runs as it stands, and what they say of messages, bytes and tests is so."""

from __future__ import annotations

import ast
import copy
import itertools
import re
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices.probe import FORKED, GpuReport
from gpunet.backends.selection import cuda_problem
from gpunet.backends.switches import SWITCHES
from gpunet.cli.main import main
from tests.backends.cuda.test_reference import Recorded
from tests.emulation import EmulatedDevice
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


def test_buffers_are_the_same_on_cuda_and_about_half_in_half_precision(device: Any) -> None:
    X, y = random_problem(64, 8, 8)

    def buffers(precision: str, where: Any) -> int:
        network = gpunet.Network([8, 96, 104, 8], precision=precision, device=where)
        gpunet.fit(network, X, y, epochs=1, batch_size=64)
        return network.workspace.nbytes

    full, half = (buffers(precision, "cpu:numpy") for precision in ("float32", "bfloat16"))
    assert 0.5 * full < half < 0.55 * full
    assert buffers("float32", CudaBackend(device)) == full
    assert buffers("bfloat16", CudaBackend(device, "bfloat16")) == half


def test_an_epoch_takes_the_order_of_its_rows() -> None:
    rows, steps = 100_000, 500
    X, y = np.zeros((rows, 2), np.float32), np.zeros(rows, np.int32)
    network = gpunet.Network([2, 2], device="cpu:numpy")
    gpunet.fit(network, X[:10], y[:10], epochs=1)

    def train(epochs: int) -> None:
        gpunet.fit(network, X, y, epochs=epochs, batch_size=rows // steps)

    few, many = peak_of(partial(train, 3)), peak_of(partial(train, 6))
    assert 12 * rows < few < 12 * rows + 300 * steps + CONSTANT_BYTES / 8
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
    cited = re.findall(r"`(tests/[\w/]+\.py)` `(\w+)`", (DOCS / "reproducibility.md").read_text(encoding="utf-8"))
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
    for found in ("means", "expected_counts"):
        assert np.corrcoef(names[found], names["mean"])[0, 1] > 0.8
    assert gpunet.evaluate(names["classifier"], names["X"], names["labels"]).accuracy > 0.9
    assert max(names["errors"].values()) < 1e-6
    assert 1 < len(names["stopped"]) < 100
    assert (names["network"].seed, len(names["rates"])) == (0, 5)


# --- on a GPU ---------------------------------------------------------------------------------------------------------


def messages() -> list[re.Pattern[str]]:
    """Return what the table of messages has, as patterns."""
    table = (DOCS / "gpu.md").read_text(encoding="utf-8").split("| message |")[1].split("\n\n")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    return [re.compile(re.escape(one).replace("…", "(.*)")) for cell in cells for one in re.findall("`([^`]+)`", cell)]


def text_of(node: ast.AST) -> str | None:
    """Return a text of the source, with … for what is put into it; None for something else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def nodes(*places: str) -> Iterator[ast.AST]:
    """Yield everything in the sources of these places."""
    for file in itertools.chain.from_iterable(map(ROOT.glob, places)):
        yield from ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def test_every_message_in_the_table_is_one_of_gpunets() -> None:
    known = [
        text for node in nodes("gpunet/backends/**/*.py", "gpunet/training/placement.py") if (text := text_of(node))
    ]
    assert len(messages()) > 22
    for message in messages():
        assert any(message.search(text) for text in known), message.pattern


REPORTS = [
    (GpuReport(None, (), None), 0),
    (GpuReport((13, 0), (), "14.0"), 0),
    (GpuReport((13, 0), (), "14.0", FORKED), 0),
    (GpuReport((11, 8), ("GPU",), None), 0),
    (GpuReport((13, 0), ("GPU",), None), 0),
    (GpuReport((13, 0), ("GPU",), "13.6"), 0),
    (GpuReport((13, 0), ("GPU",), "14.0"), 1),
]


@pytest.mark.parametrize(("report", "index"), REPORTS)
def test_whatever_keeps_a_gpu_from_being_used_is_in_the_table(report: GpuReport, index: int) -> None:
    problem = cuda_problem(report, index)
    assert problem is not None
    assert any(message.search(problem) for message in messages()), problem


def test_every_error_and_warning_of_a_gpu_is_in_the_table() -> None:
    """But for a reason that stands behind a warning, and for one that nobody who trains a network can cause."""
    said = [
        text
        for node in nodes("gpunet/backends/cuda/*.py", "gpunet/backends/devices/*.py", "gpunet/training/placement.py")
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("say_once", "DeviceError", "OutOfDeviceMemoryError")
        and (text := text_of(node.args[0]))
    ]
    assert len(said) > 15
    assert {text for text in said if not any(message.search(text) for message in messages())} == {
        "…: cublasLt has no algorithm for a product with the epilogue …",
        "… is not possible while a step is captured",
    }


def test_every_switch_is_in_the_guides() -> None:
    text = "".join((DOCS / page).read_text(encoding="utf-8") for page in ("gpu.md", "cpu.md"))
    for switch in SWITCHES:
        assert f"`{switch.variable}" in text, switch.variable


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_the_start_page_runs_on_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands but for the number of epochs; what ``auto`` takes where there is a GPU is the emulated device."""
    pytest.importorskip("sklearn")
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    device = EmulatedDevice()
    monkeypatch.setattr("gpunet.network.select_backend", lambda device_, precision: CudaBackend(device, precision))
    names = run("index.md", replace=("epochs=20", "epochs=1"))
    assert isinstance(names["network"].backend, CudaBackend)
    assert (names["network"].predict(names["X_test"]) == names["y_test"]).mean() > 0.8


def test_the_shell_of_the_start_page_runs_with_what_it_installs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("matplotlib", "rich", "safetensors", "sklearn"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "index.md").read_text(encoding="utf-8")
    commands = re.findall(r"^gpunet (.*)$", page, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert main(command.split()) == 0, capsys.readouterr().err
    extras = re.search(r"pip install '\.\[(.*?)\]'", page)
    assert extras is not None
    assert set(extras[1].split(",")) == {"cli", "plot"}  # a figure needs the second


def test_what_is_refused_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scipy")
    run("when-not.md")
    printed = re.search(r"```text\n(.*?)```", (DOCS / "when-not.md").read_text(encoding="utf-8"), re.DOTALL)
    assert printed is not None
    assert capsys.readouterr().out == printed[1]
