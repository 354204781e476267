"""Losses of the user's own: the numbers of gpunet's where they are the same function, on every device."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.diagnostics import check_gradients
from tests.backends.cuda.test_reference import Recorded
from tests.helpers.cli import refusal, shell
from tests.helpers.networks import random_problem


def half_square(outputs, targets):
    return ((outputs - targets) ** 2).sum(axis=1) / 2


def difference(outputs, targets):
    return outputs - targets


def probabilities(outputs):
    exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def cross_entropy(outputs, targets):
    return -(targets * np.log(probabilities(outputs))).sum(axis=1)


def surplus(outputs, targets):
    return probabilities(outputs) * targets.sum(axis=1, keepdims=True) - targets


def numbers(**changes):
    """Return the squared error, or what becomes of it with other arguments."""
    arguments = {"name": "mine", "value": half_square, "gradient": difference} | changes
    return gpunet.CustomLoss(arguments.pop("name"), **arguments)


def labels(**changes):
    return numbers(**{"value": cross_entropy, "gradient": surplus, "targets": "labels"} | changes)


THEIRS = {"squared_error": numbers, "softmax_cross_entropy": labels}
X, LABELS = random_problem(45, 6, 3)
SOFT = np.random.default_rng(1).dirichlet(np.ones(3), 45)


def trained(loss, y, device="cpu", **arguments):
    network = gpunet.Network([6, 9, 3], seed=2, dtype="float64", loss=loss, device=device, dropout=0.2)
    history = gpunet.fit(network, X, y, epochs=3, batch_size=16, validation=(X, y), **arguments)
    return network, history


def assert_same(found, expected):
    for name, value in (expected[0].get_parameters() | expected[0].get_state()).items():
        actual = (found[0].get_parameters() | found[0].get_state())[name]
        np.testing.assert_allclose(actual, value, rtol=1e-9, atol=1e-11, err_msg=name)
    for name in ("loss", "validation_loss"):
        np.testing.assert_allclose(found[1][name], expected[1][name], rtol=1e-10)


@pytest.mark.parametrize("theirs", THEIRS)
@pytest.mark.parametrize("weigh", [False, True])
@pytest.mark.parametrize("device", ["cpu:numpy", "cpu:compiled"])
def test_it_trains_as_gpunets_own_of_the_same_function(theirs, weigh, device):
    if device == "cpu:compiled":
        pytest.importorskip("numba")
    y = LABELS if theirs == "softmax_cross_entropy" else SOFT
    arguments = {"sample_weight": np.linspace(0, 2, 45)} if weigh else {}
    if weigh and y is LABELS:
        arguments["class_weight"] = {1: 3.0}
    found, expected = (trained(loss, y, device, **arguments) for loss in (THEIRS[theirs](), theirs))
    assert_same(found, expected)
    np.testing.assert_allclose(found[0].predict(X), expected[0].predict(X), rtol=1e-9)
    assert gpunet.evaluate(found[0], X, y).accuracy == gpunet.evaluate(expected[0], X, y).accuracy


def test_what_labels_stand_for():
    (network, history), (theirs, expected) = trained(labels(), LABELS), trained("softmax_cross_entropy", LABELS)
    np.testing.assert_allclose(network.predict_proba(X), theirs.predict_proba(X), rtol=1e-9)
    assert history["validation_accuracy"] == expected["validation_accuracy"]
    names = np.array(["a", "b", "c"])
    network, _ = trained(labels(), names[LABELS])
    assert set(network.predict(X)) <= set(names)
    with pytest.raises(gpunet.InvalidValueError, match="predict_proba: a network with loss='mine' has no prob"):
        trained(numbers(), SOFT)[0].predict_proba(X)


def test_its_models_leave_gpunet_as_those_of_softmax_do(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network, _ = trained(labels(), LABELS)
    path = gpunet.export_onnx(network, tmp_path / "model.onnx")
    found = onnxruntime.InferenceSession(path).run(["label", "probabilities"], {"X": X})
    np.testing.assert_array_equal(found[0], network.predict(X))
    np.testing.assert_allclose(found[1], network.predict_proba(X), rtol=1e-9)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_in_half_precision(precision):
    """Outputs, loss and its gradient are float32; three epochs carry their rounding on."""
    histories = [
        gpunet.fit(gpunet.Network([6, 9, 3], seed=2, loss=loss, device="cpu", precision=precision), X, LABELS, epochs=3)
        for loss in (labels(), "softmax_cross_entropy")
    ]
    np.testing.assert_allclose(*(history["loss"] for history in histories), rtol=100 * np.finfo(np.float32).eps)


def test_probabilities_of_classes_are_targets_too():
    assert_same(trained(labels(), SOFT), trained("softmax_cross_entropy", SOFT))
    weights = np.array([0.5, 1, 4.0])
    network, _ = trained(labels(), SOFT, class_weight=weights)
    other, _ = trained(labels(), SOFT, sample_weight=SOFT @ weights)
    for name, value in other.get_parameters().items():
        np.testing.assert_allclose(network.get_parameters()[name], value, rtol=1e-9, atol=1e-12)


def test_on_cuda_it_runs_as_array_expressions_and_is_not_recorded():
    device = Recorded(multiprocessor_count=2)
    with pytest.warns(gpunet.NoKernelWarning, match="^custom_loss with mine has no CUDA kernel: .* on emulated"):
        found = trained(labels(), LABELS, CudaBackend(device))
    assert device.recordings == 0
    assert_same(found, trained(labels(), LABELS))


def test_gradients_with_data_are_checked_by_check_gradients():
    """Where the value is finite nowhere between 0 and 1, it is for data alone to show what is wrong."""
    X, targets = random_problem(9, 5, 2)[0], 2 + np.random.default_rng(0).random((9, 2))

    def value(outputs, targets):
        return (np.log(targets - 1) * outputs**2).sum(axis=1)

    for factor in (2.0, 1.9):
        loss = numbers(value=value, gradient=lambda o, t, factor=factor: factor * np.log(t - 1) * o)
        network = gpunet.Network([5, 4, 2], activation="tanh", loss=loss, device="cpu")
        errors = check_gradients(network, X, targets)
        assert (max(errors.values()) < 1e-6) == (factor == 2.0)
        assert (errors["b2"] > 0.01) == (factor == 1.9)


def test_a_loss_belongs_to_one_network_and_stays():
    loss = numbers()
    one, other = (gpunet.Network([2, 3], loss=loss, device="cpu") for _ in range(2))
    assert one.loss_layer is not other.loss_layer
    assert one.loss_layer.value is not other.loss_layer.value
    for name in ("name", "is_classifier", "has_probabilities"):
        with pytest.raises(AttributeError):
            setattr(one.loss_layer, name, True)


@pytest.mark.parametrize("make", [numbers, labels])
def test_files_hold_the_name_and_copies_the_functions(make, tmp_path):
    y = LABELS if make is labels else SOFT
    network, _ = trained(make(), y)
    path = network.save(tmp_path / "network.npz")
    others = gpunet.load(path, device="cpu", loss=make()), copy.deepcopy(network), pickle.loads(pickle.dumps(network))
    for other in others:
        assert str(other.loss_layer) == "mine"
        assert gpunet.evaluate(other, X, y) == gpunet.evaluate(network, X, y)
    for loss, got in ((None, "None"), (make(name="other"), "other")):
        with pytest.raises(gpunet.InvalidValueError, match=rf"loss: .* 'mine'. Expected the gpunet.CustomLoss .*{got}"):
            gpunet.load(path, device="cpu", loss=loss)
    with pytest.raises(gpunet.InvalidTypeError, match="loss: got 'mine'"):
        gpunet.load(path, device="cpu", loss="mine")
    path = gpunet.Network([2, 3], device="cpu").save(tmp_path / "other.npz")
    with pytest.raises(gpunet.InvalidValueError, match=r"'softmax_cross_entropy', one of .* own\. Expected None"):
        gpunet.load(path, device="cpu", loss=make())


def test_the_shell_says_what_it_cannot_do_with_it(tmp_path, capsys):
    path = trained(numbers(), SOFT)[0].save(tmp_path / "network.npz")
    content = shell(capsys, "info", path, "--json").json
    assert (content["loss"], content["own_loss"]) == ("mine", True)
    assert "gpunet.load(..., loss=...) has to be given it" in shell(capsys, "info", path).output
    assert "has a loss that is none of gpunet's own" in refusal(capsys, "export", path, tmp_path / "network.onnx")


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    expected = trained(numbers(), SOFT)
    path = tmp_path / "run.npz"
    network = gpunet.Network([6, 9, 3], seed=2, dtype="float64", loss=numbers(), device="cpu", dropout=0.2)
    gpunet.fit(network, X, SOFT, epochs=2, batch_size=16, validation=(X, SOFT), checkpoint=path)
    found = trained(numbers(), SOFT, checkpoint=path, resume=True)
    for name, value in expected[0].get_parameters().items():
        np.testing.assert_array_equal(found[0].get_parameters()[name], value)
    with pytest.raises(gpunet.InvalidValueError, match="loss"):
        trained(numbers(name="other"), SOFT, checkpoint=path, resume=True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": "My loss"}, gpunet.InvalidValueError, "name: 'My loss' is not valid"),
        ({"name": 3}, gpunet.InvalidTypeError, "name: got 3"),
        ({"name": "huber"}, gpunet.InvalidValueError, "loss: 'huber' is one of gpunet's own"),
        ({"value": None}, gpunet.InvalidTypeError, "value: got None"),
        ({"gradient": 1}, gpunet.InvalidTypeError, "gradient: got 1"),
        ({"targets": 1}, gpunet.InvalidTypeError, "targets: got 1"),
        ({"targets": "classes"}, gpunet.InvalidValueError, "targets: got 'classes'"),
        ({"value": lambda o, t: half_square(o, t).mean()}, gpunet.InvalidTypeError, r"value: .* shape \(\)"),
        ({"value": lambda o, t: half_square(o, t).astype("f8")}, gpunet.InvalidTypeError, "value: returned float64"),
        ({"value": lambda o, t: o["a"]}, gpunet.InvalidValueError, "value: raised IndexError"),
        ({"gradient": lambda o, t: o[0]}, gpunet.InvalidTypeError, r"gradient: returned float32, of shape \(3,\)"),
        ({"gradient": lambda o, t: t - o}, gpunet.InvalidValueError, "loss: the gradient of 'mine' says"),
        ({"gradient": lambda o, t: o * np.nan}, gpunet.InvalidValueError, "changes by nan"),
        ({"gradient": lambda o, t: (o - t) / len(o)}, gpunet.InvalidValueError, "Expected the derivatives of each row"),
        ({"value": lambda o, t: half_square(o - o.mean(axis=0), t)}, gpunet.InvalidValueError, "gradient of 'mine'"),
    ],
)
def test_functions_that_cannot_be(changes, error, message):
    with pytest.raises(error, match=message):
        gpunet.Network([2, 3], loss=numbers(**changes), device="cpu")


def test_a_gradient_that_is_right_for_labels_alone_will_do():
    gradient = lambda outputs, targets: probabilities(outputs) - targets  # noqa: E731
    assert_same(trained(labels(gradient=gradient), LABELS), trained("softmax_cross_entropy", LABELS))


def test_classes_need_two_outputs():
    with pytest.raises(gpunet.InvalidValueError, match="layer_sizes: 1 output for the loss 'mine' of labels"):
        gpunet.Network([2, 1], loss=labels(), device="cpu")
