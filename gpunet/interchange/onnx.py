"""Models as ONNX graphs, for runtimes that know nothing of gpunet: from raw rows to labels, or to numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data.scaling import Scaling
from gpunet.errors import InvalidValueError, optional_package, wrong_ending
from gpunet.files import as_path, replacing
from gpunet.interchange.onnx_graph import Graph
from gpunet.interchange.whole_model import FilledIn, WholeModel, whole_model
from gpunet.network import Network
from gpunet.validation import check_dtype, check_flag

OPSET = 17
IR_VERSION = 8
# A float32 input is the default as long as its rounding moves no scaled number by more than this.
_LARGEST_SHIFT = 2.0**-12


def export_onnx(
    network: Any,
    path: str | os.PathLike[str],
    *,
    bare: bool = False,
    dtype: npt.DTypeLike | None = None,
    input_dtype: npt.DTypeLike | None = None,
) -> Path:
    """Write what a model predicts as an ONNX graph: scaling, the network in inference mode, class names or units.

    The input ``X`` is (n, d) with any n: rows as they stand in the data, columns in the order of training, which the
    model's property ``feature_names`` has where it is known; NaN where a value is missing, if the model was trained to
    fill those in. A classifier has the outputs ``label``, (n,), and
    ``probabilities``, (n, c), as models of skl2onnx have, and ``logits``, (n, c); of a network for several labels per
    row ``label`` is 0 or 1, (n, c). A regression has ``variable``, (n, c), in the targets' units: float64 where targets
    were scaled, because the network's dtype would round them.

    Parameters
    ----------
    network : Network, MLPClassifier or MLPRegressor
        Scaling, units and class names are those that ``gpunet train`` left in ``network.metadata``, or those of the
        fitted estimator; a network without them takes what it was trained on, and its labels are 0 to c - 1.
    path : path
        Ends in ``.onnx``. Missing folders are created; an older file is replaced at once or not at all.
    bare : bool
        Whether to write the network alone: ``X`` is what the network takes, and the outputs are ``logits`` and, of a
        network for labels, ``probabilities``; with an output activation the only output is ``outputs``.
    dtype : "float32", "float64" or None
        How the graph computes, scaling aside; None is the network's dtype.
    input_dtype : "float32", "float64" or None
        Of ``X``. Scaling is computed in float64, so a float32 input costs no more than its own rounding: it moves a
        scaled number by at most ``2^-24 |x| / scale``, which is much for times in seconds and nothing for whole numbers
        up to 2^24. None is ``dtype``, or float64 where that bound is above 2^-12 for an x at its column's offset.

    Returns
    -------
    Path

    Raises
    ------
    MissingDependencyError
        The package onnx is not installed.
    InvalidTypeError
        It is neither a network nor a fitted estimator.
    InvalidValueError
        The file name has another ending; or an activation has no ONNX nodes, or nodes that do not make a model; or the
        classes are of a kind that ONNX has not, or there is only one; or the model was trained on columns of text.
    FileFormatError
        The metadata are damaged; ``bare=True`` does without them.
    OSError
        The file cannot be written.
    """
    whole = whole_model(network, bare=check_flag("bare", bare))
    path = as_path(path)
    if path.suffix != ".onnx":
        raise wrong_ending("path", path, [".onnx"])
    computed = whole.network.dtype if dtype is None else check_dtype(dtype)
    taken = _suitable_input(whole, computed) if input_dtype is None else check_dtype(input_dtype, "input_dtype")
    with optional_package("onnx", extra="onnx", purpose="an ONNX model"):
        import onnx
        from onnx import helper, numpy_helper

    graph = Graph(computed, helper)
    with whole.network.lock:
        x = _add_steps(graph, whole, taken)
        outputs = _add_network(graph, whole.network, x) if bare else _add_answers(graph, whole, x)
    shape: list[str | int] = ["n", whole.network.layer_sizes[-1]]
    model_graph = helper.make_graph(
        graph.nodes,
        "gpunet",
        [helper.make_tensor_value_info("X", graph.type_number(taken), ["n", whole.columns])],
        [
            helper.make_tensor_value_info(name, graph.type_number(kind), shape[:dimensions])
            for name, kind, dimensions in outputs
        ],
        [numpy_helper.from_array(value, name) for name, value in graph.stored.items()],
    )
    model = helper.make_model(model_graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="gpunet")
    model.ir_version = IR_VERSION
    if whole.feature_names is not None:
        helper.set_model_props(model, {"feature_names": json.dumps(whole.feature_names)})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InvalidValueError(f"network: onnx refuses its nodes: {' '.join(str(error).split())}") from error
    with replacing(path) as file:
        file.write(model.SerializeToString())
    return path


# Of an output: name, dtype, number of dimensions.
_Output = tuple[str, npt.DTypeLike, int]


def _suitable_input(whole: WholeModel, dtype: np.dtype[Any]) -> np.dtype[Any]:
    for step in whole.steps:
        if isinstance(step, Scaling) and (np.abs(step.offset) * 2.0**-24 > _LARGEST_SHIFT * np.abs(step.scale)).any():
            return np.dtype(np.float64)
    return dtype


def _add_scaling(graph: Graph, x: str, scaling: Scaling) -> str:
    place = len(graph.nodes)
    difference = graph.add("Sub", [x, graph.keep(f"offset_{place}", scaling.offset, np.float64)])
    return graph.add("Div", [difference, graph.keep(f"scale_{place}", scaling.scale, np.float64)])


def _add_filled_in(graph: Graph, x: str, step: FilledIn) -> str:
    missing = graph.add("IsNaN", [x])
    filled = graph.add("Where", [missing, graph.keep("fill", step.fill, np.float64), x])
    if not step.indicated:
        return filled
    flags = graph.add("Gather", [missing, graph.keep("indicated", step.indicated, np.int64)], axis=1)
    return graph.add("Concat", [filled, graph.cast(flags, np.float64)], axis=1)


# The nodes of each kind of step before the network; all of them take and give float64.
_STEPS: dict[type, Callable[[Graph, str, Any], str]] = {FilledIn: _add_filled_in, Scaling: _add_scaling}


def _add_steps(graph: Graph, whole: WholeModel, taken: np.dtype[Any]) -> str:
    """Add what leads from raw rows to the network's inputs."""
    x, kind = "X", taken
    if whole.steps:
        x, kind = (x if kind == np.float64 else graph.cast(x, np.float64)), np.dtype(np.float64)
    for step in whole.steps:
        x = _STEPS[type(step)](graph, x, step)
    return x if kind == graph.dtype else graph.cast(x, graph.dtype)


