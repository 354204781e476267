"""Inspecting a network every so many epochs while it trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.diagnostics.diagnosis import Diagnosis
from gpunet.diagnostics.inspection import inspect, spread_rows
from gpunet.training import Callback, EpochRecord, Run
from gpunet.validation import check_integer, check_number

Array = npt.NDArray[Any]


class DiagnosticsCallback(Callback):
    """Inspects the network before training, after every ``every``-th epoch, and after the last one.

    Early stopping makes an epoch the last one too, and so does a callback that stands before this one in the list.

    Training goes on bit for bit as it would without. An inspection costs a forward and a backward pass of ``rows``
    rows, and the ratio of the epoch's last update to the weights one more copy of the parameters.

    Parameters
    ----------
    X, y : array_like
        What :func:`inspect` takes: training data.
    every : int
    rows : int
        At most so many rows of X, evenly spread, and the same every time.
    l2 : float
        As in ``fit``.
    bins : int
        Of the histograms.

    Attributes
    ----------
    records : list of Diagnosis
        Oldest first; the first has epoch 0, or the number of epochs that a resumed run had finished.
    sample : (ndarray, ndarray)
        The rows that are looked at, from the start of training on.

    Examples
    --------
    >>> import numpy as np
    >>> import gpunet
    >>> X, y = np.random.default_rng(0).standard_normal((200, 5)), np.arange(200) % 3
    >>> callback = DiagnosticsCallback(X, y, every=2)
    >>> _ = gpunet.fit(gpunet.Network([5, 8, 3], device="cpu"), X, y, epochs=5, callbacks=[callback])
    >>> [record.epoch for record in callback.records]
    [0, 2, 4, 5]
    """

    def __init__(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        every: int = 1,
        rows: int = 512,
        l2: float = 0.0,
        bins: int = 40,
    ) -> None:
        self._every = check_integer("every", every, 1)
        self._rows = check_integer("rows", rows, 1)
        self._l2 = check_number("l2", l2)
        self._bins = check_integer("bins", bins, 1)
        self._data = X, y
        self._before: Array | None = None
        self.records: list[Diagnosis] = []

    def on_fit_start(self, run: Run) -> None:
        """Check the data, as they are all looked at once, and keep the sample."""
        network = run.network
        X = network.check_inputs(network.on_host("X", self._data[0]))
        y = network.check_targets(network.on_host("y", self._data[1]), len(X))
        chosen = spread_rows(len(X), max(self._rows, network.minimum_batch))
        labels = y if network.classes is None else network.classes[y]
        self.sample = X[chosen], labels[chosen]
        self.records = []
        self._inspect(run, len(run.history))
        if run.steps_per_epoch == 1:
            self._keep(run)

    def on_step_end(self, run: Run) -> None:
        """Keep the parameters before the last update of an epoch."""
        if run.steps_per_epoch is not None and run.step_in_epoch == run.steps_per_epoch - 1:
            self._keep(run)

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        if self._is_wanted(run):
            self._inspect(run, run.epoch)
        if run.steps_per_epoch == 1:
            self._keep(run)

    def _is_wanted(self, run: Run) -> bool:
        is_last = run.epoch == run.epochs or run.history.stopped_early or run.stop
        return is_last or run.epoch % self._every == 0

    def _keep(self, run: Run) -> None:
        network = run.network
        if self._before is None or self._before.shape != network.flat_parameters.shape:
            self._before = network.backend.empty(network.flat_parameters.shape, network.dtype)
        with network.lock:
            network.backend.copy(network.flat_parameters, self._before)

    def _inspect(self, run: Run, epoch: int) -> None:
        network = run.network
        before = None
        if self._before is not None and self.records:
            before = {name: np.array(view) for name, view in self._views(run).items()}
        X, y = self.sample
        self.records.append(inspect(network, X, y, l2=self._l2, before=before, bins=self._bins, epoch=epoch))

    def _views(self, run: Run) -> dict[str, Array]:
        assert self._before is not None
        return run.network.layout.views(run.network.backend.to_numpy(self._before))
