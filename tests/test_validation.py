"""Bad input: a typed error that names the argument, the value and what was expected, before any state changes."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
import gpunet.data
from gpunet.errors import GpunetError

X = np.random.default_rng(0).standard_normal((12, 4))
Y = np.arange(12) % 3


def network(**arguments) -> gpunet.Network:
    return gpunet.Network([4, 5, 3], device="cpu", **arguments)


def with_value(array, position, value):
    changed = np.array(array, dtype=float)
    changed[position] = value
    return changed


def with_object(array, position, value):
    changed = array.astype(object)
    changed[position] = value
    return changed


class FakeCudaArray:
    __cuda_array_interface__ = {"shape": (12, 4)}  # noqa: RUF012


class FakeSparse:
    def tocsr(self):
        raise AssertionError("must not be converted")


BAD_FEATURES = {
    "one dimension": (X[0], gpunet.ShapeError, r"X: got shape \(4,\).*X\.reshape\(1, -1\)"),
    "three dimensions": (X.reshape(3, 4, 4)[:, :, :1], gpunet.ShapeError, r"X: got shape \(3, 4, 1\)"),
    "no dimension": (3.0, gpunet.ShapeError, r"X: got shape \(\)"),
    "wrong width": (X[:, :3], gpunet.ShapeError, "X: got 3 columns. Expected 4"),
    "no rows": (X[:0], gpunet.ShapeError, "X: got no rows"),
    "NaN": (with_value(X, (7, 2), np.nan), gpunet.NonFiniteError, "X: nan in row 7, column 2"),
    "infinity": (with_value(X, (0, 3), -np.inf), gpunet.NonFiniteError, "X: -inf in row 0, column 3"),
    "overflow": (
        with_value(X, (1, 1), 1e300),
        gpunet.NonFiniteError,
        "1e.300 in row 1, column 1, too large for float32",
    ),
    "objects": (X.astype(object), gpunet.InvalidTypeError, r"X: got dtype object\. .*, so X\.astype\(float\)"),
    "empty objects": (np.empty((0, 4), object), gpunet.InvalidTypeError, r"X: got dtype object\. Expected numbers\.$"),
    "an object": (
        with_object(X, (3, 1), "high"),
        gpunet.InvalidTypeError,
        r"X: got dtype object \('high' in row 3, column 1\)",
    ),
    "text": ([["a"] * 4] * 12, gpunet.InvalidTypeError, "X: got dtype <U1"),
    "complex": (X + 1j, gpunet.InvalidTypeError, "X: got dtype complex128"),
    "ragged": ([[1, 2, 3, 4], [1, 2]], gpunet.ShapeError, "X: cannot be read as an array"),
    "None": (None, gpunet.InvalidTypeError, "X: got (dtype object|None)"),
    "CUDA array": (FakeCudaArray(), gpunet.InvalidTypeError, r"cupy\.asnumpy\(X\)"),
    "sparse": (FakeSparse(), gpunet.InvalidTypeError, r"X\.toarray\(\)"),
}
BAD_LABELS = {
    "too large": (np.where(np.arange(12) == 5, 3, Y), gpunet.InvalidValueError, "y: label 3 in row 5.*0 to 2"),
    "negative": (np.where(np.arange(12) == 5, -1, Y), gpunet.InvalidValueError, "y: label -1 in row 5"),
    "huge": (np.where(np.arange(12) == 5, 2**40, Y), gpunet.InvalidValueError, "y: label 1099511627776 in row 5"),
    "floats": (Y + 0.5, gpunet.InvalidTypeError, r"y: got 0\.5 in row 0, of dtype float64\. Expected labels"),
    "whole floats": (Y.astype(float), gpunet.InvalidTypeError, "y: got dtype float64"),
    "text": (
        list("abcabcabcabc"),
        gpunet.InvalidTypeError,
        r"y: got dtype <U1\. Expected integer labels.*first gpunet\.fit",
    ),
    "booleans": (Y > 0, gpunet.InvalidTypeError, "y: got dtype bool"),
    "dates": (Y.astype("datetime64[s]"), gpunet.InvalidTypeError, r"y: got dtype datetime64\[s\]\. Expected labels"),
    "objects": ([*"abcabcabcab", None], gpunet.InvalidTypeError, "y: got None in row 11. Expected labels of one kind"),
    "a huge object": ([2**70] * 12, gpunet.InvalidValueError, "y: holds an integer that 64 bits cannot"),
    "one-hot": (np.eye(3, dtype=int)[Y], gpunet.ShapeError, r"not one-hot rows: use y\.argmax\(axis=1\)"),
    "from one": (Y + 1, gpunet.InvalidValueError, "label 3 in row 2 is out of range.*need y - 1"),
    "too few": (Y[:-1], gpunet.ShapeError, "y: got 11 labels for 12 rows"),
    "none": (None, gpunet.InvalidTypeError, "y: got (dtype object|None)"),
}


def assert_refuses(call, error, message):
    """The error is typed, one line, and leaves the network, which has been trained before, as it was."""
    model = network()
    model.set_step(1)
    before = [model.flat_parameters.copy(), model.flat_state.copy(), model.steps]
    with pytest.raises(error, match=message) as caught:
        call(model)
    assert isinstance(caught.value, GpunetError)
    assert "\n" not in str(caught.value)
    for was, now in zip(before, [model.flat_parameters, model.flat_state, model.steps], strict=True):
        np.testing.assert_array_equal(was, now)
    assert model.metadata == {}


@pytest.mark.parametrize("case", BAD_FEATURES)
@pytest.mark.parametrize("method", ["fit", "predict", "predict_proba", "loss_and_gradients", "evaluate"])
def test_features(case, method):
    value, error, message = BAD_FEATURES[case]
    calls = {
        "fit": lambda model: gpunet.fit(model, value, Y),
        "predict": lambda model: model.predict(value),
        "predict_proba": lambda model: model.predict_proba(value),
        "loss_and_gradients": lambda model: model.loss_and_gradients(value, Y),
        "evaluate": lambda model: gpunet.evaluate(model, value, Y),
    }
    assert_refuses(calls[method], error, message)


@pytest.mark.parametrize("case", BAD_LABELS)
@pytest.mark.parametrize("method", ["fit", "loss_and_gradients", "evaluate"])
def test_labels(case, method):
    value, error, message = BAD_LABELS[case]
    calls = {
        "fit": lambda model: gpunet.fit(model, X, value),
        "loss_and_gradients": lambda model: model.loss_and_gradients(X, value),
        "evaluate": lambda model: gpunet.evaluate(model, X, value),
    }
    assert_refuses(calls[method], error, message)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": 0}, gpunet.InvalidValueError, "epochs: 0 is out of range"),
        ({"epochs": 2.5}, gpunet.InvalidTypeError, "epochs: got 2.5. Expected an integer"),
        ({"epochs": True}, gpunet.InvalidTypeError, "epochs: got True"),
        ({"batch_size": 0}, gpunet.InvalidValueError, "batch_size: 0"),
        (
            {"batch_size": 1},
            gpunet.InvalidValueError,
            "batch_size: 1 is out of range.*batch norm",
        ),
        ({"l2": -0.1}, gpunet.InvalidValueError, "l2: -0.1"),
        ({"l2": np.nan}, gpunet.InvalidValueError, "l2: nan"),
        ({"l2": "much"}, gpunet.InvalidTypeError, "l2: got 'much'"),
        (
            {"clip_norm": 0},
            gpunet.InvalidValueError,
            "clip_norm: 0.0 is out of range. Expected a finite number above 0",
        ),
        ({"optimizer": "adam"}, gpunet.InvalidTypeError, "optimizer: got 'adam'"),
        ({"early_stopping": gpunet.EarlyStopping()}, gpunet.InvalidValueError, "early_stopping: needs validation"),
        ({"early_stopping": 3, "validation": (X, Y)}, gpunet.InvalidTypeError, "early_stopping: got 3"),
        ({"validation": (X, Y, 3)}, gpunet.InvalidTypeError, "validation: expected a pair"),
        ({"validation": (X[:, :2], Y)}, gpunet.ShapeError, "validation X: got 2 columns"),
        ({"validation": (X, Y + 1)}, gpunet.InvalidValueError, "validation y: label 3"),
        ({"sample_weight": np.ones(3)}, gpunet.ShapeError, r"sample_weight: got shape \(3,\)"),
        ({"sample_weight": -np.ones(12)}, gpunet.InvalidValueError, "sample_weight: weight -1.0 in row 0"),
        ({"sample_weight": np.zeros(12)}, gpunet.InvalidValueError, "sample_weight: every weight is 0"),
        ({"sample_weight": np.full(12, np.nan)}, gpunet.NonFiniteError, "sample_weight: nan in row 0"),
        ({"class_weight": {3: 1.0}}, gpunet.InvalidValueError, "class_weight: label 3"),
        ({"class_weight": {0: -1.0}}, gpunet.InvalidValueError, r"class_weight\[0\]: -1.0"),
        ({"class_weight": [1.0, 2.0]}, gpunet.ShapeError, r"class_weight: got shape \(2,\)"),
        ({"class_weight": "balance"}, gpunet.InvalidValueError, "class_weight: 'balance'"),
        ({"class_weight": [0, 0, 0]}, gpunet.InvalidValueError, "class_weight: every row has weight 0"),
        ({"checkpoint": "run.pickle"}, gpunet.InvalidValueError, "checkpoint: .*run.pickle.*safetensors or .npz"),
        ({"resume": True}, gpunet.InvalidValueError, "resume: needs checkpoint"),
    ],
)
def test_fit_arguments(arguments, error, message):
    assert_refuses(lambda model: gpunet.fit(model, X, Y, **arguments), error, message)


def test_one_row_with_batch_norm():
    assert_refuses(lambda model: gpunet.fit(model, X[:1], Y[:1]), gpunet.ShapeError, "X: got 1 row.*batch norm")
    assert_refuses(lambda model: model.loss_and_gradients(X[:1], Y[:1]), gpunet.ShapeError, "X: got 1 row")
    plain = network(batch_norm=False)
    gpunet.fit(plain, X[:1], Y[:1], epochs=1)
    assert network().predict(X[:1]).shape == (1,)


@pytest.mark.parametrize(
    ("sizes", "arguments", "error", "message"),
    [
        ([4], {}, gpunet.InvalidValueError, "layer_sizes: got .4.. Expected at least inputs and outputs"),
        ([4, 0, 3], {}, gpunet.InvalidValueError, r"layer_sizes\[1\]: 0 is out of range"),
        ([4, -5, 3], {}, gpunet.InvalidValueError, r"layer_sizes\[1\]: -5"),
        ([4, 2.5, 3], {}, gpunet.InvalidTypeError, r"layer_sizes\[1\]: got 2.5"),
        ("4,3", {}, gpunet.InvalidTypeError, "layer_sizes: got '4,3'"),
        (7, {}, gpunet.InvalidTypeError, "layer_sizes: got 7"),
        ([4, 1], {}, gpunet.InvalidValueError, "layer_sizes: 1 output"),
        ([4, 5, 3], {"activation": "rleu"}, gpunet.InvalidValueError, "activation: 'rleu'.*Did you mean 'relu'"),
        ([4, 5, 3], {"activation": ["relu", "relu"]}, gpunet.InvalidValueError, "activation: got 2 values. Expected 1"),
        ([4, 5, 3], {"activation": None}, gpunet.InvalidTypeError, "activation: got NoneType"),
        ([4, 5, 3], {"batch_norm": 1}, gpunet.InvalidTypeError, "batch_norm: got 1"),
        ([4, 5, 3], {"batch_norm_momentum": 1.5}, gpunet.InvalidValueError, "batch_norm_momentum: 1.5"),
        ([4, 5, 3], {"batch_norm_epsilon": 0}, gpunet.InvalidValueError, "batch_norm_epsilon: 0"),
        ([4, 5, 3], {"dropout": [0.1, 0.2]}, gpunet.InvalidValueError, "dropout: got 2 values"),
        ([4, 5, 3], {"initializer": "hee_normal"}, gpunet.InvalidValueError, "Did you mean 'he_normal'"),
        ([4, 5, 3], {"initializer": "normal(-1)"}, gpunet.InvalidValueError, "normal std: -1.0"),
        ([4, 5, 3], {"initializer": 3}, gpunet.InvalidTypeError, "initializer: got int"),
        ([4, 5, 3], {"initializer": lambda shape, _: np.ones(2)}, gpunet.InvalidValueError, "for W1"),
        ([4, 5, 3], {"initial_bias": np.inf}, gpunet.InvalidValueError, "initial_bias: inf"),
        ([4, 5, 3], {"loss": "cross_entropy"}, gpunet.InvalidValueError, "Did you mean 'softmax_cross_entropy'"),
        (
            [4, 5, 3],
            {"output_activation": "tanh"},
            gpunet.InvalidValueError,
            "output_activation: got 'tanh' with loss=",
        ),
        (
            [4, 5, 3],
            {"output_activation": "sigmoid", "loss": "sigmoid_cross_entropy"},
            gpunet.InvalidValueError,
            "output_activation: got 'sigmoid'.* Expected 'identity', or loss='squared_error'",
        ),
        (
            [4, 5, 3],
            {"output_activation": "sigmod", "loss": "squared_error"},
            gpunet.InvalidValueError,
            "output_activation: 'sigmod'.*Did you mean 'sigmoid'",
        ),
        ([4, 5, 3], {"output_activation": None}, gpunet.InvalidTypeError, "output_activation: got NoneType"),
        ([4, 5, 3], {"seed": -1}, gpunet.InvalidValueError, "seed: -1"),
        ([4, 5, 3], {"seed": 2**64}, gpunet.InvalidValueError, "seed: 18446744073709551616"),
        ([4, 5, 3], {"dtype": "float16"}, gpunet.InvalidValueError, "dtype: got 'float16'"),
        ([4, 5, 3], {"dtype": "int32"}, gpunet.InvalidValueError, "dtype: got 'int32'"),
        ([4, 5, 3], {"dtype": "floaty"}, gpunet.InvalidTypeError, "dtype: got 'floaty'"),
        ([4, 5, 3], {"precision": "tf16"}, gpunet.InvalidValueError, "precision: got 'tf16'"),
        ([4, 5, 3], {"precision": "tf32", "dtype": "float64"}, gpunet.InvalidValueError, "precision: 'tf32' is for"),
        ([4, 5, 3], {"device": "gpu"}, gpunet.InvalidValueError, "device: 'gpu'"),
        ([4, 5, 3], {"device": 0}, gpunet.InvalidTypeError, "device: got int"),
        # checked although no hidden layer uses them
        ([4, 3], {"activation": "rleu"}, gpunet.InvalidValueError, "Did you mean 'relu'"),
        ([4, 3], {"dropout": -1}, gpunet.InvalidValueError, "dropout: -1"),
    ],
)
def test_network_arguments(sizes, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        gpunet.Network(sizes, **{"device": "cpu", **arguments})
    assert isinstance(caught.value, GpunetError)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gpunet.SGD(-0.1), "learning_rate: -0.1"),
        (lambda: gpunet.SGD(np.nan), "learning_rate: nan"),
        (lambda: gpunet.SGD(0.1, momentum=1.0), "momentum: 1.0"),
        (lambda: gpunet.SGD(0.1, momentum=-0.5), "momentum: -0.5"),
        (lambda: gpunet.SGD(0.1, nesterov=True), "nesterov: True needs a momentum"),
        (lambda: gpunet.Adam(beta_1=1.0), "beta_1: 1.0"),
        (lambda: gpunet.Adam(beta_2=2.0), "beta_2: 2.0"),
        (lambda: gpunet.Adam(epsilon=0.0), "epsilon: 0.0"),
        (lambda: gpunet.AdamW(weight_decay=-1.0), "weight_decay: -1.0"),
        (lambda: gpunet.StepRate(0.1, every=0), "every: 0"),
        (lambda: gpunet.StepRate(-0.1, every=3), "initial: -0.1"),
        (lambda: gpunet.CosineRate(0.1, steps=0), "steps: 0"),
        (lambda: gpunet.CyclicalRate(0.2, 0.1, 5), "maximum: 0.1 is below minimum"),
        (lambda: gpunet.EarlyStopping(patience=0), "patience: 0"),
        (lambda: gpunet.EarlyStopping(monitor="loss"), "monitor: 'loss'"),
    ],
)
def test_optimizer_schedule_and_stopping_arguments(make, message):
    with pytest.raises(gpunet.InvalidValueError, match=message):
        make()


def test_accepts_what_can_be_read():
    model = network()
    expected = model.predict(X.astype(np.float32))
    for form in (X, X.tolist(), np.asfortranarray(X), X[:, ::-1][:, ::-1], tuple(map(tuple, X))):
        np.testing.assert_array_equal(model.predict(form), expected)
    assert model.predict((X * 10).astype(np.uint8)).shape == (12,)
    for labels in (Y.tolist(), Y.astype(np.uint8), Y.astype(np.int64)):
        model.loss_and_gradients(X, labels)


def test_squared_error_targets():
    model = gpunet.Network([4, 5, 2], loss="squared_error", device="cpu")
    with pytest.raises(gpunet.ShapeError, match=r"y: got shape \(12,\). Expected \(12, 2\)"):
        gpunet.fit(model, X, Y)
    with pytest.raises(gpunet.NonFiniteError, match="y: nan in row 2, column 1"):
        gpunet.fit(model, X, with_value(X[:, :2], (2, 1), np.nan))
    with pytest.raises(gpunet.InvalidValueError, match="no probabilities"):
        model.predict_proba(X)
    with pytest.raises(gpunet.InvalidValueError, match="class_weight: a network with"):
        gpunet.fit(model, X, X[:, :2], class_weight="balanced")


def test_set_parameters_sets_all_or_nothing():
    model = network()
    before = model.flat_parameters.copy()
    for values, error, message in (
        ({"W1": np.zeros((5, 4)), "W9": 0}, gpunet.InvalidValueError, "'W9' is not known"),
        ({"W1": np.zeros((5, 4)), "W2": np.zeros(3)}, gpunet.ShapeError, r"W2: got shape \(3,\). Expected \(3, 5\)"),
        ({"W1": np.zeros((5, 4)), "b2": [np.nan, 0, 0]}, gpunet.NonFiniteError, "b2"),
    ):
        with pytest.raises(error, match=message):
            model.set_parameters(values)
        np.testing.assert_array_equal(model.flat_parameters, before)


def test_a_non_finite_value_far_down_is_found():
    far = np.zeros((70_001, 4), np.float32)
    far[70_000, 3] = np.nan
    with pytest.raises(gpunet.NonFiniteError, match="X: nan in row 70000, column 3"):
        network().predict(far)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gpunet.fit(network(), X, Y, class_weight={0: 1e300}), r"class_weight\[0\]"),
        (lambda: gpunet.fit(network(), X, Y, class_weight={0: 1e30}, sample_weight=np.full(12, 1e30)), "too large"),
        (lambda: gpunet.fit(network(), X, Y, sample_weight=np.full(12, 1e38)), "sum of the weights is too large"),
        (lambda: network(initial_bias=1e39), "initial_bias"),
        (lambda: network(initializer="normal(1e39)"), "initializer: returned float64 numbers"),
        (lambda: network(initializer=lambda shape, _: np.ones(shape, complex)), "initializer: returned complex"),
        (lambda: network(batch_norm_epsilon=1e-46), "batch_norm_epsilon: 1e-46 is too small for float32"),
        (lambda: gpunet.fit(network(), X, Y, optimizer=gpunet.Adam(epsilon=1e-50)), "epsilon: 1e-50 is too small"),
        (lambda: network().set_parameters({"running_variance1": -np.ones(5)}), "running_variance1: holds a negative"),
    ],
)
def test_values_that_are_nothing_in_float32(call, message):
    with pytest.raises(gpunet.InvalidValueError, match=message):
        call()


def test_masked_arrays_are_not_unmasked():
    masked = np.ma.MaskedArray(X, mask=X > 1)
    assert masked.mask.any()
    with pytest.raises(gpunet.InvalidTypeError, match="X: got a masked array"):
        network().predict(masked)
    np.testing.assert_array_equal(network().predict(np.ma.MaskedArray(X)), network().predict(X))


def test_a_parameter_that_is_no_array():
    with pytest.raises(gpunet.InvalidTypeError, match="W1: got dtype <U3"):
        network().set_parameters({"W1": "abc"})


@pytest.mark.parametrize("step", ["a", 1.5, None, -1, 2**63, True])
def test_a_step_that_is_none(step):
    assert_refuses(lambda model: model.set_step(step), GpunetError, "^step: ")


@pytest.mark.parametrize(
    ("weights", "dtype", "row"),
    [
        (np.full(12, 1e-45), "float32", 0),
        (np.full(12, 1e-50), "float32", 0),  # 0 in float32
        (np.where(np.arange(12) == 7, 1e-40, 1.0), "float32", 7),
        (np.full(12, 5e-324), "float64", 0),
    ],
)
def test_weights_that_are_nothing_in_the_networks_dtype(weights, dtype, row):
    model = network(dtype=dtype)
    message = f"sample_weight: the weight in row {row} is too small for {dtype}.*only their ratios count"
    for call in (gpunet.fit, gpunet.evaluate, gpunet.Network.loss_and_gradients):
        with pytest.raises(gpunet.InvalidValueError, match=message):
            call(model, X, Y, sample_weight=weights)
    smallest = float(np.finfo(dtype).tiny)
    expected = model.loss_and_gradients(X, Y)
    cost, gradients = model.loss_and_gradients(X, Y, sample_weight=np.full(12, 2**40 * smallest))
    assert cost == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(gradients["W1"], expected[1]["W1"], rtol=1e-4, atol=1e-6)


def test_class_weights_that_are_nothing_in_the_networks_dtype():
    with pytest.raises(gpunet.InvalidValueError, match=r"class_weight\[1\]: 1e-45 is too small for float32"):
        gpunet.fit(network(), X, Y, class_weight={1: 1e-45})
    with pytest.raises(gpunet.InvalidValueError, match="class_weight: the weight in row 1 is too small for float32"):
        gpunet.fit(network(), X, Y, class_weight={1: 1e-30}, sample_weight=np.full(12, 1e-15))
    gpunet.fit(network(), X, Y, class_weight={1: 0.0}, epochs=1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: gpunet.fit(None, X, Y),
        lambda: gpunet.evaluate(None, X, Y),
        lambda: gpunet.evaluate(network=None, X=X, y=Y),
        lambda: gpunet.export_onnx(None, "model.onnx"),
        lambda: gpunet.export_safetensors(None, "w.safetensors"),
        lambda: gpunet.load_state_dict(None, {}),
        lambda: gpunet.to_torch(None),
        lambda: gpunet.to_sklearn(None),
        lambda: gpunet.diagnostics.inspect(None, X, Y),
        lambda: gpunet.diagnostics.check_gradients(None, X, Y),
        lambda: gpunet.data_initializers.lsuv(None, X),
        lambda: gpunet.data_initializers.data_dependent(None, X),
        lambda: gpunet.data_initializers.change_rates(None, X),
        lambda: gpunet.data.scale_inputs(None, X),
        lambda: gpunet.data.class_names(None),
    ],
)
def test_none_where_a_network_is_expected(call):
    with pytest.raises(gpunet.InvalidTypeError, match=r"^network: got NoneType\. Expected a gpunet\.Network"):
        call()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((5, 4)) + 1j, "W1: got dtype complex128"),
        (np.ma.MaskedArray(np.ones((5, 4)), mask=np.eye(5, 4)), "W1: got a masked array"),
        (np.full((5, 4), "1.5"), "W1: got dtype <U3"),
        (np.zeros((5, 4), "datetime64[s]"), "W1: got dtype datetime64"),
        (np.zeros((5, 4), "timedelta64[s]"), "W1: got dtype timedelta64"),
        (np.ones((5, 4), object), "W1: got dtype object"),
        (FakeSparse(), r"W1: got a sparse matrix"),
        (FakeCudaArray(), "W1: got an array on a CUDA device"),
    ],
)
def test_what_is_no_parameter(value, message):
    assert_refuses(
        lambda model: model.set_parameters({"b2": np.ones(3), "W1": value}), gpunet.InvalidTypeError, message
    )


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert_refuses(lambda model: model.predict(X.astype(ml_dtypes.bfloat16)), gpunet.InvalidTypeError, "dtype bfloat16")
