"""After the first step nothing that grows is allocated, and a float32 network never sees a float64."""

from __future__ import annotations

import sys
import tracemalloc

import numpy as np
import pytest

import gpunet
from gpunet.backends.numpy import CHUNK
from gpunet.training.evaluation import DeviceData
from gpunet.training.step import TrainingSteps

# What an epoch came to is float64, as sums over it have to be: a few numbers that no step computes with.
OF_AN_EPOCH = ("losses", "results", "_results", "result", "out", "after", "of_parameters", "of_state", "scores")
# Element-wise operations work on chunks, with a few temporaries of one chunk each, whatever the network's size.
CONSTANT_BYTES = 8 * CHUNK * 8


def training_step(rows, width, optimizer, **arguments):
    classifies = "loss" not in arguments
    network = gpunet.Network([width, width, width, 3 if classifies else width], device="cpu", **arguments)
    generator = np.random.default_rng(0)
    X = generator.uniform(0, 1, (rows, width)).astype(network.dtype)
    weights = np.ones(rows, network.dtype)
    data = DeviceData(network, X, generator.integers(0, 3, rows) if classifies else X, weights)
    optimizer.attach(network.backend, network.flat_parameters)
    steps = TrainingSteps(network, optimizer, data, [rows], l2=1e-3, clip_norm=1.0)
    steps.begin(np.arange(rows, dtype=np.int32))

    def step():
        steps.begin(None)
        steps(0, 1)

    for _ in range(2):
        step()
    return network, step


def peak_of_one_step(*arguments, **keywords):
    network, step = training_step(*arguments, **keywords)
    tracemalloc.start()
    step()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    step()
    current, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - before, current - before, network.workspace.nbytes


@pytest.mark.parametrize("optimizer", [lambda: gpunet.SGD(0.1, momentum=0.9), lambda: gpunet.Adam()])
@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_norm": True, "activation": "elu", "dropout": 0.3},
        {"batch_norm": False, "activation": "sigmoid"},
        {"batch_norm": False, "activation": "gelu", "dtype": "float64"},
        {"batch_norm": True, "activation": "gelu", "dtype": "float64"},
        {"batch_norm": False, "activation": "tanh", "loss": "squared_error", "output_activation": "sigmoid"},
        {"batch_norm": False, "activation": "tanh", "loss": "sigmoid_cross_entropy"},
        {"batch_norm": True, "scale_shift": False, "activation": "leaky_relu", "dtype": "float64"},
    ],
)
def test_a_step_allocates_nothing_that_grows(optimizer, arguments):
    peaks = {}
    for rows, width in ((16_384, 16), (131_072, 16), (1024, 256), (1024, 512)):
        peaks[rows, width], kept, workspace = peak_of_one_step(rows, width, optimizer(), **arguments)
        assert peaks[rows, width] < CONSTANT_BYTES, (rows, width)
        assert kept < 4096, (rows, width)
        assert workspace > 4 * peaks[rows, width]  # the buffers themselves are far larger than what a step allocates
    # Eight times the rows, four times the parameters: one byte per row would be 114,688 more.
    assert peaks[131_072, 16] - peaks[16_384, 16] < 65_536
    assert peaks[1024, 512] - peaks[1024, 256] < 65_536


def test_buffers_are_reused_for_smaller_batches_and_grow_for_larger_ones():
    network = gpunet.Network([8, 16, 3], device="cpu")
    X = np.zeros((100, 8), np.float32)
    network.forward(X)
    held, generation = network.workspace.nbytes, network.workspace.generation
    network.forward(X[:7])
    network.forward(X)
    assert (network.workspace.nbytes, network.workspace.generation) == (held, generation)
    network.forward(np.zeros((101, 8), np.float32))
    assert network.workspace.nbytes > held
    assert network.workspace.generation > generation


@pytest.mark.parametrize("optimizer", [lambda: gpunet.SGD(0.1, momentum=0.9), lambda: gpunet.AdamW()])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ["elu", "sigmoid", "leaky_relu"])
def test_float64_never_appears_in_a_float32_network(optimizer, loss, batch_norm, activation):
    """Look at every local variable of every function of the library as it returns, and at every attribute."""
    passes_on = {"aligned_empty", "zeros", "copy", "to_numpy", "as_loss", "_by_chunk", "is_half", "<genexpr>"}
    network = gpunet.Network(
        [6, 9, 7, 3],
        activation=activation,
        batch_norm=batch_norm,
        dropout=0.2,
        loss=loss,
        device="cpu",
    )
    generator = np.random.default_rng(0)
    X = generator.uniform(0, 1, (50, 6)).astype(np.float32)
    y = generator.integers(0, 3, 50) if loss == "softmax_cross_entropy" else X[:, :3].copy()
    found, looked_at = [], 0

    def watch(frame, event, argument):
        nonlocal looked_at
        if event != "return" or "gpunet" not in frame.f_code.co_filename:
            return
        owner = frame.f_locals.get("self")
        values = {**frame.f_locals, "returned": argument, **getattr(owner, "__dict__", {})}
        for name, value in values.items():
            if isinstance(value, (np.ndarray, np.generic)):
                looked_at += 1
                is_of_an_epoch = name in OF_AN_EPOCH or frame.f_code.co_name in passes_on
                if value.dtype == np.float64 and not (is_of_an_epoch and value.ndim):
                    found.append((frame.f_code.co_qualname if sys.version_info >= (3, 11) else "", name))

    sys.setprofile(watch)
    try:
        gpunet.fit(
            network,
            X,
            y,
            epochs=2,
            batch_size=16,
            optimizer=optimizer(),
            l2=1e-3,
            clip_norm=0.5,
            sample_weight=np.ones(50, np.float32),
            validation=(X, y),
        )
        network.predict(X)
    finally:
        sys.setprofile(None)
    assert looked_at > 1000
    assert not found


@pytest.mark.parametrize("training", [False, True])
def test_batches_of_many_sizes_leave_nothing_behind(training):
    network = gpunet.Network([4, 5, 6, 3], batch_norm=True, dropout=0.1, device="cpu")
    X, y = np.zeros((300, 4), np.float32), np.zeros(300, np.int32)

    def run(rows):
        outputs = network.forward(X[:rows], training=training)
        gradient = network.loss_layer(outputs, y[:rows], None)
        if training:
            network.backward(gradient)

    for rows in (300, *range(2, 20)):
        run(rows)
    tracemalloc.start()
    try:
        for rows in range(20, 300):
            run(rows)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 50_000  # eight views of each of some fifteen buffers, of 200 bytes; not 280 of each
