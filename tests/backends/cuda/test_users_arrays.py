"""Users' arrays in CUDA memory: they stay there, are waited for, and get results of their own library."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
import gpunet.network
from gpunet import validation
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices import cupy as cupy_device
from gpunet.backends.devices.resources import RECORDER
from gpunet.classic import DeltaRule, RestrictedBoltzmannMachine
from gpunet.data_initializers import lsuv
from gpunet.diagnostics import DiagnosticsCallback, check_gradients, inspect
from gpunet.training import evaluation
from tests.conftest import cupy_device as gpu
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy
from tests.helpers.fake_torch import FakeTorch

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((70, 9)).astype(np.float32)
Y = RANDOM.integers(0, 4, 70)
WEIGHTS = RANDOM.uniform(0.5, 2, 70).astype(np.float32)


class WithInterface:
    """An array of a library that has ``__cuda_array_interface__`` alone: Numba's."""

    def __init__(self, array: Any, **entries: Any) -> None:
        self.array = array
        self.entries = entries

    @property
    def __cuda_array_interface__(self) -> Any:
        return self.array.__cuda_array_interface__ | {"version": 3, **self.entries}


class WithDlpack:
    """An array of a library that has DLPack alone, as a tensor of PyTorch has it."""

    def __init__(self, tensor: Any) -> None:
        self.array = tensor.array
        self.__dlpack__ = tensor.__dlpack__
        self.__dlpack_device__ = tensor.__dlpack_device__


