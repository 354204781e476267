"""The checks of whole networks, on the emulated device and on the real device's class over a stand-in for CuPy."""

from __future__ import annotations

from typing import Any

import pytest

from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices import cupy as cupy_device
from gpunet.verification import gather, networks, optimizer, products
from gpunet.verification.run import Verification
from gpunet.verification.subject import Cuda
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy
from tests.helpers.verification import SmallDevice, confirm


def test_networks_on_the_emulated_device() -> None:
    subject = Cuda(lambda precision: CudaBackend(SmallDevice(), precision))
    verification = Verification(subject, list(networks.checks(subject)))
    verification.run(lambda done, what: None)
    assert [f"{one.check.name}: {one.text}" for one in verification.outcomes if not one.is_right] == []


def test_steps_are_recorded_where_the_check_says_so() -> None:
    recordings = []

    class Watched(SmallDevice):
        def capture(self, step: Any) -> Any:
            recordings.append(super().capture(step))
            return recordings[-1]

    device = Watched()
    confirm(device, networks, "recorded", "float64")
    # One for each batch size, one of a whole epoch, one of its end, twice but for the epoch; and none without.
    assert len(recordings) == 7
    assert {"gemm"} < set(recordings[0].names)


@pytest.mark.slow
def test_the_device_over_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations run later, when somebody waits: a copy that read overwritten memory would show."""
    cupy = fake_cupy.FakeCupy(EmulatedDevice(multiprocessor_count=4, compute_capability=(8, 0)), free=2**25)
    fake_cupy.install(monkeypatch, cupy)
    subject = Cuda(lambda precision: CudaBackend(cupy_device.CupyDevice(0), precision))
    assert (subject.description["kind"], subject.description["model"]) == ("cuda", "NVIDIA Fake")
    monkeypatch.setattr(subject, "is_large", False)
    checks = [check for module in (products, gather, optimizer, networks) for check in module.checks(subject)]
    verification = Verification(subject, checks)
    verification.run(lambda done, what: None)
    assert [f"{one.check.name}: {one.text}" for one in verification.outcomes if not one.is_right] == []
    assert verification.is_right
