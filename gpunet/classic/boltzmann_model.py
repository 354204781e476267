"""What a fitted restricted Boltzmann machine knows: conditional means, energies, samples (lecture row L13)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gpunet.activations import Sigmoid
from gpunet.backends import Backend, select_backend
from gpunet.classic.device_machine import SAMPLING_DRAWS, DeviceMachine
from gpunet.classic.estimator import Estimator
from gpunet.classic.hidden_units import HIDDEN_UNITS
from gpunet.classic.inputs import check_probabilities
from gpunet.validation import check_features, check_integer, check_parameter

Array = npt.NDArray[Any]


class BoltzmannModel(Estimator):
    """The half of :class:`gpunet.classic.RestrictedBoltzmannMachine` that asks what was learnt and changes nothing.

    Its methods go by the parameters of the constructor that ``fit`` had, whatever ``set_params`` has said since; the
    device alone may change.

    Attributes
    ----------
    components_, intercept_hidden_, intercept_visible_ : ndarray, (m, d), (m,) and (d,)
        W, b and a. Other arrays of these shapes, set by hand, are used by every method.
    """

    _estimator_type: ClassVar[str | None] = "transformer"

    device: str | Backend
    components_: Array
    intercept_hidden_: Array
    intercept_visible_: Array

    _fitted_parameters: dict[str, Any]
    _machine: DeviceMachine | None = None
    _machine_device: str | Backend
    _gibbs_calls: int = 0

    # --- what it knows ----------------------------------------------------------------------------------------------

    def transform(self, X: npt.ArrayLike) -> Array:
        """Return E(h | v) of each row of X, ndarray (n, m): probabilities, or s = W v + b for Gaussian units.

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        """
        machine, data = self._ready("transform", X)
        return machine.hidden_means_of(data)

    def inverse_transform(self, H: npt.ArrayLike) -> Array:
        """Return p(v = 1 | h) of each row of H, (n, m): ndarray (n, d).

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, NonFiniteError
        """
        self._require_fitted("inverse_transform")
        machine = self._device_machine()
        return machine.visible_means_of(check_features("H", H, machine.hidden, machine.dtype))

    def reconstruct(self, X: npt.ArrayLike) -> Array:
        """Return p(v = 1 | h) with h the mean hidden units of each row of X, ndarray (n, d).

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        """
        return self.inverse_transform(self.transform(X))

    def free_energy(self, X: npt.ArrayLike) -> Array:
        """Return F(v) = -log sum_h exp(-E(v, h)) of each row of X, float64 (n,); p(v) = exp(-F(v)) / Z.

        F(v) = -a.v - sum_j log(1 + exp(s_j)) for binary units and -a.v - (||s||^2 - ||b||^2) / 2 - m / 2 log(2 pi) for
        Gaussian ones, with s = W v + b.

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        """
        machine, data = self._ready("free_energy", X)
        return machine.free_energy(data)

    def pseudo_log_likelihood(self, X: npt.ArrayLike) -> Array:
        """Return sum_i log p(v_i | the other v) of each row of X, float64 (n,): exact, without Z, by n d m softplus.

        A v_i between 0 and 1 counts with v_i log p(1 | the others) + (1 - v_i) log p(0 | the others).

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        """
        machine, data = self._ready("pseudo_log_likelihood", X)
        return machine.pseudo_log_likelihood(data)

    def score_samples(self, X: npt.ArrayLike) -> Array:
        """Return :meth:`pseudo_log_likelihood`. scikit-learn's BernoulliRBM estimates it from one random i per row."""
        return self.pseudo_log_likelihood(X)

    def score(self, X: npt.ArrayLike, y: object = None) -> float:
        """Return the mean of :meth:`pseudo_log_likelihood` over the rows."""
        return float(self.score_samples(X).mean())

    # --- drawing ----------------------------------------------------------------------------------------------------

    def gibbs(self, X: npt.ArrayLike, steps: int = 1) -> Array:
        """Return v after ``steps`` rounds of drawing h given v, then v given h: 0 and 1, ndarray (n, d).

        Every call draws other bits; those of the first call after ``fit`` follow from the seed.

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        """
        self._require_fitted("gibbs")
        steps = check_integer("steps", steps, 1, SAMPLING_DRAWS)
        machine, data = self._ready("gibbs", X)
        self._gibbs_calls += 1
        return machine.gibbs(data, steps, self._gibbs_calls)

    def sample(self, n_samples: int = 1, steps: int = 1000) -> Array:
        """Return what ``n_samples`` chains hold after ``steps`` rounds of :meth:`gibbs`, begun at p = sigmoid(a).

        Raises
        ------
        NotFittedError, InvalidTypeError, InvalidValueError
        """
        self._require_fitted("sample")
        n_samples = check_integer("n_samples", n_samples, 1)
        _, _, visible_bias = self._learnt()
        return self.gibbs(np.tile(Sigmoid().forward(visible_bias), (n_samples, 1)), steps)

    # --- on and off the device --------------------------------------------------------------------------------------

    def _ready(self, method: str, X: npt.ArrayLike) -> tuple[DeviceMachine, Array]:
        """Return the machine on its device, and X on the host."""
        self._require_fitted(method)
        machine = self._device_machine()
        return machine, check_probabilities("X", X, self.n_features_in_, machine.dtype, machine.backend)

    def _learnt(self) -> tuple[Array, Array, Array]:
        """Return W, b and a as they stand in the attributes, which may have been set by hand."""
        m, d = self._fitted_parameters["n_components"], self.n_features_in_
        dtype = np.dtype(self._fitted_parameters["dtype"])
        return (
            check_parameter("components_", self.components_, (m, d), dtype),
            check_parameter("intercept_hidden_", self.intercept_hidden_, (m,), dtype),
            check_parameter("intercept_visible_", self.intercept_visible_, (d,), dtype),
        )

    def _device_machine(self) -> DeviceMachine:
        """Return a machine with the current weights; it is kept from call to call."""
        learnt = self._learnt()
        if self._machine is None or self._machine_device != self.device:
            fitted = self._fitted_parameters
            self._machine = DeviceMachine(
                select_backend(self.device),
                self.n_features_in_,
                int(fitted["n_components"]),
                HIDDEN_UNITS[fitted["hidden_units"]],
                int(fitted["seed"]),
                np.dtype(fitted["dtype"]),
            )
            self._machine_device = self.device
        self._machine.set_parameters(*learnt)
        return self._machine
