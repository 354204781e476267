"""The CUDA backend as a whole: networks that train on it, recorded steps, what it refuses."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.activations import ReLU
from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.activation import column_tiles
from gpunet.backends.cuda.grids import THREADS, power_of_two
from tests.emulation import EmulatedDevice, EmulationError
from tests.helpers.cuda import on_device, poisoned

# Trajectories: rounding grows from step to step. A wrong mask, learning rate or row shows from 1e-3 on.
TRAJECTORY = {"float32": 2e-5, "float64": 1e-11}


# What only a backend of the CPU does in a way of its own: choosing kernels, avoiding denormals.
OF_THE_CPU = {"call", "flush_denormals", "is_compiled_for", "working"}
# What is made of the user's functions of arrays.
EXPRESSIONS = {"custom_loss"}


def public_operations() -> list[str]:
    """Names of what a backend does."""
    names = [name for name, member in inspect.getmembers(Backend, callable) if not name.startswith("_")]
    return [name for name in names if name not in OF_THE_CPU | EXPRESSIONS]


@pytest.mark.parametrize("name", public_operations())
def test_overrides_every_operation_with_the_same_parameters(name: str) -> None:
    own, specified = getattr(CudaBackend, name), getattr(Backend, name)
    assert own is not specified
    mine, theirs = inspect.signature(own).parameters, inspect.signature(specified).parameters
    assert [(p.name, p.kind, p.default) for p in mine.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


# --- training ---------------------------------------------------------------------------------------------------------

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "batch_norm": {"batch_norm": True, "dropout": [0.3, 0.0], "activation": ["relu", "tanh"]},
    "no_batch_norm": {"batch_norm": False, "dropout": [0.0, 0.5], "activation": ["leaky_relu(0.1)", "sigmoid"]},
    "mixed": {"batch_norm": [True, False], "scale_shift": False, "activation": ["elu(0.5)", "identity"]},
    "biases": {"batch_norm": True, "bias_before_batch_norm": True, "activation": "relu"},
}
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda: gpunet.SGD(gpunet.CyclicalRate(0.01, 0.1, 7), momentum=0.9, nesterov=True),
    "adam": lambda: gpunet.Adam(gpunet.CosineRate(0.01, 20)),
    "adamw": lambda: gpunet.AdamW(0.01, weight_decay=0.1),
}


def train(
    device: Any,
    configuration: str,
    optimizer: str,
    dtype: str = "float32",
    loss: str | None = None,
    output_activation: str = "identity",
    epochs: int = 4,
    **arguments: Any,
) -> Any:
    """Train for 20 steps in 4 epochs: each has four batches of 16 rows and ends on one of 6."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((70, 13)), rng.integers(0, 5, 70)
    targets = y if loss is None else rng.standard_normal((70, 5))
    if loss == "sigmoid_cross_entropy":
        targets = targets.clip(0, 1)
    network = gpunet.Network(
        [13, 33, 20, 5],
        seed=3,
        dtype=dtype,
        device=device,
        loss=loss or "softmax_cross_entropy",
        output_activation=output_activation,
        **CONFIGURATIONS[configuration],
    )
    history = gpunet.fit(
        network,
        X,
        targets,
        epochs=epochs,
        batch_size=16,
        optimizer=OPTIMIZERS[optimizer](),
        l2=1e-3,
        clip_norm=0.7,
        sample_weight=rng.uniform(0.5, 1.5, 70),
        class_weight="balanced" if loss is None else None,
        validation=(X, targets),
        **arguments,
    )
    return network, history


