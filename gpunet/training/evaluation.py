"""Loss and accuracy of a network on data, in inference mode."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpunet.backends.feed import Feed
from gpunet.distributed import Ranks
from gpunet.errors import InvalidTypeError, InvalidValueError
from gpunet.fingerprint import block_fingerprints
from gpunet.network import Network, check_network, on_network
from gpunet.training.placement import place
from gpunet.training.stream import Batches, begin_pass, check_batches, naming, parts_of
from gpunet.validation import ALL, is_on_cuda

Array = npt.NDArray[Any]

_ROWS = 4096


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Attributes
    ----------
    loss : float
        The data term, without L2.
    accuracy : float or None
        Weighted share of labels that :meth:`gpunet.Network.predict` gets right; None for losses of numbers. With
        sigmoid cross-entropy a row has c labels, all of them counted (1 - Hamming loss), and a target above 1/2 stands
        for 1. The label of a row whose target is the probabilities of the classes is the most probable.
    rows : int
    """

    loss: float
    accuracy: float | None
    rows: int


class DeviceData:
    """Features, targets and weights for a network, checked once: where it runs, or on the host.

    What is where it runs already, of the network's dtype and C-contiguous, is not copied, nor is what stays on the
    host: it must not change meanwhile. One number per row, as labels and weights, is always on the device.

    Parameters
    ----------
    network : Network
    X, y : array_like
        See :meth:`gpunet.Network.check_inputs` and :meth:`gpunet.Network.check_targets`.
    sample_weight : array_like or None
    prefix : str
        Goes before the argument names in error messages: ``"validation "``.
    data_on : str
        See :func:`gpunet.training.placement.place`.
    once : bool
        Whether the rows are read once, and in order: whatever ``data_on`` says, they come piece by piece then.
    some : bool
        Whether a weight must be above 0.
    part : (int, int)
        Which rank this is, and how many there are: each looks at a part of what is on the host, and on a CPU several
        convert no more than their own rows of each batch.

    Attributes
    ----------
    features, targets : array
        On the device, or as they came, where ``fed`` has their names.
    weights : array, (rows,), or None
        On the device.
    class_weights : array, (c,), or None
        On the device, of a training loss that asks for them; ``weights`` has that of each row's label then.
    rows : int
    fed : tuple of str
        What stays on the host: a feed brings it, batch by batch.
    to_numpy : callable
        Brings what is on the device to the host.
    """

    def __init__(
        self,
        network: Network,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        prefix: str = "",
        data_on: str = "auto",
        once: bool = False,
        some: bool = True,
        part: tuple[int, int] = ALL,
    ) -> None:
        self.features = network.check_inputs(X, f"{prefix}X", whole=False, part=part)
        self.rows = self.features.shape[0]
        self.targets = network.check_targets(y, self.rows, f"{prefix}y", whole=False, part=part)
        weights = None
        if sample_weight is not None:
            weights = network.check_weights(sample_weight, self.rows, f"{prefix}sample_weight", some=some)
        self._backend, self._dtype, self._part = network.backend, network.dtype, part
        self.to_numpy = network.backend.to_numpy
        self.weights = None if weights is None else self._backend.asarray(weights)
        self.class_weights: Array | None = None
        if self.targets.ndim == 1:
            self.targets = self._backend.asarray(self.targets)
        given = {"features": (X, self.features), "targets": (y, self.targets)}
        on_host = {name: array for name, (values, array) in given.items() if array.ndim == 2 and not is_on_cuda(values)}
        if once:
            data_on = "host" if self.rows > _ROWS else "device"
        placed = place(self._backend, on_host, self._dtype, data_on, is_shared=part != ALL)
        self.features, self.targets = (placed.get(name, array) for name, (_, array) in given.items())
        self.fed = tuple(name for name in on_host if name not in placed)
        self._pieces: tuple[Feed | None, dict[str, Array]] | None = None

    def feed(self, rows: int) -> Feed | None:
        """Return what brings batches of at most ``rows`` rows of what stays on the host; None where nothing does."""
        if not self.fed:
            return None
        return self._backend.feed([getattr(self, name) for name in self.fed], [self._dtype] * len(self.fed), rows)

    def buffer(self, name: str, rows: int) -> Array:
        """Return a buffer on the device for so many rows of ``features``, ``targets`` or ``weights``."""
        array = getattr(self, name)
        return self._backend.zeros((rows, *array.shape[1:]), self._dtype if name in self.fed else array.dtype)

    def in_order(self, pieces: slice = slice(None)) -> Iterator[tuple[Array, Array, Array | None]]:
        """Yield features, targets and weights of all rows in order, in pieces; on the device, each until the next.

        Parameters
        ----------
        pieces : slice
            Which of them; by default all.
        """
        size = min(_ROWS, self.rows)
        parts = [slice(start, min(start + size, self.rows)) for start in range(0, self.rows, size)][pieces]
        if not parts:
            return
        if self._pieces is None:
            self._pieces = self.feed(size), {name: self.buffer(name, size) for name in self.fed}
        feed, buffers = self._pieces
        if feed is not None:
            feed.prepare(parts[0])
        for rows, following in zip(parts, [*parts[1:], None], strict=True):
            here = {name: buffer[: rows.stop - rows.start] for name, buffer in buffers.items()}
            if feed is not None:
                feed.deliver(list(here.values()))
                if following is not None:
                    feed.prepare(following)
            features, targets = (
                here[name] if name in here else getattr(self, name)[rows] for name in ("features", "targets")
            )
            yield features, targets, None if self.weights is None else self.weights[rows]

    def digests(self, name: str) -> list[str]:
        """Return digests of this rank's part of ``features`` or ``targets``, as the network takes them, in blocks."""
        array = getattr(self, name)
        if name in self.fed:
            return block_fingerprints(array, dtype=self._dtype, part=self._part)
        return block_fingerprints(array, to_numpy=self.to_numpy, part=self._part)


