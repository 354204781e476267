"""``fit``: mini-batch training with validation, history, early stopping and checkpoints (lecture row L5)."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from gpunet.errors import ShapeError, TrainingDivergedError
from gpunet.network import Network
from gpunet.optimizers import Optimizer
from gpunet.random import Purpose, host_generator
from gpunet.training.callbacks import Callback, Run
from gpunet.training.checkpoint import read_checkpoint, write_checkpoint
from gpunet.training.class_weights import combine_weights, weigh_classes
from gpunet.training.early_stopping import BestWeights, EarlyStopping
from gpunet.training.evaluation import DeviceData, evaluate_on_device
from gpunet.training.history import EpochRecord, History
from gpunet.training.identity import RunIdentity
from gpunet.training.settings import FitSettings, check_settings
from gpunet.training.snapshot import GOOD_WEIGHTS_EVERY, GoodWeights
from gpunet.training.step import TrainingStep

Array = npt.NDArray[Any]


def fit(
    network: Network,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    epochs: int = 20,
    batch_size: int = 128,
    optimizer: Optimizer | None = None,
    l2: float = 0.0,
    clip_norm: float | None = None,
    shuffle: bool = True,
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    class_weight: Mapping[int, float] | npt.ArrayLike | str | None = None,
    sample_weight: npt.ArrayLike | None = None,
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
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
        read where it is: it must not change meanwhile.
    y : array_like
        Labels (n,), or numbers (n, c) for squared error, from 0 to 1 for sigmoid cross-entropy.
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
    shuffle : bool
        Whether the order changes from epoch to epoch; False keeps the order of X.
    validation : (X, y), or None
        Evaluated after each epoch, in inference mode.
    class_weight : mapping, array_like (c,), "balanced" or None
        How much each class counts: a mapping gives some labels their weight and the others 1; ``"balanced"`` gives
        n / (c' count of the label), with c' the number of labels that occur.
    sample_weight : array_like, (n,), or None
        At least 0. A batch's loss is its weighted mean.
    early_stopping : EarlyStopping or None
        Needs ``validation``. At the end, also of all epochs, the weights of the best epoch are restored.
    callbacks : sequence of Callback
    checkpoint : path or None
        Written after each epoch. Its digests of the data are computed on the host, piece by piece.
    resume : bool
        Whether to go on from ``checkpoint`` if that file exists. The result is, bit for bit, that of a run that was
        never interrupted, given the same arguments and the arithmetic of the same processor, BLAS library, number of
        BLAS threads and versions, or the same GPU. Other data or weights, another network, optimiser (momentum, betas,
        ...), batch size, ``shuffle``, ``l2``, ``clip_norm`` or monitored quantity is refused by name. Another learning
        rate or arithmetic, and a checkpoint of an older gpunet that does not record all of this, is told by a
        :class:`gpunet.ResumeWarning`. ``epochs``, ``callbacks`` and the patience may change.

    Returns
    -------
    History

    Raises
    ------
    ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        Arguments that do not fit; nothing has changed then.
    InUseError
        Another call of ``fit``, in this thread or another one, is training the network or with the optimiser.
    TrainingDivergedError
        The loss became NaN or infinite. The network holds the last weights known to give a finite loss (at most 16
        steps old; with early stopping those of the best epoch), and the error says at which step and in which layer
        it was seen first and has the history so far.
    OSError
        The checkpoint cannot be written. The network has the weights after the epoch then, and an older checkpoint is
        still there.
    """
    settings = check_settings(
        network,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        l2=l2,
        clip_norm=clip_norm,
        shuffle=shuffle,
        validation=validation,
        early_stopping=early_stopping,
        callbacks=callbacks,
        checkpoint=checkpoint,
        resume=resume,
    )
    with network.in_training, settings.optimizer.in_training:
        with network.lock:
            data = DeviceData(network, X, y, sample_weight)
            if data.rows < network.minimum_batch:
                raise ShapeError(
                    f"X: got {data.rows} row. Expected at least {network.minimum_batch}: batch norm needs a batch."
                )
            per_class, own_weights = weigh_classes(network, class_weight, data.targets), data.weights
            data.weights = combine_weights(network, per_class, data.targets, own_weights)
            held_out = None if validation is None else DeviceData(network, *validation, prefix="validation ")
            identity = None
            if settings.checkpoint is not None:
                identity = RunIdentity.of(network, settings, data, held_out, own_weights, per_class)
            run = _Loop(network, data, held_out, settings, identity)
        # Overflow and NaN are looked for, and reported with their place; NumPy's warnings would only precede that.
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                return run.run()
            finally:
                with network.lock:
                    network.backend.synchronize()  # nothing reads the caller's arrays any more, whatever has happened


