"""How often each class was taken for each other one: counted, and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data import DataSet, Preparation
from gpunet.network import Network
from gpunet.plotting import MAP

Array = npt.NDArray[Any]

# Beyond so many classes, neither names nor counts would be legible.
_MOST_NAMES = 20


def count_confusions(network: Network, preparation: Preparation, data: DataSet, rows: Array) -> list[list[int]] | None:
    """Return how often each class (row) was predicted as each class (column); None for a regression."""
    if preparation.class_names is None:
        return None
    from sklearn.metrics import confusion_matrix

    assert data.targets is not None
    predictions = network.predict(preparation.inputs_of(data, rows))
    labels = range(len(preparation.class_names))
    table: list[list[int]] = confusion_matrix(data.targets[rows], predictions, labels=list(labels)).tolist()
    return table


def draw_confusions(axes: Any, confusions: list[list[int]], class_names: Sequence[str]) -> None:
    """Draw the table: the share of each class that was predicted as each one, with the counts."""
    counts = np.array(confusions)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap=MAP, vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(labelsize=8)
    if len(class_names) > _MOST_NAMES:
        return
    places = range(len(class_names))
    names = [name.replace("$", r"\$") for name in class_names]  # which would begin a formula
    axes.set_xticks(places, names, rotation=90)
    axes.set_yticks(places, names)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "black" if shares[row, column] > 0.5 else "white"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=7)
