"""The restricted Boltzmann machine as an estimator: visible units in [0, 1], hidden units binary or Gaussian (L13)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend, select_backend
from gpunet.classic.boltzmann_model import BoltzmannModel
from gpunet.classic.contrastive_divergence import ContrastiveDivergence, Rule
from gpunet.classic.device_machine import SAMPLING_DRAWS, DeviceMachine
from gpunet.classic.hidden_units import HIDDEN_UNITS, HiddenUnits
from gpunet.classic.inputs import check_probabilities
from gpunet.errors import InvalidValueError, TrainingDivergedError, unknown_name
from gpunet.initializers import Normal
from gpunet.optimizers import SGD
from gpunet.random import Purpose, host_generator
from gpunet.schedules import Schedule
from gpunet.validation import check_dtype, check_flag, check_integer, check_number

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

_INITIAL_STD = 0.01


class RestrictedBoltzmannMachine(BoltzmannModel):
    """A model of binary vectors v by hidden units h without links among either: p(v, h) = exp(-E(v, h)) / Z.

    E(v, h) = -a.v - b.h - h.(W v), so p(h_j = 1 | v) = sigmoid(b + W v)_j and p(v_i = 1 | h) = sigmoid(a + W^T h)_i.
    Training follows an estimate of the log-likelihood's gradient, see :mod:`gpunet.classic.contrastive_divergence`.
    Visible values between 0 and 1 stand for probabilities.

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
    dtype : str or dtype
        ``"float32"`` or ``"float64"``.
    device : str or Backend
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...; see :class:`gpunet.Network`.

    Attributes
    ----------
    components_ : ndarray, (m, d)
        W.
    intercept_hidden_ : ndarray, (m,)
        b.
    intercept_visible_ : ndarray, (d,)
        a.
    reconstruction_errors_ : list of float
        For each epoch of ``fit``, the mean over v's elements of the squared distance to where the chain ended, while
        learning. Empty for persistent chains, which do not begin at v.
    n_updates_ : int
        Updates so far.
    n_features_in_ : int
        d.

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

    reconstruction_errors_: list[float]
    n_updates_: int

    _learner: ContrastiveDivergence | None = None

    def __init__(
        self,
        *,
        n_components: int = 256,
        learning_rate: float | Schedule = 0.1,
        epochs: int = 10,
        batch_size: int = 20,
        gibbs_steps: int = 1,
        persistent: bool = False,
        sample_visible: bool = True,
        momentum: float = 0.0,
        l2: float = 0.0,
        hidden_units: str = "bernoulli",
        seed: int = 0,
        dtype: npt.DTypeLike = "float32",
        device: str | Backend = "auto",
    ) -> None:
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.gibbs_steps = gibbs_steps
        self.persistent = persistent
        self.sample_visible = sample_visible
        self.momentum = momentum
        self.l2 = l2
        self.hidden_units = hidden_units
        self.seed = seed
        self.dtype = dtype
        self.device = device

    # --- learning ---------------------------------------------------------------------------------------------------

    def fit(self, X: npt.ArrayLike, y: object = None) -> Self:
        """Learn from new initial weights, N(0, 0.01^2), and biases of zero.

        Parameters
        ----------
        X : array_like, (n, d)
            Numbers from 0 to 1.
        y : ignored

        Raises
        ------
        ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
            X, or a parameter of the constructor, is not valid. Nothing has changed then.
        TrainingDivergedError
            The weights became NaN or infinite. The estimator is what it was before.
        """
        data = check_probabilities("X", X, None, check_dtype(self.dtype), self.device)
        epochs = check_integer("epochs", self.epochs, 1)
        learner = self._new_learner(data.shape[1])
        learner.machine.set_parameters(*self._initial_parameters(data.shape[1]))
        on_device = learner.machine.backend.asarray(data)
        errors, updates = [], 0
        for epoch in range(1, epochs + 1):
            order = np.arange(len(data), dtype=np.int32)
            host_generator(learner.machine.seed, Purpose.SHUFFLE, updates).shuffle(order)
            errors.append(self._learn(learner, on_device, order, updates, epoch))
            updates += -(-len(data) // learner.batch_size)
        self._adopt(learner, data.shape[1], updates)
        self._gibbs_calls = 0
        self.reconstruction_errors_ = [] if self.persistent else errors
        return self

    def fit_transform(self, X: npt.ArrayLike, y: object = None) -> Array:
        """Return ``fit(X).transform(X)``."""
        return self.fit(X).transform(X)

    def partial_fit(self, X: npt.ArrayLike, y: object = None) -> Self:
        """Go on learning from X, in batches of ``batch_size`` in the order of its rows.

        The first call begins as ``fit`` does. Momentum and persistent chains go on from call to call, unless a
        parameter of the constructor has changed, the estimator has been pickled or the last call failed; then they
        begin at zero. A schedule counts ``n_updates_``.

        Parameters
        ----------
        X : array_like, (n, d)
            Numbers from 0 to 1.
        y : ignored

        Raises
        ------
        ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError, TrainingDivergedError
            As ``fit``; also where ``n_components`` or ``hidden_units`` has changed, which only ``fit`` follows.
        """
        fitted = self.__sklearn_is_fitted__()
        columns = self.n_features_in_ if fitted else None
        data = check_probabilities("X", X, columns, check_dtype(self.dtype), self.device)
        learner = self._learner_of(data.shape[1])
        updates = self.n_updates_ if fitted else 0
        learner.machine.set_parameters(*(self._learnt() if fitted else self._initial_parameters(data.shape[1])))
        self._learner = None  # until its momentum and chains belong to the weights again
        order = np.arange(len(data), dtype=np.int32)
        self._learn(learner, learner.machine.backend.asarray(data), order, updates, 1)
        self._adopt(learner, data.shape[1], updates + -(-len(data) // learner.batch_size))
        if not fitted:
            self._gibbs_calls = 0
            self.reconstruction_errors_ = []
        return self

    def _learn(self, learner: ContrastiveDivergence, data: Array, order: Array, updates: int, epoch: int) -> float:
        """Make one pass and return the mean squared error per element, of the chains' last visible units."""
        backend, size = learner.machine.backend, learner.batch_size
        starts = range(0, len(order), size)
        errors = backend.zeros((len(starts), 2, 2), learner.machine.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # looked for below, once per pass
            for number, start in enumerate(starts):
                learner.update(data, order[start : start + size], updates + number, errors[number])
        host = backend.to_numpy(errors).astype(np.float64)
        finite = all(np.isfinite(array).all() for array in (host, *learner.machine.get_parameters()))
        if not finite:
            raise TrainingDivergedError(
                f"the weights became NaN or infinite in epoch {epoch}. A lower learning_rate may help: "
                f"{self.hidden_units} hidden units with learning_rate={self.learning_rate!r}.",
                epoch,
                updates + len(starts),
                "components_",
            )
        return 2 * float(host[:, 0, 0] @ host[:, 0, 1]) / (len(order) * learner.machine.visible)

    def _adopt(self, learner: ContrastiveDivergence, features: int, updates: int) -> None:
        """Take over what was learnt: the host's arrays are what every method reads."""
        self.components_, self.intercept_hidden_, self.intercept_visible_ = learner.machine.get_parameters()
        self.n_updates_ = updates
        self.n_features_in_ = features
        self._learner, self._machine, self._machine_device = learner, learner.machine, self.device
        self._fitted_parameters = self.get_params()

    def _learner_of(self, features: int) -> ContrastiveDivergence:
        """Return what the last call learnt with, or a new one where the parameters are others now."""
        if not self.__sklearn_is_fitted__():
            return self._new_learner(features)
        if self._learner is not None and self._fitted_parameters == self.get_params():
            return self._learner
        learner = self._new_learner(features)
        for name in ("n_components", "hidden_units"):
            before, now = self._fitted_parameters[name], getattr(self, name)
            if before != now:
                raise InvalidValueError(f"{name}: got {now!r} for partial_fit. Expected {before!r}, as before, or fit.")
        learner.optimizer.step = self.n_updates_
        return learner

    def _new_learner(self, features: int) -> ContrastiveDivergence:
        rule = Rule(
            gibbs_steps=check_integer("gibbs_steps", self.gibbs_steps, 1, SAMPLING_DRAWS // 2 - 1),
            persistent=check_flag("persistent", self.persistent),
            sample_visible=check_flag("sample_visible", self.sample_visible),
            l2=check_number("l2", self.l2),
        )
        batch_size = check_integer("batch_size", self.batch_size, 1)
        optimizer = SGD(self.learning_rate, momentum=self.momentum)
        return ContrastiveDivergence(self._new_machine(features), rule, optimizer, batch_size)

    def _new_machine(self, features: int) -> DeviceMachine:
        hidden = check_integer("n_components", self.n_components, 1)
        seed = check_integer("seed", self.seed, 0, 2**64 - 1)
        return DeviceMachine(
            select_backend(self.device), features, hidden, self._units(), seed, check_dtype(self.dtype)
        )

    def _units(self) -> HiddenUnits:
        if not isinstance(self.hidden_units, str) or self.hidden_units not in HIDDEN_UNITS:
            raise unknown_name("hidden_units", self.hidden_units, HIDDEN_UNITS)
        return HIDDEN_UNITS[self.hidden_units]

    def _initial_parameters(self, features: int) -> tuple[Array, Array, Array]:
        W = Normal(_INITIAL_STD)((self.n_components, features), host_generator(self.seed, Purpose.WEIGHTS, 1))
        return W, np.zeros(self.n_components), np.zeros(features)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what lives on a device."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_learner", "_machine")}
