"""``kernels/narrow_pass.cu`` against the reference: whole networks in one launch."""

from __future__ import annotations

from typing import Any

from gpunet.activations import ReLU
from gpunet.verification import narrow_pass
from tests.emulation import EmulatedDevice
from tests.helpers.verification import confirm, confirm_operations


def test_as_specified(device: Any) -> None:
    confirm(device, narrow_pass)


def test_more_blocks_than_are_added_side_by_side() -> None:
    """Sums over blocks go round more than once, and the last block has two rows."""
    device = EmulatedDevice(multiprocessor_count=6)
    confirm_operations(device, narrow_pass.narrow_pass((5, 9, 6, 3), 322, True, ReLU()))
