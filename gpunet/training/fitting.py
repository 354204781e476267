"""``fit``: what a run is given, checked before anything changes (lecture row L5)."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.distributed import Ranks
from gpunet.errors import ShapeError
from gpunet.labels import CLASSES
from gpunet.network import Network
from gpunet.optimizers import Optimizer
from gpunet.training.callbacks import Callback
from gpunet.training.checkpoint import Checkpoint, read_checkpoint
from gpunet.training.class_weights import combine_weights, mean_exponent, weigh_classes
from gpunet.training.distribution import begin_epoch, check_ranks, describe, limited_threads, together
from gpunet.training.early_stopping import EarlyStopping
from gpunet.training.evaluation import DeviceData, check_given
from gpunet.training.history import History
from gpunet.training.identity import RunIdentity
from gpunet.training.loop import Loop
from gpunet.training.settings import FitSettings, check_settings
from gpunet.training.stream import Batches, BatchStream
from gpunet.training.weight_average import WeightAverage

Array = npt.NDArray[Any]


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
        Written after each epoch. Its digests of the data are computed on the host, block by block of rows.
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
        ``"auto"`` converts a memory-mapped file batch by batch and other arrays once. On several ranks it is
        ``"host"``: each rank reads its own rows. The result is the same, bit for bit (:doc:`/arrays`).

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
        The ranks differ in arguments, data, weights, seeds or versions, before anything changes; in the number or the
        lengths of ``batches``, when these come; or, after an epoch, in weights, which callbacks have changed then. What
        else one rank alone raises ends all of them.
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
        with contextlib.ExitStack() as turns:
            with together(ranks):
                turns.enter_context(network.in_training)
                turns.enter_context(settings.optimizer.in_training)
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
        with network.lock, contextlib.ExitStack() as learning:
            with together(ranks) as described:
                learning.enter_context(_learning_classes(network, y))
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
            if ranks is not None and isinstance(data, DeviceData) and data.weights is not None:
                exponent = ranks.share(mean_exponent(network.backend.to_numpy(data.weights)))[0]
                with network.backend.array_module():
                    data.weights = network.backend.asarray(data.weights * 2.0**-exponent)
            limits.enter_context(limited_threads(ranks, network, work))
            if settings.checkpoint is not None:
                with network.backend.working(work):
                    identity = RunIdentity.of(network, settings, data, held_out, own_weights, per_class)
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
            begin_epoch(data, done + 1, settings.ranks)
        with network.lock, network.backend.working(work):
            run = Loop(network, data, held_out, settings, work, identity, resumed)
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
        settings.checkpoint,
        network,
        settings.optimizer,
        settings.early_stopping,
        identity,
        settings.epochs,
        warns=settings.ranks is None or settings.ranks.is_first,
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
