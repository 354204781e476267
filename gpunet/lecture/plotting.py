"""The look of the lecture's figures, which is that of all figures, and what many of them draw alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet import plotting
from gpunet.plotting import COLOURS as COLOURS
from gpunet.plotting import DIVERGING_MAP as DIVERGING_MAP
from gpunet.plotting import MAP as MAP
from gpunet.plotting import MARKERS as MARKERS
from gpunet.plotting import STYLES as STYLES
from gpunet.plotting import look as look

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Figure
else:
    Figure = Any  # matplotlib is imported when something is drawn


def panels(rows: int, columns: int, *, width: float = 1.0, height: float = 1.0) -> tuple[Figure, Any]:
    """Return a figure with a grid of axes, an array (rows, columns), and room for the experiment's title.

    Parameters
    ----------
    rows, columns : int
    width, height : float
        Of a panel, as multiples of the usual 4 by 3.2 inches.
    """
    return plotting.panels(rows, columns, title="", width=width, height=height)


def draw_lines(
    axes: Any,
    lines: Mapping[str, Sequence[float | None]],
    x: Iterable[float] | None = None,
    *,
    size: float | None = 4,
    first: int = 0,
    **style: Any,
) -> None:
    """Draw a line of its own look for each name.

    Parameters
    ----------
    axes : matplotlib Axes
    lines : mapping of str to sequence of float or None
        None leaves a gap.
    x : iterable of float, or None
        None counts the values from 1.
    size : float or None
        Of the markers; None has none.
    first : int
        The place of the first line's look.
    **style
        For all lines.
    """
    places = None if x is None else list(x)
    for place, (name, values) in enumerate(lines.items(), start=first):
        over = range(1, len(values) + 1) if places is None else places
        axes.plot(over, or_nan(values), label=name, **look(place, size) | style)


def draw_range(axes: Any, x: Any, curves: Any, bounds: Sequence[float], **style: Any) -> None:
    """Draw the mean of curves (n, m) as a line, and the range between two quantiles of them as a shade."""
    low, high = np.quantile(curves, bounds, axis=0)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.plot(x, np.mean(curves, axis=0), **style)


def draw_bars(axes: Any, groups: Mapping[str, Sequence[float]], names: Sequence[str]) -> None:
    """Draw a bar of its own colour for each group, side by side, at each of the names."""
    width = 0.8 / len(groups)
    for place, (name, values) in enumerate(groups.items()):
        beside = np.arange(len(names)) + (place - (len(groups) - 1) / 2) * width
        axes.bar(beside, values, 0.95 * width, color=COLOURS[place], label=name)
    axes.axhline(0, color=COLOURS[6], linewidth=0.6)
    axes.set_xticks(range(len(names)), names)


def or_nan(values: Iterable[float | None]) -> list[float]:
    """Return the numbers with NaN, which no line goes through, for None."""
    return [float("nan") if value is None else value for value in values]


def label(axes: Any, x: str, y: str, title: str | None = None, *, scale: str = "", whole: bool = False) -> None:
    """Name the axes, with units where there are any, and lighten the frame.

    Parameters
    ----------
    axes : matplotlib Axes
    x, y : str
    title : str or None
    scale : {"", "x", "y", "xy"}
        Which axes are logarithmic.
    whole : bool
        Whether the horizontal axis has ticks at integers only.
    """
    if "x" in scale:
        axes.set_xscale("log")
    if "y" in scale:
        axes.set_yscale("log")
    plotting.label(axes, x=x, y=y, title=title)
    if whole:
        integer_ticks(axes)


def legend(axes: Any, where: str = "best", size: float = 8, title: str | None = None, **options: Any) -> None:
    """Add the legend that the labels of the lines make."""
    axes.legend(loc=where, fontsize=size, title=title, title_fontsize=size, **options)


def integer_ticks(axes: Any) -> None:
    """Put the ticks of the horizontal axis at integers."""
    axes.xaxis.get_major_locator().set_params(integer=True)


def name_ticks(axes: Any, values: Sequence[float], base: int | None = None) -> None:
    """Put a tick at each value, on a horizontal axis that is logarithmic where a base is given."""
    if base is not None:
        axes.set_xscale("log", base=base)
    axes.set_xticks(values, [f"{value:g}" for value in values])


def draw_differences(
    axes: Any, errors: Mapping[str, Sequence[float]], names: Sequence[str], largest: float, smallest: float = 1e-17
) -> None:
    """Draw differences as markers on a logarithmic axis, a row for each name; those of 0 at the smallest."""
    for place, (title, values) in enumerate(errors.items()):
        drawn = [max(value, smallest) for value in values]
        axes.plot(drawn, range(len(names)), MARKERS[place], color=COLOURS[place], label=title)
    axes.set_xlim(smallest / 3, largest)
    axes.set_yticks(range(len(names)), names)
    label(axes, f"largest difference (0 drawn as {smallest:g})", "", scale="x")


def mosaic(grid: Sequence[Any], border: float) -> npt.NDArray[Any]:
    """Return rows of square pictures, each a vector, as one picture, a pixel of ``border`` between them."""
    side = math.isqrt(np.size(grid[0][0]))
    pictures = np.full((len(grid) * (side + 1), max(map(len, grid)) * (side + 1)), border)
    for down, row in enumerate(grid):
        for right, picture in enumerate(row):
            top, left = down * (side + 1), right * (side + 1)
            pictures[top : top + side, left : left + side] = np.reshape(picture, (side, side))
    return pictures[:-1, :-1]
