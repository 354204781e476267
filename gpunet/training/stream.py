"""Batches that an iterable brings, one after the other, in its own order and of its own lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import length_hint
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from gpunet.backends.feed import Feed, is_plain
from gpunet.distributed.shards import Partition
from gpunet.errors import GpunetError, InvalidTypeError, InvalidValueError, ShapeError, shown
from gpunet.network import Network
from gpunet.training.class_weights import weigh_rows
from gpunet.validation import is_on_cuda

Array = npt.NDArray[Any]

# What `fit` takes: a pass over it is an epoch; a function gets the number of the epoch, from 1.
Batches: TypeAlias = Iterable[Any] | Callable[[int], Iterable[Any]]

# Arrays whose elements are all there is to know of them.
_PLAIN = (np.ndarray, np.memmap)
_EXPECTED = "(X, y) or (X, y, sample_weight)"


class HostBatch(NamedTuple):
    """A batch that fits the network, on the host: of its dtype, labels of any that holds integers.

    Of several ranks each has some rows of the ``whole`` batch.
    """

    features: Array
    targets: Array
    weights: Array | None
    whole: int


def check_batches(argument: str, batches: Any, passes: int) -> Batches:
    """Return batches that can be gone through so many times, or raise."""
    if not callable(batches) and not isinstance(batches, Iterable):
        raise InvalidTypeError(
            f"{argument}: got {shown(batches)}. Expected an iterable of {_EXPECTED}, or a function of the epoch's "
            "number that returns one."
        )
    if isinstance(batches, Iterator) and passes > 1:
        raise InvalidValueError(
            f"{argument}: got a {type(batches).__name__}, which ends after one epoch, for {passes}. Expected what can "
            "be gone through again, such as a list, or a function of the epoch's number that returns an iterator."
        )
    return batches


def begin_pass(batches: Batches, epoch: int) -> Iterator[Any]:
    """Return the batches of an epoch."""
    return iter(batches(epoch) if callable(batches) else batches)


def parts_of(batch: Any) -> tuple[Any, Any, Any]:
    """Return features, targets and weights, or None for no weights, as the iterable gave them."""
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise InvalidTypeError(f"got {shown(batch)}. Expected {_EXPECTED}.")
    return batch[0], batch[1], batch[2] if len(batch) == 3 else None


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Let the errors of gpunet begin with the place of a batch."""
    try:
        yield
    except GpunetError as error:
        error.args = (f"{place}: {error}", *error.args[1:])
        raise


