"""How far a provider's outputs may lie from those in float64, derived from the precision of its arithmetic."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from benchmarks.cases import NETWORK, Case
from benchmarks.providers.base import Outputs

# Half a unit in the last place: of float64, of float32, and of the 10 bits of mantissa that TF32 keeps.
_ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "tf32": 2.0**-11}
# Sums of thousands of products, and the libraries' exp and tanh, lose a few more; batch norm divides by a small
# standard deviation now and then.
_LOST_PER_LAYER = 32.0


def tolerance(case: Case) -> float:
    """Return the largest relative error ||x - reference|| / ||reference|| that is put down to rounding.

    The outputs of a forward pass lose a few units of rounding in each layer. A gradient loses more: a unit whose
    input lies within rounding of 0 may take the other side of ReLU's kink, and takes its example's whole contribution
    with it; a share p of such units makes a relative error of about sqrt(p). Adam divides by the gradient's own size:
    where that is mere rounding, a step's direction is too, so that steps lose the root once more.
    """
    layers = len(case.sizes) - 1 if case.operation == NETWORK else 1
    rounding = _ROUNDING["tf32" if case.precision == "tf32" else case.dtype]
    forward = _LOST_PER_LAYER * layers * rounding
    if case.operation != NETWORK or case.mode == "forward":
        return forward
    gradient = math.sqrt(forward)
    if case.mode == "forward_backward" or case.optimizer == "sgd":
        return gradient
    return math.sqrt(gradient)


def largest_error(outputs: Outputs, reference: Outputs, before: Outputs) -> tuple[float, str]:
    """Return the largest relative error over the arrays, and the name of the array that has it.

    Parameters
    ----------
    outputs, reference : dict
    before : dict
        What an output was before the work: of parameters it is the change that is compared, since a wrong step would
        hide behind a large parameter. Arrays that are not in it count as they are.

    Returns
    -------
    float, str
        Infinite where an array is missing, has another shape or is not finite.
    """
    worst, where = 0.0, ""
    # One scale for all changes or gradients: those of a parameter that hardly moves would be compared with noise.
    scale = math.sqrt(sum(_norm(_change(reference, name, before)) ** 2 for name in reference if name != "loss"))
    for name, expected in reference.items():
        got = outputs.get(name)
        if got is None or got.shape != expected.shape or not np.isfinite(got).all():
            return math.inf, name
        own = _norm(_change(reference, name, before))
        share = max(own, scale / math.sqrt(len(reference))) if name != "loss" else own
        error = _norm(got - expected) / share if share else _norm(got - expected)
        if error >= worst:
            worst, where = error, name
    return worst, where


def _change(arrays: Outputs, name: str, before: Outputs) -> npt.NDArray[np.float64]:
    return arrays[name] - before[name] if name in before else arrays[name]


def _norm(array: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(np.asarray(array, dtype=np.float64).ravel()))
