"""Arrays in CUDA memory: estimators learn from copies on the host, and predict where the rows are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet import MLPClassifier, MLPRegressor
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices import cupy as cupy_device
from tests.backends.cuda.test_users_arrays import Machine, values_of

RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(3, 9, (41, 5)).astype(np.float32)
Y = RANDOM.integers(0, 3, 41)
NUMBERS = X[:, 0] * 50 - X[:, 1]
WEIGHTS = RANDOM.uniform(0.5, 2, 41)
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")

pytestmark = pytest.mark.filterwarnings("ignore:max_iter")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def arguments() -> dict[str, Any]:
    device = CudaBackend(cupy_device.CupyDevice(0))
    return {"hidden_layer_sizes": (7,), "max_iter": 2, "random_state": 0, "device": device}


@pytest.mark.parametrize("kind", ["CuPy", "PyTorch"])
@pytest.mark.parametrize(
    "labels",
    [Y, Y * 10 - 5, Y == 0, np.array(list("abc"))[Y], np.eye(3, dtype=int)[Y]],
    ids=["integers", "others", "booleans", "text", "several"],
)
def test_a_classifier_answers_where_the_rows_are(machine: Machine, kind: str, labels: np.ndarray) -> None:
    wrap = machine.on_gpu(kind)
    machine.torch.bool = np.dtype(bool)  # type: ignore[attr-defined]
    on_device = (lambda values: values) if labels.dtype.kind == "U" else wrap
    host = MLPClassifier(**arguments()).fit(X, labels, WEIGHTS)
    model = MLPClassifier(**arguments()).fit(wrap(X), on_device(labels), wrap(WEIGHTS))
    np.testing.assert_array_equal(model.classes_, host.classes_)
    for method in METHODS:
        found, expected = getattr(model, method)(wrap(X)), getattr(host, method)(X)
        if method == "predict" and labels.dtype.kind == "U":
            assert type(found) is np.ndarray
        else:
            assert type(found) is type(wrap(X))
            found = values_of(found)
        if method == "predict":
            np.testing.assert_array_equal(found, expected)
        else:  # standardised in double precision there, in single here
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    assert model.score(wrap(X), on_device(labels), wrap(WEIGHTS)) == host.score(X, labels, WEIGHTS)


@pytest.mark.parametrize("targets", [NUMBERS, np.column_stack([NUMBERS, -NUMBERS])], ids=["one", "two"])
@pytest.mark.parametrize("scales", [True, False])
def test_a_regressor_answers_where_the_rows_are(machine: Machine, targets: np.ndarray, scales: bool) -> None:
    wrap = machine.on_gpu("CuPy")
    scaled = {"scale_inputs": scales, "scale_targets": scales}
    host = MLPRegressor(**arguments(), **scaled).fit(X, targets)
    model = MLPRegressor(**arguments(), **scaled).fit(wrap(X), wrap(targets))
    found = model.predict(wrap(X))
    assert type(found) is type(wrap(X))
    np.testing.assert_allclose(values_of(found), host.predict(X), rtol=2e-5)
    assert model.score(wrap(X), wrap(targets)) == pytest.approx(host.score(X, targets), rel=1e-6)


def test_one_class_is_certain(machine: Machine) -> None:
    model = MLPClassifier(**arguments()).fit(X, np.full(41, 3))
    found = model.predict_proba(machine.late(X))
    assert values_of(found).tolist() == [[1.0]] * 41
    assert values_of(model.predict(machine.late(X))).tolist() == [3] * 41


def test_rows_that_do_not_fit_are_refused(machine: Machine) -> None:
    model = MLPClassifier(**arguments()).fit(X, Y)
    with pytest.raises(gpunet.ShapeError, match=r"X: got 4 columns. Expected 5"):
        model.predict(machine.late(X[:, :4]))
    spoiled = X.copy()
    spoiled[2, 1] = np.nan
    with pytest.raises(gpunet.NonFiniteError, match="X: nan in row 2, column 1"):
        model.predict(machine.late(spoiled))
    on_the_cpu = MLPClassifier(**{**arguments(), "device": "cpu"})
    with pytest.raises(gpunet.InvalidTypeError, match="X: got an array on a CUDA device for a network on the CPU"):
        on_the_cpu.fit(machine.late(X), Y)
