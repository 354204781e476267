"""What a training step of the five configurations should take on 8 and on 64 GPUs: a model, and no measurement.

A step on N ranks takes what :mod:`.prediction` says of its rows on one GPU, what shards cost beside, and what its
exchanges take that nothing is computed meanwhile: two for each batch norm, which are waited for, and those of the
gradient, of which all but the last bucket travel during the backward pass. By NCCL an exchange takes its latency, by
the model with which NCCL itself chooses algorithms, and its bytes at the rate that NCCL's authors report; by way of the
host what MPI was measured to take, and two copies.

Each constant says where it is from, as in :mod:`.prediction`; what is counted here follows ``gpunet.distributed``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpunet.distributed.ordered_sum import ALL_TO_ONE_BYTES
from gpunet.distributed.sharded_backend import BUCKET_BYTES
from gpunet.verification.configurations import CONFIGURATIONS

from .prediction import GPUS, HOST_CALL, NODE_LATENCY, Model, table
from .results import Results
from .roofline import parameter_count
from .words import NOTHING, significant

RANKS, PER_MACHINE = (8, 64), 8
PRECISION = "tf32"
# NCCL's latencies in seconds [S its src/graph/tuning.cc, protocol LL]: to begin a ring or a tree, then for each step
# by NVLink, which counts 1.8 times where there are several machines, or by the network.
RING, RING_NVLINK, RING_NETWORK = 3.6e-6, 0.47e-6, 2.7e-6
TREE, TREE_NVLINK, TREE_NETWORK = 4.4e-6, 0.52e-6, 5.0e-6
SEVERAL_MACHINES = 1.8
# Bytes per second. NVLink of H100 and H200 by a ring, and with NVLink SHARP [S nccl-tests issue 212, by a maintainer];
# a network card of 400 Gb/s [S nccl-tests issue 290, by a maintainer], of which each GPU of a machine has one [A]. A
# ring uses all of them, all-to-all for each GPU its own [S nccl-tests issue 267, by a maintainer].
NVLINK, NVLINK_SHARP, CARD = 370e9, 480e9, 46e9
# By way of the host, where NCCL cannot be used: MPICH's latency for each doubling of the ranks, and the bytes per
# second that a rank gets, of 512 bytes and of 1 MB between two ranks of a machine. [M] A copy to the device. [A]
MPI_LATENCY, MPI_RATE = 2.3e-6, 7e9
COPY_LATENCY, COPY_RATE = 10e-6, 25e9
# Of a step without its update, what is the backward pass: two of three products. [D]
BACKWARD = 2 / 3
# Nodes that shards add: for each hidden layer, statistics and merge, three for the sums and copies of batch norm's
# gradient and one of the weights'; and for a step, the loss's weights, the division, the last layer's copies. [D]
NODES_PER_HIDDEN, OTHER_NODES = 7, 5
# Times that a gradient is moved beside: read for the sum, written, copied to its place, divided there. [D]
GRADIENT_SWEEPS = 6


@dataclass(frozen=True)
class Variant:
    """How a step is done.

    Attributes
    ----------
    is_ordered : bool
        Whether sums are in the order of shards, one for each rank.
    is_recorded : bool
        Whether it is one graph; otherwise the host calls the device for each node and exchange.
    by_host : bool
        Whether messages go by way of the host, each waited for.
    """

    is_ordered: bool = True
    is_recorded: bool = False
    by_host: bool = False


VARIANTS = {
    "as it is": Variant(),
    "plain sums": Variant(is_ordered=False),
    "were it recorded": Variant(is_recorded=True),
    "by way of the host": Variant(by_host=True),
}


def all_gather(part: float, ranks: int, *, by_host: bool = False) -> float:
    """Return the seconds in which each of so many ranks gets the others' parts, of so many bytes each."""
    if by_host:
        return _by_host(part, part * (ranks - 1), ranks)
    return _ring_latency(ranks, 1) + part * (ranks - 1) / _ring_rate(ranks)


def all_to_all(size: float, ranks: int, *, by_host: bool = False) -> float:
    """Return the seconds in which each of so many ranks sends the others their parts of so many bytes."""
    if by_host:
        return _by_host(size, size * (ranks - 1) / ranks, ranks)
    outside = max(0, ranks - PER_MACHINE) / ranks
    inside = (min(ranks, PER_MACHINE) - 1) / ranks
    return _ring_latency(ranks, 1) + max(size * inside / NVLINK, size * outside / CARD)


def all_reduce(size: float, ranks: int) -> float:
    """Return the seconds in which so many ranks add up vectors of so many bytes."""
    machines = _machines(ranks)
    per_step = TREE_NVLINK * (SEVERAL_MACHINES if machines > 1 else 1)
    tree = TREE + 2 * ((min(ranks, PER_MACHINE) - 1) * per_step + math.log2(machines) * TREE_NETWORK)
    rate = NVLINK_SHARP if machines == 1 else _ring_rate(ranks)
    return min(tree, _ring_latency(ranks, 2)) + 2 * (ranks - 1) / ranks * size / rate


