"""Learning rates as functions of the step."""

from __future__ import annotations

import math

import pytest

import gpunet


def rates(schedule, steps):
    return [schedule(step) for step in range(steps)]


def test_constant():
    assert rates(gpunet.ConstantRate(0.3), 5) == [0.3] * 5


def test_step():
    assert rates(gpunet.StepRate(1.0, every=2, factor=0.1), 5) == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_cosine_goes_down_once_and_stays():
    values = rates(gpunet.CosineRate(1.0, steps=4, final=0.2), 7)
    expected = [0.2 + 0.4 * (1 + math.cos(math.pi * step / 4)) for step in range(4)] + [0.2] * 3
    assert values == pytest.approx(expected)


def test_cyclical_is_a_triangle_wave():
    values = rates(gpunet.CyclicalRate(1.0, 5.0, half_cycle=4), 17)
    assert values == pytest.approx([1, 2, 3, 4, 5, 4, 3, 2] * 2 + [1])


def test_one_cycle_goes_up_and_then_down_to_almost_nothing():
    schedule = gpunet.OneCycleRate(1.0, steps=11, rising=5 / 11, initial_divisor=10, final_divisor=100)
    values = rates(schedule, 14)
    assert values[0] == pytest.approx(0.1)
    assert values[4] == max(values) == pytest.approx(1.0)
    assert values[2] == pytest.approx((0.1 + 1.0) / 2)
    assert values[10:] == pytest.approx([0.001] * 4)


@pytest.mark.oracle
@pytest.mark.parametrize(("steps", "rising"), [(2, 0.0), (3, 0.5), (10, 0.3), (97, 0.3), (97, 0.99), (97, 0.001)])
def test_one_cycle_is_pytorchs(steps, rising):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.7, total_steps=steps, pct_start=rising)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(found) < steps:
            theirs.step()
    assert rates(gpunet.OneCycleRate(0.7, steps, rising=rising), steps) == pytest.approx(found)


@pytest.mark.parametrize("divisor", ["initial_divisor", "final_divisor"])
def test_one_cycle_has_its_maximum_at_the_top(divisor):
    with pytest.raises(gpunet.InvalidValueError, match=divisor):
        gpunet.OneCycleRate(0.1, 10, **{divisor: 1e-320})


def test_a_rate_of_zero_stays_zero():
    assert gpunet.StepRate(0.0, every=1, factor=10.0)(1000) == 0.0
    assert gpunet.StepRate(0.1, every=1, factor=10.0)(1000) == math.inf


def test_a_warm_up_approaches_its_schedule_in_equal_parts():
    assert rates(gpunet.WarmUpRate(0.4, steps=4), 6) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    cosine = gpunet.CosineRate(1.0, steps=9)
    assert rates(gpunet.WarmUpRate(cosine, steps=3), 12)[2:] == rates(cosine, 12)[2:]
    assert gpunet.WarmUpRate(0.4, steps=4) == gpunet.WarmUpRate(gpunet.ConstantRate(0.4), steps=4)


@pytest.mark.parametrize(
    "schedule",
    [
        gpunet.OneCycleRate(0.1, steps=12),
        gpunet.WarmUpRate(gpunet.StepRate(0.1, every=3), steps=5),
        gpunet.StepRate(0.1, every=3),
        gpunet.CosineRate(0.1, steps=12),
        gpunet.CyclicalRate(0.01, 0.1, half_cycle=3),
    ],
)
def test_training_follows_the_schedule(schedule):
    import numpy as np

    network = gpunet.Network([2, 4, 2], device="cpu")
    X = np.random.default_rng(0).standard_normal((20, 2))
    history = gpunet.fit(network, X, (X[:, 0] > 0).astype(int), epochs=6, batch_size=10, optimizer=gpunet.SGD(schedule))
    assert history["learning_rate"] == [schedule(2 * epoch + 1) for epoch in range(6)]
