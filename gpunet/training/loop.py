"""``fit``: mini-batch training with validation, history, early stopping and checkpoints (lecture row L5)."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from gpunet.backends.half import HALF_DTYPES
from gpunet.batches import batch_slices
from gpunet.distributed import Ranks
from gpunet.distributed.sharded_step import ShardedStep
from gpunet.errors import ShapeError, TrainingDivergedError
from gpunet.labels import CLASSES
from gpunet.mixed_precision import SMALLEST_SCALE
from gpunet.network import Network
from gpunet.optimizers import Optimizer
from gpunet.random import Purpose, host_generator
from gpunet.training.callbacks import Callback, Run
from gpunet.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from gpunet.training.class_weights import combine_weights, weigh_classes
from gpunet.training.distribution import EpochAgreement, check_ranks, describe, limited_threads, together
from gpunet.training.early_stopping import BestWeights, EarlyStopping
from gpunet.training.epoch_end import EpochEnd, EpochResult, mean_loss
from gpunet.training.evaluation import DeviceData, check_given, evaluate_batches
from gpunet.training.history import EpochRecord, History
from gpunet.training.identity import RunIdentity
from gpunet.training.settings import FitSettings, check_settings
from gpunet.training.snapshot import GOOD_WEIGHTS_EVERY, GoodWeights
from gpunet.training.step import TrainingSteps
from gpunet.training.stream import Batches, BatchStream
from gpunet.training.weight_average import AveragedWeights, WeightAverage

Array = npt.NDArray[Any]

# On a device, steps between two looks at their losses: each lets it wait for a moment, and nobody need know sooner.
LOOK_EVERY = 16 * GOOD_WEIGHTS_EVERY


def fit(
    network: Network,
    X: npt.ArrayLike | None = None,
    y: npt.ArrayLike | None = None,
    *,
    batches: Batches | None = None,
    epochs: int = 20,
    batch_size: int = 128,
    optimizer: Optimizer | None = None,
    l2: float = 0.0,
    clip_norm: float | None = None,
    accumulate: int = 1,
    average: WeightAverage | None = None,
    shuffle: bool = True,
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    validation_batches: Batches | None = None,
    class_weight: Mapping[Any, float] | npt.ArrayLike | str | None = None,
    sample_weight: npt.ArrayLike | None = None,
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    data_on: str = "auto",
    distributed: Ranks | None = None,
) -> History:
    """Train a network by mini-batch gradient descent on J = mean loss + l2 sum_i ||W_i||^2.

    Every epoch sees every example once, in an order drawn from the network's seed and step count. The last batch of
    an epoch is shorter where the batch size does not divide the examples; a single example that batch norm could not
    use joins the batch before it.

    Parameters
    ----------
    network : Network
        Changed in place.
    X : array_like, (n, d)
        What is in CUDA memory stays there; so do the other arrays. One of the network's dtype that is C-contiguous is
        read where it is, and so is one of any dtype that stays on the host: it must not change meanwhile.
    y : array_like
        Labels (n,), or the probabilities of the classes (n, c), floats whose rows sum to 1, for softmax cross-entropy;
        numbers (n, c) otherwise, from 0 to 1 for sigmoid cross-entropy, or (n,) for one output or several quantiles of
        one target. Labels other than 0 to c - 1 (text, booleans, any integers; c different ones, on the host) are
        learnt, sorted, by a network that has not been trained: from then on :meth:`Network.predict` returns and
        everything expects these, also of a network read from a file. See :attr:`Network.classes`.
    batches : iterable or callable, or None
        Batches ``(X, y)`` or ``(X, y, sample_weight)`` on the host, in the place of the three, of any lengths: one pass
        is an epoch. An iterator is good for one epoch; a function is called with the number of each epoch, from 1, and
        returns an iterable. Each batch is checked when its turn comes, and an error then has its number; those of the
        first batch come before anything changes. ``batch_size``, ``shuffle`` and ``data_on`` do not apply. No labels
        are learnt from them: ``network.metadata["class_labels"]`` tells others than 0 to c - 1.
    epochs : int
        At least 1. With ``resume``, the total of the run.
    batch_size : int
        At least 1, at least 2 with batch norm; more than n means n.
    optimizer : Optimizer or None
        None takes ``SGD(0.1, momentum=0.9)``.
    l2 : float
        The lecture's lambda: the gradient gets 2 l2 W_i.
    clip_norm : float or None
        The gradient of J is scaled down to this norm where it is larger.
    accumulate : int
        The batches of an update: it takes the mean of their gradients, weighted as the loss weighs their rows. Without
        batch norm and dropout that is, to rounding, the gradient of one batch of so many times the size; batch norm
        normalises each batch by itself, and each has dropout masks of its own. At the end of an epoch, the batches that
        are left make an update. ``network.steps`` and ``EpochRecord.step`` count batches, ``optimizer.step`` updates.
    average : WeightAverage or None
        A moving average of the weights is what is validated, what early stopping keeps, and what the network has at the
        end; until then, callbacks see the weights that are trained.
    shuffle : bool
        Whether the order changes from epoch to epoch; False keeps the order of X.
    validation : (X, y), or None
        Evaluated after each epoch, in inference mode.
    validation_batches : iterable or callable, or None
        In the place of ``validation``, like ``batches``.
    class_weight : mapping, array_like (c,), "balanced" or None
        How much each class counts: a mapping gives some labels their weight and the others 1, an array each class in
        the order of the outputs; ``"balanced"`` gives n / (c' count of the label), with c' the number of labels that
        occur, and is not for ``batches``. With label smoothing and with probabilities as targets they count as
        PyTorch's do (:class:`gpunet.SoftmaxCrossEntropy`).
    sample_weight : array_like, (n,), or None
        At least 0. A batch's loss is its weighted mean.
    early_stopping : EarlyStopping or None
        Needs validation. At the end, also of all epochs, the weights of the best epoch are restored.
    callbacks : sequence of Callback
    checkpoint : path or None
        Written after each epoch. Its digests of the data are computed on the host, piece by piece.
    resume : bool
        Whether to go on from ``checkpoint`` if that file exists. The result is, bit for bit, that of a run that was
        never interrupted, given the same arguments and the arithmetic of the same processor, BLAS library, number of
        BLAS threads and versions, or the same GPU. Other data or weights, another network, optimiser (momentum, betas,
        ...), batch size, ``shuffle``, ``l2``, ``clip_norm``, ``accumulate``, ``average`` or monitored quantity is
        refused by name. Another learning rate or arithmetic, and a checkpoint of an older gpunet that does not record
        all of this, is told by a :class:`gpunet.ResumeWarning`. Of ``batches`` nothing is known but their attribute
        ``fingerprint``, a text, if there is one: the result is that of a whole run where each epoch brings what it
        would have brought then, as a list does, or a function that goes by the epoch's number. ``epochs``,
        ``callbacks``, ``data_on`` and the patience may change.
    data_on : str
        Where features, and targets of several numbers, are that come on the host: ``"device"``; ``"host"``, whence each
        batch is copied, and converted, while the device works on the one before; ``"auto"``: on the device where they
        take at most three quarters of its free memory, otherwise on the host, which is logged once. On the CPU,
        ``"auto"`` converts a memory-mapped file batch by batch and other arrays once, or on several ranks all of them
        batch by batch. The result is the same, bit for bit (:doc:`/arrays`).

    distributed : gpunet.distributed.Ranks or None
        Every rank calls ``fit`` with the same arguments and a network of the same weights; each computes on its rows
        of every batch, and all have the same weights after each step. A rank reads no other rows of mapped files and of
        :class:`gpunet.data.ParquetRows`, but to check a part of them (:doc:`/arrays`). ``gpunet.distributed`` says
        which bits depend on what. Callbacks are called on every rank, and are to do the same everywhere; rank 0 writes
        the checkpoint, from which any number of ranks goes on.

    Returns
    -------
    History

    Raises
    ------
    ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        Arguments that do not fit; nothing has changed then.
    InUseError
        Another call of ``fit``, in this thread or another one, is training the network or with the optimiser.
    OutOfDeviceMemoryError
        With ``data_on="device"``, the data have no room; otherwise the weights or a batch have none.
    TrainingDivergedError
        The loss became NaN or infinite. The network holds the last weights known to give a finite loss (at most 16
        steps old; with early stopping those of the best epoch), and the error says at which step and in which layer
        it was seen first and has the history so far. On a device it may be up to 256 steps until that is noticed; no
        update follows the loss meanwhile. With ``batches``, the layer is that of the last batch by then.
    DistributedError
        The ranks differ in arguments, data, weights, seeds or versions, before anything changes; or, after an epoch, in
        weights, which callbacks have changed then. What else one rank alone raises ends all of them.
    OSError
        The checkpoint cannot be written. The network has the weights after the epoch then, and an older checkpoint is
        still there.
    """
    ranks = check_ranks(distributed)
    with nullcontext() if ranks is None else ranks.aborting():
        with together(ranks):
            settings = check_settings(
                network,
                epochs=epochs,
                batch_size=batch_size,
                optimizer=optimizer,
                l2=l2,
                clip_norm=clip_norm,
                accumulate=accumulate,
                average=average,
                shuffle=shuffle,
                validation=validation,
                early_stopping=early_stopping,
                callbacks=callbacks,
                checkpoint=checkpoint,
                resume=resume,
                data_on=data_on,
                batches=batches,
                validation_batches=validation_batches,
                ranks=ranks,
            )
            check_given(X, y, sample_weight, batches)
        with network.in_training, settings.optimizer.in_training:
            return _fit(network, settings, X, y, sample_weight, class_weight, validation)


def _fit(
    network: Network,
    settings: FitSettings,
    X: Any,
    y: Any,
    sample_weight: Any,
    class_weight: Any,
    validation: tuple[Any, Any] | None,
) -> History:
    """Train, with settings that have been checked."""
    ranks, held_out, identity, resumed = settings.ranks, None, None, None
    with contextlib.ExitStack() as limits:
        with network.lock, _learning_classes(network, y):
            with together(ranks) as described:
                data, own_weights, per_class = _data(network, settings, X, y, sample_weight, class_weight)
                # Nobody knows how many batches there will be; of what comes in batches, much is likely.
                work = math.inf if isinstance(data, BatchStream) else network.training_work(data.rows)
                if validation is not None:
                    X_held_out, y_held_out = validation
                    held_out = DeviceData(
                        network,
                        X_held_out,
                        y_held_out,
                        prefix="validation ",
                        data_on=settings.data_on,
                        part=settings.part,
                    )
                if ranks is not None and ranks.size > 1:
                    described |= describe(network, settings, data, held_out, own_weights, per_class)
            limits.enter_context(limited_threads(ranks, network, work))
            if settings.checkpoint is not None:
                with network.backend.working(work):
                    if ranks is None or ranks.is_first:  # it reads all data
                        identity = RunIdentity.of(network, settings, data, held_out, own_weights, per_class)
                    if ranks is not None:
                        identity = ranks.share(identity)[0]
                    with together(ranks):
                        resumed = _resumed(network, settings, identity)
        return _run(network, settings, data, held_out, work, identity, resumed)


def _run(
    network: Network,
    settings: FitSettings,
    data: DeviceData | BatchStream,
    held_out: DeviceData | None,
    work: float,
    identity: RunIdentity | None,
    resumed: Checkpoint | None,
) -> History:
    """Train on data that have been checked."""
    try:
        with together(settings.ranks) as described:
            done = 0 if resumed is None else len(resumed.history)
            described["epoch to begin with"] = done + 1
            if isinstance(data, BatchStream) and done < settings.epochs:
                data.begin(done + 1)
        with network.lock, network.backend.working(work):
            run = _Loop(network, data, held_out, settings, work, identity, resumed)
        # Overflow and NaN are looked for, and reported with their place; NumPy's warnings would only precede that.
        with np.errstate(over="ignore", invalid="ignore"):
            return run.run()
    finally:
        if isinstance(data, BatchStream):
            data.close()
        with network.lock:
            network.backend.synchronize()  # nothing reads the caller's arrays any more, whatever has happened


def _data(
    network: Network, settings: FitSettings, X: Any, y: Any, sample_weight: Any, class_weight: Any
) -> tuple[DeviceData | BatchStream, Array | None, Array | None]:
    """Return the data of a run, the rows' weights among them without those of their classes, and the latter."""
    if settings.batches is not None:
        per_class = weigh_classes(network, class_weight, None)
        on_host = None if per_class is None else network.backend.to_numpy(per_class)
        partition = None if settings.ranks is None else settings.ranks.partition
        stream = BatchStream(network, settings.batches, on_host, partition)
        stream.class_weights = per_class
        return stream, None, per_class
    data = DeviceData(network, X, y, sample_weight, data_on=settings.data_on, part=settings.part)
    if data.rows < network.minimum_batch:
        raise ShapeError(
            f"X: got {data.rows} row. Expected at least {network.minimum_batch}: batch norm needs a batch."
        )
    per_class, own_weights = weigh_classes(network, class_weight, data.targets), data.weights
    data.weights = combine_weights(network, per_class, data.targets, own_weights)
    data.class_weights = per_class
    return data, own_weights, per_class


def _resumed(network: Network, settings: FitSettings, identity: RunIdentity | None) -> Checkpoint | None:
    """Return the checkpoint that the run goes on from, if there is one."""
    if not settings.resume or settings.checkpoint is None or identity is None or not settings.checkpoint.exists():
        return None
    return read_checkpoint(
        settings.checkpoint, network, settings.optimizer, settings.early_stopping, identity, settings.epochs
    )


@contextlib.contextmanager
def _learning_classes(network: Network, y: npt.ArrayLike | None) -> Iterator[None]:
    """Let a network learn which labels there are, and forget them if the run cannot begin: nothing has changed then."""
    has_learnt = y is not None and network.learn_classes(y)
    try:
        yield
    except BaseException:
        if has_learnt:
            del network.metadata[CLASSES]
        raise


def windows(steps: int, length: int) -> list[tuple[int, int]]:
    """Cut an epoch into windows of so many steps; the last may be shorter."""
    return [(first, min(first + length, steps)) for first in range(0, steps, length)]


def _watches_steps(callback: Callback) -> bool:
    return callback.every_step and getattr(callback.on_step_end, "__func__", None) is not Callback.on_step_end


class _Loop:
    """The state of one call of ``fit``. It holds the network's lock from one call of the user's code to the next."""

    def __init__(
        self,
        network: Network,
        data: DeviceData | BatchStream,
        held_out: DeviceData | None,
        settings: FitSettings,
        work: float,
        identity: RunIdentity | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.network = network
        self.backend = network.backend
        self.data = data
        self.work = work
        self.has_order = False  # on the device
        self.settings = settings
        self.optimizer = settings.optimizer
        self.identity = identity
        self.best = None if settings.early_stopping is None else BestWeights(network, settings.early_stopping)
        self.averages = None if settings.average is None else AveragedWeights(network, settings.average)
        self.optimizer.attach(network.backend, network.flat_parameters)
        sizes: list[int] = []
        steps_per_epoch = data.steps_per_epoch if isinstance(data, BatchStream) else None
        if isinstance(data, DeviceData):
            slices = batch_slices(data.rows, settings.batch_size, network.minimum_batch)
            sizes = [rows.stop - rows.start for rows in slices]
            steps_per_epoch = len(sizes)
        self.progress = Run(network, settings.epochs, steps_per_epoch)
        if checkpoint is not None:
            checkpoint.apply(network, self.optimizer, self.best, self.averages)
            self.progress.history = checkpoint.history

        is_watched = any(map(_watches_steps, settings.callbacks))
        self.good = GoodWeights(network)
        self.ranks = ranks = settings.ranks
        self.agreement = None if ranks is None else EpochAgreement(ranks, network)
        self.steps = TrainingSteps(
            network,
            self.optimizer,
            data,
            sizes,
            sharded=None
            if ranks is None
            else ShardedStep(network, ranks.communicator, ranks.partition, is_ordered=ranks.shards is not None),
            l2=settings.l2,
            clip_norm=settings.clip_norm,
            accumulate=settings.accumulate,
            averages=self.averages,
            good=self.good,
            is_watched=is_watched,
            most=LOOK_EVERY if isinstance(data, BatchStream) else None,
        )
        alone = self.backend.synchronous or is_watched
        self.windows = windows(len(sizes), 1 if alone else GOOD_WEIGHTS_EVERY)
        self.look_every = 1 if self.backend.synchronous else GOOD_WEIGHTS_EVERY if is_watched else LOOK_EVERY
        self.end = EpochEnd(self.steps, held_out, settings.l2, self.averages, ranks)
        self.first_step = network.steps + 1

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock, and let the backend choose by the work of the run; what comes in between goes by its own."""
        with self.network.lock, self.backend.working(self.work):
            yield

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Let the network have the average in a block, if there is one; not only while the lock is held."""
        if self.averages is None:
            yield
            return
        with self._turn():
            self.averages.exchange()
        try:
            yield
        finally:
            with self._turn():
                self.averages.take_back()

    def run(self) -> History:
        history = self.progress.history
        with contextlib.ExitStack() as ending:  # runs all of them, also when one raises, the last one first
            for callback in reversed(self.settings.callbacks):
                ending.callback(callback.on_fit_end, self.progress)
            ending.callback(self._keep_weights)
            for callback in self.settings.callbacks:
                callback.on_fit_start(self.progress)
            while len(history) < self.settings.epochs and not (self.progress.stop or history.stopped_early):
                record = self._epoch(len(history) + 1)
                history.records.append(record)
                if self.best is not None:
                    with self._averaged(), self._turn():
                        self.best.consider(record)
                    history.stopped_early = self.best.is_over
                self._tell_schedule(record)
                problem = self._write_checkpoint()
                for callback in self.settings.callbacks:
                    callback.on_epoch_end(self.progress, record)
                if self.agreement is not None:
                    with self._turn():
                        self.progress.stop = self.agreement(record.epoch, self.progress.stop, problem)
        return history

    def _tell_schedule(self, record: EpochRecord) -> None:
        schedule = self.optimizer.schedule
        value = None if schedule.monitor is None else getattr(record, schedule.monitor)
        if value is not None:  # as after a callback that set a schedule which fit has not checked
            schedule.observe(value)

    def _write_checkpoint(self) -> OSError | None:
        """Write the checkpoint, if it is this rank that does; return why it could not, where others have to hear it."""
        if self.settings.checkpoint is None or self.identity is None or not (self.ranks is None or self.ranks.is_first):
            return None
        history = self.progress.history
        try:
            with self._turn():
                write_checkpoint(
                    self.settings.checkpoint,
                    self.network,
                    self.optimizer,
                    history,
                    self.best,
                    self.averages,
                    self.identity,
                )
        except OSError as error:
            if self.ranks is None or self.ranks.size == 1:
                raise
            return error
        return None

    def _keep_weights(self) -> None:
        """Let the network have the best weights, or their average; the optimiser's moments belong to others then."""
        with self._turn():
            changed = self.best is not None and self.best.restore()
            if self.averages is not None:
                if self.best is None or self.best.epoch is None:
                    self.averages.put()
                changed = True
            if changed:
                self.optimizer.reset()
        if self.best is not None:
            self.progress.history.best_epoch = self.best.epoch

    def _epoch(self, epoch: int) -> EpochRecord:
        started = time.perf_counter()
        self.progress.epoch, self.progress.step_in_epoch = epoch, 0
        with self._turn():
            begun = self.backend.mark()
            self.steps.begin(self._order(epoch))
        rate, self.looked = 0.0, 0
        self.earlier: list[Array] = []
        for first, stop in self._windows(epoch):
            with self._turn():
                if isinstance(self.data, BatchStream):
                    self._add(epoch)
                rate = self.steps(first, stop)
                if stop - self.looked >= self.look_every:
                    self._look(epoch, stop)
            self.progress.step_in_epoch += stop - first
            for callback in self.settings.callbacks:
                callback.on_step_end(self.progress)
        with self._turn():
            self.steps.finish()
            trained = self.end.run()
            found = self.end.read()
            self._check_losses(epoch, self.looked, found.losses[self.looked :])
        if self.settings.validation_batches is not None and found.is_finite:
            batches = self.settings.validation_batches
            with self._averaged():
                found = replace(
                    found, validation=evaluate_batches(self.network, batches, "validation_batches", epoch, self.ranks)
                )
        with self._turn():
            self._check_end(epoch, found)
            self.steps.take_back_skipped()
            return EpochRecord(
                epoch=epoch,
                step=self.network.steps,
                loss=mean_loss(np.concatenate([*self.earlier, found.losses])),
                penalty=found.penalty,
                learning_rate=rate,
                samples_per_second=self.data.rows / self.backend.seconds_between(begun, trained),
                seconds=time.perf_counter() - started,
                validation_loss=None if found.validation is None else found.validation.loss,
                validation_accuracy=None if found.validation is None else found.validation.accuracy,
            )

    def _windows(self, epoch: int) -> Iterator[tuple[int, int]]:
        """Yield the epoch's windows, as first step and the step after the last; a stream's as its batches come."""
        stream = self.data
        if isinstance(stream, DeviceData):
            yield from self.windows
            return
        if stream.epoch != epoch:
            stream.begin(epoch)
        while stream.ready is not None:
            number = 0 if self.steps.is_full else len(self.steps.sizes)
            yield number, number + 1
            stream.advance()

    def _add(self, epoch: int) -> None:
        """Add a step for the batch that the stream has ready; where there is no room, begin a new part of the epoch."""
        if self.steps.is_full:
            self._look(epoch, len(self.steps.sizes))
            self.earlier.append(self.backend.to_numpy(self.steps.losses).copy())
            self.steps.take_back_skipped()
            self.steps.begin(None)
            self.looked = 0
        self.steps.add()

    def _look(self, epoch: int, stop: int) -> None:
        """Look at the losses up to step ``stop`` that nobody has looked at."""
        self._check_losses(epoch, self.looked, self.backend.to_numpy(self.steps.losses[self.looked : stop]))
        self.looked = stop

    def _order(self, epoch: int) -> Array | None:
        """Return the order of the rows in this epoch; None where it is that of the epoch before, or of a stream."""
        if isinstance(self.data, BatchStream):
            return None
        if self.has_order and not self.settings.shuffle:
            return None
        order = np.arange(self.data.rows, dtype=np.int32)
        if self.settings.shuffle:
            host_generator(self.network.seed, Purpose.SHUFFLE, self.network.steps).shuffle(order)
        self.has_order = True
        return order

    def _check_losses(self, epoch: int, first: int, losses: Array) -> None:
        """Raise if a loss of the steps from ``first`` on is not finite; good weights are restored."""
        if len(losses) == 1 and math.isfinite(losses[0, 0]):  # by far the most frequent case on a CPU
            return
        finite = np.isfinite(losses[:, 0])
        if finite.all():
            return
        wrong = int(np.argmin(finite))
        steps = self.network.steps - len(losses) + wrong
        if not self.backend.synchronous:
            self.steps.repeat(first + wrong, steps)  # what others have run since then is in the layers
        what = f"the loss became {float(losses[wrong, 0])}"
        has_updated = steps + 1 - self.first_step >= self.settings.accumulate
        self._diverged(what, epoch, steps + 1, first + wrong, has_updated)

    def _check_end(self, epoch: int, found: EpochResult) -> None:
        """Raise if the epoch's last update, whose loss nobody has seen, left weights that give no finite loss."""
        step, finite = self.network.steps, len(found.losses)
        if not found.is_finite:
            what = "an update left a value that is not finite"
            if not math.isfinite(found.loss_after_update):
                what = f"the loss after the last update is {found.loss_after_update}"
            self.steps.infer_last()
            self._diverged(what, epoch, step, finite)
        if found.validation is not None and not math.isfinite(found.validation.loss):
            self._diverged(f"the validation loss became {found.validation.loss}", epoch, step, finite)
        scale = self.network.loss_scale
        if scale is not None and scale.value < SMALLEST_SCALE:
            self._diverged(f"the loss scale fell to {scale.value:.3g}", epoch, step, finite)

    def _diverged(self, what: str, epoch: int, step: int, finite: int, has_updated: bool = True) -> NoReturn:
        """Put good weights back, of the windows that the first ``finite`` losses of the epoch confirm, and raise."""
        layer = self.network.first_non_finite()
        if self.ranks is not None:  # whose rows are others
            layer = next(filter(None, self.ranks.share(layer)), None)
        layer = layer or ("gradients" if what.startswith("the loss scale") else "loss")
        advice = self._advice(layer, has_updated)
        self.good.restore(finite)
        if self.best is not None:
            self.best.restore()
        self.averages = None  # which may hold weights of the last updates, of which nobody knows whether they are good
        self.optimizer.reset()
        if self.network.loss_scale is not None:
            self.network.loss_scale.reset()
        error = TrainingDivergedError(
            f"{what} in epoch {epoch}, step {step}; not finite first: {layer}. The network has the weights after step "
            f"{self.network.steps}. {advice} may help.",
            epoch,
            step,
            layer,
            self.progress.history,
        )
        raise error if self.ranks is None else self.ranks.reported(error)

    def _advice(self, layer: str, has_updated: bool) -> str:
        """Say what of that which this run does not do already may help."""
        network = self.network
        means = []
        if not has_updated or layer.startswith("running average"):
            means.append("inputs scaled to about 1")
            if network.dtype == np.float32 and network.precision not in HALF_DTYPES:
                means.append("dtype='float64'")
        if has_updated:
            means.append("a lower learning rate")
            if self.settings.clip_norm is None:
                means.append("clip_norm")
            if network.batch_norm and not any(network.batch_norm):
                means.append("batch norm")
        if network.loss_scale is not None:
            means.append("precision='bfloat16'")
        text = " or ".join(filter(None, [", ".join(means[:-1]), means[-1]]))
        return text[0].upper() + text[1:]
