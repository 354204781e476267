"""Whole models in ONNX: raw rows in, labels, probabilities or numbers out, in two runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gpunet
from tests.helpers.networks import ACTIVATIONS
from tests.helpers.whole_models import CASES, classifier, prepared, raw_rows, trained_classifier, trained_regression

pytest.importorskip("sklearn")
onnx = pytest.importorskip("onnx", reason="onnx is in the extra 'onnx'")
RUNTIMES = ("reference", "onnxruntime")
EPSILON = {"tensor(float)": 2.0**-24, "tensor(double)": 2.0**-53}


class Session:
    """A model in one of the runtimes."""

    def __init__(self, runtime: str, path: Path) -> None:
        self.model = onnx.load(path)
        if runtime == "reference":
            from onnx.reference import ReferenceEvaluator

            self._session = ReferenceEvaluator(self.model)
        else:
            runtime_module = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'dev'")
            options = runtime_module.SessionOptions()
            options.intra_op_num_threads = 1
            self._session = runtime_module.InferenceSession(path, options)
        self.outputs = [output.name for output in self.model.graph.output]

    def __call__(self, X: npt.NDArray[Any]) -> dict[str, Any]:
        return dict(zip(self.outputs, self._session.run(None, {"X": X}), strict=True))

    def dtype(self) -> str:
        return onnx.helper.tensor_dtype_to_np_dtype(self.model.graph.input[0].type.tensor_type.elem_type).name


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("arguments", [{}, {"precision": "bfloat16", "batch_norm": True}], ids=str)
def test_a_model_answers_raw_rows_as_it_does_in_python(
    case: str, runtime: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    model, X, answers, probabilities = CASES[case](**arguments)
    session = Session(runtime, gpunet.export_onnx(model, tmp_path / "model.onnx"))
    found = session(X.astype(session.dtype()))
    if probabilities is None:
        assert session.outputs == ["variable"]
        # bfloat16 keeps 8 bits in Python, and is left out of the graph; targets are some 100 units wide.
        scale = 2e-6 if not arguments else 0.05
        spread = np.ptp(answers) + np.abs(answers).max() * 2**-20
        np.testing.assert_allclose(found["variable"].reshape(answers.shape), answers, rtol=0, atol=scale * spread)
        return
    assert session.outputs == ["label", "probabilities", "logits"]
    bound = 1e-6 if not arguments else 0.03
    np.testing.assert_allclose(found["probabilities"], probabilities, rtol=0, atol=bound)
    if not arguments:
        np.testing.assert_array_equal(found["label"], answers)
        assert found["label"].shape == answers.shape


def test_before_scaling_was_exported_probabilities_were_others(tmp_path: Path) -> None:
    """So the test above can fail."""
    case = trained_classifier()
    session = Session("reference", gpunet.export_onnx(case.model, tmp_path / "model.onnx", bare=True))
    assert session.outputs == ["logits", "probabilities"]
    found = session(case.X.astype(np.float32))["probabilities"]
    assert np.abs(found - case.probabilities).max() > 0.3
    scaled = gpunet.data.scale_inputs(case.model, case.X).astype(np.float32)
    np.testing.assert_allclose(session(scaled)["probabilities"], case.probabilities, rtol=0, atol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_runs_in_float32_of_a_float64_network(activation: str, runtime: str, tmp_path: Path) -> None:
    """ONNX Runtime has Elu, Erf, Softplus, ... of float32 alone."""
    case = trained_classifier(activation=activation, dtype="float64")
    session = Session(runtime, gpunet.export_onnx(case.model, tmp_path / "model.onnx", dtype="float32"))
    assert session.dtype() == "float32"
    found = session(case.X.astype(np.float32))
    np.testing.assert_allclose(found["probabilities"], case.probabilities, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("offset", "scale", "expected"),
    [(2013.0, 1.0, "float32"), (4097.0, 1.0, "float64"), (1.7e9, 3600.0, "float64"), (1.7e9, 1e6, "float32")],
)
def test_the_input_is_float64_where_rounding_to_float32_would_show(
    offset: float, scale: float, expected: str, tmp_path: Path
) -> None:
    """A scaled number moves by at most 2^-24 |x| / scale: for times within an hour by half of it."""
    X = raw_rows()
    X[:, 1] = offset + scale * np.random.default_rng(0).standard_normal(len(X))
    network, preparation = prepared(X, ["a", "b"])
    path = tmp_path / "model.onnx"
    session = Session("reference", gpunet.export_onnx(network, path))
    assert session.dtype() == expected
    exact = preparation.inputs(X)
    np.testing.assert_allclose(
        Session("reference", gpunet.export_onnx(network, path, input_dtype="float64"))(X)["logits"],
        network.logits(exact),
        rtol=0,
        atol=1e-5,
    )
    rounded = preparation.inputs(X.astype(np.float32).astype(np.float64))
    scales = np.array(preparation.scaling.scale)
    assert (np.abs(rounded - exact) <= 2.0**-24 * np.abs(X) / scales * 1.001 + 1e-12).all()
    narrow = Session("reference", gpunet.export_onnx(network, path, input_dtype="float32"))
    np.testing.assert_allclose(narrow(X.astype(np.float32))["logits"], network.logits(rounded), rtol=0, atol=1e-5)


def test_the_answers_of_a_regression_are_not_rounded_to_the_network_s_dtype(tmp_path: Path) -> None:
    network, preparation = prepared(raw_rows(), None)
    metadata = preparation.to_metadata()
    metadata["data"]["target_scaling"] = {"offset": [1.7e9], "scale": [60.0]}
    network.metadata = metadata
    session = Session("onnxruntime", gpunet.export_onnx(network, tmp_path / "model.onnx"))
    X = raw_rows()
    expected = 1.7e9 + 60.0 * network.logits(preparation.inputs(X)).astype(np.float64)
    found = session(X.astype(session.dtype()))["variable"]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=60.0 * 1e-5)


def test_any_number_of_rows_and_the_names_of_the_columns(tmp_path: Path) -> None:
    case = trained_classifier()
    session = Session("onnxruntime", gpunet.export_onnx(case.model, tmp_path / "model.onnx"))
    for rows in (1, 2, 61):
        assert session(case.X[:rows].astype(session.dtype()))["label"].tolist() == case.answers[:rows].tolist()
    (names,) = [one.value for one in session.model.metadata_props if one.key == "feature_names"]
    assert json.loads(names) == case.model.metadata["data"]["feature_names"]


def test_classes_that_came_with_another_library(tmp_path: Path) -> None:
    network = gpunet.Network([2, 3], device="cpu")
    network.metadata["class_labels"] = ["b", "a", "c"]
    session = Session("onnxruntime", gpunet.export_onnx(network, tmp_path / "model.onnx"))
    X = np.eye(2, dtype=np.float32)
    assert session(X)["label"].tolist() == network.predict(X).tolist()


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(gpunet.InvalidTypeError, match=r"network: got str\. Expected a gpunet\.Network, or a fitted"):
        gpunet.export_onnx("model.safetensors", path)
    with pytest.raises(gpunet.InvalidValueError, match="one class alone"):
        gpunet.export_onnx(classifier(["a"]).model, path)
    with pytest.raises(ValueError, match="not fitted"):
        gpunet.export_onnx(gpunet.MLPClassifier(), path)
    with pytest.raises(gpunet.InvalidValueError, match="input_dtype: got 'float16'"):
        gpunet.export_onnx(trained_regression().model, path, input_dtype="float16")
    text = trained_classifier().model
    text.metadata["data"]["one_hot"] = {"categories": {"column 0": ["red"]}}
    for export in (gpunet.to_torch, gpunet.to_sklearn, lambda network: gpunet.export_onnx(network, path)):
        with pytest.raises(gpunet.InvalidValueError, match=r"trained on columns of text, \['column 0'\].*bare=True"):
            export(text)
    damaged = trained_classifier().model
    damaged.metadata["data"]["scaling"]["scale"] = [0.0]
    with pytest.raises(gpunet.FileFormatError, match="network: its data preparation is damaged"):
        gpunet.export_onnx(damaged, path)
    assert not path.exists()
    assert gpunet.export_onnx(damaged, path, bare=True) == path
