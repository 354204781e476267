"""``solver="lbfgs"``: scipy minimises the cost of all rows at once, of which a network gives value and gradient."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from gpunet.errors import TrainingDivergedError
from gpunet.network import Network
from gpunet.parameters import flat_values
from gpunet.training import Callback, EpochRecord, History, Run

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FullBatch:
    """Limits of a run; see the parameters of the same meaning of :class:`gpunet.MLPClassifier`.

    Attributes
    ----------
    iterations, evaluations : int
        ``max_iter`` and ``max_fun``.
    tolerance : float
        The run ends where no element of the gradient is larger.
    l2 : float
        The lecture's lambda.
    """

    iterations: int
    evaluations: int
    tolerance: float
    l2: float

    def run(
        self, network: Network, X: Array, targets: Array, weights: Array | None, watch: list[Callback]
    ) -> tuple[History, bool]:
        """Train a network by L-BFGS (Liu and Nocedal 1989), and return a record per iteration and whether it is done.

        Parameters
        ----------
        network : Network
            Without batch norm and dropout: the cost is a function of the parameters alone.
        X, targets, weights : ndarray
            As for :func:`gpunet.fit`.
        watch : list of Callback
            Told of each iteration as of an epoch.

        Raises
        ------
        TrainingDivergedError
            The cost is not finite.
        """
        layout, backend = network.layout, network.backend
        run = Run(network, self.iterations, steps_per_epoch=1)
        first = network.steps
        began, costs = [time.perf_counter()], [np.inf]

        def cost(flat: Array) -> tuple[float, Array]:
            backend.copy(flat.astype(network.dtype), network.flat_parameters)
            value, gradients = network.loss_and_gradients(X, targets, l2=self.l2, sample_weight=weights)
            costs.append(value)
            return value, flat_values(layout, gradients, np.float64)

        def note(flat: Array) -> None:
            """Keep a record; what was evaluated last is what the line search has taken."""
            began.append(time.perf_counter())
            seconds = began[-1] - began[-2]
            number = len(run.history) + 1
            penalty = self.l2 * float(flat[: layout.weight_count] @ flat[: layout.weight_count])
            record = EpochRecord(
                epoch=number,
                step=first + number,
                loss=costs[-1] - penalty,
                penalty=penalty,
                learning_rate=1.0,
                samples_per_second=len(X) / seconds,
                seconds=seconds,
            )
            run.history.records.append(record)
            for callback in watch:
                callback.on_epoch_end(run, record)

        with np.errstate(over="ignore", invalid="ignore"):
            found = minimize(
                cost,
                backend.to_numpy(network.flat_parameters).astype(np.float64),
                method="L-BFGS-B",
                jac=True,
                callback=note,
                options={"maxiter": self.iterations, "maxfun": self.evaluations, "gtol": self.tolerance},
            )
        if not np.isfinite(found.fun):
            raise TrainingDivergedError(
                f"the cost became {found.fun} after {found.nfev} evaluations. Inputs scaled to about 1 may help.",
                history=run.history,
            )
        if not run.history.records:  # nothing to improve
            note(found.x)
        backend.copy(found.x.astype(network.dtype), network.flat_parameters)
        network.set_step(first + len(run.history))
        return run.history, bool(found.success)
