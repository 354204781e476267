from __future__ import annotations

import numpy as np
import pytest

from . import EmulatedDevice


@pytest.fixture(name="device")
def make_device() -> EmulatedDevice:
    return EmulatedDevice()


@pytest.fixture(name="random")
def make_random() -> np.random.Generator:
    return np.random.default_rng(0)
