"""The restricted Boltzmann machine as an estimator: visible units in [0, 1], hidden units binary or Gaussian (L13)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Sigmoid
from gpunet.backends import Backend, select_backend
from gpunet.classic.contrastive_divergence import ContrastiveDivergence
from gpunet.classic.device_machine import SAMPLING_DRAWS, DeviceMachine
from gpunet.classic.epochs import epoch_orders
from gpunet.classic.estimator import after_fit, check_name, check_schedule, check_seed, learns, parameter
from gpunet.classic.hidden_units import HIDDEN_UNITS
from gpunet.classic.transformer import Transformer
from gpunet.classic.unit_inputs import UnitInputEstimator
from gpunet.errors import InvalidValueError, TrainingDivergedError
from gpunet.initializers import Normal
from gpunet.optimizers import SGD
from gpunet.random import Purpose, host_generator
from gpunet.schedules import Schedule
from gpunet.validation import (
    LARGEST_SIZE,
    check_features,
    check_flag,
    check_integer,
    check_number,
    check_parameter,
    check_rate,
)

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

_INITIAL_STD = 0.01


@dataclass(kw_only=True, eq=False, repr=False)
class RestrictedBoltzmannMachine(Transformer, UnitInputEstimator):
    """A model of binary vectors v by hidden units h without links among either: p(v, h) = exp(-E(v, h)) / Z.

    E(v, h) = -a.v - b.h - h.(W v), so p(h_j = 1 | v) = sigmoid(b + W v)_j and p(v_i = 1 | h) = sigmoid(a + W^T h)_i.
    Training follows an estimate of the log-likelihood's gradient, see :mod:`gpunet.classic.contrastive_divergence`.
    Visible values between 0 and 1 stand for probabilities. Methods that change nothing go by the parameters of the
    constructor that ``fit`` had, whatever ``set_params`` has said since; the device alone may change.

    Parameters
    ----------
    n_components : int
        m, the number of hidden units.
    learning_rate : float or Schedule
        Persistent chains need a lower one, such as 0.02, to keep up with the weights; Gaussian hidden units, whose
        means have no bound, a much lower one, such as 0.001.
    epochs : int
        Passes over X that ``fit`` makes.
    batch_size : int
        Rows per update, and the number of persistent chains. Few rows leave many updates where the data are few.
    gibbs_steps : int
        k, at least 1: how far a chain goes per update.
    persistent : bool
        Whether the chains go on from update to update (PCD), or begin at the batch (CD-k).
    sample_visible : bool
        Whether the chains' visible units are drawn, or stand for their probabilities: less noise for CD-1, but no
        longer the model's own distribution.
    momentum : float
        0 to 1, 1 excluded.
    l2 : float
        The lecture's lambda: the gradient gets 2 l2 W.
    hidden_units : str
        ``"bernoulli"``, or ``"gaussian"`` for linear ones with E(v, h) = -a.v + ||h - b||^2 / 2 - h.(W v).
    seed : int
        Draws the initial weights, the order of the rows and every sample; the same bits on every device.
    scale_inputs, dtype, device
        See :class:`gpunet.classic.unit_inputs.UnitInputEstimator`.

    Attributes
    ----------
    components_, intercept_hidden_, intercept_visible_ : ndarray, (m, d), (m,) and (d,)
        W, b and a. Other arrays of these shapes, set by hand, are used by every method.
    reconstruction_errors_ : list of float
        For each epoch of ``fit``, the mean over v's elements of the squared distance to where the chain ended, while
        learning. Empty for persistent chains, which do not begin at v.
    n_updates_ : int
        Updates so far.
    scaling_, n_features_in_, feature_names_in_
        See :class:`gpunet.classic.unit_inputs.UnitInputEstimator` and :class:`gpunet.classic.estimator.Estimator`.

    References
    ----------
    Hinton 2002; Hinton and Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks";
    Tieleman 2008.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
    >>> machine = RestrictedBoltzmannMachine(n_components=2, device="cpu").fit(X)
    >>> machine.transform(X).shape
    (4, 2)
    """

    n_components: int = parameter(256, check_integer, minimum=1, maximum=LARGEST_SIZE)
    learning_rate: float | Schedule = parameter(0.1, check_schedule)
    epochs: int = parameter(10, check_integer, minimum=1)
    batch_size: int = parameter(20, check_integer, minimum=1)
    gibbs_steps: int = parameter(1, check_integer, minimum=1, maximum=SAMPLING_DRAWS // 2 - 1)
    persistent: bool = parameter(False, check_flag)
    sample_visible: bool = parameter(True, check_flag)
    momentum: float = parameter(0.0, check_rate)
    l2: float = parameter(0.0, check_number)
    hidden_units: str = parameter("bernoulli", check_name, names=HIDDEN_UNITS)
    seed: int = parameter(0, check_seed)

    # --- learning ---------------------------------------------------------------------------------------------------

    @learns
    def fit(self, X: npt.ArrayLike, y: object = None) -> Self:
        """Learn from new initial weights, N(0, 0.01^2), and biases of zero.

        Parameters
        ----------
        X : array_like, (n, d)
            Numbers from 0 to 1, or any numbers with ``scale_inputs``.
        y : ignored
        """
        given = self._checked_parameters()
        data, scaling, names = given._new_units(X)
        learner = given._new_learner(data.shape[1])
        learner.machine.set_parameters(*self._initial_parameters(data.shape[1]))
        on_device = learner.machine.backend.asarray(data)
        errors: list[float] = []
        updates = learner.updates(len(data))
        for order in epoch_orders(len(data), given.epochs, seed=given.seed, stride=updates):
            errors.append(self._learn(learner, on_device, order, len(errors) * updates, len(errors) + 1))
        self._set_units(data.shape[1], names, scaling)
        self._gibbs_calls, self.reconstruction_errors_ = 0, ([] if given.persistent else errors)
        self._adopt(learner, given.epochs * updates)
        return self

    @learns
    def partial_fit(self, X: npt.ArrayLike, y: object = None) -> Self:
        """Go on learning from X, in batches of ``batch_size`` in the order of its rows.

        The first call begins as ``fit`` does. Momentum and persistent chains go on from call to call, unless a
        parameter of the constructor has changed, the estimator has been pickled or the last call failed; then they
        begin at zero. A schedule counts ``n_updates_``. Another ``n_components`` or ``hidden_units`` is for ``fit``.

        Parameters
        ----------
        X : array_like, (n, d)
            With the columns of the first call, which settles ``scaling_``.
        y : ignored
        """
        given = self._checked_parameters()
        fitted = self.__sklearn_is_fitted__()
        if fitted:
            data = self._fitted_units(X, given.dtype, self.device)
        else:
            data, scaling, names = given._new_units(X)
        learner = self._learner_of(given) if fitted else given._new_learner(data.shape[1])
        updates = self.n_updates_ if fitted else 0
        learner.machine.set_parameters(*(self._learnt() if fitted else self._initial_parameters(data.shape[1])))
        self._learner: ContrastiveDivergence | None = None  # until its momentum and chains belong to the weights again
        order = np.arange(len(data), dtype=np.int32)
        self._learn(learner, learner.machine.backend.asarray(data), order, updates, 1)
        if not fitted:
            self._set_units(data.shape[1], names, scaling)
            self._gibbs_calls, self.reconstruction_errors_ = 0, []
        self._adopt(learner, updates + learner.updates(len(data)))
        return self

    def _learn(self, learner: ContrastiveDivergence, data: Array, order: Array, updates: int, epoch: int) -> float:
        """Go over the rows once and return the mean squared error per element, of the chains' last visible units."""
        error = learner.learn_epoch(data, order, updates)
        if math.isnan(error):
            raise TrainingDivergedError(
                f"the weights became NaN or infinite in epoch {epoch}. A lower learning_rate may help: "
                f"{self.hidden_units} hidden units with learning_rate={self.learning_rate!r}.",
                epoch,
                updates + learner.updates(len(order)),
                "components_",
            )
        return error

    def _adopt(self, learner: ContrastiveDivergence, updates: int) -> None:
        """Take over what was learnt: the host's arrays are what every method reads."""
        self.components_, self.intercept_hidden_, self.intercept_visible_ = learner.machine.get_parameters()
        self.n_updates_ = updates
        self._learner = learner
        self._machine: DeviceMachine | None = learner.machine
        self._machine_device = self.device
        self._fitted_parameters = self._declared_parameters()

    def _learner_of(self, given: Self) -> ContrastiveDivergence:
        """Return what the last call learnt with, or a new one where the parameters are others now."""
        if self._learner is not None and self._fitted_parameters == self._declared_parameters():
            return self._learner
        learner = given._new_learner(self.n_features_in_)
        for name in ("n_components", "hidden_units"):
            before, now = self._fitted_parameters[name], getattr(self, name)
            if before != now:
                raise InvalidValueError(f"{name}: got {now!r} for partial_fit. Expected {before!r}, as before, or fit.")
        learner.optimizer.step = self.n_updates_
        return learner

    def _new_learner(self, features: int) -> ContrastiveDivergence:
        return ContrastiveDivergence(
            _new_machine(features, self._declared_parameters(), self.device),
            SGD(self.learning_rate, momentum=self.momentum),
            self.batch_size,
            gibbs_steps=self.gibbs_steps,
            persistent=self.persistent,
            sample_visible=self.sample_visible,
            l2=self.l2,
        )

    def _initial_parameters(self, features: int) -> tuple[Array, Array, Array]:
        W = Normal(_INITIAL_STD)((self.n_components, features), host_generator(self.seed, Purpose.WEIGHTS, 1))
        return W, np.zeros(self.n_components), np.zeros(features)

    # --- what it knows ----------------------------------------------------------------------------------------------

    @after_fit
    def transform(self, X: npt.ArrayLike) -> Any:
        """Return E(h | v) of each row of X, (n, m): probabilities, or s = W v + b for Gaussian units.

        An ndarray, or the data frame that :meth:`set_output` asked for.
        """
        return self._in_container(self._hidden_means(X), X)

    @after_fit
    def inverse_transform(self, H: npt.ArrayLike) -> Array:
        """Return p(v = 1 | h) of each row of H, (n, m), as numbers such as X holds: ndarray (n, d)."""
        machine = self._device_machine()
        return self._restored(machine.visible_means_of(check_features("H", H, machine.hidden, machine.dtype)))

    @after_fit
    def reconstruct(self, X: npt.ArrayLike) -> Array:
        """Return :meth:`inverse_transform` of the mean hidden units of each row of X, ndarray (n, d)."""
        return self.inverse_transform(self._hidden_means(X))

    def _hidden_means(self, X: npt.ArrayLike) -> Array:
        machine, data = self._ready(X)
        return machine.hidden_means_of(data)

    def _features_out(self) -> int:
        return len(self.components_)

    @after_fit
    def free_energy(self, X: npt.ArrayLike) -> Array:
        """Return F(v) = -log sum_h exp(-E(v, h)) of each row of X, float64 (n,); p(v) = exp(-F(v)) / Z.

        F(v) = -a.v - sum_j log(1 + exp(s_j)) for binary units and -a.v - (||s||^2 - ||b||^2) / 2 - m / 2 log(2 pi) for
        Gaussian ones, with s = W v + b.
        """
        machine, data = self._ready(X)
        return machine.free_energy(data)

    @after_fit
    def pseudo_log_likelihood(self, X: npt.ArrayLike) -> Array:
        """Return sum_i log p(v_i | the other v) of each row of X, float64 (n,): exact, without Z, by n d m softplus.

        A v_i between 0 and 1 counts with v_i log p(1 | the others) + (1 - v_i) log p(0 | the others).
        """
        machine, data = self._ready(X)
        return machine.pseudo_log_likelihood(data)

    @after_fit
    def score_samples(self, X: npt.ArrayLike) -> Array:
        """Return :meth:`pseudo_log_likelihood`. scikit-learn's BernoulliRBM estimates it from one random i per row."""
        return self.pseudo_log_likelihood(X)

    @after_fit
    def score(self, X: npt.ArrayLike, y: object = None) -> float:
        """Return the mean of :meth:`pseudo_log_likelihood` over the rows."""
        return float(self.score_samples(X).mean())

    # --- drawing ----------------------------------------------------------------------------------------------------

    @after_fit
    def gibbs(self, X: npt.ArrayLike, steps: int = 1) -> Array:
        """Return v after ``steps`` rounds of drawing h given v, then v given h: 0 and 1, ndarray (n, d).

        Every call draws other bits; those of the first call after ``fit`` follow from the seed. They are bits with
        ``scale_inputs`` too.
        """
        steps = check_integer("steps", steps, 1, SAMPLING_DRAWS)
        return self._gibbs(*self._ready(X), steps)

    @after_fit
    def sample(self, n_samples: int = 1, steps: int = 1000) -> Array:
        """Return what ``n_samples`` chains hold after ``steps`` rounds of :meth:`gibbs`, begun at p = sigmoid(a)."""
        n_samples = check_integer("n_samples", n_samples, 1)
        steps = check_integer("steps", steps, 1, SAMPLING_DRAWS)
        machine = self._device_machine()
        _, _, visible_bias = machine.get_parameters()
        return self._gibbs(machine, np.tile(Sigmoid().forward(visible_bias), (n_samples, 1)), steps)

    def _gibbs(self, machine: DeviceMachine, data: Array, steps: int) -> Array:
        self._gibbs_calls += 1
        return machine.gibbs(data, steps, self._gibbs_calls)

    # --- on and off the device --------------------------------------------------------------------------------------

    def _ready(self, X: npt.ArrayLike) -> tuple[DeviceMachine, Array]:
        """Return the machine on its device, and X on the host."""
        machine = self._device_machine()
        return machine, self._fitted_units(X, machine.dtype, machine.backend)

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
            self._machine = _new_machine(self.n_features_in_, self._fitted_parameters, self.device)
            self._machine_device = self.device
        self._machine.set_parameters(*learnt)
        return self._machine

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what lives on a device."""
        return {name: None if name in ("_learner", "_machine") else value for name, value in vars(self).items()}


def _new_machine(features: int, parameters: dict[str, Any], device: str | Backend) -> DeviceMachine:
    """Return a machine of zeros on a device, for an estimator's parameters."""
    return DeviceMachine(
        select_backend(device),
        features,
        int(parameters["n_components"]),
        HIDDEN_UNITS[parameters["hidden_units"]],
        int(parameters["seed"]),
        np.dtype(parameters["dtype"]),
    )
