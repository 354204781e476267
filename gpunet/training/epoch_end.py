"""What an epoch came to: computed where the network runs, and read at once."""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.distributed import Ranks
from gpunet.recorded_step import RecordedStep
from gpunet.training.evaluation import DeviceData, Evaluation, Scores, as_loss, loss_size
from gpunet.training.step import TrainingSteps, read_by_steps
from gpunet.training.stream import BatchStream
from gpunet.training.weight_average import AveragedWeights

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class EpochResult:
    """What an epoch came to.

    Attributes
    ----------
    losses : ndarray of float64, (steps, 2)
        Loss and sum of the weights of each batch.
    loss_after_update : float
        Of the last batch, in inference mode, with the weights after the last update.
    is_finite : bool
        Whether that loss, every parameter and every running average is.
    penalty : float
        l2 sum_i ||W_i||^2.
    validation : Evaluation or None
    """

    losses: Array
    loss_after_update: float
    is_finite: bool
    penalty: float
    validation: Evaluation | None


def mean_loss(losses: Array) -> float:
    """Return the weighted mean over batches, from the loss and the sum of the weights of each."""
    batches = losses.tolist()
    return math.fsum(loss * weight for loss, weight in batches) / math.fsum(weight for _, weight in batches)


class EpochEnd:
    """Evaluates the weights after an epoch.

    Parameters
    ----------
    steps : TrainingSteps
    held_out : DeviceData or None
        For validation.
    l2 : float
    averages : AveragedWeights or None
        What is validated instead of the weights that the steps left.
    ranks : Ranks or None
        Which share the work, and have the same result.
    """

    def __init__(
        self,
        steps: TrainingSteps,
        held_out: DeviceData | None,
        l2: float,
        averages: AveragedWeights | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        network = steps.network
        self._steps = steps
        self._network = network
        self._l2 = l2
        self._averages = averages
        self._ranks = ranks
        losses, after = steps.losses.size, loss_size(network)
        scores = 0 if held_out is None else Scores.size(network, held_out)
        starts = np.cumsum([0, losses, after, 2, 2, scores]).tolist()
        self._parts = [slice(start, stop) for start, stop in itertools.pairwise(starts)]
        self._results = network.backend.zeros(starts[-1], np.float64)
        self._scores = (
            None
            if held_out is None
            else Scores(
                network,
                held_out,
                self._results[self._parts[-1]],
                share=(0, 1) if ranks is None else (ranks.rank, ranks.size),
            )
        )
        self._recorded = [RecordedStep(network.backend) for _ in range(2)]

    def run(self) -> Any:
        """Evaluate, and return the mark of the time when the weights were known to be good."""
        network, steps = self._network, self._steps
        if isinstance(steps.data, BatchStream):  # whose last batch may have another length each time
            self._run()
        else:
            self._recorded[0](self._run, partial(read_by_steps, network, steps.data))
        mark = network.backend.mark()
        if self._scores is not None and self._scores.data.fed:
            self._validate()
        elif self._scores is not None:
            self._recorded[1](self._validate, partial(read_by_steps, network, self._scores.data))
        return mark

    def _run(self) -> None:
        network, backend = self._network, self._network.backend
        losses, after, of_parameters, of_state = (self._results[part] for part in self._parts[:-1])
        backend.copy(self._steps.losses, losses.reshape(self._steps.losses.shape))
        self._steps.infer_last()
        backend.copy(network.loss_layer.value, as_loss(network, after))
        weight_count = network.layout.weight_count if self._l2 else 0
        backend.summarize(network.flat_parameters, of_parameters, weight_count=weight_count)
        if network.flat_state.size:
            backend.summarize(network.flat_state, of_state, weight_count=0)

    def _validate(self) -> None:
        assert self._scores is not None
        with nullcontext() if self._averages is None else self._averages.in_place():
            self._scores.run()

    def read(self) -> EpochResult:
        """Wait for the device and return what was found."""
        network = self._network
        results = network.backend.to_numpy(self._results)
        losses, after, of_parameters, of_state, scores = (results[part] for part in self._parts)
        loss = float(as_loss(network, after)[0])
        if self._ranks is not None:
            shared = self._ranks.share((loss, scores))
            # Each of its own rows: the first that is not finite, or any.
            loss = next((other for other, _ in shared if not math.isfinite(other)), loss)
            scores = scores if self._scores is None else self._scores.merge([found for _, found in shared])
        return EpochResult(
            losses.reshape(-1, 2)[: len(self._steps.sizes)].copy(),
            loss,
            math.isfinite(loss) and not of_parameters[1] and not of_state[1],
            self._l2 * float(of_parameters[0]) if self._l2 else 0.0,
            None if self._scores is None else self._scores.read(scores).evaluation(),
        )
