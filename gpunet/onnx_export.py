"""Networks as ONNX models, for runtimes that know nothing of gpunet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.activations import ACTIVATIONS, Activation
from gpunet.errors import InvalidTypeError, InvalidValueError, require_package, shown
from gpunet.files import replacing
from gpunet.network import Network, on_network

OPSET = 17
_NODES = {
    "sigmoid": ("Sigmoid", None),
    "tanh": ("Tanh", None),
    "relu": ("Relu", None),
    "leaky_relu": ("LeakyRelu", "alpha"),
    "elu": ("Elu", "alpha"),
}


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
        The file name has another ending, or an activation is not one of gpunet's own.
    OSError
        The file cannot be written.
    """
    try:
        path = Path(path)
    except TypeError:
        raise InvalidTypeError(f"path: got {shown(path)}. Expected a path.") from None
    if path.suffix != ".onnx":
        raise InvalidValueError(f"path: {str(path)!r} ends in {path.suffix!r}. Expected .onnx.")
    for activation in (*network.activations, network.output_activation):
        if type(activation) is not ACTIVATIONS.get(activation.name):
            raise InvalidValueError(f"activation: {activation!r} has no ONNX node. Expected one of gpunet's own.")
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError:
        raise require_package("onnx", extra="onnx", purpose="an ONNX model") from None

    values = network.get_parameters() | network.get_state()
    nodes: list[Any] = []
    stored: dict[str, Any] = {}

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def keep(name: str, value: Any = None) -> str:
        stored[name] = np.ascontiguousarray(values[name] if value is None else value, network.dtype)
        return name

    def activate(activation: Activation, x: str, output: str) -> str:
        if activation.name == "identity":
            return x
        kind, attribute = _NODES[activation.name]
        return add(kind, [x], output, **({attribute: activation.parameter} if attribute else {}))

    x, last = "X", len(network.layer_sizes) - 1
    is_linear = network.output_activation.name == "identity"
    for index in range(1, last + 1):
        inputs = [x, keep(f"W{index}")] + ([keep(f"b{index}")] if f"b{index}" in values else [])
        x = add("Gemm", inputs, "logits" if index == last and is_linear else f"s{index}", transB=1)
        if index == last:
            x = activate(network.output_activation, x, "outputs")
            break
        if network.batch_norm[index - 1]:
            width = network.layer_sizes[index]
            gamma = keep(f"gamma{index}", values.get(f"gamma{index}", np.ones(width)))
            beta = keep(f"beta{index}", values.get(f"beta{index}", np.zeros(width)))
            averages = [keep(f"running_mean{index}"), keep(f"running_variance{index}")]
            x = add(
                "BatchNormalization",
                [x, gamma, beta, *averages],
                f"normalised{index}",
                epsilon=network.batch_norm_epsilon,
            )
        x = activate(network.activations[index - 1], x, f"x{index}")

    number = helper.np_dtype_to_tensor_dtype(network.dtype)
    outputs = [helper.make_tensor_value_info(x, number, ["n", network.layer_sizes[-1]])]
    if network.has_probabilities:
        if network.is_classifier:
            add("Softmax", [x], "probabilities", axis=1)
        else:
            add("Sigmoid", [x], "probabilities")
        outputs.append(helper.make_tensor_value_info("probabilities", number, ["n", network.layer_sizes[-1]]))
    graph = helper.make_graph(
        nodes,
        "gpunet",
        [helper.make_tensor_value_info("X", number, ["n", network.layer_sizes[0]])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="gpunet")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    with replacing(path) as file:
        file.write(model.SerializeToString())
    return path