class Machine:
    """A machine with the stand-ins for a GPU, CuPy and PyTorch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        emulated = EmulatedDevice(multiprocessor_count=4, compute_capability=(8, 0))
        self.cupy = fake_cupy.FakeCupy(emulated, devices=2)
        fake_cupy.install(monkeypatch, self.cupy)
        self.torch = FakeTorch(self.cupy, monkeypatch)
        self.backend = CudaBackend(cupy_device.CupyDevice(0))

    def network(self, *sizes: int, **arguments: Any) -> gpunet.Network:
        return gpunet.Network(sizes or (9, 12, 4), device=CudaBackend(cupy_device.CupyDevice(0)), seed=1, **arguments)

    def late(self, values: Any, device: int = 0) -> fake_cupy.ndarray:
        """Return an array of CuPy's whose values its current stream, the user's, has still to write."""
        values = np.array(values)
        with fake_cupy.Device(device):
            array = self.cupy.empty(values.shape, values.dtype)
        target = array.values
        fake_cupy.ndarray.later(lambda: np.copyto(target, values))
        return array

    def with_interface(self, values: Any, **entries: Any) -> WithInterface:
        """Return an array that another stream, of which CuPy knows nothing, has still to write."""
        with self.torch.stream:
            return WithInterface(self.late(values), **entries)

    KINDS = ("CuPy", "PyTorch", "DLPack", "without stream", "with stream")

    def on_gpu(self, kind: str) -> Callable[[Any], Any]:
        """Return what makes arrays of a kind."""
        return {
            "CuPy": self.late,
            "PyTorch": self.torch.late,
            "DLPack": lambda values: WithDlpack(self.torch.late(values)),
            "without stream": self.with_interface,
            "with stream": lambda values: self.with_interface(values, stream=self.torch.stream.ptr),
        }[kind]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def values_of(result: Any) -> np.ndarray:
    """Return what is in a result on the GPU now: nothing is waited for, on no stream."""
    return (result if isinstance(result, fake_cupy.ndarray) else result.array).values.copy()


def everything(network: gpunet.Network, wrap: Callable[[Any], Any], read: Callable[[Any], Any]) -> dict[str, Any]:
    """Return what every function that takes data gives."""
    history = gpunet.fit(
        network,
        wrap(X),
        wrap(Y),
        epochs=2,
        batch_size=16,
        l2=1e-3,
        class_weight="balanced",
        sample_weight=wrap(WEIGHTS),
        validation=(wrap(X[:20]), wrap(Y[:20])),
    )
    cost, gradients = network.loss_and_gradients(
        wrap(X), wrap(Y), l2=0.1, sample_weight=wrap(WEIGHTS), input_gradient=True
    )
    results = {
        "logits": network.logits(wrap(X)),
        "finite_logits": network.finite_logits(wrap(X)),
        "predict": network.predict(wrap(X)),
        "predict_proba": network.predict_proba(wrap(X)),
        **gradients,
    }
    evaluation = gpunet.evaluate(network, wrap(X), wrap(Y), sample_weight=wrap(WEIGHTS))
    numbers = {
        "losses": np.array([(record.loss, record.validation_loss) for record in history]),
        "accuracies": np.array([record.validation_accuracy for record in history]),
        "cost": np.array(cost),
        "evaluation": np.array([evaluation.loss, evaluation.accuracy]),
        "parameters": network.get_parameters()["W1"],
    }
    return {name: read(value) for name, value in results.items()} | numbers


@pytest.mark.parametrize("kind", Machine.KINDS)
def test_results_are_those_of_host_arrays(machine: Machine, kind: str) -> None:
    """Also where the data are still being written, on a stream that nobody else waits for."""
    found = everything(machine.network(), machine.on_gpu(kind), values_of)
    expected = everything(machine.network(), lambda values: values, lambda result: result)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert isinstance(value, np.ndarray)
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, rtol=2e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("loss", ["sigmoid_cross_entropy", "squared_error"])
@pytest.mark.parametrize("kind", Machine.KINDS)
def test_results_of_the_other_losses(machine: Machine, loss: str, kind: str) -> None:
    targets = RANDOM.uniform(0, 1, (70, 4))
    found = []
    for wrap, read in ((machine.on_gpu(kind), values_of), (lambda values: values, np.asarray)):
        network = machine.network(loss=loss)
        gpunet.fit(network, wrap(X), wrap(targets), epochs=1, sample_weight=wrap(WEIGHTS))
        evaluation = gpunet.evaluate(network, wrap(X), wrap(targets), sample_weight=wrap(WEIGHTS))
        predictions = [network.predict(wrap(X))]
        if loss == "sigmoid_cross_entropy":
            predictions.append(network.predict_proba(wrap(X)))
            assert evaluation.accuracy is not None
        found.append([evaluation.loss, evaluation.accuracy or 0, *map(read, predictions)])
    for mine, expected in zip(*found, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("kind", Machine.KINDS)
def test_the_kind_that_came_is_returned(machine: Machine, kind: str) -> None:
    network, wrap = machine.network(), machine.on_gpu(kind)
    expected: type = machine.torch.Tensor if kind == "PyTorch" else fake_cupy.ndarray
    gradients = network.loss_and_gradients(wrap(X), Y)[1]
    assert gradients.keys() == network.parameters.keys()
    results = [network.predict(wrap(X)), network.predict_proba(wrap(X)), network.logits(wrap(X)), *gradients.values()]
    assert {type(result) for result in results} == {expected}
    assert type(network.predict(X)) is np.ndarray
    assert {type(gradient) for gradient in network.loss_and_gradients(X, wrap(Y))[1].values()} == {np.ndarray}


@pytest.mark.parametrize("kind", Machine.KINDS)
def test_results_are_finished_and_in_the_memory_of_the_callers_library(machine: Machine, kind: str) -> None:
    """No stream has to wait for them, and no later call overwrites them."""
    network, wrap = machine.network(), machine.on_gpu(kind)
    result = network.logits(wrap(X))
    before = values_of(result)
    assert np.isfinite(before).all()
    network.logits(wrap(-X))
    gradients = network.loss_and_gradients(wrap(X), wrap(Y))[1]
    kept = {name: values_of(value) for name, value in gradients.items()}
    network.loss_and_gradients(wrap(-X), wrap(Y))
    gpunet.fit(network, wrap(X), wrap(Y), epochs=1)
    np.testing.assert_array_equal(values_of(result), before)
    for name, value in gradients.items():
        np.testing.assert_array_equal(values_of(value), kept[name])
        assert not any(np.shares_memory(values_of(value), own.values) for own in network.gradients.values())


@pytest.mark.parametrize("kind", ["CuPy", "PyTorch"])
def test_memory_of_a_result_goes_back_to_the_callers_stream(machine: Machine, kind: str) -> None:
    """Who frees a result while their stream still reads it must not find ours writing there."""
    network, wrap = machine.network(), machine.on_gpu(kind)
    mine = fake_cupy.Stream(non_blocking=True) if kind == "CuPy" else machine.torch.stream
    with mine:
        result = network.logits(wrap(X))
        expected = values_of(result)
        seen = np.empty_like(expected)
        memory = (result if kind == "CuPy" else result.array).values
        mine.submit(lambda: np.copyto(seen, memory))
        del result
    gc.collect()
    network.predict(X)
    mine.synchronize()
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("kind", ["CuPy", "PyTorch"])
def test_memory_for_a_result_may_still_be_in_use(machine: Machine, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool of the caller's stream hands out blocks that earlier work of that stream still uses."""
    network, wrap = machine.network(), machine.on_gpu(kind)
    stream = fake_cupy.Stream.null if kind == "CuPy" else machine.torch.stream
    allocate = machine.cupy.empty

    def empty(shape: Any, dtype: Any) -> Any:
        array = allocate(shape, dtype)
        values = array.values
        if fake_cupy.current.streams[-1] is stream:
            stream.submit(lambda: values.fill(99))
        return array

    data = wrap(X)
    expected = values_of(network.logits(data))
    monkeypatch.setattr(machine.cupy, "empty", empty)
    result = network.logits(data)
    stream.synchronize()
    np.testing.assert_array_equal(values_of(result), expected)


