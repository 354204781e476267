"""Learning rates as functions of the step: constant, step, cosine, cyclical, one cycle, with a warm-up.

A schedule is called with the number of updates done so far, from 0, and returns the learning rate of the next one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from gpunet.errors import InvalidValueError
from gpunet.validation import check_integer, check_number


class Schedule(ABC):
    """A learning rate per step; subclasses define ``__call__``, and may be the user's own."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the learning rate of update ``step``, counted from 0."""


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
        return as_schedule(self.schedule)(step) * min(1.0, (step + 1) / self.steps)


def _half_cosine(start: float, stop: float, progress: float) -> float:
    """Return what is ``progress``, 0 to 1, of the way from one rate to another."""
    return stop + (start - stop) * (1 + math.cos(math.pi * progress)) / 2


def as_schedule(learning_rate: float | Schedule, argument: str = "learning_rate") -> Schedule:
    """Return ``learning_rate``, which error messages call ``argument``, as a schedule; a number stays constant."""
    if isinstance(learning_rate, Schedule):
        return learning_rate
    return ConstantRate(check_number(argument, learning_rate))
