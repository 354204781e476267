"""Passes in inference mode are recorded once for each shape, and repeated on whatever is given then."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends import NumpyBackend
from gpunet.backends.cpu import CpuBackend

SIZES = [9, 40, 300, 9]
ROWS = (1, 70, 1300)
ON_NUMPY_ALONE = gpunet.Activation("square", forward=lambda s: s * s, derivative=lambda s: 2 * s, derivative_of="input")


def batch(rows: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((rows, SIZES[0])).astype(np.float32)


def two_networks(**options: Any) -> tuple[gpunet.Network, gpunet.Network]:
    """A network whose passes are recorded, and the same on NumPy."""
    ours, expected = (gpunet.Network(SIZES, device=backend, **options) for backend in (CpuBackend(), NumpyBackend()))
    return ours, expected


def check(ours: gpunet.Network, expected: gpunet.Network, x: Any) -> None:
    np.testing.assert_allclose(ours.forward(x), expected.forward(x), rtol=1e-4, atol=1e-5)
    for layer, other in zip(ours.layers[-3:], expected.layers[-3:], strict=True):
        assert layer.output.shape == other.output.shape
        np.testing.assert_allclose(layer.output, other.output, rtol=1e-4, atol=1e-5, err_msg=layer.name)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each recording that is made."""
    made: list[int] = []
    record = CpuBackend.capture_pass

    def counted(self: CpuBackend, run: Any, x: Any) -> Any:
        made.append(len(x))
        return record(self, run, x)

    monkeypatch.setattr(CpuBackend, "capture_pass", counted)
    return made


@pytest.mark.parametrize(
    "options", [{}, {"batch_norm": False}, {"dropout": 0.3}, {"activation": "gelu"}, {"activation": ON_NUMPY_ALONE}]
)
def test_one_recording_for_each_number_of_rows_does_all_arrays_of_it(
    options: dict[str, Any], recordings: list[int]
) -> None:
    """Also those with operations that run on NumPy."""
    ours, expected = two_networks(**options)
    ours.forward(batch(max(ROWS)))  # the largest buffers
    recordings.clear()
    for seed in range(3):
        for rows in ROWS:
            check(ours, expected, batch(rows, seed))
    assert recordings == list(ROWS[:-1])


def test_where_there_is_no_blas_products_take_what_is_given_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, expected = two_networks()
    monkeypatch.setattr(ours.backend, "_blas", None)
    for seed in range(3):
        check(ours, expected, batch(70, seed))


def test_what_is_changed_in_the_network_counts_from_the_next_pass_on() -> None:
    ours, expected = two_networks()
    x = batch(70)
    check(ours, expected, x)
    for network in (ours, expected):
        network.set_parameters({"b3": np.full(9, 5.0), "gamma1": np.full(40, 2.0), "running_mean2": np.ones(300)})
    check(ours, expected, x)
    for network in (ours, expected):
        network.layers[1].parameters = {}  # no gamma, no beta
    check(ours, expected, x)
    check(ours, expected, batch(1300))  # new buffers
    check(ours, expected, x)


def test_what_was_given_is_kept_by_nobody() -> None:
    network = gpunet.Network(SIZES, device=CpuBackend())
    given = batch(70)
    gone = weakref.ref(given)
    network.forward(given[:64])
    del given
    gc.collect()
    assert gone() is None


def test_outputs_may_be_given_back_as_inputs() -> None:
    """They lie in a buffer of the network: what a recording does in another order would read what it has written."""
    ours, expected = two_networks(batch_norm=False)
    x = batch(1300)
    for network in (ours, expected):
        network.forward(x)
    for _ in range(2):
        check(ours, expected, ours.layers[-1].output.copy())
        for network in (ours, expected):
            network.forward(network.layers[-1].output)
        np.testing.assert_allclose(ours.layers[-1].output, expected.layers[-1].output, rtol=1e-3, atol=1e-4)
        shifted = [network.layers[-1].output[100:1200] for network in (ours, expected)]
        np.testing.assert_allclose(ours.forward(shifted[0]), expected.forward(shifted[1]), rtol=1e-3, atol=1e-4)
        check(ours, expected, x)


def test_what_is_not_contiguous_is_done_without_a_recording() -> None:
    ours, expected = two_networks()
    check(ours, expected, batch(70))
    check(ours, expected, np.asfortranarray(batch(70, 1)))
    check(ours, expected, batch(70, 2))


def test_recordings_of_many_numbers_of_rows_are_not_all_kept(recordings: list[int]) -> None:
    ours, _ = two_networks()
    for rows in (20, *range(1, 11), 20):
        ours.forward(batch(rows))
    assert recordings == [20, *range(1, 11), 20]
    assert len(ours._passes._passes) == 4


def test_within_a_recording_a_pass_is_part_of_it(recordings: list[int]) -> None:
    ours, expected = two_networks()
    x = batch(70)
    ours.forward(x)
    replay = ours.backend.capture(lambda: ours.forward(x))
    x[...] = batch(70, 1)
    replay()
    np.testing.assert_allclose(ours.layers[-1].output, expected.forward(x), rtol=1e-4, atol=1e-5)
    assert recordings == [70]


def test_little_work_is_recorded_by_nobody_and_much_work_is(recordings: list[int]) -> None:
    network = gpunet.Network(SIZES, device="cpu")
    network.predict(batch(70))
    assert not recordings
    with network.backend.working(1e12):
        network.forward(batch(70))
        network.forward(batch(70, 1))
    network.predict(batch(70))
    assert recordings == [70]
