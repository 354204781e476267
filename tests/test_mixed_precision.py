"""Networks of half precision: rounded and padded inside, float32 outside, with a loss scale where that is float16."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet import layer_stack
from gpunet.activations import Activation, Identity
from gpunet.backends import NumpyBackend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices import cublas
from gpunet.backends.devices.cupy import CupyDevice
from gpunet.backends.half import HALF_DTYPES
from gpunet.data_initializers import data_dependent, lsuv
from gpunet.diagnostics import inspect
from gpunet.layers import BatchNorm, BiasActivation, Linear
from gpunet.mixed_precision import GROWTH_INTERVAL, INITIAL_SCALE
from gpunet.serialization import read_tensors
from gpunet.verification.storage import STORAGES
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy
from tests.helpers.files import rewrite
from tests.helpers.networks import learnable, random_problem, small_network
from tests.helpers.planting import planted

Array = Any
PRECISIONS = tuple(HALF_DTYPES)
# Half a unit in the last place of 1.
ROUNDING = {storage.name: storage.rounding for storage in STORAGES}
# No width is a multiple of 8; f(0) is 0, 1/2 and log 2; both kinds of what backward keeps; a bias before batch norm.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "batch norm": {"activation": ["relu", "softplus"], "dropout": [0.3, 0.0], "bias_before_batch_norm": True},
    "no batch norm": {"activation": ["sigmoid", "gelu"], "batch_norm": False, "dropout": [0.0, 0.5]},
    "mixed": {"activation": ["hard_sigmoid", "tanh"], "batch_norm": [True, False], "scale_shift": False},
}


def on_cpu() -> Any:
    return "cpu"


def on_cuda() -> Any:
    return CudaBackend(EmulatedDevice(multiprocessor_count=2))


DEVICES = [on_cpu, on_cuda]


def network(precision: str, device: Callable[[], Any] = on_cpu, **arguments: Any) -> gpunet.Network:
    return gpunet.Network([13, 33, 20, 5], seed=3, precision=precision, device=device(), **arguments)


def train(net: gpunet.Network, epochs: int = 3, **arguments: Any) -> gpunet.History:
    X, y = random_problem(70, 13, 5)
    given = {"optimizer": gpunet.SGD(0.05, momentum=0.9), "l2": 1e-3, "clip_norm": 0.7, "validation": (X, y)}
    return gpunet.fit(net, X, y, epochs=epochs, batch_size=16, **given | arguments)


def flat_vectors(net: gpunet.Network) -> list[Array]:
    return [np.array(net.backend.to_numpy(flat)) for flat in (net.flat_parameters, net.flat_gradients, net.flat_state)]


def same(one: gpunet.Network, other: gpunet.Network) -> None:
    for found, expected in zip(flat_vectors(one), flat_vectors(other), strict=True):
        np.testing.assert_array_equal(found, expected)


def overflowing(net: gpunet.Network) -> None:
    """Let the next gradients be too large for float16."""
    assert net.loss_scale is not None
    net.loss_scale.restore({"scale": 2.0**40, "good_steps": 3, "skipped_steps": 0})


# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_loss_and_gradients_are_those_of_float32_but_for_rounding(precision: str, configuration: str) -> None:
    X, y = random_problem(70, 13, 5)
    arguments = CONFIGURATIONS[configuration]
    loss, gradients = network(precision, **arguments).loss_and_gradients(X, y, l2=1e-2, input_gradient=True)
    exact, expected = network("float32", **arguments).loss_and_gradients(X, y, l2=1e-2, input_gradient=True)
    assert loss == pytest.approx(exact, rel=8 * ROUNDING[precision])
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert (gradient.shape, gradient.dtype) == (expected[name].shape, np.float32)
        # A bias before batch norm has a gradient of 0: sums of rounded scores' gradients are about 0.
        scale = max(np.linalg.norm(expected[other]) for other in (name, f"W{name[-1]}") if other in expected)
        # relu and hard_sigmoid have corners, on whose other side rounding puts some units
        assert np.linalg.norm(gradient - expected[name]) < 40 * ROUNDING[precision] * scale, name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("device", DEVICES)
def test_masks_and_averages_are_those_of_float32(precision: str, device: Callable[[], Any]) -> None:
    """Padding does not count: element e of a mask has the word of element e."""
    masks = []
    for net in (network(precision, device, dropout=0.4), network("float32", dropout=0.4)):
        X, y = random_problem(70, 13, 5)
        net.set_step(2**33)
        net.loss_and_gradients(X, y)
        masks.append([np.array(net.backend.to_numpy(layer._mask)) for layer in net.layers if hasattr(layer, "_mask")])
    for found, expected in zip(*masks, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_pass_of_narrow_networks_is_not_for_half_precision(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setenv("GPUNET_NARROW_PASS", "1")
    assert network(precision, on_cuda).narrow_stack(16) is None
    assert network("float32", on_cuda).narrow_stack(16) is not None


# --- padding ----------------------------------------------------------------------------------------------------------


def padding(layout: Any, flat: Array) -> Array:
    rest = flat.copy()
    for part in layout.slices.values():
        rest[part] = 0
    return rest


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_padding_stays_what_it_is(precision: str, device: Callable[[], Any], configuration: str) -> None:
    """Of vectors, weights and scores it is 0, of activations the same number in every row."""
    net = network(precision, device, **CONFIGURATIONS[configuration])
    train(net, optimizer=gpunet.AdamW(0.01))
    for layout, flat in zip((net.layout, net.layout, net.state_layout), flat_vectors(net), strict=True):
        assert not padding(layout, flat).any()
    for layer in net.layers:
        found = np.array(net.backend.to_numpy(layer.output))
        assert found.shape[1] == (layer.columns if layer.index == 3 else -(-layer.columns // 8) * 8)
        rest = found[:, layer.columns :]
        assert (rest == rest[:1]).all()
        if isinstance(layer, Linear):
            assert not rest.any()
            copy_of_weight = np.array(net.backend.to_numpy(layer.weight))
            assert not copy_of_weight[layer.columns :].any()
            assert not copy_of_weight[:, layer.inputs :].any()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_padding_decides_nothing(monkeypatch: pytest.MonkeyPatch, precision: str, configuration: str) -> None:
    """With any finite numbers in what pads the factors of products the result is the same, bit for bit."""
    expected = network(precision, **CONFIGURATIONS[configuration])
    expected_history = train(expected)
    for kind in (BatchNorm, BiasActivation):
        forward = kind.forward

        def spoiling(self: Any, x: Array, training: bool, forward: Any = forward) -> Array:
            y = forward(self, x, training)
            if not isinstance(self.activation, Identity):  # else it goes to batch norm
                y[:, self.columns :] = 77
            return y

        monkeypatch.setattr(kind, "forward", spoiling)
    found = network(precision, **CONFIGURATIONS[configuration])
    history = train(found)
    same(found, expected)
    assert history["validation_loss"] == expected_history["validation_loss"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_without_padding_it_is_the_same_network(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    arguments = CONFIGURATIONS["mixed"]
    found = network(precision, **arguments)
    train(found)
    monkeypatch.setattr(layer_stack, "ROW_MULTIPLE", 1)
    expected = network(precision, **arguments)
    train(expected)
    assert expected.layers[1].width == 33
    for name, value in expected.get_parameters().items():
        np.testing.assert_allclose(found.get_parameters()[name], value, atol=8 * ROUNDING[precision], err_msg=name)


@pytest.mark.parametrize(
    ("forward", "derivative"),
    [
        (lambda s: np.log(np.abs(s)), lambda s: 1 / s),
        (lambda s: np.sqrt(np.abs(s)), lambda s: np.sign(s) / (2 * np.sqrt(np.abs(s)))),
        (lambda s: s + 1e5, lambda s: np.ones_like(s)),
    ],
)
def test_a_function_that_zero_is_too_much_for_goes_without_padding(forward: Any, derivative: Any) -> None:
    X, y = random_problem(40, 13, 5)
    with np.errstate(all="ignore"):
        own = Activation("own", forward=forward, derivative=derivative, derivative_of="input")
        net = network("bfloat16", activation=own)
        assert [layer.width for layer in net.layers] == [33, 33, 20, 20, 5, 5]
        loss, gradients = net.loss_and_gradients(X, y)
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


# --- the loss scale ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", [lambda: gpunet.SGD(0.05, momentum=0.9), lambda: gpunet.AdamW(0.01)])
def test_a_skipped_step_changes_no_weight_and_no_moment(device: Callable[[], Any], make: Callable[[], Any]) -> None:
    """The scale is halved; the running averages follow the batch, as in PyTorch, and so do masks and order."""
    net, optimizer = network("float16", device), make()
    X, y = random_problem(16, 13, 5)
    gpunet.fit(net, X, y, epochs=1, optimizer=optimizer)
    assert optimizer.step == 1
    before, state = net.get_parameters(), net.get_state()
    moments = {name: np.array(net.backend.to_numpy(flat)) for name, flat in optimizer.moments.items()}
    overflowing(net)
    history = gpunet.fit(net, X, y, epochs=1, optimizer=optimizer)
    assert net.loss_scale_state == {"scale": 2.0**24, "good_steps": 0, "skipped_steps": 1}
    for name, value in net.get_parameters().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    for name, flat in optimizer.moments.items():
        np.testing.assert_array_equal(net.backend.to_numpy(flat), moments[name], err_msg=name)
    assert not np.array_equal(net.get_state()["running_mean1"], state["running_mean1"])
    assert (net.steps, optimizer.step, np.isfinite(history["loss"][0])) == (2, 1, True)


class Looking(gpunet.Callback):
    """Looks at every step, for which the loop waits."""

    def on_step_end(self, run: gpunet.Run) -> None:
        assert run.network.is_finite()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("callbacks", [[], [Looking()]])
def test_updates_after_a_skipped_step_have_the_numbers_of_the_first(
    device: Callable[[], Any], callbacks: list[gpunet.Callback]
) -> None:
    """Learning rate and Adam's corrections are those of the updates, not of the steps; also in the next epochs."""
    X, y = random_problem(16, 13, 5)
    X, y = np.tile(X, (5, 1)), np.tile(y, 5)  # every batch is the same
    nets, optimizers = zip(
        *((network("float16", device), gpunet.Adam(gpunet.CosineRate(0.01, 30))) for _ in range(2)), strict=True
    )
    nets[1].loss_scale.restore({"scale": 2.0**21, "good_steps": 0, "skipped_steps": 0})

    def run(which: int, steps: int) -> None:
        rows = slice(16 * steps)
        arguments = {"batch_size": 16, "shuffle": False, "callbacks": callbacks, "optimizer": optimizers[which]}
        gpunet.fit(nets[which], X[rows], y[rows], epochs=1, **arguments)

    run(1, 5)
    run(1, 5)
    skipped = nets[1].loss_scale_state["skipped_steps"]
    assert 0 < skipped < 5
    run(0, 5)
    run(0, 5 - skipped)
    assert [optimizer.step for optimizer in optimizers] == [10 - skipped, 10 - skipped]
    for name, value in nets[0].get_parameters().items():
        np.testing.assert_allclose(nets[1].get_parameters()[name], value, atol=1e-4, err_msg=name)


