"""Loops that a small device does not go round twice: over what the grid leaves, and over what its blocks have left."""

from __future__ import annotations

from typing import Any

import pytest

from gpunet.activations import ReLU
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.activation import column_tiles
from gpunet.backends.cuda.batch_norm import DeviceLimits, plan_backward, plan_forward
from gpunet.backends.cuda.grids import STREAMING_WAVES, THREADS, resident_blocks
from gpunet.backends.cuda.softmax_cross_entropy import LANES_THREADS
from gpunet.verification import activation, batch_norm, losses, optimizer, random_bits
from gpunet.verification.batch_norm import Way, differences
from gpunet.verification.operation import Operation
from gpunet.verification.storage import FLOAT32, FLOAT64
from gpunet.verification.subject import Cuda
from tests.emulation import EmulatedDevice
from tests.helpers.verification import confirm_operations

RELU = ReLU()
# What a small multiprocessor holds: one block of the largest kernel.
FEW_THREADS = 1024
# Elements, of which a thread moves four at once: the grid has to go round for the last of them.
MANY = 4 * STREAMING_WAVES * FEW_THREADS + 1029
GOING_ROUND = {
    "dropout": random_bits.dropout_forward(FLOAT32, (1, MANY)),
    "dropout, backward": random_bits.dropout_backward(FLOAT32, (1, MANY)),
    "samples": random_bits.sample_bernoulli(FLOAT32, (1, MANY)),
    "SGD": optimizer.sgd_step(FLOAT32, MANY, MANY // 3),
    "Adam": optimizer.adam_step(FLOAT32, MANY, MANY // 3),
    "norm": optimizer.clip_factor(FLOAT32, MANY, MANY // 3),
    "squared error": losses.squared_error(FLOAT32, (411, 5), losses.GIVEN),
    "sigmoid": losses.sigmoid_cross_entropy(FLOAT32, (411, 5), losses.GIVEN),
    "rows of a warp": losses.softmax_cross_entropy(FLOAT32, (130, 10), losses.GIVEN),
    "rows of a block": losses.softmax_cross_entropy(FLOAT32, (3, 1100), losses.GIVEN),
}


@pytest.mark.parametrize("name", GOING_ROUND)
def test_the_grid_goes_round(name: str) -> None:
    device = EmulatedDevice(multiprocessor_count=1)
    device.threads_per_multiprocessor = FEW_THREADS
    confirm_operations(device, GOING_ROUND[name])


def test_more_blocks_than_the_last_has_threads() -> None:
    """Each leaves a partial sum, and the last one adds them."""
    device = EmulatedDevice(multiprocessor_count=35)
    blocks = resident_blocks(device)
    assert blocks > THREADS > LANES_THREADS
    confirm_operations(
        device,
        losses.softmax_cross_entropy(FLOAT32, (LANES_THREADS * 20, 7)),
        losses.squared_error(FLOAT32, (blocks * THREADS, 1)),
        optimizer.clip_factor(FLOAT64, 2 * blocks * THREADS, 0),
    )


def test_more_parts_of_a_bias_gradient_than_the_last_block_has_rows_of_threads() -> None:
    device, shape = EmulatedDevice(), (600, 128)
    tiles = column_tiles(*shape, 4, resident_blocks(device))
    assert tiles.grid[1] > 2 * tiles.block[1]
    confirm_operations(device, activation.backward(FLOAT32, shape, RELU))


@pytest.mark.parametrize(
    ("make", "plan"),
    [(batch_norm.forward, plan_forward), (batch_norm.backward, plan_backward)],
    ids=["forward", "backward"],
)
def test_more_chunks_of_batch_norm_than_the_last_block_has_rows_of_threads(make: Any, plan: Any) -> None:
    device, shape = EmulatedDevice(), (150, 33)
    planned = plan(*shape, 4, 1, DeviceLimits.of(device), "striped")
    assert planned.parts > 2 * planned.block[1]
    operation: Operation = make(FLOAT32, shape, RELU)
    subject = Cuda(lambda precision: CudaBackend(device, precision))
    assert [found.text for found in differences(subject, operation, Way("striped")) if found.text] == []
