"""Loops that small shapes on a small device do not go round twice: over the elements, and in the last block."""

from __future__ import annotations

import pytest

from gpunet.activations import ReLU
from gpunet.backends.cuda.activation import column_tiles
from gpunet.backends.cuda.grids import THREADS, resident_blocks
from gpunet.backends.cuda.softmax_cross_entropy import LANES_THREADS
from gpunet.backends.cuda.tuning import ESTIMATES
from gpunet.verification import activation, losses, optimizer, random_bits, shards
from gpunet.verification.operation import Operation
from gpunet.verification.storage import FLOAT32, FLOAT64
from tests.emulation import EmulatedDevice
from tests.helpers.verification import confirm_operations

# Of a small multiprocessor; and more elements than its threads have at once, which move four each.
FEW_THREADS = 1024
MANY = 4 * ESTIMATES.streaming_waves * FEW_THREADS + 1029


@pytest.mark.parametrize(
    "operation",
    [
        random_bits.dropout_forward(FLOAT32, (1, MANY)),
        random_bits.dropout_backward(FLOAT32, (1, MANY)),
        random_bits.sample_bernoulli(FLOAT32, (1, MANY)),
        shards.weigh_shard(FLOAT32, (3, MANY // 3)),
        shards.sum_shards(FLOAT32, MANY, (0, 0)),
        shards.divide_sums(FLOAT32, MANY, 7.5),
    ],
    ids=lambda operation: operation.method,
)
def test_the_grid_goes_round(operation: Operation) -> None:
    device = EmulatedDevice(multiprocessor_count=1)
    device.threads_per_multiprocessor = FEW_THREADS
    confirm_operations(device, operation)


def test_more_blocks_than_the_last_has_threads() -> None:
    """Each leaves a partial sum, and the last one adds them."""
    device = EmulatedDevice(multiprocessor_count=35)
    blocks = resident_blocks(device)
    assert blocks > THREADS > LANES_THREADS
    confirm_operations(
        device,
        losses.softmax_cross_entropy(FLOAT32, (LANES_THREADS * 20, 7)),
        optimizer.clip_factor(FLOAT64, 2 * blocks * THREADS, 0),
    )


def test_more_parts_of_a_bias_gradient_than_the_last_block_has_rows_of_threads() -> None:
    device, shape = EmulatedDevice(), (600, 128)
    tiles = column_tiles(*shape, 4, resident_blocks(device))
    assert tiles.grid[1] > 2 * tiles.block[1]
    confirm_operations(device, activation.backward(FLOAT32, shape, ReLU()))
