"""How good a network is on some rows, as ``train`` and ``evaluate`` report it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data import DataSet, Preparation
from gpunet.errors import NonFiniteError
from gpunet.network import Network
from gpunet.training import evaluate
from gpunet.training.history import format_score

Array = npt.NDArray[Any]


@contextmanager
def naming_rows(data: DataSet, rows: Array) -> Iterator[None]:
    """Let an error about a row of ``data.features[rows]`` name the place where the user finds it: a line of the file.

    Raises
    ------
    NonFiniteError
    """
    try:
        yield
    except NonFiniteError as error:
        if error.row is None:
            raise
        place = data.raw.row_place(int(rows[error.row]))
        message = str(error).removeprefix("X: ").replace(f"row {error.row}", place, 1)
        raise NonFiniteError(f"{data.raw.path or data.name}: {message}") from None


@dataclass(frozen=True)
class Score:
    """Loss and quality on some rows.

    Attributes
    ----------
    rows : int
    loss : float
        What training made small, without L2; of a regression, in standardised units.
    accuracy : float or None
        Of a classification.
    r2 : float or None
        The coefficient of determination of a regression; None for fewer than two rows.
    rmse : float or None
        The root mean squared error of a regression, in the units of its targets.
    """

    rows: int
    loss: float
    accuracy: float | None = None
    r2: float | None = None
    rmse: float | None = None

    def named(self, prefix: str = "") -> dict[str, float | None]:
        """Return the quantities that the task has, for JSON."""
        quantities: dict[str, float | None] = {f"{prefix}loss": self.loss}
        if self.rmse is None:
            return quantities | {f"{prefix}accuracy": self.accuracy}
        return quantities | {f"{prefix}r2": self.r2, f"{prefix}rmse": self.rmse}

    def cells(self) -> list[str]:
        """Return rows, loss and quality for a table."""
        quality = self.accuracy if self.rmse is None else self.r2
        return [f"{self.rows:,}", format_score(self.loss), format_score(quality)]


def score_rows(network: Network, preparation: Preparation, data: DataSet, rows: Array) -> Score:
    """Return how good a network is on some rows of a data set with targets.

    Raises
    ------
    NonFiniteError
        A feature or target is too large for the network's dtype once it is scaled, or an output is not finite.
    """
    assert data.targets is not None
    inputs, targets = preparation.inputs_of(data, rows), data.targets[rows]
    with naming_rows(data, rows):
        found = evaluate(network, inputs, preparation.network_targets(targets))
    if preparation.class_names is not None:
        return Score(len(rows), found.loss, accuracy=found.accuracy)
    r2, rmse = regression_quality(preparation, targets, network.predict(inputs))
    return Score(len(rows), found.loss, r2=r2, rmse=rmse)


def regression_quality(preparation: Preparation, targets: Array, outputs: Array) -> tuple[float | None, float]:
    """Return R^2, None for fewer than two rows, and the root mean squared error.

    Both are computed in standardised units, in which no square leaves the range of float64, however large or small
    the targets are: R^2 is the same in all units, the error is as many times larger as the unit.

    Parameters
    ----------
    preparation : Preparation
    targets : ndarray of float64, (n,)
        Not scaled.
    outputs : ndarray, (n,)
        Predictions of a network, so standardised.
    """
    from sklearn.metrics import mean_squared_error, r2_score

    assert preparation.target_scaling is not None
    scaled = preparation.network_targets(targets)
    predictions = outputs.astype(np.float64).reshape(scaled.shape)
    r2 = float(r2_score(scaled, predictions)) if len(targets) > 1 else None
    return r2, float(mean_squared_error(scaled, predictions)) ** 0.5 * preparation.target_scaling.scale[0]
