"""Learning rates as functions of the step: constant, step, cosine, cyclical, one cycle, with a warm-up, on a plateau.

A schedule is called with the number of updates done so far, from 0, and returns the learning rate of the next one.
One that follows what epochs come to is told after each of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gpunet.errors import InvalidValueError, unknown_name
from gpunet.validation import check_integer, check_number, check_rate

# What of an epoch may be watched, with the sign that makes lower better.
MONITORED = {"loss": 1.0, "validation_loss": 1.0, "validation_accuracy": -1.0}


class Schedule(ABC):
    """A learning rate per step; subclasses define ``__call__``, and may be the user's own.

    Attributes
    ----------
    monitor : str or None
        What :meth:`observe` is told of each epoch: a quantity of :class:`gpunet.EpochRecord`. None for nothing.
    """

    monitor: str | None = None

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the learning rate of update ``step``, counted from 0."""

    def observe(self, value: float) -> None:  # noqa: B027
        """Take note of what an epoch came to. Rates may change between epochs only."""

    @property
    def state(self) -> dict[str, Any]:
        """What it has taken note of, as JSON can hold it; a checkpoint records it."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on from a :attr:`state`.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is something else.
        """

    def reset(self) -> None:  # noqa: B027
        """Forget what it has taken note of."""


@dataclass(frozen=True)
class ConstantRate(Schedule):
    """Always ``rate``: what a plain number stands for.

    Parameters
    ----------
    rate : float
        At least 0.
    """

    rate: float

    def __post_init__(self) -> None:
        check_number("rate", self.rate)

    def __call__(self, step: int) -> float:
        return self.rate


