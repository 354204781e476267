"""The hidden units of a restricted Boltzmann machine: their mean, and what they add to its energy (lecture row L13)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation, Identity, Sigmoid

Array = npt.NDArray[Any]

_FACTORS = 1000  # of at most 2 have a product that float64 holds


class HiddenUnits(ABC):
    """A layer of hidden units that s = W v + b enters.

    Attributes
    ----------
    name : str
        What :class:`gpunet.classic.RestrictedBoltzmannMachine` calls it.
    activation : Activation
        The mean of a unit as a function of s.
    is_binary : bool
        Whether a unit is drawn as 0 or 1, or as its mean plus standard normal noise.
    """

    name: ClassVar[str]
    activation: ClassVar[Activation]
    is_binary: ClassVar[bool]

    @abstractmethod
    def log_partition(self, s: Array, bias: Array) -> Array:
        """Return the log of the sum, or integral, over h of exp(-E(v, h)), without the factor exp(a.v).

        Parameters
        ----------
        s : ndarray, (n, m)
            W v + b, on the host.
        bias : ndarray, (m,)

        Returns
        -------
        ndarray, (n,)
        """


class BernoulliUnits(HiddenUnits):
    """h_j in {0, 1}: E(v, h) = -a.v - b.h - h.(W v), so p(h_j = 1 | v) = sigmoid(s_j)."""

    name = "bernoulli"
    activation = Sigmoid()
    is_binary = True

    def log_partition(self, s: Array, bias: Array) -> Array:
        # log(1 + exp(s_j)) = max(s_j, 0) + log(1 + exp(-|s_j|)), which does not overflow; nor does the product of
        # a thousand factors from 1 to 2, which needs one logarithm.
        total: Array = np.maximum(s, 0).sum(axis=1)
        factors = np.abs(s)
        np.negative(factors, out=factors)
        np.exp(factors, out=factors)
        factors += 1
        for start in range(0, s.shape[1], _FACTORS):
            total += np.log(factors[:, start : start + _FACTORS].prod(axis=1))
        return total


class GaussianUnits(HiddenUnits):
    """h_j in R: E(v, h) = -a.v + ||h - b||^2 / 2 - h.(W v), so p(h_j | v) = N(s_j, 1).

    The linear code units of Hinton and Salakhutdinov 2006.
    """

    name = "gaussian"
    activation = Identity()
    is_binary = False

    def log_partition(self, s: Array, bias: Array) -> Array:
        return ((s - bias) * (s + bias)).sum(axis=1) / 2 + s.shape[1] / 2 * math.log(2 * math.pi)


HIDDEN_UNITS: dict[str, HiddenUnits] = {units.name: units for units in (BernoulliUnits(), GaussianUnits())}