def assert_same_run(one: Any, other: Any, dtype: str) -> None:
    bound = TRAJECTORY[dtype]
    (network, history), (expected_network, expected_history) = one, other
    for record, expected in zip(history.records, expected_history.records, strict=True):
        np.testing.assert_allclose(record.loss, expected.loss, rtol=bound)
        np.testing.assert_allclose(record.validation_loss, expected.validation_loss, rtol=bound)
        assert record.step == expected.step
    values, expected_values = network.get_parameters(), expected_network.get_parameters()
    values |= network.get_state()
    expected_values |= expected_network.get_state()
    for name, value in values.items():
        scale = np.abs(expected_values[name]).max()
        np.testing.assert_allclose(value, expected_values[name], rtol=0, atol=10 * bound * max(scale, 1), err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_training_is_that_of_numpy(device: Any, configuration: str, dtype: str) -> None:
    found = train(CudaBackend(device), configuration, "sgd", dtype)
    assert_same_run(found, train("cpu", configuration, "sgd", dtype), dtype)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_optimizers(device: Any, optimizer: str) -> None:
    # In float64: Adam divides by the root of a moment, which turns the rounding of gradients near 0 into steps.
    found = train(CudaBackend(device), "batch_norm", optimizer, "float64")
    assert_same_run(found, train("cpu", "batch_norm", optimizer, "float64"), "float64")


@pytest.mark.parametrize(
    ("configuration", "arguments", "launches"),
    [
        ("batch_norm", {"accumulate": 2}, {"accumulate_gradients": 5, "average_weights": 0, "adam_step": 3}),
        ("no_batch_norm", {"average": gpunet.WeightAverage(0.7)}, {"accumulate_gradients": 0, "average_weights": 5}),
        (
            "batch_norm",
            {"accumulate": 3, "average": gpunet.WeightAverage(0.7)},
            {"accumulate_gradients": 5, "average_weights": 2, "clip_factor": 2, "adam_step": 2},
        ),
    ],
)
def test_accumulated_and_averaged(
    monkeypatch: pytest.MonkeyPatch, configuration: str, arguments: dict[str, Any], launches: dict[str, int]
) -> None:
    """The last epochs are one launch each, which has one kernel more for each batch, and one for each update."""
    device, recorded = EmulatedDevice(multiprocessor_count=2), []
    capture = device.capture

    def noting(step: Any) -> Any:
        replay = capture(step)
        recorded.append([name.split("<")[0] for name in replay.names])
        return replay

    monkeypatch.setattr(device, "capture", noting)
    options: dict[str, Any] = {"dtype": "float64", "epochs": 6, **arguments}
    found = train(CudaBackend(device), configuration, "adam", **options)
    assert_same_run(found, train("cpu", configuration, "adam", **options), "float64")
    assert {name: recorded[-1].count(name) for name in launches} == launches
    device.check_guards()


@pytest.mark.parametrize("output_activation", ["identity", "sigmoid", "leaky_relu(0.3)"])
def test_squared_error(device: Any, output_activation: str) -> None:
    arguments = ("mixed", "sgd", "float64", "squared_error", output_activation)
    assert_same_run(train(CudaBackend(device), *arguments), train("cpu", *arguments), "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_cross_entropy(device: Any, dtype: str) -> None:
    arguments = ("batch_norm", "sgd", dtype, "sigmoid_cross_entropy")
    found, expected = train(CudaBackend(device), *arguments), train("cpu", *arguments)
    assert_same_run(found, expected, dtype)
    assert found[1]["validation_accuracy"] == pytest.approx(expected[1]["validation_accuracy"], abs=2 / (70 * 5))


def test_a_recorded_sample_follows_the_step(device: Any) -> None:
    """A replay draws anew: seed and layer are part of the recording, the step is read from memory."""
    backend, numpy = CudaBackend(device), Backend()
    probabilities = np.random.default_rng(0).uniform(0, 1, (37, 21)).astype(np.float32)
    given, step = on_device(backend, probabilities), backend.zeros(1, np.int64)
    out = poisoned(backend, probabilities.shape, "float32")

    def draw() -> None:
        backend.sample_bernoulli(given, out, 5, 2, step)

    draw()
    replay, expected = backend.capture(draw), np.empty_like(probabilities)
    for number in (0, 1, 2**40):
        backend.copy(np.array([number], np.int64), step)
        replay()
        numpy.sample_bernoulli(probabilities, expected, 5, 2, np.array([number], np.int64))
        np.testing.assert_array_equal(backend.to_numpy(out), expected)


def test_steps_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning rate, rows, dropout step and Adam's corrections change between replays of one recording."""
    device = EmulatedDevice(multiprocessor_count=4)
    captured, replayed = [], []
    capture = device.capture

    def counting(step: Any) -> Any:
        replay = capture(step)
        captured.append(replay.names)
        launch = replay.launch
        replay.launch = lambda: (replayed.append(replay), launch())
        return replay

    monkeypatch.setattr(device, "capture", counting)
    train(CudaBackend(device), "batch_norm", "adam", "float64", epochs=6)
    # Steps of two sizes, the look at the weights after an epoch, validation, and at last a whole epoch. Validation
    # needs larger buffers once, in the first epoch, and steps are recorded anew; then nothing changes any more.
    assert len(captured) == 6
    assert replayed[-3].names == captured[-1]
    kernels = [name.split("<")[0] for name in captured[-1]]
    # Forward, and backward but for the gradient of the input; the loss adds the last bias.
    assert (kernels.count("gemm"), kernels.count("gemm_bias")) == (5 * (3 + 5), 0)
    assert kernels.count("adam_step") == 5
    assert kernels.count("clip_factor") == 5
    assert kernels.count("gather_batch") == 5
    assert kernels.count("keep_weights") == 2


def test_results_do_not_depend_on_the_number_of_multiprocessors() -> None:
    small = train(CudaBackend(EmulatedDevice(multiprocessor_count=2)), "batch_norm", "sgd", "float64")
    large = train(CudaBackend(EmulatedDevice(multiprocessor_count=132, seed=5)), "batch_norm", "sgd", "float64")
    assert_same_run(small, large, "float64")


def test_same_run_twice_is_the_same_to_the_bit() -> None:
    """Blocks and threads run in another order with another seed of the emulated device."""
    networks = [
        train(CudaBackend(EmulatedDevice(multiprocessor_count=4, seed=seed)), "batch_norm", "sgd")[0] for seed in (1, 2)
    ]
    first, second = (network.get_parameters() for network in networks)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def test_loss_and_gradients(device: Any) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((21, 6)), rng.integers(0, 3, 21)
    results = []
    for where in (CudaBackend(device), "cpu"):
        network = gpunet.Network([6, 11, 3], seed=1, dtype="float64", device=where, dropout=0.2)
        results.append(network.loss_and_gradients(X, y, l2=0.01, input_gradient=True))
    (loss, gradients), (expected_loss, expected) = results
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=1e-12, err_msg=name)


def test_predictions_and_files(device: Any, tmp_path: Any) -> None:
    network, _ = train(CudaBackend(device), "batch_norm", "sgd")
    X = np.random.default_rng(1).standard_normal((50, 13))
    network.save(tmp_path / "network.npz")
    loaded = gpunet.load(tmp_path / "network.npz", device="cpu")
    np.testing.assert_allclose(network.predict_proba(X), loaded.predict_proba(X), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_diverged_run_goes_back_to_good_weights(device: Any) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((64, 4)), rng.integers(0, 3, 64)
    network = gpunet.Network([4, 8, 3], batch_norm=False, device=CudaBackend(device))
    with pytest.raises(gpunet.TrainingDivergedError):
        gpunet.fit(network, X, y, epochs=30, batch_size=8, optimizer=gpunet.SGD(1e30))
    assert all(np.isfinite(values).all() for values in network.get_parameters().values())


# --- recorded steps ---------------------------------------------------------------------------------------------------


def test_recording_keeps_its_buffers(device: Any) -> None:
    """A later, larger operation replaces the scratch buffers; the recording goes on with its own."""
    backend = CudaBackend(device)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 12)).astype(np.float32)
    sums = backend.zeros(12, np.float32)

    def record() -> Callable[[], None]:
        gradient, out = on_device(backend, x), poisoned(backend, x.shape, x.dtype)

        def step() -> None:
            backend.bias_activation_backward(gradient, gradient, ReLU(), out, sums)

        step()
        return backend.capture(step)

    replay = record()
    expected = backend.to_numpy(sums)
    large = on_device(backend, rng.standard_normal((5000, 70)).astype(np.float32))
    backend.bias_activation_backward(large, large, ReLU(), large, backend.zeros(70, np.float32))
    gc.collect()
    backend.copy(np.zeros(12, np.float32), sums)
    replay()
    np.testing.assert_array_equal(backend.to_numpy(sums), expected)