@dataclass(frozen=True)
class StepRate(Schedule):
    """``initial * factor ** (step // every)``.

    Parameters
    ----------
    initial : float
        The first learning rate.
    every : int
        Steps between two changes.
    factor : float
        What each change multiplies by.
    """

    initial: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_number("initial", self.initial)
        check_integer("every", self.every, 1)
        check_number("factor", self.factor)

    def __call__(self, step: int) -> float:
        try:
            return self.initial * self.factor ** (step // self.every)
        except OverflowError:
            return math.inf if self.initial else 0.0


@dataclass(frozen=True)
class CosineRate(Schedule):
    """Half a cosine from ``initial`` down to ``final`` over ``steps`` steps, then ``final`` (Loshchilov, Hutter 2017).

    Parameters
    ----------
    initial, final : float
    steps : int
        Length of the descent; usually epochs times steps per epoch.
    """

    initial: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        check_number("initial", self.initial)
        check_integer("steps", self.steps, 1)
        check_number("final", self.final)

    def __call__(self, step: int) -> float:
        return _half_cosine(self.initial, self.final, min(step / self.steps, 1.0))


@dataclass(frozen=True)
class CyclicalRate(Schedule):
    """A triangle wave: ``minimum`` to ``maximum`` in ``half_cycle`` steps and back, again and again (Smith 2017).

    Parameters
    ----------
    minimum, maximum : float
    half_cycle : int
        Steps from the minimum to the maximum.
    """

    minimum: float
    maximum: float
    half_cycle: int

    def __post_init__(self) -> None:
        check_number("minimum", self.minimum)
        check_number("maximum", self.maximum)
        check_integer("half_cycle", self.half_cycle, 1)
        if self.maximum < self.minimum:
            raise InvalidValueError(f"maximum: {self.maximum} is below minimum, {self.minimum}. Expected at least it.")

    def __call__(self, step: int) -> float:
        position = step % (2 * self.half_cycle)
        rising = position / self.half_cycle
        return self.minimum + (self.maximum - self.minimum) * (rising if rising <= 1 else 2 - rising)


@dataclass(frozen=True)
class OneCycleRate(Schedule):
    """Half a cosine up to ``maximum``, then half a cosine down to almost nothing (Smith and Topin 2018).

    The numbers are those of PyTorch's ``OneCycleLR``; its cycled momentum is not there.

    Parameters
    ----------
    maximum : float
    steps : int
        Length of the cycle, at least 2; usually epochs times steps per epoch. The last rate stays afterwards.
    rising : float
        The part of the steps that the way up takes, 0 to 1.
    initial_divisor : float
        The first rate is maximum / initial_divisor; at least 1.
    final_divisor : float
        The last one is the first divided by this; at least 1.
    """

    maximum: float
    steps: int
    rising: float = 0.3
    initial_divisor: float = 25.0
    final_divisor: float = 1e4

    def __post_init__(self) -> None:
        check_number("maximum", self.maximum)
        check_integer("steps", self.steps, 2)
        check_number("rising", self.rising, maximum=1.0)
        check_number("initial_divisor", self.initial_divisor, minimum=1.0)
        check_number("final_divisor", self.final_divisor, minimum=1.0)

    def __call__(self, step: int) -> float:
        initial = self.maximum / self.initial_divisor
        last, top = self.steps - 1, self.rising * self.steps - 1
        step = min(step, last)
        if step <= top:
            return _half_cosine(initial, self.maximum, step / top if top > 0 else 1.0)
        return _half_cosine(self.maximum, initial / self.final_divisor, (step - top) / (last - top))


@dataclass(frozen=True)
class WarmUpRate(Schedule):
    """Another schedule, multiplied by 1/steps, 2/steps, ..., 1 over its first ``steps`` updates (Goyal et al. 2017).

    Parameters
    ----------
    schedule : float or Schedule
    steps : int
    """

    schedule: float | Schedule
    steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", as_schedule(self.schedule, "schedule"))
        check_integer("steps", self.steps, 1)

    def __call__(self, step: int) -> float:
        return self._warmed(step) * min(1.0, (step + 1) / self.steps)

    @property
    def _warmed(self) -> Schedule:
        return as_schedule(self.schedule)

    @property
    def monitor(self) -> str | None:  # type: ignore[override]
        return self._warmed.monitor

    def observe(self, value: float) -> None:
        self._warmed.observe(value)

    @property
    def state(self) -> dict[str, Any]:
        return self._warmed.state

    def restore(self, state: Mapping[str, Any]) -> None:
        self._warmed.restore(state)

    def reset(self) -> None:
        self._warmed.reset()


@dataclass
class _Plateau:
    """Where a rate that is reduced on plateaus stands.

    Attributes
    ----------
    rate : float
        The learning rate now.
    best : float or None
        The best value so far, its sign turned so that lower is better.
    waited, cooling : int
        Epochs since, and epochs of the cooldown that are left.
    """

    rate: float
    best: float | None = None
    waited: int = 0
    cooling: int = 0


@dataclass(frozen=True)
class ReduceOnPlateauRate(Schedule):
    """Multiplied by ``factor`` where a quantity has not improved for more than ``patience`` epochs.

    The numbers are those of PyTorch's ``ReduceLROnPlateau`` with a relative threshold and ``eps=0``. It belongs to one
    run at a time: the optimiser that it was given to resets it together with its own step count.

    Parameters
    ----------
    initial : float
        The first learning rate.
    factor : float
        0 to 1, 1 excluded.
    patience : int
        Epochs without improvement that are waited for; the next one without reduces the rate.
    threshold : float
        An improvement is more than this part of the best value.
    cooldown : int
        Epochs after a reduction that are not counted.
    minimum : float
        The rate is not reduced below it.
    monitor : str
        ``"validation_loss"`` or ``"validation_accuracy"``, which need validation data, or ``"loss"``.
    """

    initial: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    minimum: float = 0.0
    monitor: str = "validation_loss"
    _plateau: _Plateau = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number("initial", self.initial)
        check_rate("factor", self.factor)
        check_integer("patience", self.patience, 0)
        check_number("threshold", self.threshold)
        check_integer("cooldown", self.cooldown, 0)
        check_number("minimum", self.minimum)
        if not isinstance(self.monitor, str) or self.monitor not in MONITORED:
            raise unknown_name("monitor", self.monitor, MONITORED)
        self.reset()

    def __call__(self, step: int) -> float:
        return self._plateau.rate

    def observe(self, value: float) -> None:
        plateau, value = self._plateau, MONITORED[self.monitor] * value
        best = math.inf if plateau.best is None else plateau.best
        if value < (best if math.isinf(best) else best - self.threshold * abs(best)):
            plateau.best, plateau.waited = value, 0
        else:
            plateau.waited += 1
        if plateau.cooling:
            plateau.cooling, plateau.waited = plateau.cooling - 1, 0
        if plateau.waited > self.patience:
            reduced = max(plateau.rate * self.factor, self.minimum)
            plateau.rate, plateau.waited, plateau.cooling = min(plateau.rate, reduced), 0, self.cooldown

    @property
    def state(self) -> dict[str, Any]:
        return asdict(self._plateau)

    def restore(self, state: Mapping[str, Any]) -> None:
        best = state["best"]
        restored = _Plateau(
            rate=check_number("rate", state["rate"], maximum=self.initial),
            best=None if best is None else check_number("best", best, minimum=-math.inf),
            waited=check_integer("waited", state["waited"], 0, self.patience),
            cooling=check_integer("cooling", state["cooling"], 0, self.cooldown),
        )
        object.__setattr__(self, "_plateau", restored)

    def reset(self) -> None:
        object.__setattr__(self, "_plateau", _Plateau(self.initial))


def _half_cosine(start: float, stop: float, progress: float) -> float:
    """Return what is ``progress``, 0 to 1, of the way from one rate to another."""
    return stop + (start - stop) * (1 + math.cos(math.pi * progress)) / 2


def as_schedule(learning_rate: float | Schedule, argument: str = "learning_rate") -> Schedule:
    """Return ``learning_rate``, which error messages call ``argument``, as a schedule; a number stays constant."""
    if isinstance(learning_rate, Schedule):
        return learning_rate
    return ConstantRate(check_number(argument, learning_rate))
