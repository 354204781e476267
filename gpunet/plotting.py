"""The look of every figure: size, fonts, colours that colour-blind readers can tell apart, labelled axes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunet.errors import optional_package, wrong_ending
from gpunet.files import as_path, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which is too pale for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# Line styles and markers go with the colours, so that a figure can be read without them.
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Perceptually uniform, and fit for colour-blind readers.
MAP = "viridis"
DIVERGING_MAP = "RdBu_r"

_PANEL_WIDTH, _PANEL_HEIGHT = 4.0, 3.2  # inches


def panels(rows: int, columns: int, *, title: str, width: float = 1.0, height: float = 1.0) -> tuple[Figure, Any]:
    """Return a figure with a grid of axes, an array (rows, columns), and room for a title above them.

    Parameters
    ----------
    rows, columns : int
    title : str
        Of the whole figure.
    width, height : float
        Of a panel, as multiples of the usual 4 by 3.2 inches.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    with optional_package("matplotlib", extra="plot", purpose="drawing figures"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(_PANEL_WIDTH * width * columns, _PANEL_HEIGHT * height * rows + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=12)
    return figure, figure.subplots(rows, columns, squeeze=False)


def look(place: int, size: float | None = 4) -> dict[str, Any]:
    """Return colour, line style and, unless its size is None, marker of one of many lines; every 49 of them differ."""
    palette = len(COLOURS)
    turned = (place + place // palette) % palette
    marker = {} if size is None else {"marker": MARKERS[turned], "markersize": size}
    return {"color": COLOURS[place % palette], "linestyle": STYLES[turned], **marker}


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dots_per_inch: int | None = None) -> Path:
    """Write a figure, whole or not at all; nothing in the file depends on the day or the process.

    Parameters
    ----------
    figure : matplotlib Figure
    path : path
        The ending says the format: ``.png``, ``.svg``, ``.pdf``, ... Missing folders are created.
    dots_per_inch : int or None
        Of pixels; None takes the figure's.

    Raises
    ------
    InvalidValueError
        matplotlib does not know the ending.
    OSError
    """
    import matplotlib

    path = check_figure_path(path)
    ending = path.suffix.removeprefix(".").lower()
    date = {"svg": "Date", "pdf": "CreationDate"}.get(ending)
    # Otherwise the ids in an SVG file are random.
    with matplotlib.rc_context({"svg.hashsalt": "gpunet"}), replacing(path) as file:
        figure.savefig(file, format=ending, dpi=dots_per_inch or "figure", metadata={date: None} if date else None)
    return path


def check_figure_path(path: str | os.PathLike[str], argument: str = "path") -> Path:
    """Return a path for a figure, or raise.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    InvalidValueError, InvalidTypeError
        It is no path, or matplotlib does not know the ending.
    """
    with optional_package("matplotlib", extra="plot", purpose="drawing figures"):
        from matplotlib.backend_bases import FigureCanvasBase

    path, endings = as_path(path), FigureCanvasBase.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in endings:
        raise wrong_ending(argument, path, [f".{ending}" for ending in sorted(endings)])
    return path


def label(axes: Any, *, x: str, y: str, title: str | None = None) -> None:
    """Name the axes, with units where there are any, and lighten the frame."""
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    if title:
        axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, linewidth=0.4, alpha=0.4)