def test_the_scale_begins_grows_and_is_kept_for_the_next_run() -> None:
    net = network("float16")
    assert net.loss_scale_state == {"scale": INITIAL_SCALE, "good_steps": 0, "skipped_steps": 0}
    net.loss_scale.restore({"scale": 1024.0, "good_steps": GROWTH_INTERVAL - 4, "skipped_steps": 9})
    train(net, epochs=1)  # five steps
    assert net.loss_scale_state == {"scale": 2048.0, "good_steps": 1, "skipped_steps": 9}
    net.reset_parameters()
    assert net.loss_scale_state == {"scale": INITIAL_SCALE, "good_steps": 0, "skipped_steps": 0}
    assert network("bfloat16").loss_scale is None


def test_gradients_below_the_smallest_float16_are_not_lost() -> None:
    """Those of targets that are nearly met: at scale 1 all of them would be 0 in half precision."""
    X = np.random.default_rng(0).standard_normal((640, 13))
    net = network("float16", loss="squared_error", batch_norm=False)
    targets = net.logits(X) + 1e-5
    _, gradients = net.loss_and_gradients(X, targets)
    hidden = net.layers[3]
    expected = np.tile(-1e-5 * hidden.numbers(hidden.output).mean(axis=0), (5, 1))
    np.testing.assert_allclose(gradients["W3"], expected, rtol=0.05)
    with net.kept_loss_scale(1.0):
        _, lost = net.loss_and_gradients(X, targets)
    assert not any(np.any(lost[name]) for name in ("W1", "b1", "W2", "b2", "W3"))