def test_nothing_is_written_into_the_users_arrays(machine: Machine) -> None:
    """They may be read-only, which the interface can say and CuPy does not heed."""
    data = {name: machine.late(values) for name, values in {"X": X, "y": Y.astype(np.int32), "w": WEIGHTS}.items()}
    before = {name: array.get() for name, array in data.items()}
    read_only = {
        name: WithInterface(array, data=(array.values.ctypes.data, True), stream=None) for name, array in data.items()
    }
    features, labels, weights = read_only.values()
    network = machine.network(dropout=0.5, batch_norm=False)
    gpunet.fit(network, features, labels, sample_weight=weights, epochs=1, class_weight=[1, 2, 3, 4])
    network.loss_and_gradients(features, labels, sample_weight=weights, input_gradient=True)
    network.predict_proba(features)
    for name, array in data.items():
        np.testing.assert_array_equal(values_of(array), before[name])


def test_many_rows_go_in_pieces(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (gpunet.network, "_PREDICTION_ROWS"),
        (evaluation, "_ROWS"),
        (validation, "_NUMBERS_AT_A_TIME"),
    ):
        monkeypatch.setattr(module, name, 16)
    found = everything(machine.network(), machine.late, values_of)
    expected = everything(machine.network(), lambda values: values, lambda result: result)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-6, atol=1e-7, err_msg=name)
    with pytest.raises(gpunet.NonFiniteError, match="X: inf in row 69, column 8") as caught:
        machine.network().predict(machine.late(changed(X, (69, 8), np.inf)))
    assert caught.value.row == 69


def test_dlpack_is_asked_to_let_our_stream_wait(machine: Machine) -> None:
    network, tensor = machine.network(), machine.torch.late(X)
    network.predict(tensor)
    assert tensor.asked == [network.backend.device._stream.ptr]


def test_a_stream_that_is_not_named_is_waited_for_by_waiting_for_all(machine: Machine) -> None:
    """Also where the entry is there and None, as of a library that leaves it to its users."""
    network = machine.network()
    for entries in ({}, {"stream": None}):
        result = network.logits(machine.with_interface(X, **entries))
        np.testing.assert_allclose(values_of(result), network.logits(X), rtol=2e-6, atol=1e-7)


