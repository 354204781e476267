"""SGD with momentum and Nesterov's, Adam, AdamW: one operation updates every parameter at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.errors import InvalidValueError
from gpunet.fingerprint import fingerprint
from gpunet.parameters import Views
from gpunet.schedules import Schedule, as_schedule
from gpunet.turns import SoleUse
from gpunet.validation import check_flag, check_normal, check_number, check_rate

Array = npt.NDArray[Any]

# Attributes that a copy makes anew when it is attached.
_OF_A_DEVICE = ("backend", "scalars", "_host_scalars")


class Optimizer(ABC):
    """Turns gradients into an update of the flat parameter vector.

    An optimiser keeps its moments and its step count for the network it was last attached to, so that a second
    ``fit`` of the same network goes on where the first stopped. Attached to another network, it starts afresh. A copy
    (pickled or by ``copy.deepcopy``) keeps them for a network with the very weights that the original's had then:
    with a copy of that network, or that network loaded from a file, it goes on as the original would.

    Its hyperparameters may be set at any time, also by a callback in the middle of a run: the next step uses them. They
    are checked as the constructor's arguments are.

    Parameters
    ----------
    learning_rate : float or Schedule

    Attributes
    ----------
    learning_rate : float
        Of the next step. May be set to a number, which then stays, or to a schedule.
    schedule : Schedule
    step : int
        Updates done since it was attached: the t of Adam, and what the schedule is asked for.
    moments : dict of str to ndarray, (p,)
        Flat vectors laid out like the parameters; they may be written into.
    decays_weights : bool
        Whether it shrinks the weights by itself, so that no L2 term need be added to the loss.
    """

    name: ClassVar[str]
    scalar_count: ClassVar[int] = 1
    decays_weights: ClassVar[bool] = False
    # A step finds the learning rate in ``scalars``: another one needs no other recording.
    not_recorded: ClassVar[frozenset[str]] = frozenset({"schedule", "step"})
    # Of each hyperparameter: returns the value of that name, checked.
    _checks: ClassVar[Mapping[str, Callable[[str, Any], Any]]] = {}
    # Hyperparameters that keep a denominator away from 0, also in the parameters' dtype.
    _denominators: ClassVar[tuple[str, ...]] = ()

    def __init__(self, learning_rate: float | Schedule) -> None:
        self.schedule = as_schedule(learning_rate)
        self.step = 0
        self.moments: dict[str, Array] = {}
        self._parameters: Array | None = None
        self.in_training = SoleUse("optimizer")
        self._weights_digest = ""  # of those that a copy's moments belong to

    def __setattr__(self, name: str, value: Any) -> None:
        """Check a hyperparameter; give SGD the moment that it needs with a momentum, and not without."""
        if name == "schedule":
            value = as_schedule(value, name)
        elif name in self._checks:
            value = self._checks[name](name, value)
            if name in self._denominators and self._parameters is not None:
                check_normal(name, value, self._parameters.dtype)
        super().__setattr__(name, value)
        if name in self._checks and self._parameters is not None and tuple(self.moments) != self.moment_names:
            self.moments = self._new_moments(self._parameters)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name not in _OF_A_DEVICE}
        if self._parameters is not None:
            moments = {name: np.array(self.backend.to_numpy(moment)) for name, moment in self.moments.items()}
            state |= {
                "moments": moments,
                "_weights_digest": fingerprint(self._parameters, to_numpy=self.backend.to_numpy),
            }
        return state | {"_parameters": None}

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.schedule(self.step)

    @learning_rate.setter
    def learning_rate(self, value: float | Schedule) -> None:
        self.schedule = as_schedule(value)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The constructor's arguments, learning rate aside, as JSON can hold them: what a resumed run must share."""
        return {name: getattr(self, name) for name in self._checks}

    @property
    @abstractmethod
    def moment_names(self) -> tuple[str, ...]:
        """Names of the moments that it needs."""

    def attach(self, backend: Backend, parameters: Array) -> None:
        """Allocate the moments for a flat parameter vector, unless it is attached to this very vector already."""
        if self._parameters is not parameters:
            for name in self._denominators:
                check_normal(name, getattr(self, name), parameters.dtype)
            step, moments, observed = self.step, self.moments, self.schedule.state
            goes_on = bool(self._weights_digest) and self._weights_digest == fingerprint(
                parameters, to_numpy=backend.to_numpy
            )
            self._parameters = parameters
            self.backend = backend
            self.reset()
            if goes_on:
                self.step = step
                self.schedule.restore(observed)
                for name in self.moments.keys() & moments.keys():
                    backend.copy(moments[name], self.moments[name])

    def reset(self) -> None:
        """Forget the moments, and what the schedule has observed, and count from step 0."""
        self.step, self.moments, self._weights_digest = 0, {}, ""
        self.schedule.reset()
        if self._parameters is None:
            return
        dtype = self._parameters.dtype
        self.moments = self._new_moments(self._parameters)
        self.scalars = self.backend.zeros(self.scalar_count, dtype)
        self._host_scalars = np.zeros(self.scalar_count, dtype)

    def _new_moments(self, parameters: Array) -> Views:
        return Views({name: self.backend.zeros(parameters.shape, parameters.dtype) for name in self.moment_names})

    def advance(self) -> float:
        """Count one step, put what depends on the step where the update reads it, and return the learning rate.

        Raises
        ------
        InvalidValueError, InvalidTypeError
            The schedule returned something else than a finite number of at least 0.
        """
        self._host_scalars[:] = scalars = self.scalars_after(self.step)
        self.step += 1
        self.backend.copy(self._host_scalars, self.scalars)
        return scalars[0]

    def scalars_after(self, step: int) -> tuple[float, ...]:
        """Return what the update that follows ``step`` others reads: the learning rate, and what else depends on it.

        Raises
        ------
        InvalidValueError, InvalidTypeError
            As :meth:`advance`.
        """
        return self._scalars(check_number("learning_rate", self.schedule(step)), step + 1)

    def _scalars(self, rate: float, step: int) -> tuple[float, ...]:
        return (rate,)

    @abstractmethod
    def update(
        self, parameters: Array, gradients: Array, weight_count: int, l2: float, clip: Array | None, loss: Array
    ) -> None:
        """Change ``parameters`` by one step; :meth:`advance` has been called before.

        Parameters
        ----------
        parameters, gradients : ndarray, (p,)
        weight_count : int
            L2 applies to the first ``weight_count`` parameters.
        l2 : float
            The lecture's lambda; its gradient is 2 lambda W.
        clip : ndarray, (1,), or None
            A factor for the gradient.
        loss : ndarray, (2,)
            The batch's loss; nothing changes where it is not finite.
        """