def test_gradients_to_be_read_take_a_scale_that_they_fit() -> None:
    net = network("float16")
    X, y = random_problem(16, 13, 5)
    _, expected = net.loss_and_gradients(X, y, input_gradient=True)
    overflowing(net)
    state = net.loss_scale_state
    _, gradients = net.loss_and_gradients(X, y, input_gradient=True)
    assert net.loss_scale_state == state
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], atol=1e-3, err_msg=name)


@pytest.mark.parametrize("device", DEVICES)
def test_a_scale_that_falls_to_nothing_is_divergence(device: Callable[[], Any]) -> None:
    """Targets whose gradients are too large for float16 at every such scale, while every loss is finite."""
    net = network("float16", device, loss="squared_error")
    before = net.get_parameters()
    X, _ = random_problem(64, 13, 5)
    with pytest.raises(gpunet.TrainingDivergedError, match=r"(?i)loss scale fell to .* precision='bfloat16'") as caught:
        gpunet.fit(net, X, np.full((64, 5), 1e18), epochs=50, batch_size=16, optimizer=gpunet.SGD(0.1))
    assert caught.value.epoch == 11  # 41 steps halve 2^16 to less than 2^-24
    for name, value in net.get_parameters().items():
        np.testing.assert_array_equal(value, before[name])
    assert net.loss_scale.value == INITIAL_SCALE


