"""Points in the plane with labels, and how a network divides the plane: what the two-dimensional figures share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.lecture.experiment import Array
from gpunet.lecture.plotting import COLOURS, MARKERS, Figure, label, legend
from gpunet.lecture.wording import rounded
from gpunet.network import Network

LINE = "#222222"
COORDINATES = ("input $x_1$", "input $x_2$")  # what the axes are called
_FAR = 10.0  # beyond every figure
_SHADE = 0.28  # how much of a class's colour its region has


def clouds(rows: int, centres: npt.ArrayLike, spread: float, generator: np.random.Generator) -> tuple[Array, Array]:
    """Return points of normal clouds, (rows, 2), in turn one of each, and the clouds' numbers (rows,)."""
    middle = np.asarray(centres, dtype=np.float64)
    labels = np.arange(rows) % len(middle)
    return middle[labels] + spread * generator.standard_normal((rows, 2)), labels


def exclusive_or(rows: int, spread: float, generator: np.random.Generator) -> tuple[Array, Array]:
    """Return four clouds at (+-1, +-1), of two classes: whether the signs of the coordinates differ."""
    points, corner = clouds(rows, [(-1, -1), (-1, 1), (1, 1), (1, -1)], spread, generator)
    return points, corner % 2


def spirals(rows: int, classes: int, turns: float, noise: float, generator: np.random.Generator) -> tuple[Array, Array]:
    """Return interleaved spirals of so many turns, (rows, 2), within the unit circle, and their labels (rows,).

    ``noise`` is the standard deviation of a point's angle, in radians.
    """
    labels = np.arange(rows) % classes
    radius = generator.uniform(0.1, 1.0, rows)
    angle = 2 * np.pi * labels / classes + 2 * np.pi * turns * radius + noise * generator.standard_normal(rows)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), labels


def moons(rows: int, noise: float, generator: np.random.Generator) -> tuple[Array, Array]:
    """Return two half circles that reach into each other, with normal noise, centred, and their labels (rows,)."""
    labels = np.arange(rows) % 2
    angle = np.pi * generator.uniform(0, 1, rows)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points[labels == 1] = [1.0, 0.5] - points[labels == 1]
    return points - [0.5, 0.25] + noise * generator.standard_normal((rows, 2)), labels


def grid(extent: float, resolution: int) -> Array:
    """Return the points (resolution^2, 2) of a square of -extent to extent, row by row from the lower left corner."""
    ticks = np.linspace(-extent, extent, resolution)
    x, y = np.meshgrid(ticks, ticks)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def decision_map(network: Network, extent: float, resolution: int) -> list[Any]:
    """Return what a network decides on a square grid, as JSON takes it, to three digits.

    For two classes it is s_1 - s_0 at each point, positive where the network answers 1: rows of the grid, the lowest
    first. For more classes it is such a list for each class: how far its score leads the best of the others.
    """
    scores = network.logits(grid(extent, resolution)).astype(np.float64)
    classes = scores.shape[1]
    if classes == 2:
        leads = scores[:, 1] - scores[:, 0]
        return rounded(leads.reshape(resolution, resolution), 3)
    leads_of_all = (scores[:, number] - np.delete(scores, number, axis=1).max(axis=1) for number in range(classes))
    return [rounded(leads.reshape(resolution, resolution), 3) for leads in leads_of_all]


def draw_plane(
    axes: Any,
    decision: npt.ArrayLike,
    points: npt.ArrayLike,
    labels: npt.ArrayLike,
    extent: float,
    title: str | None = None,
    size: float = 9.0,
) -> None:
    """Draw the regions of a :func:`decision_map`, points with labels, and the names of the coordinates."""
    label(axes, *COORDINATES, title)
    axes.locator_params(nbins=5)
    draw_regions(axes, decision, extent)
    draw_points(axes, points, labels, size)


def draw_regions(axes: Any, decision: npt.ArrayLike, extent: float) -> None:
    """Colour the regions of a :func:`decision_map`, with the boundaries between them."""
    from matplotlib.colors import to_rgb

    values = np.asarray(decision, dtype=np.float64)
    leads = [-values, values] if values.ndim == 2 else list(values)
    ticks = np.linspace(-extent, extent, values.shape[-1])
    for number, lead in enumerate(leads):
        shade = tuple(1 - _SHADE * (1 - part) for part in to_rgb(COLOURS[number]))
        if lead.max() > 0:
            # As pixels: their outlines would be most of an SVG file, and the boundary is drawn over them.
            levels = [0.0, float(lead.max()) + 1.0]
            axes.contourf(ticks, ticks, lead, levels=levels, colors=[shade]).set_rasterized(True)
        if lead.min() < 0 < lead.max() and (number > 0 or len(leads) > 2):  # two classes share one boundary
            axes.contour(ticks, ticks, lead, levels=[0.0], colors=[LINE], linewidths=0.8)
    axes.set_xlim(-extent, extent)
    axes.set_ylim(-extent, extent)
    axes.set_aspect("equal")
    axes.grid(False)


def draw_points(axes: Any, points: npt.ArrayLike, labels: npt.ArrayLike, size: float = 9.0) -> None:
    """Draw points in the colour and with the marker of their class."""
    X, y = np.asarray(points, dtype=np.float64), np.asarray(labels)
    for number in np.unique(y):
        look = {"marker": MARKERS[number], "color": COLOURS[number], "edgecolors": "white", "linewidths": 0.3}
        # As pixels, or a thousand points would make an SVG file large.
        axes.scatter(*X[y == number].T, s=size, zorder=3, label=f"class {number}", rasterized=True, **look)


def name_classes(figure: Figure, axes: Any) -> None:
    """Add, below the panels, the legend of the classes whose points are in one of them."""
    title = "points and, in the same colour, the region that the network gives to their class"
    names = {"fontsize": 9, "title": title, "title_fontsize": 9, "ncols": 3, "markerscale": 2, "frameon": False}
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", **names)


def name_what_is_drawn(axes: Any) -> None:
    """Add, below one panel, the legend of its classes and lines: within it, points would be hidden."""
    legend(axes, "upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, columnspacing=1, handletextpad=0.2)


def draw_line(axes: Any, weights: npt.ArrayLike, **style: Any) -> None:
    """Draw where w_1 x_1 + w_2 x_2 + b = 0, for weights (w_1, w_2, b); nothing where both w are 0."""
    first, second, bias = np.asarray(weights, dtype=np.float64)
    norm = np.hypot(first, second)
    if norm:
        foot, along = -bias / norm**2 * np.array([first, second]), np.array([-second, first]) / norm
        axes.plot(*np.array([foot - _FAR * along, foot + _FAR * along]).T, scalex=False, scaley=False, **style)