def _add_answers(graph: Graph, whole: WholeModel, x: str) -> list[_Output]:
    """Add the network and what its outputs stand for."""
    network = whole.network
    if not network.has_probabilities:
        if whole.target_scaling is None:
            return _add_network(graph, network, x, "variable")
        ((name, *_),) = _add_network(graph, network, x)
        scaling = whole.target_scaling
        scaled = graph.add("Mul", [graph.cast(name, np.float64), graph.keep("target_scale", scaling.scale, np.float64)])
        graph.add("Add", [scaled, graph.keep("target_offset", scaling.offset, np.float64)], "variable")
        return [("variable", np.float64, 2)]
    scores = _add_network(graph, network, x)
    if not network.is_classifier:
        graph.cast(graph.add("Greater", ["logits", graph.constant(0)]), np.int64, "label")
        return [("label", np.int64, 2), *reversed(scores)]
    labels = np.arange(network.layer_sizes[-1]) if whole.classes is None else _as_tensor(whole.classes)
    index = graph.add("ArgMax", ["logits"], axis=1, keepdims=0)
    graph.add("Gather", [graph.keep("classes", labels, labels.dtype), index], "label")
    return [("label", labels.dtype, 1), *reversed(scores)]


def _as_tensor(classes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what labels stand for as ONNX can hold it."""
    if classes.dtype.kind in "OU" and all(isinstance(one, str) for one in classes.tolist()):
        return classes.astype(object)
    kinds: dict[str, type] = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}
    if classes.dtype.kind not in kinds:
        raise InvalidValueError(f"classes: are of dtype {classes.dtype}. Expected text, integers, numbers or bool.")
    return classes.astype(kinds[classes.dtype.kind])


def _add_network(graph: Graph, network: Network, x: str, output: str | None = None) -> list[_Output]:
    """Add the network's layers; ``output`` is what its last node is called if another name is wanted."""
    values = network.get_parameters() | network.get_state()
    add, keep = graph.add, graph.keep
    last = len(network.layer_sizes) - 1
    is_linear = network.output_activation.name == "identity"
    for index in range(1, last + 1):
        names = [f"W{index}"] + ([f"b{index}"] if f"b{index}" in values else [])
        inputs = [x, *(keep(name, values[name]) for name in names)]
        if index == last:
            x = add("Gemm", inputs, (output or "logits") if is_linear else f"s{index}", transB=1)
            x = network.output_activation.onnx(graph, x, output or "outputs")
            break
        x = add("Gemm", inputs, f"s{index}", transB=1)
        if network.batch_norm[index - 1]:
            width = network.layer_sizes[index]
            gamma = keep(f"gamma{index}", values.get(f"gamma{index}", np.ones(width)))
            beta = keep(f"beta{index}", values.get(f"beta{index}", np.zeros(width)))
            averages = [keep(name, values[name]) for name in (f"running_mean{index}", f"running_variance{index}")]
            x = add(
                "BatchNormalization",
                [x, gamma, beta, *averages],
                f"normalised{index}",
                epsilon=network.batch_norm_epsilon,
            )
        x = network.activations[index - 1].onnx(graph, x, f"x{index}")
    if not network.has_probabilities:
        return [(x, graph.dtype, 2)]
    if network.is_classifier:
        add("Softmax", [x], "probabilities", axis=1)
    else:
        add("Sigmoid", [x], "probabilities")
    return [(x, graph.dtype, 2), ("probabilities", graph.dtype, 2)]
