"""What the ranks of a run have to have in common, before it and after each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends.notices import say_once
from gpunet.distributed import Ranks
from gpunet.distributed.launcher import find_launch
from gpunet.errors import DistributedError, InvalidTypeError, MissingDependencyError, shown
from gpunet.fingerprint import fingerprint
from gpunet.network import Network
from gpunet.optimizers import Optimizer
from gpunet.training.class_weights import mean_exponent
from gpunet.training.evaluation import DeviceData
from gpunet.training.identity import in_words
from gpunet.training.settings import FitSettings
from gpunet.training.snapshot import Snapshot
from gpunet.training.stream import BatchStream

Array = npt.NDArray[Any]

# Rows that ranks compare, in pieces from all over the data: reading all of them is what each is spared.
_PIECES, _ROWS = 16, 16
# Of what computes: must be of one version everywhere. Of the rest, a difference is taken care of after each epoch.
_VERSIONS = ("gpunet", "NumPy", "CuPy", "CPU backend", "launch plans")


def check_ranks(distributed: Any) -> Ranks | None:
    """Return the ranks, or raise; say once where several processes train, and none of them for the others."""
    if isinstance(distributed, Ranks):
        return distributed
    if distributed is None:
        launch = find_launch()
        if launch.size > 1 and launch.rank == 0:
            say_once(
                f"each of the {launch.size} processes that {launch.launcher} has started trains alone",
                "fit is given no distributed=, such as gpunet.distributed.mpi()",
            )
        return None
    raise InvalidTypeError(f"distributed: got {shown(distributed)}. Expected gpunet.distributed.mpi(...), or None.")


def together(ranks: Ranks | None) -> AbstractContextManager[dict[str, Any]]:
    """Return a context for what happens on all ranks or on none; see :meth:`gpunet.distributed.Ranks.agreeing`."""
    return nullcontext({}) if ranks is None else ranks.agreeing()


def begin_epoch(stream: BatchStream, epoch: int, ranks: Ranks | None) -> None:
    """Go to the first batch of an epoch; ranks scale the weights of all its batches by those of this one."""
    with together(ranks) as described:
        stream.begin(epoch)
        described |= stream.place | {"sample_weight in batches": "none" if stream.weights is None else "some"}
    if ranks is not None and stream.ready is not None and stream.ready.weights is not None:
        stream.scale_weights(mean_exponent(np.concatenate(ranks.share(stream.ready.weights))))


@contextmanager
def limited_threads(ranks: Ranks | None, network: Network, work: float) -> Iterator[None]:
    """Let a rank on a CPU have its own part of the machine's cores; NumPy's products one, so that bits are the same."""
    if ranks is None or not network.backend.synchronous:
        yield
        return
    with network.backend.working(work):
        depends_on_threads = "BLAS threads" in network.backend.arithmetic
    if not depends_on_threads and ranks.size == 1:
        yield
        return
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "distributed: needs threadpoolctl on a CPU, so that ranks do not compete for its cores: "
            "pip install 'gpunet[mpi]'."
        ) from None
    with threadpool_limits(1 if depends_on_threads else ranks.cores, user_api="blas"):
        yield


def describe(
    network: Network,
    settings: FitSettings,
    data: DeviceData | BatchStream,
    held_out: DeviceData | None,
    sample_weight: Array | None,
    class_weight: Array | None,
) -> dict[str, Any]:
    """Return what has to be the same on all ranks of a run, by name; of data, a sample."""
    optimizer, to_numpy = settings.optimizer, network.backend.to_numpy
    arithmetic = {"gpunet": import_module("gpunet").__version__} | network.backend.arithmetic
    settings_now = settings.fixed(None if isinstance(data, BatchStream) else data.rows) | {"epochs": settings.epochs}
    arrays = {
        "sample_weight": sample_weight,
        "class_weight": class_weight,
        "weights": network.flat_parameters,
        "running averages": network.flat_state if network.flat_state.size else None,
    }
    samples = {
        "X": _sample(data, "features"),
        "y": _sample(data, "targets"),
        "validation X": None if held_out is None else _sample(held_out, "features"),
        "validation y": None if held_out is None else _sample(held_out, "targets"),
    }
    return (
        {f"version of {name}": arithmetic[name] for name in _VERSIONS if name in arithmetic}
        | {"checkpoint": settings.checkpoint is not None, "resume": settings.resume}
        | {"validation_batches": settings.validation_batches is not None}
        | {"classes": None if network.classes is None else network.classes.tolist()}
        | {"metadata": sorted(map(str, network.metadata))}
        | {f"metadata[{name!r}]": value for name, value in network.metadata.items()}
        | network.configuration
        | {"steps": network.steps}
        | settings_now
        | {"optimizer": f"{optimizer.name}, {optimizer.hyperparameters}", "optimizer's step": optimizer.step}
        | {"learning rate": in_words(optimizer.schedule), "early_stopping": in_words(settings.early_stopping)}
        | samples
        | {name: None if array is None else _digest(array, to_numpy=to_numpy) for name, array in arrays.items()}
    )


def _sample(data: DeviceData | BatchStream, name: str) -> str | None:
    """Return a digest of shape, dtype and some rows."""
    if isinstance(data, BatchStream):
        return data.fingerprint
    array = getattr(data, name)
    starts = np.linspace(0, max(0, len(array) - _ROWS), _PIECES).astype(int).tolist()
    pieces = [array[start : start + _ROWS] for start in dict.fromkeys(starts)]
    to_numpy = np.asarray if name in data.fed else data.to_numpy
    return f"{array.shape} with {_digest(*pieces, to_numpy=to_numpy)}"


def _digest(*arrays: Array, to_numpy: Callable[[Array], Array]) -> str:
    """Return the beginning of a fingerprint: enough to tell arrays apart, and short enough for a message."""
    return f"digest {fingerprint(*arrays, to_numpy=to_numpy)[:16]}"


class EpochAgreement:
    """Compares the ranks after each epoch.

    Parameters
    ----------
    ranks : Ranks
    network : Network
    optimizer : Optimizer
    snapshots : sequence of Snapshot
        What else a run goes on from, or ends with: the average, and the best weights.
    """

    def __init__(self, ranks: Ranks, network: Network, optimizer: Optimizer, snapshots: Sequence[Snapshot]) -> None:
        self._ranks = ranks
        self._network = network
        self._optimizer = optimizer
        self._snapshots = snapshots
        arithmetic = ranks.share(network.backend.arithmetic)
        self._is_of_one_kind = all(one == arithmetic[0] for one in arithmetic)

    def __call__(self, epoch: int, is_over: bool, problem: OSError | None) -> bool:
        """Return whether any rank wants to stop; every rank calls this.

        Parameters
        ----------
        epoch : int
        is_over : bool
            Whether this rank does.
        problem : OSError or None
            Why this rank could not write what it has to: all raise it then.

        Raises
        ------
        DistributedError
            The weights, or a setting of the layers, have become different.
        """
        network, ranks = self._network, self._ranks
        vectors = [network.flat_parameters, network.flat_state]
        digest = fingerprint(*vectors, to_numpy=network.backend.to_numpy)
        found = ranks.share((digest, is_over, problem))
        for rank, (_, _, failure) in enumerate(found):
            if failure is not None:
                raise ranks.reported(failure, rank)
        different = [rank for rank, (other, *_) in enumerate(found) if other != found[0][0]]
        if different and self._is_of_one_kind:
            raise ranks.reported(
                DistributedError(
                    f"after epoch {epoch}, rank {different[0]} has other weights than rank 0. Expected the same: a "
                    "callback that changes the network, or the optimizer, has to do so on every rank."
                )
            )
        with ranks.agreeing() as described:  # what the steps to come would do differently, each on its rows
            described |= network.configuration
        if not self._is_of_one_kind:  # processors of several kinds round differently
            vectors += self._optimizer.moments.values()
            for snapshot in self._snapshots:
                vectors += snapshot.parameters, snapshot.state
            for vector in filter(len, vectors):
                first = ranks.share(network.backend.to_numpy(vector) if ranks.is_first else None)[0]
                network.backend.copy(first, vector)
        return any(over for _, over, _ in found)
