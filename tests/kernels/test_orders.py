"""Every kernel whose threads wait for one another, in every order of blocks, warps and threads, on small shapes."""

from __future__ import annotations

from typing import Any

import pytest

from gpunet.activations import ReLU
from gpunet.backends.cuda import CudaBackend
from gpunet.verification import (
    activation,
    batch_norm,
    batch_norm_shards,
    losses,
    narrow_pass,
    optimizer,
    score,
    training,
)
from gpunet.verification.batch_norm import Way, differences
from gpunet.verification.operation import Operation
from gpunet.verification.storage import FLOAT32
from gpunet.verification.subject import Cuda
from tests.conftest import MULTIPROCESSORS
from tests.emulation import ORDERS, EmulatedDevice

# Each draws its own blocks in flight, and which warp is apart: some bugs show in one of two.
TIMES = 4
AS_PLANNED = Way()
RELU = ReLU()
OPERATIONS = {
    "bias gradient": activation.backward(FLOAT32, (129, 70), RELU),
    "statistics of a shard": batch_norm_shards.statistics(FLOAT32, (129, 33)),
    "gradient sums of a shard": batch_norm_shards.sums(FLOAT32, (129, 33), RELU),
    "mean of losses": losses.squared_error(FLOAT32, (103, 10), losses.GIVEN),
    "gradient of a bias": losses.squared_error(FLOAT32, (40, 20), has_bias=True),
    "count of a step": losses.counted(losses.squared_error(FLOAT32, (103, 10)), FLOAT32, 1),
    "rows of a warp": losses.softmax_cross_entropy(FLOAT32, (33, 10), losses.GIVEN),
    "rows of a block": losses.softmax_cross_entropy(FLOAT32, (9, 1100), losses.GIVEN),
    "norm of the gradient": optimizer.clip_factor(FLOAT32, 1025, 600),
    "finite numbers": training.summarize(FLOAT32, 1025, 600),
    "right labels": score.score_switches(FLOAT32, (103, 10), True),
    "narrow network": narrow_pass.narrow_pass((5, 9, 6, 3), 100, True, RELU),
    "narrow network without batch norm": narrow_pass.narrow_pass((5, 9, 6, 3), 70, False, RELU),
}
# Two tiles of columns that take turns, three chunks of rows: 12 blocks that wait for one another.
STRIPES = (24, 33), Way("striped")
CLUSTERS = (41, 3), Way("resident", 4)
ALONE = (300, 3), Way("resident", 1)


def in_every_order(device: Any, *operations: Operation, way: Way = AS_PLANNED) -> None:
    """Assert that operations are as specified in every order, in launches with different seeds."""
    subject = Cuda(lambda precision: CudaBackend(device, precision))
    for order in ORDERS:
        device.order = order
        for _ in range(TIMES):
            for operation in operations:
                assert [found.text for found in differences(subject, operation, way) if found.text] == []


def batch_norm_in_every_order(device: Any, shape: tuple[int, int], way: Way) -> None:
    """The same of batch norm forward and backward; a cache so small that a tile is a stripe."""
    device.l2_bytes = 1
    makers = (batch_norm.forward, batch_norm.backward)
    in_every_order(device, *(make(FLOAT32, shape, RELU) for make in makers), way=way)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_order(name: str) -> None:
    in_every_order(EmulatedDevice(multiprocessor_count=MULTIPROCESSORS), OPERATIONS[name])


@pytest.mark.parametrize(("shape", "way"), [STRIPES, CLUSTERS, ALONE], ids=str)
def test_every_order_of_batch_norm(shape: tuple[int, int], way: Way) -> None:
    batch_norm_in_every_order(EmulatedDevice(), shape, way)