def evaluate(
    network: Network,
    X: npt.ArrayLike | None = None,
    y: npt.ArrayLike | None = None,
    *,
    sample_weight: npt.ArrayLike | None = None,
    batches: Batches | None = None,
) -> Evaluation:
    """Return loss and accuracy of a network on data.

    Parameters
    ----------
    network : Network
    X : array_like, (n, d)
    y : array_like
        Labels (n,), as :meth:`gpunet.Network.predict` returns them, or what else :func:`gpunet.fit` takes.
    sample_weight : array_like, (n,), or None
        At least 0, not all 0; loss and accuracy are weighted means.
    batches : iterable or callable, or None
        Batches ``(X, y)`` or ``(X, y, sample_weight)`` in the place of the three, each looked at when its turn comes; a
        function is called with 1.

    Returns
    -------
    Evaluation

    Raises
    ------
    ShapeError, InvalidTypeError, InvalidValueError
        The data do not fit the network.
    NonFiniteError
        The data are not finite; or an output is NaN or infinite, as in :meth:`gpunet.Network.predict`. A loss of finite
        outputs that is too large for the network's dtype is infinity.
    """
    check_network(network)
    check_given(X, y, sample_weight, batches)
    if batches is not None:
        return evaluate_batches(network, check_batches("batches", batches, 1))
    total = _score(network, X, y, sample_weight)
    if X is not None and not math.isfinite(total.loss):
        network.finite_logits(X)
    return total.evaluation()


def check_given(X: Any, y: Any, sample_weight: Any, batches: Any) -> None:
    """Raise unless there are either X and y, or batches."""
    if batches is None:
        for argument, values in (("X", X), ("y", y)):
            if values is None:
                raise InvalidTypeError(f"{argument}: got None. Expected X and y, or batches=.")
        return
    for argument, values in (("X", X), ("y", y), ("sample_weight", sample_weight)):
        if values is not None:
            raise InvalidValueError(f"{argument}: is given beside batches=. Expected each batch to bring its own.")


