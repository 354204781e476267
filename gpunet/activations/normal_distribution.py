"""The normal distribution, density and distribution function, to the last bits.

For NumPy, which has no erf, and for CUDA, whose normcdf takes so many registers that kernels would spill them.

Phi(-s) = exp(-s^2 / 2) m(s) for s >= 0, where m(s) (1 + s) is smooth and between 0.39 and 0.5. As a function of
t = (s - 4) / (s + 4), which maps all s >= 0 to [-1, 1), it is a polynomial to within rounding.

References
----------
Shepherd and Laframboise 1981, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x < inf", Math. Comp. 36.
The coefficients here are those of a Chebyshev interpolation, computed with 50 digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Of t^0, t^1, ...; the error of the polynomial is 2e-16 and 2e-8.
_COEFFICIENTS = {
    "float64": (
        0.47205320650984467,
        -0.09670347732652977,
        0.013999634724430469,
        0.028600364053903857,
        -0.03219783742831453,
        0.01793609747038303,
        -0.005002378587051466,
        -0.00028562298498267883,
        0.0006948970692570396,
        -9.443101828629302e-05,
        -8.785300442640946e-05,
        2.1253211605828727e-05,
        1.3626315192453246e-05,
        -3.4406031004968487e-06,
        -2.6118464337312655e-06,
        4.19113101817825e-07,
        5.507747961820053e-07,
        -1.50912834480547e-08,
        -1.102235398654746e-07,
        -8.209925344538516e-09,
        1.744258364699496e-08,
        1.5858299942580986e-09,
        -1.5456221379990115e-09,
    ),
    "float32": (
        0.4720532,
        -0.096703336,
        0.013999914,
        0.028597469,
        -0.032201163,
        0.017952817,
        -0.0049877143,
        -0.000325831,
        0.00066498871,
        -4.9990515e-05,
        -5.8091235e-05,
    ),
}
# s is split into a multiple of 1 / GRID, whose square is exact, and a small rest: exp(-s^2 / 2) would otherwise
# lose s^2 / 2 units to the rounding of the square.
_GRID = {"float64": 2.0**20, "float32": 2.0**6}
# Phi(-40) is 0 in both dtypes.
FARTHEST = 40.0


def normal_distribution(s: Array) -> tuple[Array, Array]:
    """Return Phi(s) and the density exp(-s^2 / 2) / sqrt(2 pi), each of the shape and dtype of ``s``.

    Phi(s) is erfc(-s / sqrt(2)) / 2, within a few units in the last place also where it is tiny. NaN stays NaN.

    Parameters
    ----------
    s : ndarray
        float32 or float64.
    """
    coefficients, grid = _COEFFICIENTS[s.dtype.name], _GRID[s.dtype.name]
    distance = np.minimum(np.abs(s), FARTHEST)
    bell, rest = np.rint(distance * grid), distance.copy()
    bell /= grid
    rest -= bell
    rest *= distance + bell
    bell *= bell
    for square in (bell, rest):
        square *= -0.5
        np.exp(square, out=square)
    bell *= rest

    t = distance - 4
    t /= distance + 4
    tail = np.full_like(t, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        tail *= t
        tail += coefficient
    distance += 1
    tail /= distance
    tail *= bell
    probability = np.where(s < 0, tail, np.subtract(1, tail, out=distance))
    bell *= 1 / math.sqrt(2 * math.pi)
    return probability, bell


def _horner(coefficients: tuple[float, ...]) -> str:
    """Return the polynomial in ``t`` as C++."""
    text = f"A({coefficients[-1]!r})"
    for coefficient in coefficients[-2::-1]:
        text = f"fused_multiply_add({text}, t, A({coefficient!r}))"
    return text


# Statements that leave Phi(s) in `probability`, exp(-s^2 / 2) in `bell`, and s, within bounds, in `near`. With a fused
# multiply-add, what the rounding of the square loses is known.
CUDA_NORMAL_DISTRIBUTION = f"""\
const A near = clamped(s, A({-FARTHEST}), A({FARTHEST})), distance = near < A(0) ? -near : near;
const A square = multiply_rounded(near, near), rest = fused_multiply_add(near, near, -square);
const A bell = exponential(A(-0.5) * square) * fused_multiply_add(A(-0.5), rest, A(1));
const A scale = A(1) / ((distance + A(4)) * (distance + A(1)));
const A t = (distance - A(4)) * (distance + A(1)) * scale;
A tail;
if constexpr (sizeof(A) == 4) tail = {_horner(_COEFFICIENTS["float32"])};
else tail = {_horner(_COEFFICIENTS["float64"])};
tail *= (distance + A(4)) * scale * bell;
const A probability = near < A(0) ? tail : A(1) - tail;
"""
