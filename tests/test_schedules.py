"""Learning rates as functions of the step."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

import gpunet
from tests.helpers.networks import learnable, small_network
from tests.helpers.recording import RecordingBackend


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


# --- on a plateau -----------------------------------------------------------------------------------------------------


def observed(schedule, values):
    """Return the rate after each epoch."""
    found = []
    for value in values:
        schedule.observe(value)
        found.append(schedule(0))
    return found


def test_a_plateau_reduces_the_rate_after_more_epochs_than_its_patience():
    schedule = gpunet.ReduceOnPlateauRate(1.0, factor=0.5, patience=1)
    assert observed(schedule, [3, 2, 2, 2, 2, 2, 1, 1]) == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_an_improvement_is_more_than_the_threshold():
    schedule = gpunet.ReduceOnPlateauRate(1.0, factor=0.5, patience=0, threshold=0.1)
    assert observed(schedule, [2.0, 1.8, 1.7, 1.54, 1.5]) == [1, 0.5, 0.5, 0.25, 0.25]
    rising = gpunet.ReduceOnPlateauRate(1.0, factor=0.5, patience=0, threshold=0.1, monitor="validation_accuracy")
    assert observed(rising, [0.5, 0.55, 0.56]) == [1, 0.5, 0.5]


def test_a_cooldown_is_not_counted_and_the_minimum_is_not_passed():
    schedule = gpunet.ReduceOnPlateauRate(1.0, factor=0.1, patience=0, cooldown=2, minimum=0.05)
    assert observed(schedule, [1] * 8) == [1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]
    assert observed(gpunet.ReduceOnPlateauRate(0.1, patience=0, minimum=0.5), [1, 1, 1]) == [0.1] * 3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_no_improvement(value):
    assert observed(gpunet.ReduceOnPlateauRate(1.0, factor=0.5, patience=0), [value, 1, value]) == [0.5, 0.5, 0.25]


@pytest.mark.oracle
@pytest.mark.parametrize("monitor", ["loss", "validation_accuracy"])
@pytest.mark.parametrize("options", [{}, {"patience": 0}, {"patience": 3, "cooldown": 2, "minimum": 1e-3}])
def test_a_plateau_is_pytorchs(monitor, options):
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).uniform(1, 2, 300) * np.linspace(1, 0.7, 300)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode="min" if monitor == "loss" else "max",
        factor=0.7,
        threshold=1e-2,
        eps=0,
        **{{"minimum": "min_lr"}.get(name, name): value for name, value in options.items()},
    )
    expected = []
    for value in values:
        theirs.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    schedule = gpunet.ReduceOnPlateauRate(1.0, factor=0.7, threshold=1e-2, monitor=monitor, **options)
    assert observed(schedule, values) == pytest.approx(expected, rel=1e-12)


def fit_on_a_plateau(network, epochs, schedule=None, **arguments):
    """Train on other labels than those of validation, whose loss rises soon."""
    X, y = learnable(100)
    schedule = schedule or gpunet.WarmUpRate(gpunet.ReduceOnPlateauRate(0.1, factor=0.5, patience=1, cooldown=1), 3)
    options = {"batch_size": 32, "optimizer": gpunet.Adam(schedule), "validation": (X, (y + 1) % 3)} | arguments
    return gpunet.fit(network, X, y, epochs=epochs, **options)


@pytest.mark.parametrize("backend", [RecordingBackend, lambda: "cpu"])
def test_training_follows_a_plateau_and_resumes_in_the_middle_of_it(tmp_path, backend):
    path, whole, resumed = tmp_path / "run.npz", small_network(), small_network(device=backend())
    expected = fit_on_a_plateau(whole, 9)
    watched = gpunet.ReduceOnPlateauRate(0.1, factor=0.5, patience=1, cooldown=1)
    rates = [0.1, *observed(watched, expected["validation_loss"])[:-1]]
    assert expected["learning_rate"] == rates
    assert rates[-1] < 0.03
    fit_on_a_plateau(small_network(device=backend()), 4, checkpoint=path)
    history = fit_on_a_plateau(resumed, 9, checkpoint=path, resume=True)
    assert history["learning_rate"] == rates
    np.testing.assert_array_equal(resumed.flat_parameters, whole.flat_parameters)


def test_a_checkpoint_of_another_schedule_leaves_the_plateau_at_its_beginning(tmp_path):
    path, schedule = tmp_path / "run.npz", gpunet.ReduceOnPlateauRate(0.2, patience=9)
    fit_on_a_plateau(small_network(), 3, checkpoint=path)
    with pytest.warns(gpunet.ResumeWarning, match="its learning rate was"):
        history = fit_on_a_plateau(small_network(), 4, schedule, checkpoint=path, resume=True)
    assert history["learning_rate"][-1] == 0.2


def test_a_plateau_belongs_to_the_network_of_its_optimizer():
    schedule = gpunet.ReduceOnPlateauRate(0.1, patience=0, factor=0.5)
    network = small_network()
    optimizer = gpunet.Adam(schedule)
    fit_on_a_plateau(network, 6, optimizer=optimizer)
    reached = schedule.state
    assert reached["rate"] < 0.1
    copied = copy.deepcopy(optimizer)
    fit_on_a_plateau(copy.deepcopy(network), 1, optimizer=copied)
    assert copied.schedule.state["rate"] <= reached["rate"]
    assert schedule.state == reached
    fit_on_a_plateau(small_network(), 1, optimizer=optimizer)
    assert schedule(0) == 0.1


def test_what_a_plateau_watches_has_to_be_there():
    X, y = learnable(40)

    def fit(schedule):
        gpunet.fit(small_network(), X, y, epochs=1, optimizer=gpunet.SGD(schedule))

    with pytest.raises(gpunet.InvalidValueError, match=r"optimizer: its schedule: needs validation=\(X, y\)"):
        fit(gpunet.WarmUpRate(gpunet.ReduceOnPlateauRate(0.1), 2))
    numbers, of_accuracy = X[:, :3], gpunet.SGD(gpunet.ReduceOnPlateauRate(0.1, monitor="validation_accuracy"))
    network = small_network(loss="squared_error")
    with pytest.raises(gpunet.InvalidValueError, match="its schedule: a network with loss='squared_error'"):
        gpunet.fit(network, X, numbers, optimizer=of_accuracy, validation=(X, numbers))
    fit(gpunet.ReduceOnPlateauRate(0.1, monitor="loss"))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("factor", 1.0), ("patience", -1), ("patience", 1.5), ("threshold", -1e-3), ("cooldown", -1)),
        *(("minimum", math.nan), ("monitor", "accuracy"), ("monitor", ["loss"]), ("initial", -0.1)),
    ],
)
def test_a_plateaus_arguments_are_checked(argument, value):
    with pytest.raises((gpunet.InvalidValueError, gpunet.InvalidTypeError), match=argument):
        gpunet.ReduceOnPlateauRate(**{"initial": 0.1, argument: value})


@pytest.mark.parametrize("damage", [{"rate": 1.0}, {"rate": None}, {"best": "x"}, {"waited": 9}, {"cooling": -1}, None])
def test_a_damaged_plateau_is_told(tmp_path, damage):
    schedule = gpunet.ReduceOnPlateauRate(0.1, patience=2)
    observed(schedule, [1, 1])
    assert pickle.loads(pickle.dumps(schedule)).state == schedule.state
    with pytest.raises((gpunet.GpunetError, KeyError, TypeError, ValueError)):
        schedule.restore({} if damage is None else schedule.state | damage)
    assert schedule.state == {"rate": 0.1, "best": 1, "waited": 1, "cooling": 0}


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
    network = gpunet.Network([2, 4, 2], device="cpu")
    X = np.random.default_rng(0).standard_normal((20, 2))
    history = gpunet.fit(network, X, (X[:, 0] > 0).astype(int), epochs=6, batch_size=10, optimizer=gpunet.SGD(schedule))
    assert history["learning_rate"] == [schedule(2 * epoch + 1) for epoch in range(6)]