def evaluate_batches(
    network: Network,
    batches: Batches,
    argument: str = "batches",
    epoch: int = 1,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Return loss and accuracy of a network on batches, which the user's code makes while it holds no lock.

    Ranks take turns, and each has the totals of all.
    """
    totals, turns = [], _Turns(batches, epoch, ranks)
    together: AbstractContextManager[dict[str, Any]] = nullcontext({}) if ranks is None else ranks.agreeing()
    with together as described:
        for number, batch in turns:
            with naming(f"{argument}, batch {number + 1}"):
                X, y, sample_weight = parts_of(batch)
                totals.append(_score(network, X, y, sample_weight, work=math.inf, some=False))
                if not math.isfinite(totals[-1].loss):
                    network.finite_logits(X)
        described[f"number of batches in {argument}"] = turns.count
    if ranks is not None:
        totals = [total for totals_there in ranks.share(totals) for total in totals_there]
    if not totals:
        raise InvalidValueError(f"{argument}: there is none. Expected at least one.")
    *sums, rows = zip(*totals, strict=True)
    loss, weight, right, labels = map(math.fsum, sums)
    if not weight:
        raise InvalidValueError(f"{argument}: every weight is 0. Expected at least one above 0.")
    return Total(loss, weight, right, labels, sum(rows)).evaluation()


class _Turns:
    """The batches that are this rank's, with the number of each; then ``count`` is that of all, where all went by."""

    count: int | None = None

    def __init__(self, batches: Batches, epoch: int, ranks: Ranks | None) -> None:
        self._batches = batches
        self._epoch = epoch
        self._ranks = ranks

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        ranks, turn = self._ranks, getattr(self._batches, "turn", None)
        if ranks is not None and callable(turn):  # no others are read
            yield from turn(ranks.rank, ranks.size)
            return
        self.count = 0
        for number, batch in enumerate(begin_pass(self._batches, self._epoch)):
            self.count += 1
            if ranks is None or number % ranks.size == ranks.rank:
                yield number, batch


@on_network
def _score(
    network: Network, X: Any, y: Any, sample_weight: Any, *, work: float | None = None, some: bool = True
) -> Total:
    """Return what a network makes of data; ``work`` None goes by their rows."""
    with np.errstate(over="ignore", invalid="ignore"):  # told with its row instead
        data = DeviceData(network, X, y, sample_weight, once=True, some=some)
        with network.backend.working(network.inference_work(data.rows) if work is None else work):
            scores = Scores(network, data)
            scores.run()
            return scores.read(network.backend.to_numpy(scores.results))


class Total(NamedTuple):
    """Sums over rows, from which the means are.

    Attributes
    ----------
    loss, weight : float
        Of the weighted losses, and of the weights.
    right, labels : float
        Of the weights of right labels, and of those of all labels; 0 where a loss has none.
    rows : int
    """

    loss: float
    weight: float
    right: float
    labels: float
    rows: int

    def evaluation(self) -> Evaluation:
        """Return the means."""
        accuracy = self.right / self.labels if self.labels else None
        return Evaluation(self.loss / self.weight, accuracy, self.rows)


class Scores:
    """Loss and right labels of a network on data, chunk by chunk; on the device until somebody reads them.

    Parameters
    ----------
    network : Network
    data : DeviceData
    results : array of float64, (Scores.size(network, data),), or None
        Where they are left; None allocates it.
    share : (int, int)
        Which rank this is, and how many there are: each evaluates some of the chunks.
    """

    def __init__(
        self, network: Network, data: DeviceData, results: Array | None = None, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.network = network
        self.data = data
        chunks, (rank, ranks) = -(-data.rows // _ROWS), share
        self._own = slice(rank * chunks // ranks, (rank + 1) * chunks // ranks)
        size = self.size(network, data)
        self.results = network.backend.zeros(size, np.float64) if results is None else results

    @staticmethod
    def size(network: Network, data: DeviceData) -> int:
        """Return how many numbers the results are."""
        return -(-data.rows // _ROWS) * (loss_size(network) + 1)

    def run(self) -> None:
        """Evaluate the network as it is; a device may record this where no data stay on the host."""
        network, data = self.network, self.data
        results = list(self._by_chunk(self.results))[self._own]
        for (features, targets, weights), result in zip(data.in_order(self._own), results, strict=True):
            outputs = network.forward(features)
            network.loss_layer(outputs, targets, weights)
            network.backend.copy(network.loss_layer.value, as_loss(network, result[:-1]))
            if network.has_probabilities:
                network.loss_layer.score(outputs, targets, weights, result[-1:])

    def read(self, results: Array) -> Total:
        """Return what was found, from the results on the host."""
        network, data = self.network, self.data
        found = list(self._by_chunk(results))
        losses = [as_loss(network, result[:-1]).tolist() for result in found]
        loss, weight = math.fsum(loss * weight for loss, weight in losses), math.fsum(weight for _, weight in losses)
        if not network.has_probabilities:
            return Total(loss, weight, 0.0, 0.0, data.rows)
        right = math.fsum(float(result[-1]) for result in found)
        labels_per_row = 1 if network.is_classifier else network.layer_sizes[-1]
        return Total(loss, weight, right, weight * labels_per_row, data.rows)

    def merge(self, results: Sequence[Array]) -> Array:
        """Return the results of all chunks, from those that each rank has on its host."""
        each = loss_size(self.network) + 1
        merged = np.empty_like(results[0])
        for rank, found in enumerate(results):
            chunks = len(found) // each
            own = slice(each * (rank * chunks // len(results)), each * ((rank + 1) * chunks // len(results)))
            merged[own] = found[own]
        return merged

    def _by_chunk(self, results: Array) -> Iterator[Array]:
        size = loss_size(self.network) + 1
        return (results[number * size : (number + 1) * size] for number in range(len(results) // size))


def loss_size(network: Network) -> int:
    """Return how many float64 hold the bytes of what a loss writes."""
    return network.loss_layer.value.nbytes // np.dtype(np.float64).itemsize


def as_loss(network: Network, results: Array) -> Array:
    """Return a view of ``loss_size`` float64 as what a loss writes, (2,)."""
    return results.view(network.loss_layer.value.dtype)
