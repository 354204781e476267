"""What an experiment is: numbers measured from a seed, and a figure and a paragraph that follow from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpunet.network import Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
class Experiment:
    """One row of the lecture, as something to run and look at.

    Attributes
    ----------
    row : str
        ``"L1"`` to ``"L25"``.
    name : str
        What the shell calls it: lower case, words joined by ``-``.
    title : str
        Heading of the figure and of the page's section.
    shows : str
        One sentence: what it demonstrates.
    measure : callable, Settings -> dict
        Runs it. The result holds only what JSON can: numbers, strings, lists, dicts with string keys. Everything the
        figure and the paragraph need is in it.
    describe : callable, dict -> str
        One paragraph: what to look at in the figure, and what this run showed, computed from the numbers.
    draw : callable, dict -> matplotlib Figure
        The figure of the numbers; imports matplotlib inside, through :mod:`gpunet.lecture.plotting`.
    data_sets : tuple of str
        Which of :data:`gpunet.data.NAMED_SETS` it reads, so that a missing package is told before anything runs.
    is_timed : bool
        Whether its numbers hold times, which no seed repeats.
    """

    row: str
    name: str
    title: str
    shows: str
    measure: Callable[[Settings], dict[str, Any]]
    describe: Callable[[Numbers], str]
    draw: Callable[[Numbers], Figure]
    data_sets: tuple[str, ...] = ()
    is_timed: bool = False
