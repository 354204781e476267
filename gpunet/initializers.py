"""Initial weights (lecture rows L19-L21): zeros, N(0, std^2), Xavier, He, orthogonal, random walk.

An initialiser is a callable ``(shape, generator) -> array`` for W of shape (m, d): fan-in d, fan-out m. It draws in
float64 on the host, so the same seed gives the same weights on every device, and the same up to rounding in every
dtype. Those that look at data first are in :mod:`gpunet.data_initializers`.

References
----------
Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks" (Xavier);
He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers" (He). The lecture's Xavier is N(0, 1/d), standard deviation
1/sqrt(500) for its 500-wide layers; Glorot's variance 2 / (d + m) is the same for square layers.
Saxe, McClelland, Ganguli 2013, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks"
(orthogonal); Sussillo and Abbott 2014, "Random walk initialization for training very deep feedforward networks".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation, Identity
from gpunet.errors import InvalidTypeError, InvalidValueError, unknown_name
from gpunet.specification import split_name
from gpunet.validation import check_number

Array = npt.NDArray[Any]
Initializer = Callable[[tuple[int, int], np.random.Generator], Array]


@dataclass(frozen=True)
class Zeros:
    """Every weight 0: all hidden units compute the same and stay the same, which is why nobody should use it."""

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        return np.zeros(shape)

    def __str__(self) -> str:
        return "zeros"


@dataclass(frozen=True)
class Normal:
    """N(0, std^2); the lecture's "small random numbers" are std = .01, a variance of .01^2.

    Parameters
    ----------
    std : float
        Standard deviation, more than 0.
    """

    std: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", check_number("normal std", self.std, above=True))

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        return generator.normal(0.0, self.std, shape)

    def __str__(self) -> str:
        return f"normal({self.std!r})"


@dataclass(frozen=True)
class VarianceScaling:
    """Zero mean and a variance that keeps activations and gradients from growing or fading with depth.

    Parameters
    ----------
    name : str
    gain : float
        Variance times the fan: 1 for Xavier, 2 for He.
    fan : str
        ``"average"``: variance gain / ((d + m) / 2), Glorot's; ``"in"``: variance gain / d.
    distribution : str
        ``"normal"`` or ``"uniform"``.
    """

    name: str
    gain: float
    fan: str
    distribution: str

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        fan_out, fan_in = shape
        variance = self.gain / (fan_in if self.fan == "in" else (fan_in + fan_out) / 2)
        if self.distribution == "normal":
            return generator.normal(0.0, math.sqrt(variance), shape)
        limit = math.sqrt(3 * variance)
        return generator.uniform(-limit, limit, shape)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Orthogonal:
    """The gain times a random matrix with orthonormal rows or columns, whichever are fewer (Saxe et al. 2013, 3).

    A square W keeps the norm of every vector, forward and backward, so in a linear network of any depth every singular
    value of the whole is gain^k. Behind a ReLU, which halves the mean square, sqrt(2) is the gain that keeps it.

    Parameters
    ----------
    gain : float
        Every singular value of W; more than 0.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "gain", check_number("orthogonal gain", self.gain, above=True))

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        q, r = np.linalg.qr(generator.standard_normal((max(shape), min(shape))))
        # The QR decomposition is unique, and Q uniform over all such matrices (Haar), where R's diagonal is positive
        # (Mezzadri 2007, "How to generate random matrices from the classical compact groups").
        q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
        return self.gain * (q if shape[0] >= shape[1] else q.T)

    def __str__(self) -> str:
        return f"orthogonal({self.gain!r})"


@dataclass(frozen=True)
class RandomWalk:
    """N(0, g^2 / d) with the g that leaves the expected logarithm of the gradient's norm as it is (Sussillo 2014).

    Going back through a layer multiplies the gradient's squared norm by a random factor z; its logarithm walks at
    random through the layers, and drifts unless E log z = 0. He's variance gives E z = 1, hence a drift of about
    -2.5 / d per layer.

    Parameters
    ----------
    gain : float or None
        g, more than 0. None computes it from d and the activation whose outputs the weights read: the paper's
        exp(1 / (2 d)) for linear units and sqrt(2) exp(1.2 / (max(d, 6) - 2.4)) for ReLU. For leaky ReLU it comes from
        the expansion of E log z to order 1 / d, which gives the paper's linear case at the slope 1, and sqrt(2)
        exp(1.25 / d) at the slope 0, for which the paper has the fit above. The other activations, for which the paper
        searches g by trial, take the linear one: f'(0) = 1 for tanh and ELU.
    activation : Activation
        Set by the network through ``reading``; the inputs count as linear.
    """

    gain: float | None = None
    activation: Activation = field(default_factory=Identity)

    def __post_init__(self) -> None:
        if self.gain is not None:
            object.__setattr__(self, "gain", check_number("random_walk gain", self.gain, above=True))

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        fan_in = shape[1]
        gain = random_walk_gain(self.activation, fan_in) if self.gain is None else self.gain
        return generator.normal(0.0, gain / math.sqrt(fan_in), shape)

    def __str__(self) -> str:
        return "random_walk" if self.gain is None else f"random_walk({self.gain!r})"


