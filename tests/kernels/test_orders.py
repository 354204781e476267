"""Every kernel whose threads wait for one another, in every order of blocks, warps and threads, on small shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gpunet.activations import ReLU
from tests.conftest import MULTIPROCESSORS
from tests.emulation import ORDERS, EmulatedDevice
from tests.kernels import test_activation as activation_tests
from tests.kernels import test_batch_norm as batch_norm_tests
from tests.kernels import test_optimizer as optimizer_tests
from tests.kernels import test_softmax_cross_entropy as softmax_tests
from tests.kernels import test_squared_error as squared_error_tests
from tests.kernels.test_batch_norm import FLOAT, HOPPER, RESIDENT, STRIPED, Case

# Each draws its own blocks in flight, and which warp is apart: some bugs show in one of two.
TIMES = 4

# Two tiles of columns that take turns, three chunks of rows: 12 blocks that wait for one another.
STRIPES = Case(FLOAT, "relu", 24, 33, STRIPED, limits=replace(HOPPER, l2_bytes=1))
CLUSTERS = Case(FLOAT, "relu", 41, 3, RESIDENT, 4)
ALONE = Case(FLOAT, "relu", 300, 3, RESIDENT, 1)


def in_every_order(check: Callable[[EmulatedDevice], None]) -> Callable[[EmulatedDevice], None]:
    """Return a check that runs another in every order, in launches with different seeds."""

    def run(device: EmulatedDevice) -> None:
        for order in ORDERS:
            device.order = order
            for _ in range(TIMES):
                check(device)

    return run


def bias_gradient(device: EmulatedDevice) -> None:
    activation_tests.check(device, (129, 70), ReLU(), "float32")


def mean_of_losses(device: EmulatedDevice) -> None:
    squared_error_tests.check(device, (103, 10), "float32", True)


def rows_of_a_warp(device: EmulatedDevice) -> None:
    softmax_tests.check(device, *softmax_tests.problem((33, 10)))


def rows_of_a_block(device: EmulatedDevice) -> None:
    softmax_tests.check(device, *softmax_tests.problem((9, 1100)))


def clip_factor(device: EmulatedDevice) -> None:
    optimizer_tests.test_clip_factor(device, 1025, 600, 1, "float32")


@pytest.mark.parametrize("check", [bias_gradient, mean_of_losses, rows_of_a_warp, rows_of_a_block, clip_factor])
def test_every_order(check: Callable[[EmulatedDevice], None]) -> None:
    in_every_order(check)(EmulatedDevice(multiprocessor_count=MULTIPROCESSORS))


@pytest.mark.parametrize("case", [STRIPES, CLUSTERS, ALONE], ids=str)
def test_every_order_of_batch_norm(case: Case) -> None:
    in_every_order(lambda device: batch_norm_tests.check(case, device))(EmulatedDevice())