class SGD(Optimizer):
    """Mini-batch stochastic gradient descent (lecture row L5).

    v = momentum v + g, W -= learning_rate v; with ``nesterov``, W -= learning_rate (g + momentum v).

    Parameters
    ----------
    learning_rate : float or Schedule
    momentum : float
        0 to 1, 1 excluded.
    nesterov : bool
        Needs a momentum above 0.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        A number out of its range.

    Examples
    --------
    >>> from gpunet import CosineRate
    >>> SGD(CosineRate(0.1, steps=600), momentum=0.9, nesterov=True).momentum
    0.9
    """

    name: ClassVar[str] = "sgd"
    _checks = {"momentum": check_rate, "nesterov": check_flag}  # noqa: RUF012

    def __init__(self, learning_rate: float | Schedule = 0.1, *, momentum: float = 0.0, nesterov: bool = False) -> None:
        super().__init__(learning_rate)
        self.momentum = momentum
        self.nesterov = nesterov
        if self.nesterov and self.momentum == 0:
            raise InvalidValueError("nesterov: True needs a momentum above 0, got momentum=0.0.")

    @property
    def moment_names(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def update(
        self, parameters: Array, gradients: Array, weight_count: int, l2: float, clip: Array | None, loss: Array
    ) -> None:
        self.backend.sgd_step(
            parameters,
            gradients,
            self.moments.get("velocity"),
            weight_count,
            self.scalars,
            clip,
            loss,
            l2=l2,
            momentum=self.momentum,
            nesterov=self.nesterov,
        )


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015).

    Parameters
    ----------
    learning_rate : float or Schedule
    beta_1, beta_2 : float
        Decay of the first and second moment, 0 to 1, 1 excluded.
    epsilon : float
        Added to the root of the second moment.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        A number out of its range.
    """

    name: ClassVar[str] = "adam"
    scalar_count: ClassVar[int] = 3
    weight_decay = 0.0
    _checks = {"beta_1": check_rate, "beta_2": check_rate, "epsilon": partial(check_number, above=True)}  # noqa: RUF012
    _denominators = ("epsilon",)

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    @property
    def moment_names(self) -> tuple[str, ...]:
        return ("first_moment", "second_moment")

    def _scalars(self, rate: float, step: int) -> tuple[float, ...]:
        return rate, 1 / (1 - self.beta_1**step), 1 / (1 - self.beta_2**step)

    def update(
        self, parameters: Array, gradients: Array, weight_count: int, l2: float, clip: Array | None, loss: Array
    ) -> None:
        self.backend.adam_step(
            parameters,
            gradients,
            self.moments["first_moment"],
            self.moments["second_moment"],
            weight_count,
            self.scalars,
            clip,
            loss,
            l2=l2,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            weight_decay=self.weight_decay,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): W -= learning_rate weight_decay W beside the step.

    Parameters
    ----------
    learning_rate : float or Schedule
    weight_decay : float
        Applies to the W_i only.
    beta_1, beta_2, epsilon : float
        As in :class:`Adam`.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        A number out of its range.
    """

    name: ClassVar[str] = "adamw"
    decays_weights: ClassVar[bool] = True
    _checks = {**Adam._checks, "weight_decay": check_number}  # noqa: RUF012

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        weight_decay: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)
        self.weight_decay = weight_decay


OPTIMIZERS: dict[str, type[Optimizer]] = {optimizer.name: optimizer for optimizer in (SGD, Adam, AdamW)}