def test_new_scratch_is_refused_while_recording(device: Any) -> None:
    backend = CudaBackend(device)
    x = on_device(backend, np.zeros((600, 12), np.float32))
    sums = backend.zeros(12, np.float32)
    few = x[:1]  # compiles the kernels, and needs no scratch
    backend.bias_activation_backward(few, few, ReLU(), few, sums)
    with pytest.raises((gpunet.DeviceError, EmulationError)):
        backend.capture(lambda: backend.bias_activation_backward(x, x, ReLU(), x, sums))
    backend.bias_activation_backward(x, x, ReLU(), x, sums)  # the device works on
    np.testing.assert_array_equal(backend.to_numpy(sums), 0)


# --- gemm and copies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
def test_gemm(device: Any, transpose_a: bool, transpose_b: bool, accumulate: bool, dtype: str) -> None:
    rng = np.random.default_rng(0)
    backend = CudaBackend(device)
    a = rng.standard_normal((65, 33) if transpose_a else (33, 65)).astype(dtype)
    b = rng.standard_normal((17, 65) if transpose_b else (65, 17)).astype(dtype)
    start = rng.standard_normal((33, 17)).astype(dtype)
    out = on_device(backend, start)
    backend.gemm(on_device(backend, a), on_device(backend, b), out, transpose_a, transpose_b, accumulate)
    product = (a.T if transpose_a else a).astype(float) @ (b.T if transpose_b else b)
    expected = product + start if accumulate else product
    np.testing.assert_allclose(backend.to_numpy(out), expected, rtol=0, atol=1e-12 if dtype == "float64" else 1e-4)


