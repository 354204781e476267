"""What an experiment is: numbers measured from a seed, and a figure and a paragraph that follow from the numbers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy.typing as npt

from gpunet.lecture.wording import tiny
from gpunet.network import Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """How an experiment is run.

    Attributes
    ----------
    seed : int
        The same seed gives the same numbers on the same device.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...; see :class:`gpunet.Network`.
    quick : bool
        Small sizes and few epochs: everything runs, and the claims need not hold. For tests.
    """

    seed: int = 0
    device: str = "cpu"
    quick: bool = False

    def network(self, layer_sizes: list[int], **arguments: Any) -> Network:
        """Return a network on the device, drawn from the seed unless ``seed`` is among the arguments."""
        return Network(layer_sizes, **{"device": self.device, "seed": self.seed, **arguments})


@dataclass(frozen=True)
class Claim:
    """A sentence that the numbers of a run bear out or do not.

    Attributes
    ----------
    sentence : str
        Without its full stop, and so exact that a test decides it.
    holds : bool
        That test.
    numbers : str
        What was measured, for whoever wants to judge it.
    """

    sentence: str
    holds: bool
    numbers: str

    @classmethod
    def agree(cls, sentence: str, difference: float, tolerance: float) -> Claim:
        """Return the claim that a difference is below what rounding, or theory, allows."""
        return cls(sentence, difference < tolerance, f"largest difference {tiny(difference)}")

    @classmethod
    def at_least(cls, sentence: str, value: float, bound: float, form: str = ".0%") -> Claim:
        """Return the claim that a value is not below a bound, which ends the sentence; either as a format says."""
        return cls(f"{sentence} at least {bound:{form}}", value >= bound, f"{value:{form}}")

    @classmethod
    def below(cls, sentence: str, value: float, bound: float, form: str = ".0%") -> Claim:
        """Return the claim that a value is below a bound, which ends the sentence."""
        return cls(f"{sentence} less than {bound:{form}}", value < bound, f"{value:{form}}")

    def __str__(self) -> str:
        return f"{'' if self.holds else 'Not so in this run: '}{self.sentence} ({self.numbers})."


Claims = dict[str, Claim]


class Steps(Protocol):
    """What the module of an experiment has. ``draw`` imports matplotlib inside, by :mod:`gpunet.lecture.plotting`."""

    def measure(self, settings: Settings) -> dict[str, Any]:
        """Run it; the rest follows from the result: numbers, strings, lists, dicts with text as keys, as in JSON."""

    def about(self, numbers: Numbers) -> str:
        """Say in sentences what the figure shows."""

    def claims(self, numbers: Numbers) -> Claims:
        """Return, by name, what the numbers have to bear out."""

    def draw(self, numbers: Numbers) -> Figure:
        """Draw the figure that the catalogue describes."""


@dataclass(frozen=True)
class Experiment:
    """One row of the lecture, as something to run and look at; what it does is in the module of its name.

    Attributes
    ----------
    row : str
        ``"L1"`` to ``"L25"``.
    name : str
        What the shell calls it: lower case, words joined by ``-``.
    title : str
        Heading of the figure and of the page's section, and what docs/lecture.md calls the row.
    shows : str
        One sentence: what it demonstrates.
    figure : str
        What is seen in the figure, for those who do not see it.
    code, tests : tuple of str
        The files that build the row, under ``gpunet/`` and without the experiment's own, and those that test it, under
        ``tests/``.
    data_sets : tuple of str
        Which of :data:`gpunet.data.NAMED_SETS` it reads, so that a missing package is told before anything runs.
    is_timed : bool
        Whether its numbers hold times, which no seed repeats.
    is_documented : bool
        Whether docs/lecture.md shows its figure.
    """

    row: str
    name: str
    title: str
    shows: str
    figure: str
    code: tuple[str, ...]
    tests: tuple[str, ...]
    data_sets: tuple[str, ...] = ()
    is_timed: bool = False
    is_documented: bool = False

    @property
    def module(self) -> str:
        """The name of its module in :mod:`gpunet.lecture.experiments`."""
        return self.name.replace("-", "_")

    @property
    def command(self) -> str:
        """What runs it in a shell."""
        return f"gpunet lecture {self.name}"

    @property
    def steps(self) -> Steps:
        """Its module, imported when asked for, so that ``gpunet --help`` stays quick."""
        return cast(Steps, importlib.import_module(f"gpunet.lecture.experiments.{self.module}"))

    def measure(self, settings: Settings) -> dict[str, Any]:
        """Run it, and return the numbers that the rest follows from."""
        return self.steps.measure(settings)

    def describe(self, numbers: Numbers) -> str:
        """Return one paragraph: what the figure shows, and each claim with whether it held and its numbers."""
        claims = self.steps.claims(numbers).values()
        held = sum(claim.holds for claim in claims)
        every = "both" if held == 2 else f"all {held}"
        count = every if held == len(claims) else f"{held} of {len(claims)}"
        return " ".join([self.steps.about(numbers), f"In this run {count} claims hold.", *map(str, claims)])

    def draw(self, numbers: Numbers) -> Figure:
        """Return the figure of the numbers, under its title."""
        figure = self.steps.draw(numbers)
        figure.suptitle(self.title, fontsize=12)
        return figure