class BatchStream:
    """The batches of a run, each taken from the iterable when its turn comes, and checked; data of ``TrainingSteps``.

    The iterable may write the next batch over the last one: that is asked for when nobody reads the last one any more.

    Parameters
    ----------
    network : Network
    batches : iterable or callable
    class_weights : ndarray, (c,), or None
        On the host, of the network's dtype.
    partition : Partition or None
        Whose rows are wanted: of batches that have a method ``in_shards``, as those of
        :class:`gpunet.data.ParquetRows` have, no others are read; of others, no others are kept.

    Attributes
    ----------
    epoch : int
        Whose batches these are; 0 before the first.
    ready : HostBatch or None
        The next batch; None after the last one.
    rows : int
        Of this epoch's batches so far, on all ranks.
    steps_per_epoch : int or None
        Where the iterable has a length.
    fingerprint : str or None
        What the iterable says of its data, in its attribute of this name.
    fed : tuple of str
        All that a batch consists of.
    weights : ndarray or None
        None where batches have none.
    class_weights : array, (c,), or None
        As of :class:`~gpunet.training.evaluation.DeviceData`.
    """

    # Two of them hold other arrays at each step, and no step reads those.
    not_recorded = ("epoch", "ready", "rows", "weights")
    features = targets = None

    def __init__(
        self, network: Network, batches: Batches, class_weights: Array | None, partition: Partition | None = None
    ) -> None:
        self._network = network
        self._partition = partition
        in_shards = None if partition is None else getattr(batches, "in_shards", None)
        self._are_dealt = callable(in_shards)
        self._batches = in_shards(partition.starts, partition.own) if partition and callable(in_shards) else batches
        self._class_weights = class_weights
        self._iterator: Iterator[Any] = iter(())
        self._number = 0
        self._exponent = 0
        self._is_first = True
        self._fewest = network.minimum_batch
        self._takes_places = network.is_classifier and network.classes is None
        self.epoch, self.rows = 0, 0
        self.ready: HostBatch | None = None
        self.steps_per_epoch = length_hint(batches) or None
        self.fingerprint: str | None = getattr(batches, "fingerprint", None)
        self.fed: tuple[str, ...] = ("features", "targets")
        self.weights: Array | None = None
        self.class_weights: Array | None = None
        self._target_dimensions = 0

    def begin(self, epoch: int) -> None:
        """Go to the first batch of an epoch.

        Raises
        ------
        InvalidValueError
            There is none.
        """
        self.close()
        self.epoch, self.rows, self._number, self._exponent = epoch, 0, 0, 0
        self._iterator = begin_pass(self._batches, epoch)
        self.advance()
        if self.ready is None:
            raise InvalidValueError(f"batches: epoch {epoch} has none. Expected at least one in every epoch.")

    def advance(self) -> None:
        """Go to the next batch.

        Raises
        ------
        GpunetError
            It does not fit the network; the message has its number.
        """
        self.ready = None
        try:
            batch = next(self._iterator)
        except StopIteration:
            return
        self._number += 1
        with naming(f"batches, batch {self._number} of epoch {self.epoch}"):
            self.ready = self._scaled(self._own(batch))
        self.rows += self.ready.whole

    @property
    def place(self) -> dict[str, int]:
        """The rows of the whole next batch, 0 where there is none, by its number: what is the same on all ranks."""
        number = self._number + (self.ready is None)
        rows = 0 if self.ready is None else self.ready.whole
        return {f"number of rows in batch {number} of epoch {self.epoch}": rows}

    def close(self) -> None:
        """Let go of the iterator, which may be in the middle of an epoch."""
        close = getattr(self._iterator, "close", None)
        if callable(close):
            close()
        self._iterator, self.ready = iter(()), None

    def scale_weights(self, exponent: int) -> None:
        """Divide the weights of the batch that is ready, the first of an epoch, and of those after it by 2^exponent."""
        assert self.ready is not None
        self._exponent = exponent
        self.ready = self._scaled(self.ready)

    def _scaled(self, batch: HostBatch) -> HostBatch:
        if batch.weights is None or not self._exponent:
            return batch
        factors = np.full_like(batch.weights, 2.0**-self._exponent)
        return batch._replace(weights=weigh_rows(factors, batch.weights, "sample_weight"))

    def _own(self, batch: Any) -> HostBatch:
        """Return the rows of a batch that are wanted here."""
        if self._are_dealt:
            whole, batch = batch
            return self._checked(whole, *parts_of(batch))
        X, y, sample_weight = parts_of(batch)
        checked = self._checked(None, X, y, sample_weight)
        if self._partition is None:
            return checked
        rows = self._partition.rows(checked.whole)
        weights = None if checked.weights is None else checked.weights[rows]
        return HostBatch(checked.features[rows], checked.targets[rows], weights, checked.whole)

    def _checked(self, whole: int | None, X: Any, y: Any, sample_weight: Any) -> HostBatch:
        """Return rows that fit the network, or raise; of a ``whole`` batch there may be none."""
        network = self._network
        for argument, values in (("X", X), ("y", y), ("sample_weight", sample_weight)):
            if is_on_cuda(values):
                raise InvalidTypeError(
                    f"{argument}: is in CUDA memory. Expected batches on the host; fit(network, X, y) takes arrays "
                    "where they are."
                )
        weights = None
        if whole is not None and not len(X):
            features = np.empty((0, network.layer_sizes[0]), network.dtype)
            has_labels = network.is_classifier and np.ndim(y) == 1
            targets = np.empty(0, np.int32) if has_labels else np.empty((0, network.layer_sizes[-1]), network.dtype)
            if sample_weight is not None:
                weights = np.empty(0, network.dtype)
        else:
            features = X if self._are_features(X) else network.check_inputs(X)
            rows = len(features)
            whole = rows if whole is None else whole
            if whole < self._fewest:
                raise ShapeError(f"X: got {whole} row. Expected at least {self._fewest}: batch norm needs a batch.")
            targets = y if self._are_labels(y, rows) else network.check_targets(y, rows)
            if sample_weight is not None:
                weights = network.check_weights(sample_weight, rows, some=False)
        if self._class_weights is not None and targets.ndim == 1:
            weights = weigh_rows(self._class_weights[targets], weights)
        is_first, self._is_first = self._is_first, False
        if not is_first and (weights is None) != (self.weights is None):
            raise InvalidValueError(
                f"sample_weight: got {'none' if weights is None else 'some'}, unlike the batches before. Expected all "
                "batches with weights, or all without."
            )
        if not is_first and targets.ndim != self._target_dimensions:
            raise ShapeError(f"y: got shape {targets.shape}. Expected all batches with labels, or with probabilities.")
        self._target_dimensions = targets.ndim
        if weights is not None:
            self.fed, self.weights = ("features", "targets", "weights"), weights
        return HostBatch(features, targets, weights, whole)

    def _are_features(self, X: Any) -> bool:
        """Say whether the network's checks would pass X: they take a fifth of the time of a step on a small network."""
        return (
            type(X) in _PLAIN
            and X.dtype == self._network.dtype
            and X.ndim == 2
            and len(X) > 0
            and X.shape[1] == self._network.layer_sizes[0]
            and is_plain(X)
            and bool(np.isfinite(X).all())
        )

    def _are_labels(self, y: Any, rows: int) -> bool:
        """Say whether the network's checks would pass y; it may be of another dtype than its labels."""
        return (
            self._takes_places
            and type(y) in _PLAIN
            and y.shape == (rows,)
            and y.dtype.kind in "iu"
            and bool(y.min() >= 0)
            and bool(y.max() < self._network.layer_sizes[-1])
        )

    def arrays(self) -> list[Array]:
        """Return the arrays of the next batch, in the order of ``fed``."""
        assert self.ready is not None
        return [getattr(self.ready, name) for name in self.fed]

    def feed(self, rows: int) -> Feed:
        """Return what brings batches of at most ``rows`` rows to the device."""
        arrays = self.arrays()
        return self._network.backend.feed(arrays, [self._dtype(array) for array in arrays], rows)

    def buffer(self, name: str, rows: int) -> Array:
        """Return a buffer on the device for so many rows of ``features``, ``targets`` or ``weights``."""
        array = getattr(self.ready, name)
        return self._network.backend.zeros((rows, *array.shape[1:]), self._dtype(array))

    def _dtype(self, array: Array) -> np.dtype[Any]:
        """Return the dtype that a buffer has for an array: labels are integers."""
        return np.dtype(np.int32) if array.dtype.kind in "iu" else self._network.dtype