def test_tf32_is_a_choice(device: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((40, 40)).astype(np.float32) for _ in range(2))
    errors = {}
    for precision in ("float32", "tf32"):
        backend = CudaBackend(device, precision)
        out = poisoned(backend, (40, 40), np.float32)
        backend.gemm(on_device(backend, a), on_device(backend, b), out)
        errors[precision] = np.abs(backend.to_numpy(out) - a.astype(float) @ b).max()
    assert errors["float32"] < 1e-5
    # Each factor loses at most the bits below the tenth, by truncation: 2^-10 of it.
    assert errors["tf32"] <= 2 * 2.0**-10 * (np.abs(a) @ np.abs(b)).max()


def test_copies(device: Any) -> None:
    backend = CudaBackend(device)
    values = np.arange(12.0).reshape(3, 4)
    there = backend.zeros((4, 3), np.float64)
    backend.copy(values.T, there)  # a host array need not be contiguous
    np.testing.assert_array_equal(backend.to_numpy(there), values.T)
    again = backend.zeros((4, 3), np.float64)
    backend.copy(there, again)
    np.testing.assert_array_equal(backend.to_numpy(again), values.T)
    values[:] = 0
    np.testing.assert_array_equal(backend.to_numpy(again)[0], [0, 4, 8])


def test_host_array_may_be_overwritten_after_a_copy(device: Any) -> None:
    backend = CudaBackend(device)
    value, there = np.zeros(1), [backend.zeros(1, np.float64) for _ in range(200)]
    for number, array in enumerate(there):
        value[0] = number
        backend.copy(value, array)
        value[0] = -1
    assert [float(backend.to_numpy(array)[0]) for array in there] == list(range(200))


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_dtype_without_kernel() -> None:
    backend = CudaBackend(EmulatedDevice())
    x = backend.zeros((2, 2), np.int64)
    with pytest.raises(gpunet.InvalidTypeError, match="no kernel for int64"):
        backend.bias_activation_forward(x, None, ReLU(), x)


