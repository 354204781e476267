"""``kernels/dropout.cu`` against the reference: the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends import Backend
from gpunet.random import Stream, dropout_threshold, random_words
from gpunet.verification import random_bits
from gpunet.verification.storage import FLOAT32, STORAGES
from tests.helpers.verification import confirm, confirm_operations


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_as_specified(device: Any, storage: Any) -> None:
    confirm(device, random_bits, "dropout", storage.name)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.999])
def test_rates(device: Any, rate: float) -> None:
    confirm_operations(device, random_bits.dropout_forward(FLOAT32, (17, 13), rate=rate))


def test_the_specified_mask_is_the_documented_words() -> None:
    x, out, mask = np.ones((100, 10)), np.empty((100, 10)), np.empty((100, 10), np.uint8)
    Backend().dropout_forward(x, out, mask, 0.25, 5, 1, np.array([3]))
    words = random_words(Stream.DROPOUT, 0, 1000, 5, 1, 3)
    np.testing.assert_array_equal(mask.reshape(-1), words >= dropout_threshold(0.25))
