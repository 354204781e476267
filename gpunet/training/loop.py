"""The epochs of a run: batches, losses, validation, early stopping, checkpoints and callbacks (lecture row L5)."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from gpunet.backends.half import HALF_DTYPES
from gpunet.batches import batch_slices
from gpunet.distributed.sharded_step import ShardedStep
from gpunet.errors import TrainingDivergedError
from gpunet.mixed_precision import SMALLEST_SCALE
from gpunet.network import Network
from gpunet.random import Purpose, host_generator
from gpunet.training.callbacks import Callback, Run
from gpunet.training.checkpoint import Checkpoint, write_checkpoint
from gpunet.training.distribution import EpochAgreement, begin_epoch, together
from gpunet.training.early_stopping import BestWeights
from gpunet.training.epoch_end import EpochEnd, EpochResult, mean_loss
from gpunet.training.evaluation import DeviceData, evaluate_batches
from gpunet.training.history import EpochRecord, History
from gpunet.training.identity import RunIdentity
from gpunet.training.settings import FitSettings
from gpunet.training.snapshot import GOOD_WEIGHTS_EVERY, GoodWeights
from gpunet.training.step import TrainingSteps
from gpunet.training.stream import BatchStream
from gpunet.training.weight_average import AveragedWeights

Array = npt.NDArray[Any]

# On a device, steps between two looks at their losses: each lets it wait for a moment, and nobody need know sooner.
LOOK_EVERY = 16 * GOOD_WEIGHTS_EVERY


def windows(steps: int, length: int) -> list[tuple[int, int]]:
    """Cut an epoch into windows of so many steps; the last may be shorter."""
    return [(first, min(first + length, steps)) for first in range(0, steps, length)]


def _watches_steps(callback: Callback) -> bool:
    return callback.every_step and getattr(callback.on_step_end, "__func__", None) is not Callback.on_step_end


class Loop:
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

        self.good = GoodWeights(network)
        self.ranks = ranks = settings.ranks
        is_watched = self._on_any(any(map(_watches_steps, settings.callbacks)))  # all look at losses at the same steps
        self.agreement = None
        if ranks is not None:
            snapshots = [] if self.best is None else [self.best.snapshot]
            snapshots += [] if self.averages is None else [self.averages.average]
            self.agreement = EpochAgreement(ranks, network, self.optimizer, snapshots)
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

    def _on_any(self, flag: bool) -> bool:
        """Return whether a flag is set on any rank."""
        return flag if self.ranks is None else any(self.ranks.share(flag))

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
            self.progress.stop = self._on_any(self.progress.stop)
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
            begin_epoch(stream, epoch, self.ranks)
        while stream.ready is not None:
            number = 0 if self.steps.is_full else len(self.steps.sizes)
            yield number, number + 1
            with together(self.ranks) as described:  # with other numbers of batches, some ranks would wait for ever
                stream.advance()
                described |= stream.place

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
            found = filter(None, self.ranks.share(layer))
            layer = min(found, key=self.network.places().index, default=None)
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
