"""The numbers that every peer computes with: the same in every process, drawn from the case alone."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.report.results import Case

Array = npt.NDArray[Any]

# Small, so that the rounding of one step does not become another path of training within the steps that are compared.
LEARNING_RATE = 1e-4
MOMENTUM = 0.9
ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON = 0.9, 0.999, 1e-8
# scikit-learn and Keras add epsilon to the root of the second moment before its bias correction, the paper (and the
# others) after: the paper's epsilon is this one of theirs at the second of the checked steps.
ADAM_EPSILON_BEFORE_CORRECTION = ADAM_EPSILON * (1 - ADAM_BETA_2**2) ** 0.5
BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.1
# Steps after which `step` is compared. One of large networks, since the reference takes minutes for more, and of deep
# ones: with batch norm, gradients grow from layer to layer on the way back, and what rounding did to a step with them.
CHECKED_STEPS = 3
_LARGE = 2e10  # floating-point operations of a step
_DEEP = 10  # layers
# Numbers in all batches, unless somebody asks for more batches: drawing them would take longer than the work.
_MOST_NUMBERS = 2e7
# Label of the cases that the machine's rates are measured with. Nothing of theirs is compared, and their arrays of
# hundreds of megabytes are made of so many numbers again and again.
PEAK = "peak"
_DRAWN = 2**20


@dataclass
class Problem:
    """Inputs of one case, on the host, of the case's dtype."""

    # X (n, d), labels int32 (n,). The checked outputs are those of the first ones, in order; timing rotates.
    batches: list[tuple[Array, Array]] = field(default_factory=list)
    # W1 (m_1, d), gamma1, beta1, ..., Wk, bk; without batch norm b1 instead of gamma1, beta1.
    parameters: dict[str, Array] = field(default_factory=dict)
    state: dict[str, Array] = field(default_factory=dict)  # running_mean1, running_variance1, ...
    arrays: dict[str, Array] = field(default_factory=dict)  # of an operation, by the names of the backend's arguments
    checked_steps: int = CHECKED_STEPS  # of `step`, one on each of the first batches


def make_problem(case: Case, batches: int | None = None) -> Problem:
    """Draw the inputs of a case: ``batches`` batches, by default a few; for an epoch one of ``case.examples`` rows."""
    # Not of the dtype, so that the reference in float64 computes with the same numbers.
    generator = np.random.Generator(np.random.Philox(zlib.crc32(f"{case.operation}/{case.rows}/{case.sizes}".encode())))
    if case.is_network:
        return _network_problem(case, batches, generator)
    return Problem(arrays=_operation_arrays(case, generator))


def _network_problem(case: Case, batches: int | None, generator: np.random.Generator) -> Problem:
    last = len(case.sizes) - 1
    products = sum(inputs * outputs for inputs, outputs in pairwise(case.sizes))
    is_large = 6 * case.rows * products > _LARGE or last > _DEEP
    problem = Problem(checked_steps=1 if is_large else CHECKED_STEPS)
    for index, (inputs, outputs) in enumerate(pairwise(case.sizes), start=1):
        problem.parameters[f"W{index}"] = _normal(generator, (outputs, inputs), case, np.sqrt(2 / inputs))
        if index == last or not case.batch_norm:
            problem.parameters[f"b{index}"] = _normal(generator, outputs, case, 0.1)
        else:
            problem.parameters[f"gamma{index}"] = _normal(generator, outputs, case, 0.1, 1.0)
            problem.parameters[f"beta{index}"] = _normal(generator, outputs, case, 0.1)
            problem.state[f"running_mean{index}"] = _normal(generator, outputs, case, 0.1)
            problem.state[f"running_variance{index}"] = abs(_normal(generator, outputs, case, 0.1, 1.0))
    if batches is None:
        batches = max(problem.checked_steps, min(CHECKED_STEPS, int(_MOST_NUMBERS // (case.rows * case.sizes[0]))))
    rows, count = (case.examples, 1) if case.mode == "epoch" else (case.rows, batches)
    for _ in range(count):
        labels = generator.integers(0, case.sizes[-1], rows, dtype=np.int32)
        problem.batches.append((_normal(generator, (rows, case.sizes[0]), case), labels))
    return problem


def _operation_arrays(case: Case, generator: np.random.Generator) -> dict[str, Array]:
    rows, inner, columns = case.rows, case.sizes[0], case.sizes[-1]
    matrix = (rows, columns)
    inputs: dict[str, dict[str, Any]] = {
        "copy": {"source": columns},
        "gemm": {"a": (rows, inner), "b": (columns, inner)},
        "sgd_step": dict.fromkeys(("parameters", "gradients", "velocity"), columns),
        "adam_step": dict.fromkeys(("parameters", "gradients", "first_moment", "second_moment"), columns),
        "softmax_cross_entropy": {"logits": matrix},
    }
    shapes = inputs.get(case.operation, {"s": matrix, "dy": matrix})
    arrays = {name: _normal(generator, shape, case) for name, shape in shapes.items()}
    if "second_moment" in arrays:
        arrays["second_moment"] = np.abs(arrays["second_moment"])
    if "logits" in arrays:
        arrays["labels"] = generator.integers(0, columns, rows, dtype=np.int32)
    if "s" in arrays:
        means = {"bias": 0.0, "gamma": 1.0, "beta": 0.0}
        arrays |= {name: _normal(generator, columns, case, 0.1, mean) for name, mean in means.items()}
    return arrays


def _normal(generator: np.random.Generator, shape: Any, case: Case, scale: float = 1.0, mean: float = 0.0) -> Array:
    size = int(np.prod(shape))
    drawn = min(size, _DRAWN) if case.label == PEAK else size
    # Rounded to float32 for every dtype: the reference must not know digits that the others never got.
    numbers = np.float32(mean + scale * generator.standard_normal(drawn, dtype=np.float32))
    return np.resize(numbers, shape).astype(case.dtype, copy=False)
