"""Networks as ONNX models, for runtimes that know nothing of gpunet."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import InvalidValueError, optional_package
from gpunet.files import as_path, replacing
from gpunet.network import Network, on_network

OPSET = 17


class _Graph:
    """Nodes and numbers of a model in the making; an :class:`gpunet.activations.OnnxGraph`."""

    def __init__(self, dtype: np.dtype[Any], make_node: Callable[..., Any]) -> None:
        self.nodes: list[Any] = []
        self.stored: dict[str, Any] = {}
        self._dtype = dtype
        self._make_node = make_node

    def add(self, kind: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}" if output is None else output
        self.nodes.append(self._make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def keep(self, name: str, value: npt.ArrayLike) -> str:
        self.stored[name] = np.ascontiguousarray(value, self._dtype)
        return name

    def constant(self, value: float) -> str:
        name = f"number_{value!r}"
        if name not in self.stored:
            self.stored[name] = np.array(value, self._dtype)
        return name


@on_network
def export_onnx(network: Network, path: str | os.PathLike[str]) -> Path:
    """Write the network's inference pass as an ONNX model.

    The input ``X`` is (n, d) with any n, of the network's dtype; the output ``logits`` is (n, c), and a network for
    labels has ``probabilities``, (n, c), as well. With an output activation the only output is ``outputs``, (n, c).
    Batch norm uses the running averages.

    Parameters
    ----------
    network : Network
    path : path
        Ends in ``.onnx``. Missing folders are created; an older file is replaced at once or not at all.

    Returns
    -------
    Path

    Raises
    ------
    MissingDependencyError
        The package onnx is not installed.
    InvalidValueError
        The file name has another ending; or an activation has no ONNX nodes, or nodes that do not make a model.
    OSError
        The file cannot be written.
    """
    path = as_path(path)
    if path.suffix != ".onnx":
        raise InvalidValueError(f"path: {str(path)!r} ends in {path.suffix!r}. Expected .onnx.")
    with optional_package("onnx", extra="onnx", purpose="an ONNX model"):
        import onnx
        from onnx import helper, numpy_helper

    values = network.get_parameters() | network.get_state()
    graph = _Graph(network.dtype, helper.make_node)
    add, keep = graph.add, graph.keep

    x, last = "X", len(network.layer_sizes) - 1
    is_linear = network.output_activation.name == "identity"
    for index in range(1, last + 1):
        names = [f"W{index}"] + ([f"b{index}"] if f"b{index}" in values else [])
        inputs = [x, *(keep(name, values[name]) for name in names)]
        x = add("Gemm", inputs, "logits" if index == last and is_linear else f"s{index}", transB=1)
        if index == last:
            x = network.output_activation.onnx(graph, x, "outputs")
            break
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

    number = helper.np_dtype_to_tensor_dtype(network.dtype)
    outputs = [helper.make_tensor_value_info(x, number, ["n", network.layer_sizes[-1]])]
    if network.has_probabilities:
        if network.is_classifier:
            add("Softmax", [x], "probabilities", axis=1)
        else:
            add("Sigmoid", [x], "probabilities")
        outputs.append(helper.make_tensor_value_info("probabilities", number, ["n", network.layer_sizes[-1]]))
    model_graph = helper.make_graph(
        graph.nodes,
        "gpunet",
        [helper.make_tensor_value_info("X", number, ["n", network.layer_sizes[0]])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in graph.stored.items()],
    )
    model = helper.make_model(model_graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="gpunet")
    model.ir_version = 8
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InvalidValueError(f"network: onnx refuses its nodes: {' '.join(str(error).split())}") from error
    with replacing(path) as file:
        file.write(model.SerializeToString())
    return path
