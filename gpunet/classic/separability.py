"""Whether a hyperplane separates two classes, and by how much: the perceptron's convergence bound (lecture row L9).

With every example written as p_i = y_i (x_i, 1), a weight vector w = (weights, bias) separates the classes when
w . p_i > 0 for all i. The largest margin is max_w min_i w . p_i / ||w||, and it is the distance from the origin to the
convex hull of the p_i: the hull's point nearest to the origin is the best w. Where the hull holds the origin, nothing
separates the classes.

References
----------
Novikoff 1962, "On convergence proofs for perceptrons". Wolfe 1976, "Finding the nearest point in a polytope".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.classic.inputs import encode_two_classes
from gpunet.errors import InvalidValueError
from gpunet.validation import check_features, check_flag

Array = npt.NDArray[Any]

# Of the radius R: what float64 can tell from touching, and more mistakes than anyone waits for.
_SMALLEST_MARGIN = 1e-7
# How far the squared margin may be below that of the best hyperplane, relative to it.
_GAP = 1e-10
_MOST_STEPS = 10_000


@dataclass(frozen=True)
class Separation:
    """How well a hyperplane separates two classes.

    Attributes
    ----------
    margin : float
        gamma, the smallest y_i (w . x_i + b) over the examples where ||(w, b)|| = 1, for the best w and b; 0 where
        nothing separates the classes.
    radius : float
        R, the largest ||(x_i, 1)||, or ||x_i|| without a bias.
    weights : ndarray, (d + 1,) or (d,)
        The best unit vector (w, b), or w without a bias; zeros where nothing separates the classes.
    """

    margin: float
    radius: float
    weights: Array

    @property
    def is_separable(self) -> bool:
        """Whether a hyperplane separates the classes."""
        return self.margin > 0

    @property
    def mistake_bound(self) -> float:
        """Novikoff's (R / gamma)^2: a perceptron that starts at zero makes at most so many mistakes; else infinity."""
        return (self.radius / self.margin) ** 2 if self.margin > 0 else math.inf


def separation(X: npt.ArrayLike, y: npt.ArrayLike, *, bias: bool = True) -> Separation:
    """Return how well the best hyperplane separates two classes.

    The margin is that of weights found, computed from them: a hyperplane that is reported does separate the classes.
    Classes whose margin is less than 1e-7 R count as not separable; a perceptron may need 1e14 mistakes there.

    Parameters
    ----------
    X : array_like, (n, d)
    y : array_like, (n,)
        Two different labels.
    bias : bool
        Whether the hyperplane may miss the origin.

    Raises
    ------
    ShapeError, InvalidTypeError, NonFiniteError
        X or y is not what it should be.
    InvalidValueError
        Not exactly two classes, or rounding hides the answer (features of very different sizes).

    Examples
    --------
    >>> separation([[-1.0], [3.0]], ["below", "above"], bias=False).mistake_bound
    9.0
    """
    features = check_features("X", X, None, np.float64)
    _, signs = encode_two_classes("y", y, len(features))
    if check_flag("bias", bias):
        features = np.column_stack([features, np.ones(len(features))])
    return signed_separation(features * signs[:, np.newaxis])


def signed_separation(examples: Array) -> Separation:
    """Return :func:`separation` of the p_i, the rows of ``examples``, (n, m)."""
    # Lengths relative to the longest neither overflow nor vanish when squared.
    scale = float(np.abs(examples).max()) or 1.0
    scaled = examples / scale
    radius = math.sqrt(float(np.einsum("ij,ij->i", scaled, scaled).max()))
    nearest = _nearest_point(scaled, radius)
    length = float(np.linalg.norm(nearest))
    if length <= _SMALLEST_MARGIN * radius:
        return Separation(0.0, radius * scale, np.zeros(examples.shape[1]))
    margin = float((scaled @ nearest).min()) / length
    if margin <= 0:
        raise InvalidValueError(
            "X: rounding hides whether a hyperplane separates the classes. Expected features of similar sizes; scaling "
            "them may help."
        )
    return Separation(margin * scale, radius * scale, nearest / length)


def _nearest_point(points: Array, radius: float) -> Array:
    """Return the point of the convex hull of ``points`` (n, m) nearest to the origin, by Wolfe's algorithm.

    It keeps a set of corners whose convex combination is the point. A major step adds the corner that lies farthest
    towards the origin; minor steps move to the nearest point of the corners' affine hull, and drop the corners that
    this leaves behind.
    """
    corners = [int(np.einsum("ij,ij->i", points, points).argmin())]
    shares = np.ones(1)
    nearest = points[corners[0]]
    for _ in range(_MOST_STEPS):
        heights = points @ nearest
        entering = int(heights.argmin())
        square = float(nearest @ nearest)
        if square <= (_SMALLEST_MARGIN * radius) ** 2 or square - heights[entering] <= _GAP * square:
            return nearest
        if entering in corners:
            return nearest  # the gap that is left is rounding
        corners.append(entering)
        shares = np.append(shares, 0.0)
        while True:
            affine = _affine_shares(points[corners], radius)
            if (affine > 0).all():
                shares = affine
                break
            # As far towards the affine minimum as the hull reaches; the corners on that face's other side go.
            falling = affine <= 0
            drop = shares[falling] - affine[falling]
            reach = np.divide(shares[falling], drop, out=np.zeros_like(drop), where=drop > 0)
            shares = shares + float(reach.min()) * (affine - shares)
            leaving = np.flatnonzero(falling)[reach.argmin()]
            kept = np.delete(np.arange(len(corners)), leaving)
            corners = [corners[place] for place in kept]
            shares = np.maximum(shares[kept], 0.0)
            shares /= shares.sum()
        nearest = shares @ points[corners]
    return nearest


def _affine_shares(corners: Array, radius: float) -> Array:
    """Return the coefficients, summing to 1, of the point of the corners' affine hull nearest to the origin."""
    # Wolfe's system: (G + R^2 1 1^T) u = 1 has u proportional to them; the added term makes it regular.
    gram = corners @ corners.T + radius**2
    ones = np.ones(len(corners))
    try:
        solution = np.linalg.solve(gram, ones)
    except np.linalg.LinAlgError:  # corners that are affinely dependent, up to rounding
        solution = np.linalg.lstsq(gram, ones, rcond=None)[0]
    return solution / solution.sum()
