"""What several tests share: small problems, finite differences, tolerances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import gpunet
import gpunet.activations

Array = npt.NDArray[Any]

# All of gpunet's own, those with a number at another one than the default.
_NUMBERS = {"leaky_relu": "leaky_relu(0.1)", "elu": "elu(0.7)"}
ACTIVATIONS = tuple(_NUMBERS.get(name, name) for name in gpunet.activations.ACTIVATIONS)
# Where a derivative jumps, if not at 0.
CORNERS = {"hard_sigmoid": (-3, 3), "hard_tanh": (-1, 1), "hard_swish": (-3, 3)}


def random_problem(rows: int, columns: int, classes: int, seed: int = 0) -> tuple[Array, Array]:
    """Return standard normal features and labels."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((rows, columns)), generator.integers(0, classes, rows)


def randomise(network: gpunet.Network, seed: int = 0) -> None:
    """Move every parameter away from its initial value: gamma = 1 and beta = b = 0 would hide mistakes."""
    generator = np.random.default_rng(seed)
    for view in network.parameters.values():
        view += 0.3 * generator.standard_normal(view.shape)


def finite_differences(function: Callable[[], float], array: Array, step: float = 1e-5) -> Array:
    """Return the central differences of ``function`` with respect to every element of ``array``."""
    gradient = np.zeros_like(array)
    for position in np.ndindex(array.shape):
        value = array[position]
        array[position] = value + step
        above = function()
        array[position] = value - step
        below = function()
        array[position] = value
        gradient[position] = (above - below) / (2 * step)
    return gradient


def gradient_error(gradient: Array, function: Callable[[], float], array: Array, step: float = 1e-5) -> float:
    """Return the relative error ||g - d|| / (||g|| + ||d||) of a gradient against its finite differences d.

    Rounding alone puts an error of about eps J / step into each difference, so where the exact gradient is zero (a
    shift that the next batch norm removes, say) both sides are noise of that size. Ten times that noise counts as an
    error of 1e-6.
    """
    numeric = finite_differences(function, array, step)
    noise = 10 * np.finfo(np.float64).eps * abs(function()) / step * np.sqrt(array.size)
    scale = max(float(np.linalg.norm(gradient) + np.linalg.norm(numeric)), noise / 1e-6)
    return float(np.linalg.norm(gradient - numeric)) / scale


def pre_activations(network: gpunet.Network, X: Array) -> list[Array]:
    """Return what enters each hidden activation, computed from the parameters by textbook formulas."""
    values, parameters = [], network.get_parameters()
    for index, activation in enumerate(network.activations, start=1):
        z = X @ parameters[f"W{index}"].T
        if network.batch_norm[index - 1]:
            z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + network.batch_norm_epsilon)
            z = z * parameters.get(f"gamma{index}", 1) + parameters.get(f"beta{index}", 0)
        else:
            z = z + parameters[f"b{index}"]
        values.append(z)
        X = activation.forward(z)
    return values


def sizes(layers: int, inputs: int = 5, classes: int = 3) -> Sequence[int]:
    """Return the layer sizes of a small network with ``layers`` linear layers of different widths."""
    return [*[inputs, 7, 4, 6][:layers], classes]


def small_network(**arguments: Any) -> gpunet.Network:
    """Return a 6-16-3 network on the CPU."""
    return gpunet.Network([6, 16, 3], **{"device": "cpu", "seed": 1, **arguments})


def learnable(rows: int = 300, seed: int = 0) -> tuple[Array, Array]:
    """Return a problem for :func:`small_network` that it can learn."""
    X, _ = random_problem(rows, 6, 3, seed)
    return X, (X @ np.random.default_rng(9).standard_normal((6, 3))).argmax(axis=1)
