"""``kernels/score.cu`` against the reference."""

from __future__ import annotations

from typing import Any

from gpunet.verification import score
from tests.helpers.verification import confirm


def test_as_specified(device: Any) -> None:
    confirm(device, score)
