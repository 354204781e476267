"""The training steps of an epoch on fixed buffers: gather, forward, loss, backward, clip, update (lecture row L5)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation
from gpunet.backends.feed import Feed
from gpunet.backends.reference.training import PLACE, Tally
from gpunet.errors import GpunetError
from gpunet.mixed_precision import GROWTH_INTERVAL
from gpunet.network import Network
from gpunet.optimizers import Optimizer
from gpunet.recorded_step import RecordedStep
from gpunet.training.evaluation import DeviceData
from gpunet.training.snapshot import GOOD_WEIGHTS_EVERY, GoodWeights
from gpunet.training.stream import BatchStream

Array = npt.NDArray[Any]

# Steps between two looks for denormal parameters and moments, where they cost time.
_FLUSH_EVERY = 16
# So often, windows of a kind are done by recordings of single steps: to record one takes as long as many of those.
_ALONE = 1


class TrainingSteps:
    """The steps of an epoch.

    The first step of a size runs operation by operation; a device may record the next and repeat that as one launch
    (:class:`~gpunet.recorded_step.RecordedStep`). All that changes from step to step (rows, learning rate, step count,
    losses) is on the device for a whole epoch, and moves on there: so a whole window of steps is one launch too, where
    nobody looks on in between, once there have been more like it. What callbacks change in network and optimiser counts
    from the next step on. Where data stay on the host, the batch is brought before each step, which is a launch of its
    own then, and the next one is while the device works. A stream's batches are added one by one (:meth:`add`).

    Parameters
    ----------
    network : Network
    optimizer : Optimizer
        Attached to the network's parameters.
    data : DeviceData or BatchStream
    sizes : sequence of int
        The rows of each batch of an epoch; none yet for a stream.
    l2 : float
    clip_norm : float or None
        The largest norm that the gradient of J may have.
    good : GoodWeights or None
        Gets the weights at the start of each window of steps.
    is_watched : bool
        Whether somebody may look, and change something, between any two steps.
    most : int or None
        For so many steps there is room until :meth:`begin`; None for as many as ``sizes`` has.

    Attributes
    ----------
    losses : array of float64, (steps of an epoch, 2)
        On the device: loss and sum of the weights of each batch.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        data: DeviceData | BatchStream,
        sizes: Sequence[int],
        *,
        l2: float,
        clip_norm: float | None,
        good: GoodWeights | None = None,
        is_watched: bool = False,
        most: int | None = None,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.data = data
        self.sizes = tuple(sizes)
        self._l2 = l2
        self._clip_norm = clip_norm
        self._good = good
        self._is_watched = is_watched
        self._backend = backend = network.backend
        self._starts = list(accumulate(sizes, initial=0))
        self._host_order = np.zeros(0, np.int32)
        self._clip = None if clip_norm is None else backend.zeros(1, network.dtype)

        steps = len(sizes) if most is None else most
        self._order = backend.zeros(max(1, sum(sizes)), np.int32)
        self._place = backend.zeros(PLACE, np.int64)
        self.losses = backend.zeros((steps, 2), np.float64)
        self._planned: list[tuple[float, ...]] = []  # what the updates of this epoch read, as far as that is known
        self._host_table = np.zeros((steps, optimizer.scalar_count), network.dtype)
        self._table = backend.zeros(self._host_table.shape, network.dtype)
        self._recorded: dict[tuple[int, ...], RecordedStep] = {}  # by the sizes of their batches
        self._windows: Counter[tuple[int, ...]] = Counter()
        self._made = 0  # of the steps that are being done, the complete ones
        self._rows = 0
        self._feed: Feed | None = None
        if sizes:
            self._allocate(max(sizes))
        if network.loss_scale is not None:
            network.loss_scale.count_skipped()  # those of a run that did not come to its end

    def _allocate(self, rows: int) -> None:
        """Make buffers for batches of at most so many rows; recorded steps have those before."""
        data = self.data
        self._rows = rows
        self._recorded.clear()
        self._features = data.buffer("features", rows)
        self._targets = data.buffer("targets", rows)
        self._weights = None if data.weights is None else data.buffer("weights", rows)
        self._feed = data.feed(rows)
        buffers = {"features": self._features, "targets": self._targets, "weights": self._weights}
        self._fed = [buffer for name in data.fed if (buffer := buffers[name]) is not None]

    def begin(self, order: Array | None) -> None:
        """Begin an epoch; or with a stream, go on in it when there is no room for more steps.

        Parameters
        ----------
        order : ndarray of int32, (n,), or None
            The rows of the data in the order in which batches take them, on the host; None stands for the last one.
        """
        if order is not None:
            self._backend.copy(order, self._order)
            self._host_order = order
        windows = 0 if self._good is None else self._good.begin_epoch()
        self._backend.copy(np.array([0, 0, windows], np.int64), self._place)
        self._planned = []
        if isinstance(self.data, BatchStream):
            self.sizes = ()
        self._prepare(0)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another step before the next :meth:`begin`."""
        return len(self.sizes) == len(self.losses)

    def add(self) -> None:
        """Add a step for the batch that the stream has ready, and begin to bring it."""
        assert isinstance(self.data, BatchStream)
        arrays = self.data.arrays()
        rows = len(arrays[0])
        if rows > self._rows:
            self._allocate(rows)
        assert self._feed is not None
        self.sizes += (rows,)
        self._feed.sources = tuple(arrays)
        self._feed.prepare(slice(0, rows))

    def __call__(self, first: int, stop: int) -> float:
        """Do the steps ``first`` to ``stop - 1`` of the epoch, in one window, and return the last learning rate.

        The last loss is in ``network.loss_layer.value`` too. After an error as many steps count as have been done.
        """
        if self._good is not None and first % GOOD_WEIGHTS_EVERY == 0:
            self._good.begin_window(self.network.steps)
        while first < stop:
            if self._is_watched or first == len(self._planned):
                self._plan(first)
            done = min(stop, len(self._planned))
            is_window = self._feed is None and first % GOOD_WEIGHTS_EVERY == 0
            if not (is_window and self._is_one_launch(self.sizes[first:done])):
                done = first + 1
            self._go(first, done)
            if self._is_watched:
                self.take_back_skipped()
            first = done
        return self._planned[stop - 1][0]

    def _is_one_launch(self, sizes: tuple[int, ...]) -> bool:
        """Say whether a recording of these steps is worth making, and can be: each of them has one that holds."""
        if len(sizes) == 1 or not all((size,) in self._recorded and self._recorded[size,].holds for size in set(sizes)):
            return False
        self._windows[sizes] += 1
        return self._windows[sizes] > _ALONE

    def take_back_skipped(self) -> None:
        """Let the optimiser count no step that the loss scale has skipped; the device has not since it skipped them."""
        if self.network.loss_scale is not None:
            self.optimizer.step -= self.network.loss_scale.count_skipped()

    def _plan(self, number: int) -> None:
        """Put what the updates from ``number`` on read where the device finds it, unless it is there already."""
        step = self.optimizer.step
        scalars = self.optimizer.scalars_after(step)
        if self._planned[number : number + 1] == [scalars]:
            return
        self._planned[number:] = [scalars]
        for ahead in range(step + 1, step + len(self.losses) - number):
            try:
                self._planned.append(self.optimizer.scalars_after(ahead))
            except Exception:  # told when it is the turn of that step
                break
        planned = np.array(self._planned[number:], self._host_table.dtype)
        there = self._host_table[number : len(self._planned)]
        if not np.array_equal(planned, there):
            there[...] = planned
            self._backend.copy(self._host_table, self._table)

    def _go(self, first: int, stop: int) -> None:
        network, optimizer, sizes = self.network, self.optimizer, self.sizes[first:stop]
        steps, self._updates = network.steps, optimizer.step
        self._made = len(sizes)
        try:
            if len(sizes) == 1:
                self._keep(first)
            self._deliver(sizes[0])
            if sizes not in self._recorded:
                self._recorded[sizes] = RecordedStep(self._backend, is_warm=len(sizes) > 1)
            read = partial(read_by_steps, network, self.data, optimizer)
            self._recorded[sizes](partial(self._run, first, sizes), read)
            network.step_count.value = steps + len(sizes)
            optimizer.step = self._updates + len(sizes)
            if optimizer.step // _FLUSH_EVERY != self._updates // _FLUSH_EVERY:
                self._backend.flush_denormals([network.flat_parameters, *optimizer.moments.values()])
            self._prepare(stop)
        except BaseException:
            with contextlib.suppress(GpunetError):  # of a device that does not work any more
                counted = int(self._backend.to_numpy(self._place)[0]) - first
                made = min(self._made, counted)  # of an incomplete step, the update was not made: it comes last
                optimizer.step = self._updates + made
                network.set_step(steps + made)
                self.take_back_skipped()
            raise

    def _keep(self, first: int) -> None:
        if self._good is not None and first % GOOD_WEIGHTS_EVERY == 0:
            self._good.keep(self.losses, self._place)

    def _run(self, first: int, sizes: tuple[int, ...]) -> None:
        self._made = 0
        if len(sizes) > 1:
            self._keep(first)
        for rows in sizes:
            self.optimizer.step = self._updates + self._made + 1
            self._step(rows)
            self._made += 1

    def _step(self, rows: int) -> None:
        network, backend = self.network, self._backend
        batch = self._gather(rows)
        tally = Tally(
            self.losses,
            self._table,
            self.optimizer.scalars,
            self._place,
            network.step_count.on_device,
            None if network.loss_scale is None else network.loss_scale.newly_skipped,
        )
        if network.narrow_pass(*batch):
            backend.count_step(network.loss_layer.value, **tally._asdict(), rows=rows)
        else:
            network.differentiate(*batch, tally=tally)
        backend.join()
        network.unscale_gradients(GROWTH_INTERVAL)

        weight_count = network.layout.weight_count
        if self._clip is not None and self._clip_norm is not None:
            backend.clip_factor(
                network.flat_parameters, network.flat_gradients, weight_count, self._l2, self._clip_norm, self._clip
            )
        self.optimizer.update(
            network.flat_parameters,
            network.flat_gradients,
            weight_count,
            self._l2,
            self._clip,
            network.guard,
        )

    def _gather(self, rows: int) -> tuple[Array, Array, Array | None]:
        """Return the batch whose turn it is: features, targets and weights."""
        data, (features, targets, weights) = self.data, self._batch(rows)
        if isinstance(data, DeviceData):
            self._backend.gather_batch(
                self._order,
                None if "features" in data.fed else data.features,
                features,
                None if "targets" in data.fed else data.targets,
                targets,
                data.weights,
                weights,
                first=self._place[1:2],
            )
        return features, targets, weights

    def _prepare(self, number: int) -> None:
        """Begin to copy what stays on the host of the batch of step ``number``, if there is such a step."""
        if self._feed is not None and number < len(self.sizes):
            self._feed.prepare(self._host_order[self._starts[number] : self._starts[number + 1]])

    def _deliver(self, rows: int) -> None:
        """Have the next step find what was prepared."""
        if self._feed is not None:
            self._feed.deliver([buffer[:rows] for buffer in self._fed])

    def _batch(self, rows: int) -> tuple[Array, Array, Array | None]:
        weights = None if self._weights is None else self._weights[:rows]
        return self._features[:rows], self._targets[:rows], weights

    def infer_last(self) -> None:
        """Run the epoch's last batch through network and loss once more, in inference mode."""
        features, targets, weights = self._batch(self.sizes[-1])
        self.network.loss_layer(self.network.forward(features), targets, weights)

    def repeat(self, number: int, steps: int) -> None:
        """Run the batch of step ``number``, ``steps`` having been done before, through the network once more.

        A stream has gone on since then: of that, it is the last batch.
        """
        self.network.set_step(steps)
        if isinstance(self.data, BatchStream):
            number = -1
        else:
            place = [number, self._starts[number], 0]
            self._backend.copy(np.array(place, np.int64), self._place)
            self._prepare(number)
            self._deliver(self.sizes[number])
        features, targets, weights = self._gather(self.sizes[number])
        self.network.loss_layer(self.network.forward(features, training=True), targets, weights)


def read_by_steps(network: Network, *others: object) -> Iterator[object]:
    """Yield the objects whose attributes steps of a network read, but for the network, whose own stay."""
    yield from (*others, network.backend, network.workspace, network.layout)
    for part in (*network.layers, network.loss_layer):
        yield part
        yield from (value for value in vars(part).values() if isinstance(value, Activation))