# --- files, copies, other uses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("device", DEVICES)
def test_resuming_is_exact(tmp_path: Path, precision: str, device: Callable[[], Any]) -> None:
    def run(net: gpunet.Network, epochs: int, **arguments: Any) -> gpunet.Network:
        train(net, epochs, optimizer=gpunet.Adam(0.01), **arguments)
        return net

    def new() -> gpunet.Network:
        net = network(precision, device, **CONFIGURATIONS["batch norm"])
        if net.loss_scale is not None:
            net.loss_scale.restore({"scale": 2.0**22, "good_steps": GROWTH_INTERVAL - 8, "skipped_steps": 0})
        return net

    expected = run(new(), 4)
    run(new(), 2, checkpoint=tmp_path / "run.npz")
    found = run(
        network(precision, device, **CONFIGURATIONS["batch norm"]), 4, checkpoint=tmp_path / "run.npz", resume=True
    )
    same(found, expected)
    assert found.loss_scale_state == expected.loss_scale_state
    other = network("float32", **CONFIGURATIONS["batch norm"])
    with pytest.raises(gpunet.InvalidValueError, match=f"precision='{precision}'"):
        run(other, 4, checkpoint=tmp_path / "run.npz", resume=True)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_files_and_copies(tmp_path: Path, precision: str) -> None:
    net = network(precision, **CONFIGURATIONS["batch norm"])
    train(net)
    X, _ = random_problem(30, 13, 5, seed=1)
    net.save(tmp_path / "network.npz")
    for again in (gpunet.load(tmp_path / "network.npz"), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert again.precision == precision
        assert again.loss_scale_state == net.loss_scale_state
        np.testing.assert_array_equal(again.logits(X), net.logits(X))
    assert {name: value.dtype for name, value in net.get_parameters().items()} == dict.fromkeys(
        net.parameters, np.dtype(np.float32)
    )
    assert net.get_parameters()["W2"].shape == (20, 33)


def test_a_damaged_loss_scale_is_told(tmp_path: Path) -> None:
    path = network("float16").save(tmp_path / "network.npz")
    _, header = read_tensors(path)
    for wrong in ({"scale": -1.0, "good_steps": 0, "skipped_steps": 0}, {"scale": 1.0}, [1, 2]):
        rewrite(path, header | {"loss_scale": wrong})
        with pytest.raises(gpunet.FileFormatError, match="does not describe a network"):
            gpunet.load(path)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_evaluation_prediction_and_onnx(tmp_path: Path, precision: str) -> None:
    reference = pytest.importorskip("onnx.reference", reason="onnx is in the extra 'onnx'")
    X, y = learnable()
    net = small_network(precision=precision)
    gpunet.fit(net, X, y, epochs=5)
    found = gpunet.evaluate(net, X, y)
    assert found.accuracy == np.mean(net.predict(X) == y)
    np.testing.assert_allclose(net.predict_proba(X).sum(axis=1), 1, atol=1e-6)
    path = gpunet.export_onnx(net, tmp_path / "network.onnx", bare=True)
    (logits, _) = reference.ReferenceEvaluator(str(path)).run(None, {"X": X.astype(np.float32)})
    largest = np.abs(logits).max()
    np.testing.assert_allclose(net.logits(X), logits, atol=4 * ROUNDING[precision] * largest)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_initialisers_from_data_and_diagnosis(precision: str) -> None:
    X, y = random_problem(200, 13, 5)
    for initialize in (lsuv, data_dependent):
        net = network(precision, batch_norm=False)
        exact = network("float32", batch_norm=False)
        np.testing.assert_allclose(initialize(net, X), initialize(exact, X), rtol=0.1)
    found, expected = inspect(net, X, y), inspect(exact, X, y)
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert one.outputs.std == pytest.approx(other.outputs.std, rel=0.05)
        assert one.score_gradients.std == pytest.approx(other.score_gradients.std, rel=0.05)


def test_what_is_refused() -> None:
    with pytest.raises(gpunet.InvalidValueError, match="Expected 'float32', 'tf32', 'bfloat16' or 'float16'"):
        network("half")
    with pytest.raises(gpunet.InvalidValueError, match="'bfloat16' is for dtype='float32', got dtype='float64'"):
        network("bfloat16", dtype="float64")
    with pytest.raises(gpunet.InvalidValueError, match="the backend 'numpy' has no precision='float16'"):
        network("float16", NumpyBackend)


def test_the_cpu_says_once_that_it_emulates(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpunet.backends import notices

    monkeypatch.setattr(notices, "_said", set())
    for _ in range(2):
        network("bfloat16", lambda: "auto").predict(np.zeros((2, 13)))
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "on the CPU, half precision is emulated"
    ]


# --- through the real device's code, on a stand-in for CuPy and cuBLAS ------------------------------------------------


def trained_on_stand_in(monkeypatch: pytest.MonkeyPatch, precision: str) -> dict[str, Array]:
    fake_cupy.install(monkeypatch, fake_cupy.FakeCupy(EmulatedDevice(multiprocessor_count=2)))
    net = network(precision, lambda: CudaBackend(CupyDevice(0)), **CONFIGURATIONS["mixed"])
    train(net)
    return net.get_parameters()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_cublas_gets_rows_that_are_longer_than_the_matrix(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    found = trained_on_stand_in(monkeypatch, precision)
    expected = network(precision, on_cuda, **CONFIGURATIONS["mixed"])
    train(expected)
    for name, value in expected.get_parameters().items():
        np.testing.assert_allclose(found[name], value, atol=ROUNDING[precision], err_msg=name)
    whole = "int(matrix.strides[0] // matrix.itemsize) if matrix.shape[0] > 1 else int(matrix.shape[1])"
    with planted(cublas, whole, "int(matrix.shape[1])"):
        wrong = trained_on_stand_in(monkeypatch, precision)
    assert np.abs(wrong["W1"] - expected.get_parameters()["W1"]).max() > ROUNDING[precision]
