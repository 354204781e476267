"""What the ranks of a job do together: exchanges beside NumPy, batch norm and steps beside those of one rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gpunet.distributed import Ranks, one_rank
from gpunet.network import Network
from gpunet.optimizers import SGD
from gpunet.training import fit
from gpunet.verification.check import Check
from gpunet.verification.networks import GROWTH, TRAININGS, Training, train
from gpunet.verification.operation import Difference, difference
from gpunet.verification.storage import Array
from gpunet.verification.subject import Subject

# One number, fewer than shards, odd and even, and as many as the gradient of a large layer has.
LENGTHS = (1, 3, 64, 1025, 1_000_003)
DTYPES = ("float32", "float64")
# Of batches with batch norm: fewer than shards, so that some are empty; uneven; many.
BATCHES = (5, 97, 1030)
# Of inputs, in standard deviations from zero.
MEANS = (0.0, 1e4)
INPUTS, CLASSES = 11, 4
# Of each rank: a sum of three is no tree of one level.
SHARDS_EACH = 3


def exchange(ranks: Ranks, subject: Subject, operation: str, dtype: str, length: int) -> Iterator[Difference]:
    """Yield how far what an exchange brings is from what NumPy does with the parts of all ranks.

    Parameters
    ----------
    operation : str
        ``"all_gather"``, ``"all_to_all"`` or ``"all_reduce"``.
    """
    backend, size = subject.operations(), ranks.size
    # Integers, which every order of adding up leaves exact.
    every = np.arange(size * size * length).reshape(size, size, length) % 1021
    own = every[ranks.rank] if operation == "all_to_all" else every[ranks.rank, 0]
    given, received = backend.asarray(own.astype(dtype)), backend.zeros((size, length), dtype)
    moves = ranks.communicator.exchange(backend)
    if operation == "all_reduce":
        moves.all_reduce(given)()
        yield difference(operation, backend.to_numpy(given), every[:, 0].sum(axis=0))
        return
    (moves.all_to_all if operation == "all_to_all" else moves.all_gather)(given, received)()
    expected = every[:, ranks.rank] if operation == "all_to_all" else every[:, 0]
    yield difference(operation, backend.to_numpy(received), expected)


def batch_norm(ranks: Ranks, subject: Subject, dtype: str, rows: int, mean: float) -> Iterator[Difference]:
    """Yield how far a step on one batch with batch norm is from one rank's, and from a step that has no shards."""
    rng = np.random.default_rng(rows)
    X = (rng.standard_normal((rows, INPUTS)) + mean).astype(dtype)
    y = rng.integers(0, CLASSES, rows)

    def step(by: Ranks | None) -> dict[str, Array]:
        network = Network([INPUTS, 19, CLASSES], device=subject.for_network(), dtype=dtype, seed=2, batch_norm=True)
        fit(network, X, y, epochs=1, batch_size=rows, optimizer=SGD(0.1), distributed=by)
        return {**network.get_parameters(), **network.get_state()}

    found, alone, plain = step(ranks), step(_alone(ranks)), step(None)
    bound = GROWTH * float(np.finfo(dtype).eps) * max(1.0, mean)
    for name, values in found.items():
        yield difference(name, values, alone[name])
        yield difference(name, values, plain[name], bound * max(1.0, float(np.abs(plain[name]).max())))


def steps(ranks: Ranks, subject: Subject, training: Training) -> Iterator[Difference]:
    """Yield how far 20 steps are from those of one rank with as many shards: not at all."""
    found, expected = (
        train(subject.for_network(training.precision), replace(training, update={**training.update, "distributed": by}))
        for by in (ranks, _alone(ranks))
    )
    for name, values in expected.items():
        yield difference(name, found[name], values)


def _alone(ranks: Ranks) -> Ranks:
    return one_rank(ranks.partition.shards)


def all_checks(ranks: Ranks, subject: Subject, words: Sequence[str] = ()) -> list[Check]:
    """Return every check of the ranks whose name has all of the words; all ranks do them in the same order."""
    return [check for check in _checks(ranks, subject) if all(map(check.has, words))]


def _checks(ranks: Ranks, subject: Subject) -> Iterator[Check]:
    def check(what: str, kind: str, detail: str, run: Callable[..., Iterable[Difference]], *arguments: Any) -> Check:
        return Check(what, kind, detail, partial(_of_all, ranks, partial(run, ranks, subject, *arguments)))

    for operation in ("all_gather", "all_to_all", "all_reduce"):
        for dtype in DTYPES:
            for length in LENGTHS:
                what = operation.replace("_", " ")
                yield check(what, dtype, f"{length} numbers", exchange, operation, dtype, length)
    for dtype in DTYPES:
        for rows in BATCHES:
            for mean in MEANS:
                detail = f"{rows} rows, mean {mean:g}"
                yield check("batch norm of all ranks", dtype, detail, batch_norm, dtype, rows, mean)
    for training in TRAININGS:
        yield check("20 steps beside one rank's", training.kind, training.name, steps, training)


def _of_all(ranks: Ranks, run: Callable[[], Iterable[Difference]]) -> Iterator[Difference]:
    """Yield what every rank has found, so that all know the same; an error is something found too."""
    try:
        found = list(run())
    except Exception as error:
        found = [Difference("", np.inf, f"{type(error).__name__}: {' '.join(str(error).split())}")]
    for rank, differences in enumerate(ranks.share(found)):
        for one in differences:
            yield replace(one, text=f"rank {rank}: {one.text}") if one.text else one