def test_host_array_where_a_device_array_belongs(device: Any) -> None:
    backend = CudaBackend(device)
    x = backend.zeros((2, 2), np.float32)
    with pytest.raises(TypeError):
        backend.bias_activation_forward(np.zeros((2, 2), np.float32), None, ReLU(), x)
    with pytest.raises(TypeError):
        backend.gemm(x, np.zeros((2, 2), np.float32), backend.zeros((2, 2), np.float32))
    with pytest.raises(TypeError):
        backend.to_numpy(np.zeros(3))


def test_network_takes_a_backend_and_names_its_device() -> None:
    backend = CudaBackend(EmulatedDevice())
    network = gpunet.Network([2, 2], device=backend)
    assert network.backend is backend
    assert network.device == backend.device_name == backend.device.name
    assert gpunet.Network([2, 2], device="cpu").backend.device_name == "cpu"


# --- launch plans -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 31, 1000, 65536])
@pytest.mark.parametrize("columns", [1, 10, 33, 500, 2048])
def test_column_tiles_cover_the_matrix(rows: int, columns: int) -> None:
    for width in (1, 4):
        if columns % width:
            continue
        tiles = column_tiles(rows, columns, width, 8 * 132)
        assert tiles.block[0] * tiles.block[1] == THREADS
        assert (tiles.grid[0] - 1) * tiles.block[0] * width < columns <= tiles.grid[0] * tiles.block[0] * width
        assert 1 <= tiles.grid[1] <= rows


def test_powers_of_two() -> None:
    assert [power_of_two(number) for number in (0, 1, 2, 3, 4, 5, 1024, 1025)] == [1, 1, 2, 4, 4, 8, 1024, 2048]


class OnCuda:
    """An array of somebody else in CUDA memory: CuPy's, RAPIDS', PyTorch's."""

    def __init__(self, device: Any, values: np.ndarray) -> None:
        self._array = device.asarray(values)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        own = getattr(self._array, "__cuda_array_interface__", None)
        return own if own is not None else self._array.__array_interface__


def test_arrays_in_cuda_memory_are_taken_as_they_are(device: Any) -> None:
    """Features, labels, weights and validation data of a CuPy pipeline need no conversion by the user."""
    generator = np.random.default_rng(0)
    X, y = generator.standard_normal((40, 5)).astype(np.float32), generator.integers(0, 3, 40)
    weights = generator.uniform(0.5, 2, 40).astype(np.float32)
    results = []
    for wrap in (lambda values: values, lambda values: OnCuda(device, values)):
        network = gpunet.Network([5, 8, 3], device=CudaBackend(device))
        gpunet.fit(
            network,
            wrap(X),
            wrap(y),
            sample_weight=wrap(weights),
            epochs=2,
            batch_size=16,
            validation=(wrap(X), wrap(y)),
        )
        results.append(
            (network.get_parameters()["W1"], network.predict(wrap(X)), gpunet.evaluate(network, wrap(X), wrap(y)))
        )
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert results[0][2] == results[1][2]


def test_out_of_memory_names_the_batch_and_leaves_the_network_usable(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = gpunet.Network([5, 300, 3], device=CudaBackend(device))
    before = network.get_parameters()
    X, y = np.random.default_rng(0).standard_normal((3000, 5)), np.arange(3000) % 3
    allocate = device.empty

    def empty(shape: Any, dtype: Any) -> Any:
        if np.prod(shape) > 100_000:
            raise gpunet.OutOfDeviceMemoryError(f"no room for {int(np.prod(shape)) * 4:,} bytes")
        return allocate(shape, dtype)

    monkeypatch.setattr(device, "empty", empty)
    with pytest.raises(gpunet.OutOfDeviceMemoryError, match=r"a batch of 3,000 rows.*no room for 3,600,000 bytes"):
        gpunet.fit(network, X, y, batch_size=3000, epochs=1)
    for name, value in network.get_parameters().items():
        np.testing.assert_array_equal(value, before[name])
    assert np.isfinite(network.loss_and_gradients(X[:100], y[:100])[0])
    assert len(gpunet.fit(network, X[:200], y[:200], batch_size=100, epochs=2)) == 2
