"""How far a peer's outputs may lie from those in float64, derived from the precision of its arithmetic."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from benchmarks.peers.peer import Outputs
from benchmarks.report.results import Case

# Half a unit in the last place: of float64, of float32, and of the 10 bits of mantissa that TF32 keeps.
_ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "tf32": 2.0**-11}
# In float32, sums of thousands of products and the libraries' exp and tanh lose a few units; batch norm divides by a
# small standard deviation now and then. TF32 rounds (or cuts off) what goes into the products, and sums in float32.
_LOST_PER_LAYER = {"float64": 32.0, "float32": 32.0, "tf32": 4.0}
# Batch norm makes gradients grow on their way back, the error of a unit on the wrong side of ReLU's kink with them.
_GROWTH_PER_LAYER = 1.1
# Adam divides each gradient by its own size: where that is small, its rounding is a visible part of the step.
_STEP = 0.05
_LARGEST = 0.5
# Of the elements of a parameter; those of the others whose gradients are rounding alone go the wrong way.
_COMPARED_SHARE = 0.8


def tolerance(case: Case) -> float:
    """Return the largest error, as :func:`largest_error` has it, that is put down to rounding.

    The outputs of a forward pass lose a few units of rounding in each layer. A gradient loses more: a unit whose
    input lies within rounding of 0 may take the other side of ReLU's kink, and takes its example's whole contribution
    with it; a share p of such units makes a relative error of about sqrt(p).
    """
    layers = len(case.sizes) - 1 if case.is_network else 1
    precision = "tf32" if case.precision == "tf32" else case.dtype
    forward = _LOST_PER_LAYER[precision] * layers * _ROUNDING[precision]
    if not case.is_network:
        # Between the batch's mean and the kink lies rounding; of a sum of two numbers the sign is exact.
        kinked = case.operation == "batch_norm_activation" and case.mode == "backward"
        return math.sqrt(forward) if kinked else forward
    if case.mode == "forward":
        return forward
    gradient = _GROWTH_PER_LAYER**layers * math.sqrt(forward)
    return min(gradient if case.mode == "forward_backward" else max(gradient, _STEP), _LARGEST)


def largest_error(outputs: Outputs, reference: Outputs, before: Outputs) -> tuple[float, str]:
    """Return the largest relative error over the arrays, and the name of the array that has it.

    The error is ||x - reference|| / ||reference||. Of a parameter after steps it is the error that four elements in
    five stay below, over the root mean square of the change from ``before`` (empty where there were no steps): a wrong
    step would hide behind a large parameter, and Adam's step along a gradient that is rounding alone has any sign.
    Infinite where an array is missing, has another shape or is not finite.
    """
    worst, where = 0.0, ""
    changes = {name: array - before[name] if name in before else array for name, array in reference.items()}
    # An array whose elements hardly count beside those of the others would be compared with their rounding.
    common = _root_mean_square([change for name, change in changes.items() if name != "loss"])
    for name, expected in reference.items():
        got = outputs.get(name)
        if got is None or got.shape != expected.shape or not np.isfinite(got).all():
            return math.inf, name
        own = _root_mean_square([changes[name]])
        scale = (own if name == "loss" else max(own, common)) or 1.0
        wrong = np.abs(got - expected)
        typical = np.quantile(wrong, _COMPARED_SHARE) if name in before else _root_mean_square([wrong])
        error = float(typical) / scale
        if error >= worst:
            worst, where = error, name
    return worst, where


def _root_mean_square(arrays: list[npt.NDArray[np.float64]]) -> float:
    elements = sum(array.size for array in arrays)
    return math.sqrt(sum(float(np.vdot(array, array)) for array in arrays) / elements) if elements else 0.0