def random_walk_gain(activation: Activation, width: int) -> float:
    """Return Sussillo and Abbott's g for weights that read ``width`` units with an activation.

    With z = (1 / d) sum_j f'_j^2 n_j^2, n_j standard normal and f'_j one of the slopes a and b with equal chance,
    E log z = log E z - Var z / (2 (E z)^2) + O(1 / d^2), E z = (a^2 + b^2) / 2 and
    Var z = (3 (a^4 + b^4) / 2 - (E z)^2) / d; g^2 = exp(-E log z).
    """
    if activation.slopes == (0.0, 1.0):
        return math.sqrt(2) * math.exp(1.2 / (max(width, 6) - 2.4))
    below, above = activation.slopes or (1.0, 1.0)
    mean = (above**2 + below**2) / 2
    variance = (1.5 * (above**4 + below**4) - mean**2) / width
    return math.exp(variance / mean**2 / 4) / math.sqrt(mean)


def reading(initializer: Initializer, activation: Activation) -> Initializer:
    """Return the initialiser for weights that read an activation's outputs; the identity stands for the inputs."""
    return replace(initializer, activation=activation) if isinstance(initializer, RandomWalk) else initializer


XAVIER_NORMAL = VarianceScaling("xavier_normal", 1.0, "average", "normal")
XAVIER_UNIFORM = VarianceScaling("xavier_uniform", 1.0, "average", "uniform")
HE_NORMAL = VarianceScaling("he_normal", 2.0, "in", "normal")
HE_UNIFORM = VarianceScaling("he_uniform", 2.0, "in", "uniform")

_FIXED: dict[str, Initializer] = {
    str(initializer): initializer for initializer in (Zeros(), XAVIER_NORMAL, XAVIER_UNIFORM, HE_NORMAL, HE_UNIFORM)
}
_WITH_NUMBER: dict[str, Callable[..., Initializer]] = {
    "normal": Normal,
    "orthogonal": Orthogonal,
    "random_walk": RandomWalk,
}
INITIALIZERS = (*_FIXED, *_WITH_NUMBER)
# The functions of gpunet.data_initializers.
FROM_DATA = ("lsuv", "data_dependent")


def get_initializer(initializer: str | Initializer) -> Initializer:
    """Return the initialiser that a name stands for: ``"he_normal"``, ``"normal(0.05)"``, ``"orthogonal(1.4)"``.

    Parameters
    ----------
    initializer : str or callable
        A callable ``(shape, generator) -> array`` is returned as it is.

    Raises
    ------
    InvalidValueError
        The name is unknown (the message has the nearest valid one), its number is out of range, or it is one of the
        initialisers that need data.
    InvalidTypeError
        Neither a string nor callable, or a class.
    """
    if not isinstance(initializer, str):
        if isinstance(initializer, type):
            raise InvalidTypeError(f"initializer: got the class {initializer.__name__}. Expected an object of it.")
        if callable(initializer):
            return initializer
        raise InvalidTypeError(f"initializer: got {type(initializer).__name__}. Expected a name or a callable.")
    name, number = split_name("initializer", initializer)
    if name in _WITH_NUMBER:
        return _WITH_NUMBER[name]() if number is None else _WITH_NUMBER[name](number)
    if name in FROM_DATA:
        raise InvalidValueError(
            f"initializer: {name!r} needs data. Expected another one here, and then "
            f"gpunet.data_initializers.{name}(network, X)."
        )
    if name not in _FIXED:
        raise unknown_name("initializer", initializer, (*INITIALIZERS, *FROM_DATA))
    if number is not None:
        raise InvalidValueError(f"initializer: {name!r} takes no number, got {initializer!r}.")
    return _FIXED[name]


def default_initializer(activation: Activation) -> Initializer:
    """Return He for the activations whose gain is 2, and Xavier for the others."""
    return HE_NORMAL if activation.gain == HE_NORMAL.gain else XAVIER_NORMAL


def draw(
    initializer: Initializer, name: str, shape: tuple[int, int], generator: np.random.Generator, dtype: np.dtype[Any]
) -> Array:
    """Return the initial weights of a matrix, as the initialiser draws them.

    Parameters
    ----------
    name : str
        Of the matrix, for the error message.
    shape : tuple of two ints
        Outputs, inputs.
    dtype : dtype
        What they are going to be.

    Raises
    ------
    InvalidValueError
        The initialiser returned something else than finite numbers of that shape, also once they are of ``dtype``.
    """
    values = np.asarray(initializer(shape, generator))
    if values.shape == shape and values.dtype.kind in "iuf":
        with np.errstate(over="ignore"):
            if np.isfinite(values.astype(dtype)).all():
                return values
    raise InvalidValueError(
        f"initializer: returned {values.dtype} numbers of shape {values.shape} for {name}. "
        f"Expected finite {dtype} numbers of shape {shape}."
    )
