"""Huber's loss: ``huber.cu``."""

from __future__ import annotations

from collections.abc import Iterator

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.instantiation import Variants, arithmetic_type
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.cuda.weighted_mean import elementwise_group, elementwise_loss
from gpunet.backends.reference.training import Tally


def huber_group(storage: str) -> Group:
    """Return the kernels for one storage type."""
    return elementwise_group("huber", storage)


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return map(huber_group, variants.storages)


def huber(
    cuda: Launcher,
    outputs: Array,
    targets: Array,
    weights: Array | None,
    doutputs: Array,
    loss: Array,
    delta: float,
    bias: Array | None = None,
    dbias: Array | None = None,
    tally: Tally | None = None,
) -> None:
    """Launch :func:`gpunet.backends.reference.huber.huber`."""
    more = (arithmetic_type(outputs.dtype)(delta),)
    elementwise_loss(cuda, "huber", outputs, targets, weights, doutputs, loss, bias, dbias, tally, more)
