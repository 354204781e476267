"""Sigmoid and cross-entropy in one step: ``sigmoid_cross_entropy.cu``."""

from __future__ import annotations

from collections.abc import Iterator

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.instantiation import Variants
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.cuda.weighted_mean import elementwise_group, elementwise_loss
from gpunet.backends.reference.training import Tally


def sigmoid_cross_entropy_group(storage: str) -> Group:
    """Return the kernels for one storage type."""
    return elementwise_group("sigmoid_cross_entropy", storage)


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return map(sigmoid_cross_entropy_group, variants.storages)


def sigmoid_cross_entropy(
    cuda: Launcher,
    outputs: Array,
    targets: Array,
    weights: Array | None,
    doutputs: Array,
    loss: Array,
    bias: Array | None = None,
    dbias: Array | None = None,
    tally: Tally | None = None,
) -> None:
    """Launch :func:`gpunet.backends.reference.sigmoid_cross_entropy.sigmoid_cross_entropy`."""
    elementwise_loss(cuda, "sigmoid_cross_entropy", outputs, targets, weights, doutputs, loss, bias, dbias, tally)
