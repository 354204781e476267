"""N ranks equal one: the same seed and batches give the same weights, bit for bit, and those of ``fit`` to rounding."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends import Backend
from gpunet.backends.cpu import CpuBackend
from gpunet.backends.cuda import CudaBackend
from gpunet.distributed import Ranks, one_rank
from tests.emulation.device import EmulatedDevice
from tests.helpers.threaded_ranks import run_ranks

SHARDS = 12
ROWS, COLUMNS, CLASSES = 237, 7, 3
Arguments = dict[str, Any]


def emulated() -> CudaBackend:
    return CudaBackend(EmulatedDevice(multiprocessor_count=3))


def numpy_backend() -> Backend:
    return gpunet.backends.NumpyBackend()


@functools.cache
def data() -> tuple[Any, ...]:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((ROWS + 60, COLUMNS)) * 3 + 20
    y = (X[:, 0] > 20).astype(int) + (X[:, 1] > 21)
    return X[:ROWS], y[:ROWS], X[ROWS:], y[ROWS:], rng.uniform(0, 2, ROWS)


def own_loss() -> gpunet.CustomLoss:
    """Return the squared distance from what stands for the label."""
    return gpunet.CustomLoss(
        "distance",
        value=lambda outputs, targets: ((outputs - targets) ** 2).sum(axis=1),
        gradient=lambda outputs, targets: 2 * (outputs - targets),
        targets="labels",
    )


# Name, arguments of the network, arguments of fit.
RUNS: list[tuple[str, Arguments, Arguments]] = [
    ("batch norm and dropout", {"dropout": 0.3}, {}),
    ("biases", {"batch_norm": False}, {}),
    ("derivative of the input", {"activation": "gelu"}, {}),
    ("no scale and shift", {"scale_shift": False}, {}),
    ("adam, l2, clipping", {}, {"optimizer": lambda: gpunet.Adam(1e-2), "l2": 1e-3, "clip_norm": 0.5}),
    ("weights", {"dropout": 0.2}, {"sample_weight": "weights", "class_weight": "balanced"}),
    ("smoothing", {"loss": gpunet.SoftmaxCrossEntropy(0.1)}, {"class_weight": {0: 2.0}}),
    ("a loss of the user's own", {"loss": "own"}, {}),
    ("accumulation", {"dropout": 0.2}, {"accumulate": 3}),
    ("an average, early stopping", {}, {"average": gpunet.WeightAverage(0.9), "early_stopping": "loss"}),
    ("order kept, batches of nine", {"dropout": 0.2}, {"shuffle": False, "batch_size": 9}),
    ("large batches", {}, {"batch_size": 200}),
    ("batches", {"dropout": 0.2}, {"batches": True}),
]


def train(ranks: Ranks | None, backend: Backend, network: Arguments, fit: Arguments, dtype: str) -> Any:
    """Train, and return the weights with all that the history says and is no time."""
    X, y, X_held_out, y_held_out, weights = data()
    given: Arguments = {"batch_size": 50, "epochs": 3, "optimizer": lambda: gpunet.SGD(0.05, momentum=0.9)} | fit
    given["optimizer"] = given["optimizer"]()
    if isinstance(given.get("sample_weight"), str):
        given["sample_weight"] = weights
    if given.get("early_stopping"):
        given["early_stopping"] = gpunet.EarlyStopping(patience=2, monitor="validation_loss")
    arrays: tuple[Any, ...] = (X, y)
    if given.pop("batches", None):
        whole = (X, y, given.pop("sample_weight")) if "sample_weight" in given else (X, y)
        parts = slice(0, 90), slice(90, 95), slice(95, ROWS)
        arrays, given["batches"] = (), [tuple(array[rows] for array in whole) for rows in parts]
        given["validation_batches"] = [(X_held_out[:41], y_held_out[:41]), (X_held_out[41:], y_held_out[41:])]
    else:
        given["validation"] = X_held_out, y_held_out
    if network.get("loss") == "own":
        network = network | {"loss": own_loss()}
    elif "loss" in network:
        network = network | {"loss": gpunet.SoftmaxCrossEntropy(0.1)}
    made = gpunet.Network([COLUMNS, 11, 6, CLASSES], device=backend, dtype=dtype, seed=4, **network)
    history = gpunet.fit(made, *arrays, distributed=ranks, **given)
    numbers = [
        (one.epoch, one.step, one.loss, one.penalty, one.learning_rate, one.validation_loss, one.validation_accuracy)
        for one in history
    ]
    vectors = [made.backend.to_numpy(vector).copy() for vector in (made.flat_parameters, made.flat_state)]
    return np.concatenate(vectors), numbers, history.best_epoch


def assert_equal_on(
    sizes: tuple[int, ...], make: Callable[[], Backend], network: Arguments, fit: Arguments, dtype: str
) -> Any:
    """Compare numbers of ranks, and return what they have in common."""
    first: Any = None
    for size in sizes:
        for found in run_ranks(size, SHARDS, lambda ranks: train(ranks, make(), network, fit, dtype)):
            first = first or found
            assert found[0].tobytes() == first[0].tobytes(), f"{size} ranks"
            assert found[1:] == first[1:]
    return first


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("network", "fit"), [run[1:] for run in RUNS], ids=[run[0] for run in RUNS])
def test_numpy(network: Arguments, fit: Arguments, dtype: str) -> None:
    found = assert_equal_on((1, 2, 3, 4), numpy_backend, network, fit, dtype)
    expected = train(None, numpy_backend(), network, fit, dtype)
    tolerance = 1e-9 if dtype == "float64" else 2e-3
    np.testing.assert_allclose(found[0], expected[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("network", "fit"), [run[1:] for run in RUNS[:4]], ids=[run[0] for run in RUNS[:4]])
def test_compiled(network: Arguments, fit: Arguments) -> None:
    assert_equal_on((1, 3, 4), CpuBackend, network, fit, "float32")


@pytest.mark.filterwarnings("error::gpunet.NoKernelWarning")
@pytest.mark.parametrize(("network", "fit"), [RUNS[0][1:], RUNS[5][1:]], ids=[RUNS[0][0], RUNS[5][0]])
def test_cuda_kernels_on_the_emulated_device(network: Arguments, fit: Arguments) -> None:
    fit = fit | {"epochs": 1, "batch_size": 100}
    train(one_rank(SHARDS), emulated(), network, fit, "float32")  # compiles the kernels, whose time is no hang
    found = assert_equal_on((1, 2, 3), emulated, network, fit, "float32")
    expected = train(None, numpy_backend(), network, fit, "float32")
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(precision: str) -> None:
    network = {"precision": precision, "dropout": 0.2}
    make = lambda: gpunet.backends.select_backend("cpu", precision)  # noqa: E731
    assert_equal_on((1, 2, 4), make, network, {}, "float32")


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("exponent", [-60, 20, 110])
@pytest.mark.parametrize("batches", [False, True])
def test_only_the_ratios_of_weights_count(batches: bool, exponent: int, size: int) -> None:
    weights = data()[-1]
    found = [
        run_ranks(
            size,
            SHARDS,
            lambda ranks, factor=factor: train(
                ranks,
                gpunet.backends.select_backend("cpu", "float16"),
                {"precision": "float16"},
                {"sample_weight": weights * factor, "optimizer": lambda: gpunet.SGD(0.05), "batches": batches},
                "float32",
            ),
        )
        for factor in (1.0, 2.0**exponent)
    ]
    for one, other in zip(*found, strict=True):
        assert one[0].tobytes() == other[0].tobytes()
        assert one[1:] == other[1:]


def test_one_shard_is_plain_training_bit_by_bit() -> None:
    plain = train(None, numpy_backend(), {"batch_norm": False, "dropout": 0.3}, {}, "float32")
    (sharded,) = run_ranks(
        1, 1, lambda ranks: train(ranks, numpy_backend(), {"batch_norm": False, "dropout": 0.3}, {}, "float32")
    )
    assert sharded[0].tobytes() == plain[0].tobytes()


def test_plain_sums_are_the_same_on_every_rank_and_those_of_one_to_rounding() -> None:
    expected = train(None, numpy_backend(), {}, {}, "float64")
    found = run_ranks(3, None, lambda ranks: train(ranks, numpy_backend(), {}, {}, "float64"))
    assert len({one[0].tobytes() for one in found}) == 1
    np.testing.assert_allclose(found[0][0], expected[0], rtol=1e-9, atol=1e-9)


def test_a_callback_on_one_rank_does_not_change_when_the_others_look_for_divergence() -> None:
    class Watch(gpunet.Callback):
        def on_step_end(self, run: gpunet.Run) -> None:
            pass

    def run(ranks: Ranks) -> str:
        made = gpunet.Network([COLUMNS, CLASSES], device=emulated(), batch_norm=False)
        X, y, *_ = data()
        callbacks = [Watch()] if ranks.rank == 0 else []
        fast = gpunet.SGD(1e38)
        with pytest.raises(gpunet.TrainingDivergedError) as raised:
            gpunet.fit(made, X, y, epochs=1, batch_size=8, optimizer=fast, callbacks=callbacks, distributed=ranks)
        return str(raised.value)

    assert len(set(run_ranks(2, 2, run))) == 1
