"""How often an operation reads or writes its matrices, and so how many bytes it cannot do without.

Each input is read once and each output written once. Batch norm reads s and writes y forward, and reads dy and s and
writes ds backward, as if every column stayed on the chip between its statistics and its use. Vectors are not counted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpunet.verification.operation import Operation

# Times that an array of the size of the output, or of what is summed up, is read or written.
SWEEPS = {
    "bias_activation_forward": 2,
    "bias_activation_backward": 3,
    "batch_norm_activation_forward": 2,
    "batch_norm_activation_backward": 3,
    "batch_norm_activation_inference": 2,
    "batch_norm_statistics": 1,
    "batch_norm_activation_apply": 2,
    "batch_norm_activation_sums": 2,
    "batch_norm_activation_input_gradient": 3,
    "weigh_shard": 2,
    "sum_shards": 1,  # of every vector; the sum is written besides
    "divide_sums": 2,
    "dropout_forward": 2,
    "dropout_backward": 2,
    "sample_bernoulli": 2,
    "softmax_cross_entropy": 2,  # logits in, gradient out
    "soft_cross_entropy": 3,
    "sigmoid_cross_entropy": 3,
    "squared_error": 3,
    "huber": 3,
    "quantile": 3,
    "gather_batch": 2,
    "unscale_gradients": 2,
    "clip_factor": 2,
    "sgd_step": 5,  # parameters and moments in and out, gradients in
    "adam_step": 7,
    "keep_weights": 1,  # of two vectors, one is written from a third
    "summarize": 1,
    "accumulate_gradients": 3,
    "average_weights": 3,
    "score_classes": 1,
    "score_soft_classes": 2,
    "score_switches": 2,
}


def bytes_moved(operation: Operation) -> int:
    """Return the bytes that an operation moves at least."""
    names = (*operation.changed, "parameters", "vector", "outputs", "s", "parts")
    arrays = [operation.given[name] for name in names if name in operation.given]
    sizes = [array.size for array in arrays] + [math.prod(shape) for shape, _ in operation.written.values()]
    matrix = next(array for array in operation.given.values() if array.ndim == 2 or array.size == max(sizes))
    mask = max(sizes) if operation.method.startswith("dropout") else 0
    return SWEEPS[operation.method] * max(sizes) * matrix.itemsize + mask
