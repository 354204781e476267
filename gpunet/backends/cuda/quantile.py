"""The loss of quantiles: ``quantile.cu``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.instantiation import Variants
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.cuda.weighted_mean import elementwise_group, elementwise_loss
from gpunet.backends.reference.training import Tally


def quantile_group(storage: str) -> Group:
    """Return the kernels for one storage type."""
    return elementwise_group("quantile", storage)


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return map(quantile_group, variants.storages)


def quantile(
    cuda: Launcher,
    outputs: Array,
    targets: Array,
    weights: Array | None,
    doutputs: Array,
    loss: Array,
    levels: Array,
    bias: Array | None = None,
    dbias: Array | None = None,
    tally: Tally | None = None,
) -> None:
    """Launch :func:`gpunet.backends.reference.quantile.quantile`."""
    more = levels, np.int32(levels.size > 1)
    elementwise_loss(cuda, "quantile", outputs, targets, weights, doutputs, loss, bias, dbias, tally, more)
