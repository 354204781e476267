"""The roofline: how fast a case could be at the machine's own rates of arithmetic and of memory.

Each operation takes at least its floating-point operations over the rate of a large matrix product, and at least its
bytes over the rate of a large copy, as :mod:`gpunet.verification.traffic` counts them; the larger of the two counts,
and the operations of a case follow one another. The few operations per element of the element-wise work are not
counted.

References
----------
Williams, Waterman, Patterson 2009, "Roofline: an insightful visual performance model for multicore architectures".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

from gpunet.verification.traffic import SWEEPS

from .results import Case

_BATCH_NORM_FORWARD = SWEEPS["batch_norm_activation_forward"]
_BATCH_NORM_BACKWARD = SWEEPS["batch_norm_activation_backward"]
_ACTIVATION_FORWARD, _ACTIVATION_BACKWARD = SWEEPS["bias_activation_forward"], SWEEPS["bias_activation_backward"]
_LOSS = SWEEPS["softmax_cross_entropy"]
_OPTIMIZER = {"sgd": SWEEPS["sgd_step"], "adam": SWEEPS["adam_step"]}


@dataclass(frozen=True)
class Demand:
    """What one operation cannot do without: floating-point operations, and bytes moved; and which operation it is."""

    operations: float
    bytes: float
    name: str = field(default="", compare=False)

    def seconds(self, operations_per_second: float, bytes_per_second: float) -> float:
        """Return the least time at the two rates."""
        return max(self.operations / operations_per_second, self.bytes / bytes_per_second)


def demands(case: Case) -> list[Demand]:
    """Return the demands of the operations of one unit of work."""
    if not case.is_network:
        return [_operation(case)]
    if case.mode == "epoch":
        full, rest = divmod(case.examples, case.rows)
        steps = [case.replace(mode="step", rows=rows) for rows in [case.rows] * full + [rest] * (rest > 0)]
        return [demand for step in steps for demand in (_elements(case, 2 * step.rows * case.sizes[0]), *demands(step))]
    found = _forward(case)
    if case.mode != "forward":
        found += _backward(case)
    if case.mode == "step":
        found.append(Demand(0.0, _update_bytes(case), "update"))
    return found


def roofline_seconds(case: Case, operations_per_second: float, bytes_per_second: float) -> float:
    """Return the least time of one unit of work."""
    return math.fsum(demand.seconds(operations_per_second, bytes_per_second) for demand in demands(case))


def working_set(case: Case) -> int:
    """Return the bytes of the distinct arrays that one unit of work touches."""
    size = _item_size(case)
    if not case.is_network:
        return int(_operation(case).bytes)
    copies = {"forward": 1, "forward_backward": 2}.get(case.mode, 3 if case.optimizer == "sgd" else 4)
    # Of each layer the input and the output of batch norm or of the activation; training reads both again.
    activations = case.rows * (case.sizes[0] + 2 * sum(case.sizes[1:]))
    data = case.examples * case.sizes[0]
    return size * (copies * parameter_count(case) + activations + data)


def parameter_count(case: Case) -> int:
    """Return the number of parameters of a network, without biases before batch norm."""
    weights = sum(inputs * outputs for inputs, outputs in pairwise(case.sizes))
    return weights + (2 if case.batch_norm else 1) * sum(case.sizes[1:-1]) + case.sizes[-1]


def _forward(case: Case) -> list[Demand]:
    sweeps = _BATCH_NORM_FORWARD if case.batch_norm else _ACTIVATION_FORWARD
    found = []
    for inputs, outputs in pairwise(case.sizes):
        found.append(_product(case, case.rows, inputs, outputs))
        found.append(_elements(case, sweeps * case.rows * outputs, "forward"))
    found[-1] = _elements(case, _ACTIVATION_FORWARD * case.rows * case.sizes[-1], "bias")
    return found


def _backward(case: Case) -> list[Demand]:
    sweeps = _BATCH_NORM_BACKWARD if case.batch_norm else _ACTIVATION_BACKWARD
    found = [_elements(case, _LOSS * case.rows * case.sizes[-1], "loss")]
    layers = list(pairwise(case.sizes))
    for index, (inputs, outputs) in reversed(list(enumerate(layers))):
        if index < len(layers) - 1:
            found.append(_elements(case, sweeps * case.rows * outputs, "backward"))
        found.append(_product(case, outputs, case.rows, inputs, "weight gradient"))
        if index > 0:
            found.append(_product(case, case.rows, outputs, inputs))  # dX
    return found


def _operation(case: Case) -> Demand:
    rows, columns = case.rows, case.sizes[-1]
    if case.operation == "gemm":
        return _product(case, rows, case.sizes[0], columns)
    if case.operation == "copy":
        return _elements(case, 2 * columns)
    if case.operation.endswith("_step"):
        return _elements(case, _OPTIMIZER[case.optimizer] * columns)
    sweeps = {
        ("batch_norm_activation", "forward"): _BATCH_NORM_FORWARD,
        ("batch_norm_activation", "backward"): _BATCH_NORM_BACKWARD,
        ("bias_activation", "forward"): _ACTIVATION_FORWARD,
        ("bias_activation", "backward"): _ACTIVATION_BACKWARD,
        ("softmax_cross_entropy", "forward"): _LOSS,
    }[case.operation, case.mode]
    return _elements(case, sweeps * rows * columns)


def _product(case: Case, rows: int, inner: int, columns: int, name: str = "product") -> Demand:
    elements = rows * inner + inner * columns + rows * columns
    return Demand(2.0 * rows * inner * columns, float(elements * _item_size(case)), name)


def _elements(case: Case, count: int, name: str = "") -> Demand:
    return Demand(0.0, float(count * _item_size(case)), name)


def _update_bytes(case: Case) -> float:
    """Return what an optimiser moves; of bfloat16 it updates weights in float32, and writes the rounded ones too."""
    rounded = 2 if case.dtype == "bfloat16" else 0
    return float((_OPTIMIZER[case.optimizer] * max(_item_size(case), 4) + rounded) * parameter_count(case))


def _item_size(case: Case) -> int:
    return {"bfloat16": 2, "float32": 4, "float64": 8}[case.dtype]