def batch_slices(rows: int, batch_size: int, minimum: int) -> list[slice]:
    """Cut ``rows`` into batches; a remainder of fewer than ``minimum`` rows joins the batch before it."""
    starts = list(range(0, rows, batch_size))
    if len(starts) > 1 and rows - starts[-1] < minimum:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], rows], strict=True)]


class _Loop:
    """The state of one call of ``fit``. It holds the network's lock from one call of the user's code to the next."""

    def __init__(
        self,
        network: Network,
        data: DeviceData,
        held_out: DeviceData | None,
        settings: FitSettings,
        identity: RunIdentity | None,
    ) -> None:
        self.network = network
        self.backend = network.backend
        self.data = data
        self.held_out = held_out
        self.settings = settings
        self.optimizer = settings.optimizer
        self.identity = identity
        checkpoint = None
        path = settings.checkpoint
        if settings.resume and path is not None and identity is not None and path.exists():
            checkpoint = read_checkpoint(
                path, network, self.optimizer, settings.early_stopping, identity, settings.epochs
            )

        self.best = None if settings.early_stopping is None else BestWeights(network, settings.early_stopping)
        self.slices = batch_slices(data.rows, settings.batch_size, network.minimum_batch)
        self.progress = Run(network, settings.epochs, len(self.slices))
        self.steps: dict[int, TrainingStep] = {}
        self.losses = self.backend.zeros((len(self.slices), 2), network.dtype)
        self.good = GoodWeights(network)

        self.optimizer.attach(network.backend, network.flat_parameters)
        if checkpoint is not None:
            checkpoint.apply(network, self.optimizer, self.best)
            self.progress.history = checkpoint.history
            self.good = GoodWeights(network)
        self.first_step = network.steps + 1

    def run(self) -> History:
        history = self.progress.history
        with contextlib.ExitStack() as ending:  # runs all of them, also when one raises, the last one first
            for callback in reversed(self.settings.callbacks):
                ending.callback(callback.on_fit_end, self.progress)
            ending.callback(self._restore_best)
            for callback in self.settings.callbacks:
                callback.on_fit_start(self.progress)
            while len(history) < self.settings.epochs and not (self.progress.stop or history.stopped_early):
                record = self._epoch(len(history) + 1)
                history.records.append(record)
                if self.best is not None:
                    with self.network.lock:
                        self.best.consider(record)
                    history.stopped_early = self.best.is_over
                self._write_checkpoint()
                for callback in self.settings.callbacks:
                    callback.on_epoch_end(self.progress, record)
        return history

    def _write_checkpoint(self) -> None:
        if self.settings.checkpoint is not None and self.identity is not None:
            history = self.progress.history
            with self.network.lock:
                write_checkpoint(
                    self.settings.checkpoint, self.network, self.optimizer, history, self.best, self.identity
                )

    def _restore_best(self) -> None:
        """Go back to the best weights; the optimiser's moments belong to later ones and are forgotten."""
        if self.best is not None:
            with self.network.lock:
                if self.best.restore():
                    self.optimizer.reset()
            self.progress.history.best_epoch = self.best.epoch

    def _epoch(self, epoch: int) -> EpochRecord:
        started = time.perf_counter()
        self.progress.epoch, self.progress.step_in_epoch = epoch, 0
        order = np.arange(self.data.rows, dtype=np.int32)
        if self.settings.shuffle:
            host_generator(self.network.seed, Purpose.SHUFFLE, self.network.steps).shuffle(order)

        rate = 0.0
        window = 0  # the step in this epoch at which the candidate for the last good weights was taken
        for number, rows in enumerate(self.slices):
            with self.network.lock:
                if number == window:
                    self.good.take_candidate()
                rate = self._step(rows.stop - rows.start)(order[rows])
                self.backend.copy(self.network.loss_layer.value, self.losses[number])
                closing = number + 1 - window == GOOD_WEIGHTS_EVERY or number + 1 == len(self.slices)
                if self.backend.synchronous or closing:
                    self._check_losses(epoch, window, number + 1)
                if closing:
                    self.good.confirm()
                    window = number + 1
            self.progress.step_in_epoch = number + 1
            for callback in self.settings.callbacks:
                callback.on_step_end(self.progress)
        with self.network.lock:
            self._check_weights(epoch)
            trained = time.perf_counter()
            validation = None if self.held_out is None else evaluate_on_device(self.network, self.held_out)
            if validation is not None and not math.isfinite(validation.loss):
                self._diverged(f"the validation loss became {validation.loss}", epoch, self.network.steps)
            losses = self.backend.to_numpy(self.losses)
        weights = [float(weight) for weight in losses[:, 1]]
        total = math.fsum(float(loss) * weight for loss, weight in zip(losses[:, 0], weights, strict=True))
        return EpochRecord(
            epoch=epoch,
            step=self.network.steps,
            loss=total / math.fsum(weights),
            penalty=self.network.penalty(self.settings.l2),
            learning_rate=rate,
            samples_per_second=self.data.rows / (trained - started),
            seconds=time.perf_counter() - started,
            validation_loss=None if validation is None else validation.loss,
            validation_accuracy=None if validation is None else validation.accuracy,
        )

    def _step(self, rows: int) -> TrainingStep:
        """Return the step for batches of ``rows`` rows; an epoch has at most two sizes."""
        if rows not in self.steps:
            self.steps[rows] = TrainingStep(
                self.network,
                self.optimizer,
                self.data,
                rows,
                l2=self.settings.l2,
                clip_norm=self.settings.clip_norm,
            )
        return self.steps[rows]

    def _check_losses(self, epoch: int, first: int, stop: int) -> None:
        """Raise if a loss of steps ``first`` to ``stop - 1`` of this epoch is not finite; good weights are restored."""
        losses = self.backend.to_numpy(self.losses[first:stop])[:, 0]
        finite = np.isfinite(losses)
        if finite.all():
            return
        wrong = int(np.argmin(finite))
        if finite[0]:
            self.good.confirm()
        step = self.network.steps - (stop - first) + wrong + 1
        self._diverged(f"the loss became {float(losses[wrong])}", epoch, step, step > self.first_step)

    def _check_weights(self, epoch: int) -> None:
        """Raise if the epoch's last update, whose loss nobody has seen, left weights that give no finite loss."""
        step = self.steps[self.slices[-1].stop - self.slices[-1].start]
        loss = step.loss_after_update()
        if not math.isfinite(loss):
            self._diverged(f"the loss after the last update is {loss}", epoch, self.network.steps)
        if not self.network.is_finite():
            self._diverged("an update left a value that is not finite", epoch, self.network.steps)

    def _diverged(self, what: str, epoch: int, step: int, has_updated: bool = True) -> NoReturn:
        """Put good weights back and raise."""
        layer = self.network.first_non_finite() or "loss"
        advice = self._advice(layer, has_updated)
        self.good.restore()
        if self.best is not None:
            self.best.restore()
        self.optimizer.reset()
        raise TrainingDivergedError(
            f"{what} in epoch {epoch}, step {step}; not finite first: {layer}. The network has the weights after step "
            f"{self.network.steps}. {advice} may help.",
            epoch,
            step,
            layer,
            self.progress.history,
        )

    def _advice(self, layer: str, has_updated: bool) -> str:
        """Say what of that which this run does not do already may help."""
        network = self.network
        means = []
        if not has_updated or layer.startswith("running average"):
            means.append("inputs scaled to about 1")
            if network.dtype == np.float32:
                means.append("dtype='float64'")
        if has_updated:
            means.append("a lower learning rate")
            if self.settings.clip_norm is None:
                means.append("clip_norm")
            if network.batch_norm and not any(network.batch_norm):
                means.append("batch norm")
        text = " or ".join(filter(None, [", ".join(means[:-1]), means[-1]]))
        return text[0].upper() + text[1:]