def _by_host(sent: float, received: float, ranks: int) -> float:
    copies = 2 * COPY_LATENCY + (sent + received) / COPY_RATE
    return copies + math.ceil(math.log2(ranks)) * MPI_LATENCY + received / MPI_RATE


def _machines(ranks: int) -> int:
    return -(-ranks // PER_MACHINE)


def _ring_latency(ranks: int, rounds: int) -> float:
    machines = _machines(ranks)
    by_network = rounds * (machines - 1)
    by_nvlink = rounds * (ranks - 1) - by_network
    return RING + by_nvlink * RING_NVLINK * (SEVERAL_MACHINES if machines > 1 else 1) + by_network * RING_NETWORK


def _ring_rate(ranks: int) -> float:
    return NVLINK if _machines(ranks) == 1 else min(NVLINK, CARD * PER_MACHINE)


@dataclass(frozen=True)
class Step:
    """Seconds of a step on one of several ranks.

    Attributes
    ----------
    computed : float
        On the device, or by the host's calls where those take longer.
    waited : float
        For exchanges.
    """

    computed: float
    waited: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.computed + self.waited


def one_gpu(label: str, rows: int | None = None) -> float:
    """Return the seconds of a recorded step of a configuration, by default of its own batch, on one GPU."""
    return Model(GPUS[0], label, PRECISION, rows=rows).times()["gpunet"]


def step(label: str, rows: int, ranks: int, variant: Variant) -> Step:
    """Return the step of a configuration with so many rows on each rank.

    Parameters
    ----------
    label : str
    rows : int
    ranks : int
    variant : Variant
    """
    model = Model(GPUS[0], label, PRECISION, rows=rows)
    hidden = model.layers - 1
    gradient = 4.0 * parameter_count(model.case)
    buckets = max(1, round(gradient / BUCKET_BYTES))
    nodes = NODES_PER_HIDDEN * hidden + OTHER_NODES + buckets
    more = nodes * NODE_LATENCY + GRADIENT_SWEEPS * gradient / model.gpu.copy
    exchanges = 2 * hidden + buckets * (2 if variant.is_ordered else 1)
    calls = 1 if variant.is_recorded else model.counts.nodes + nodes + exchanges
    widths = model.case.sizes[1:-1]
    norms = math.fsum(2 * all_gather(4.0 * 2 * width, ranks, by_host=variant.by_host) for width in widths)
    of_buckets = buckets * _sum(gradient / buckets, ranks, variant)
    computed = max(one_gpu(label, rows) + more, calls * HOST_CALL)
    update = next(demand.bytes for demand in model.demands if demand.name == "update") / model.gpu.copy
    meanwhile = 0.0 if variant.by_host else BACKWARD * max(0.0, computed - update) * (buckets - 1) / buckets
    exposed = max(of_buckets / buckets, of_buckets - meanwhile)
    return Step(computed, norms + exposed)


def _sum(size: float, ranks: int, variant: Variant) -> float:
    """Return the seconds of a bucket of gradients."""
    if not variant.is_ordered:
        return all_reduce(size, ranks)
    if size * ranks <= ALL_TO_ONE_BYTES:
        return all_gather(size, ranks, by_host=variant.by_host)
    to_all = all_to_all(size, ranks, by_host=variant.by_host)
    return to_all + all_gather(size / ranks, ranks, by_host=variant.by_host)


def scaling(files: Sequence[Results]) -> list[str]:
    """Return the table; result files have nothing of it, since nothing has been measured."""
    columns = ["configuration, step", "one GPU"]
    columns += [f"{kind}, {ranks} GPUs" for kind in ("one batch", "a batch each") for ranks in RANKS]
    rows = []
    for label, (batch, *_) in CONFIGURATIONS.items():
        alone = one_gpu(label)
        for name, variant in VARIANTS.items():
            strong = [_cell(label, batch // ranks, ranks, variant, alone / ranks) for ranks in RANKS]
            weak = [_cell(label, batch, ranks, variant, alone) for ranks in RANKS]
            rows.append([f"{label}, {name}", significant(1e6 * alone), *strong, *weak])
    status = "microseconds of a step, none of them measured, and the part of linear scaling"
    return [f"**Modelled for H200s, {PER_MACHINE} to a machine, {PRECISION}**: {status}.", table(columns, rows)]


def _cell(label: str, rows: int, ranks: int, variant: Variant, ideal: float) -> str:
    if variant.by_host and ranks > PER_MACHINE:  # what MPI takes between machines has not been measured
        return NOTHING
    seconds = step(label, rows, ranks, variant).seconds
    return f"{significant(1e6 * seconds)} ({ideal / seconds:.0%})"