def test_waiting_for_the_whole_device_waits_for_recordings(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def synchronize() -> None:
        seen.append(RECORDER._lock._is_owned())
        fake_cupy.Stream.wait_for_device()

    monkeypatch.setattr(machine.cupy.cuda.runtime, "deviceSynchronize", synchronize)
    machine.network().predict(machine.with_interface(X))
    assert seen == [True]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("kind", ["CuPy", "PyTorch"])
def test_training_on_device_arrays_copies_none_of_them(machine: Machine, kind: str, batch_norm: bool) -> None:
    """Neither down nor up; what does go up are the batches' row numbers and a few scalars a step."""
    rows, width = 640, 64
    data = RANDOM.standard_normal((rows, width)).astype(np.float32), RANDOM.integers(0, 3, rows)
    network, wrap = machine.network(width, 5, 3, batch_norm=batch_norm), machine.on_gpu(kind)
    device_data = [wrap(values) for values in data]
    machine.cupy.bytes_to_device = machine.cupy.bytes_to_host = 0
    history = gpunet.fit(network, *device_data, epochs=2, batch_size=64, validation=device_data)
    assert len(history) == 2
    indices = 2 * rows * 4
    assert machine.cupy.bytes_to_device < indices + 1024 < data[0].nbytes / 4
    parameters = network.parameter_count * 4
    assert machine.cupy.bytes_to_host < 4 * parameters + 1024 < data[0].nbytes / 4
    machine.cupy.bytes_to_device = machine.cupy.bytes_to_host = 0
    network.predict(device_data[0])
    gpunet.evaluate(network, *device_data)
    network.loss_and_gradients(*device_data)
    assert machine.cupy.bytes_to_device == 0
    assert machine.cupy.bytes_to_host < 128


def test_training_reads_a_fitting_array_where_it_is(machine: Machine) -> None:
    network, array = machine.network(), machine.late(X)
    assert network.check_inputs(array) is array
    tensor = machine.torch.late(X)
    assert np.shares_memory(network.check_inputs(tensor).values, tensor.array.values)


def test_arrays_freed_after_a_failed_run_are_not_read_any_more(machine: Machine) -> None:
    """A callback may raise while steps are pending."""

    class Stops(gpunet.Callback):
        def on_step_end(self, run: Any) -> None:
            raise KeyboardInterrupt

    network, reference = machine.network(), machine.network()
    for one, data in ((network, (machine.late(X), machine.late(Y))), (reference, (X, Y))):
        with pytest.raises(KeyboardInterrupt):
            gpunet.fit(one, *data, batch_size=16, callbacks=[Stops()])
        del data
        gc.collect()
    fake_cupy.Stream.null.synchronize()
    for name, value in reference.get_parameters().items():
        np.testing.assert_array_equal(network.get_parameters()[name], value)


@pytest.mark.parametrize("kinds", [("CuPy", "host"), ("host", "PyTorch"), ("PyTorch", "CuPy"), ("CuPy", "PyTorch")])
def test_kinds_may_be_mixed(machine: Machine, kinds: tuple[str, str]) -> None:
    makers = [np.array if kind == "host" else machine.on_gpu(kind) for kind in kinds]
    network, reference = machine.network(), machine.network()
    history = gpunet.fit(network, makers[0](X), makers[1](Y), epochs=1, validation=(makers[1](X), makers[0](Y)))
    expected = gpunet.fit(reference, X, Y, epochs=1, validation=(X, Y))
    assert history["loss"] == expected["loss"]
    assert history["validation_loss"] == expected["validation_loss"]


VIEWS: dict[str, Any] = {
    "float64": (np.float64, lambda array: array),
    "float16": (np.float16, lambda array: array),
    "int8": (np.int8, lambda array: array),
    "uint64": (np.uint64, lambda array: array),
    "bool": (np.bool_, lambda array: array),
    "every other row": (np.float32, lambda array: array[::2]),
    "some columns": (np.float64, lambda array: array[:, 1:10]),
    "backwards": (np.float32, lambda array: array[::-1]),
    "transposed": (np.float32, lambda array: array.T),
    "one element on": (np.float32, lambda array: array.reshape(-1)[1:-8].reshape(-1, 9)),
}


@pytest.mark.parametrize("view", VIEWS)
def test_dtypes_and_views(machine: Machine, view: str) -> None:
    dtype, take = VIEWS[view]
    shape = (70, 11) if view == "some columns" else (9, 70) if view == "transposed" else (70, 9)
    values = np.abs(RANDOM.standard_normal(shape) * 3).astype(dtype)
    network = machine.network()
    result = network.logits(take(machine.late(values)))
    assert result.dtype == np.float32
    np.testing.assert_allclose(values_of(result), network.logits(take(values)), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64"])
def test_labels_of_any_integers(machine: Machine, dtype: str) -> None:
    """Also where there are more classes than the dtype has numbers."""
    labels = (np.arange(70) % 100).astype(dtype)
    network = machine.network(9, 300)
    expected = gpunet.evaluate(network, X, labels)
    assert gpunet.evaluate(network, machine.late(X), machine.late(labels)) == expected


@pytest.mark.parametrize("kind", Machine.KINDS)
def test_labels_that_a_network_was_told(machine: Machine, kind: str) -> None:
    """Numbers come back where the rows are; text, which no device holds, on the host."""
    wrap = machine.on_gpu(kind)
    network, told = machine.network(), machine.network()
    gpunet.fit(network, wrap(X), wrap(Y), epochs=1)
    expected = network.predict(X)
    told.metadata["class_labels"] = [10, 20, 30, 40]
    gpunet.fit(told, wrap(X), wrap(10 * Y + 10), epochs=1)
    found = told.predict(wrap(X))
    assert type(found) is type(network.predict(wrap(X)))
    np.testing.assert_array_equal(told.on_host("found", found), 10 * expected + 10)
    told.metadata["class_labels"] = ["a", "b", "c", "d"]
    assert told.predict(wrap(X)).tolist() == ["abcd"[label] for label in expected]


def test_class_weights_may_be_on_the_device(machine: Machine) -> None:
    given = np.array([1.0, 2.0, 0.5, 3.0])
    losses = [
        gpunet.fit(machine.network(), *data, epochs=1, class_weight=weights, sample_weight=own)["loss"]
        for data, weights, own in (
            ((machine.late(X), machine.late(Y)), machine.late(given), machine.late(WEIGHTS)),
            ((X, Y), given, WEIGHTS),
        )
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", Machine.KINDS)
def test_what_works_on_the_host_takes_copies(machine: Machine, kind: str) -> None:
    wrap = machine.on_gpu(kind)
    network, reference = machine.network(), machine.network()
    network.set_parameters({"b2": wrap([1.0, 2, 3, 4])})
    reference.set_parameters({"b2": [1.0, 2, 3, 4]})
    lsuv(network, wrap(X))
    lsuv(reference, X)
    assert inspect(network, wrap(X), wrap(Y)).loss == inspect(reference, X, Y).loss
    callback = DiagnosticsCallback(wrap(X), wrap(Y))
    gpunet.fit(network, wrap(X), wrap(Y), epochs=1, callbacks=[callback])
    np.testing.assert_array_equal(callback.sample[0], X)
    smooth = machine.network(9, 3, 4, activation="tanh")
    assert max(check_gradients(smooth, wrap(X), wrap(Y), directions=1).values()) < 1e-6
    machine_of_bits = RestrictedBoltzmannMachine(n_components=3, epochs=1, device=smooth.backend).fit(wrap(X > 0))
    assert type(machine_of_bits.transform(wrap(X > 0))) is np.ndarray
    rule = DeltaRule(epochs=1, update="epoch", device=smooth.backend).fit(wrap(X), wrap(WEIGHTS))
    assert type(rule.predict(wrap(X))) is np.ndarray
    assert np.isfinite(rule.score(wrap(X), wrap(WEIGHTS)))


def changed(values: Any, position: Any, value: Any) -> np.ndarray:
    values = np.array(values)
    values[position] = value
    return values


BAD: dict[str, tuple[str, Any]] = {
    "one dimension": ("X", X[0]),
    "wrong width": ("X", X[:, :3]),
    "no rows": ("X", X[:0]),
    "no columns": ("X", X[:, :0]),
    "NaN": ("X", changed(X, (69, 7), np.nan)),
    "infinity": ("X", changed(X, (3, 0), -np.inf)),
    "too large": ("X", changed(X.astype(np.float64), (1, 1), 1e300)),
    "complex": ("X", X + 1j),
    "label too large": ("y", changed(Y, 5, 4)),
    "label negative": ("y", changed(Y, 5, -1)),
    "label from one": ("y", Y + 1),
    "label beyond 32 bits": ("y", changed(Y, 2, 2**32)),
    "label huge": ("y", changed(Y.astype(np.uint64), 9, 2**64 - 1)),
    "labels that are floats": ("y", Y.astype(np.float32)),
    "labels that are booleans": ("y", Y > 0),
    "one-hot": ("y", np.eye(4, dtype=np.int64)[Y]),
    "too few labels": ("y", Y[:-1]),
    "weight negative": ("sample_weight", changed(WEIGHTS, 8, -0.5)),
    "weight NaN": ("sample_weight", changed(WEIGHTS, 8, np.nan)),
    "weights 0": ("sample_weight", WEIGHTS * 0),
    "weights too few": ("sample_weight", WEIGHTS[1:]),
    "weights subnormal": ("sample_weight", changed(WEIGHTS, 0, 1e-42)),
    "weights too large": ("sample_weight", WEIGHTS * 0 + np.float32(3e38)),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("kind", ["CuPy", "PyTorch"])
def test_bad_data_raise_what_host_arrays_raise(machine: Machine, case: str, kind: str) -> None:
    argument, value = BAD[case]
    network = machine.network()
    network.set_step(1)  # labels of other kinds are learnt before the first step
    if kind == "PyTorch":
        for name in ("complex64", "uint64", "bool", "float16"):
            setattr(machine.torch, name, np.dtype(name))
    errors = []
    for wrap in (lambda values: values, machine.on_gpu(kind)):
        data = {"X": X, "y": Y, "sample_weight": WEIGHTS} | {argument: value}
        before, steps = network.get_parameters(), network.steps
        machine.cupy.bytes_to_host = 0
        with pytest.raises(gpunet.GpunetError) as caught:
            gpunet.fit(network, **{name: wrap(values) for name, values in data.items()}, epochs=1)
        assert machine.cupy.bytes_to_host < 64
        errors.append((type(caught.value), str(caught.value)))
        assert network.steps == steps
        for name, expected in before.items():
            np.testing.assert_array_equal(network.get_parameters()[name], expected)
    assert errors[0] == errors[1]


def test_targets_out_of_range(machine: Machine) -> None:
    network = machine.network(loss="sigmoid_cross_entropy")
    targets = changed(np.zeros((70, 4)), (6, 2), 1.5)
    with pytest.raises(gpunet.InvalidValueError, match=r"y: 1.5 in row 6, column 2 is out of range"):
        gpunet.evaluate(network, machine.late(X), machine.late(targets))


def test_an_output_that_is_not_finite_is_named(machine: Machine) -> None:
    network = machine.network(9, 4, batch_norm=False)
    network.set_parameters({"W1": np.full((4, 9), 1e38)})
    large = changed(X, 5, 1e3)
    with pytest.raises(gpunet.NonFiniteError) as expected:
        network.predict(large)
    with pytest.raises(gpunet.NonFiniteError) as found:
        network.predict(machine.late(large))
    assert str(found.value) == str(expected.value)
    assert found.value.row == expected.value.row


@pytest.mark.parametrize("kind", ["CuPy", "PyTorch"])
def test_another_gpu_is_refused(machine: Machine, kind: str) -> None:
    values = machine.late(X, device=1) if kind == "CuPy" else machine.torch.late(X, device=1)
    with pytest.raises(gpunet.InvalidTypeError, match=r"X: got an array on cuda:1\. Expected .* cuda:0: .*'cuda:1'"):
        machine.network().predict(values)
    assert kind == "CuPy" or values.asked == []  # our stream is not of that device
    other = gpunet.Network([9, 4], device=CudaBackend(cupy_device.CupyDevice(1)))
    np.testing.assert_allclose(values_of(other.logits(values)), other.logits(X), rtol=2e-6, atol=1e-7)


def test_a_tensor_with_gradients_is_refused(machine: Machine) -> None:
    tensor = machine.torch.late(X)
    tensor.requires_grad = True
    with pytest.raises(gpunet.InvalidTypeError, match=r"X: Tensor cannot be read as an array .*tensor\.detach\(\)"):
        machine.network().predict(tensor)


def test_an_object_that_breaks_is_refused(machine: Machine) -> None:
    class Broken:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, **options: Any) -> Any:
            raise RuntimeError("broken\nprotocol")

    with pytest.raises(gpunet.InvalidTypeError, match=r"y: Broken cannot be read as an array \(broken protocol\)"):
        gpunet.evaluate(machine.network(), X, Broken())


def test_a_failing_device_is_a_device_error(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise fake_cupy.CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    monkeypatch.setattr(machine.cupy.cuda.runtime, "deviceSynchronize", fail)
    with pytest.raises(gpunet.DeviceError, match=r"taking an array: cudaErrorIllegalAddress.*restart of the process"):
        machine.network().predict(machine.with_interface(X))


def test_no_room_for_a_result(machine: Machine) -> None:
    network, array = machine.network(9, 300), machine.late(X)
    machine.cupy.free = 70 * 300 * 4 - 1
    with pytest.raises(gpunet.OutOfDeviceMemoryError, match="no room for 84,000 bytes"):
        network.logits(array)


@pytest.mark.parametrize("kind", Machine.KINDS)
def test_a_network_on_the_cpu_refuses_them(machine: Machine, kind: str) -> None:
    network, values = gpunet.Network([9, 4], device="cpu"), machine.on_gpu(kind)(X)
    remedy = r"X\.cpu\(\)" if kind == "PyTorch" else r"cupy\.asnumpy\(X\)"
    for call in (network.predict, network.logits, lambda data: gpunet.fit(network, data, Y)):
        with pytest.raises(gpunet.InvalidTypeError, match=f"X: got an array on a CUDA device.*CPU.*{remedy}"):
            call(values)


def test_checkpoints_of_host_and_device_arrays_are_of_one_run(machine: Machine, tmp_path: Any) -> None:
    path = tmp_path / "checkpoint.npz"
    arguments = {"class_weight": [1, 2, 3, 4], "batch_size": 16, "checkpoint": path}
    validation = X[:9], Y[:9]
    gpunet.fit(machine.network(), X, Y, epochs=1, sample_weight=WEIGHTS, validation=validation, **arguments)
    network, expected = machine.network(), machine.network()
    gpunet.fit(
        network,
        machine.late(X),
        machine.late(Y),
        epochs=2,
        sample_weight=machine.late(WEIGHTS),
        validation=tuple(map(machine.late, validation)),
        resume=True,
        **arguments,
    )
    gpunet.fit(expected, X, Y, epochs=2, sample_weight=WEIGHTS, class_weight=[1, 2, 3, 4], batch_size=16)
    for name, value in expected.get_parameters().items():
        np.testing.assert_array_equal(network.get_parameters()[name], value)


@pytest.mark.gpu
@pytest.mark.parametrize("library", ["cupy", "torch"])
def test_on_a_gpu(library: str) -> None:
    """A side stream has still long work to do when the call comes."""
    gpu()
    module = pytest.importorskip(library)
    network = gpunet.Network([9, 12, 4], device="cuda", seed=1)
    expected = network.logits(X)
    is_cupy = library == "cupy"
    with module.cuda.Stream(non_blocking=True) if is_cupy else module.cuda.stream(module.cuda.Stream()):
        start = module.asarray(X) if is_cupy else module.from_numpy(X).cuda()
        place = {} if is_cupy else {"device": "cuda"}
        zeros = module.zeros((4096, 4096), dtype=module.float32, **place)
        for _ in range(50):
            zeros = zeros @ zeros
        data = start + zeros[:70, :9]
        result = network.logits(data)
        assert type(result) is type(data)
        found = result.get() if is_cupy else result.cpu().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
