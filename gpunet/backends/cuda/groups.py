"""Everything that the CUDA backend may compile, for checks of all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpunet.backends.cuda.activation import activation_group
from gpunet.backends.cuda.batch_norm import batch_norm_group
from gpunet.backends.cuda.bernoulli import bernoulli_group
from gpunet.backends.cuda.dropout import dropout_group
from gpunet.backends.cuda.gather import gather_group
from gpunet.backends.cuda.instantiation import ACTIVATION_CODES, ITEM_SIZES, PARAMETER_TYPES
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.optimizer import optimizer_group
from gpunet.backends.cuda.sigmoid_cross_entropy import sigmoid_cross_entropy_group
from gpunet.backends.cuda.softmax_cross_entropy import softmax_cross_entropy_group
from gpunet.backends.cuda.squared_error import squared_error_group


def all_groups(activations: Sequence[str], max_cluster: int) -> Iterator[tuple[str, Group]]:
    """Yield (module, kernels that are compiled together).

    Parameters
    ----------
    activations : sequence of str
        Names of those to yield kernels for.
    max_cluster : int
        The largest cluster of the device: 1 where there are none.
    """
    yield "gather", gather_group()
    for parameter in PARAMETER_TYPES:
        yield "optimizer", optimizer_group(parameter)
    for storage in ITEM_SIZES:
        for name in activations:
            yield "activation", activation_group(storage, ACTIVATION_CODES[name])
        yield "dropout", dropout_group(storage)
        yield "bernoulli", bernoulli_group(storage)
        yield "softmax_cross_entropy", softmax_cross_entropy_group(storage)
        yield "sigmoid_cross_entropy", sigmoid_cross_entropy_group(storage)
        yield "squared_error", squared_error_group(storage)
    for storage, itemsize in ITEM_SIZES.items():
        for name in activations:
            yield "batch_norm", batch_norm_group(storage, itemsize, ACTIVATION_CODES[name], max_cluster)
