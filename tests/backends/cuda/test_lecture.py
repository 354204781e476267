"""The lecture's experiments on the CUDA backend: they run, and find what they find on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpunet.backends.cuda import CudaBackend
from gpunet.lecture import catalogue
from gpunet.lecture.experiment import Settings
from tests.helpers.experiments import assert_one_paragraph

# tests/lecture has every experiment on NumPy, tests/kernels every kernel.
pytestmark = pytest.mark.slow

Numbers = dict[str, Any]


def measured(row: str, device: Any) -> Numbers:
    numbers = catalogue.find_experiment(row).measure(Settings(seed=3, device=device, quick=True))
    found: Numbers = json.loads(json.dumps(numbers, allow_nan=False))
    return found


def keys(numbers: Any) -> Any:
    """Return the names that numbers have, without their values; the first of a list stands for all."""
    if isinstance(numbers, dict):
        return {name: keys(value) for name, value in numbers.items()}
    return [keys(numbers[0])] if isinstance(numbers, list) and numbers else None


@pytest.mark.parametrize("row", [experiment.row for experiment in catalogue.EXPERIMENTS])
def test_an_experiment_runs_on_cuda(row: str, device: Any) -> None:
    found, expected = measured(row, CudaBackend(device)), measured(row, "cpu")
    if row == "L16":  # committed results are of the one, the other or both
        expected["benchmark"] = found["benchmark"]
    assert keys(found) == keys(expected)
    assert_one_paragraph(catalogue.find_experiment(row).describe(found))


def _curves(numbers: Numbers) -> list[Any]:
    return [variant[name] for family in numbers["families"].values() for variant in family for name in CURVES]


def _layers(numbers: Numbers) -> list[Any]:
    return [found[name] for found in numbers["initializers"].values() for name in ("std", "gradient")]


CURVES = ("values", "derivatives")


# Rows that train nothing: the rounding of single precision goes through few layers. That of L19 with N(0, 1) weights
# makes it grow as it does the gradients, in the quick run 600-fold from the last layer to the first.
@pytest.mark.parametrize(
    ("row", "tolerance", "lists"),
    [
        ("L3", 1e-6, _curves),
        ("L6", 1e-6, lambda numbers: [*numbers["jacobians"].values()]),
        ("L14", 1e-5, lambda numbers: [one for lists in numbers["gradients"].values() for one in lists]),
        ("L19", 1e-3, _layers),
        ("L20", 1e-5, _layers),
        ("L24", 1e-9, lambda numbers: numbers["terms"]),
    ],
)
def test_cuda_finds_the_same_numbers(
    row: str, tolerance: float, lists: Callable[[Numbers], list[Any]], device: Any
) -> None:
    found, expected = lists(measured(row, CudaBackend(device))), lists(measured(row, "cpu"))
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())
