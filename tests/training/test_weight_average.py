"""The moving average of the weights: its numbers, and who sees it when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpunet
from tests.helpers.networks import learnable, random_problem, small_network
from tests.training.test_windows import DeviceBackend, run

DECAY = 0.8


class Keeping(gpunet.Callback):
    """Averages the weights after each update by hand, in float64, and keeps what ends of epochs and of the run see."""

    def __init__(self) -> None:
        self.averages: dict[str, Any] = {}
        self.trained: list[dict[str, Any]] = []
        self.at_the_end: dict[str, Any] = {}

    def on_step_end(self, run: gpunet.Run) -> None:
        for name, value in values(run.network).items():
            before = self.averages.get(name, value)
            self.averages[name] = DECAY * before + (1 - DECAY) * value.astype(float)

    def on_epoch_end(self, run: gpunet.Run, record: gpunet.EpochRecord) -> None:
        self.trained.append(values(run.network) | {"averages": self.averages.copy()})

    def on_fit_end(self, run: gpunet.Run) -> None:
        self.at_the_end = values(run.network)


def values(network: gpunet.Network) -> dict[str, Any]:
    return network.get_parameters() | network.get_state()


def fit(network: gpunet.Network, average: float | None = DECAY, **arguments: Any) -> gpunet.History:
    X, y = learnable(100)
    options = {"epochs": 4, "batch_size": 32, "optimizer": gpunet.Adam(0.05)} | arguments
    return gpunet.fit(network, X, y, average=None if average is None else gpunet.WeightAverage(average), **options)


@pytest.mark.parametrize("device", ["cpu:numpy", "cpu:compiled", DeviceBackend])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_validation_and_the_end_have_the_average_and_training_has_not(device: Any, batch_norm: bool) -> None:
    held_out = learnable(50, seed=1)
    device = device if isinstance(device, str) else device()
    network, kept = small_network(device=device, batch_norm=batch_norm, dropout=0.2), Keeping()
    history = fit(network, validation=held_out, callbacks=[kept])
    for name, value in values(network).items():
        np.testing.assert_allclose(value, kept.averages[name], rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(kept.at_the_end[name], value)
    for epoch, trained in enumerate(kept.trained):
        network.set_parameters(trained["averages"])
        expected = gpunet.evaluate(network, *held_out)
        assert history["validation_loss"][epoch] == pytest.approx(expected.loss, rel=1e-5)
    plain, unaveraged = small_network(device="cpu:numpy", batch_norm=batch_norm, dropout=0.2), Keeping()
    fit(plain, None, callbacks=[unaveraged])
    if device != "cpu:compiled":  # which sums in another order
        for name, value in values(plain).items():
            np.testing.assert_array_equal(kept.trained[-1][name], value, err_msg=name)


@pytest.mark.oracle
def test_the_average_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    network = small_network(batch_norm=True)
    theirs = gpunet.to_torch(network)
    averaged = AveragedModel(theirs, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)

    class Following(gpunet.Callback):
        def on_step_end(self, run: gpunet.Run) -> None:
            theirs.load_state_dict(gpunet.to_torch(run.network).state_dict())
            averaged.update_parameters(theirs)

    fit(network, callbacks=[Following()])
    found = gpunet.to_torch(network).state_dict()
    for name, value in averaged.module.state_dict().items():
        if "num_batches" not in name:
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_early_stopping_keeps_the_average_of_the_best_epoch() -> None:
    X, y = learnable(100)
    network, kept = small_network(), Keeping()
    history = fit(
        network,
        epochs=30,
        validation=(X, (y + 1) % 3),  # gets worse soon
        early_stopping=gpunet.EarlyStopping(2),
        callbacks=[kept],
    )
    assert history.stopped_early
    assert history.best_epoch is not None
    for name, value in network.get_parameters().items():
        expected = kept.trained[history.best_epoch - 1]["averages"][name]
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    found = gpunet.evaluate(network, X, (y + 1) % 3).loss
    assert found == pytest.approx(min(history["validation_loss"]), rel=1e-5)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("rule", [None, gpunet.EarlyStopping(3)])
def test_resuming_is_exact(tmp_path: Any, suffix: str, rule: Any) -> None:
    X, y = learnable(100)
    path, whole, resumed = tmp_path / f"run{suffix}", small_network(dropout=0.3), small_network(dropout=0.3)
    options = {"validation": (X, (y + 1) % 3), "early_stopping": rule}
    expected = fit(whole, epochs=7, **options)
    fit(small_network(dropout=0.3), epochs=2, checkpoint=path, **options)
    history = fit(resumed, epochs=7, checkpoint=path, resume=True, **options)
    assert history["validation_loss"] == expected["validation_loss"]
    for name, value in values(whole).items():
        np.testing.assert_array_equal(values(resumed)[name], value, err_msg=name)
    again = small_network(dropout=0.3)
    fit(again, epochs=7, checkpoint=path, resume=True, **options)  # nothing is left to do
    np.testing.assert_array_equal(again.flat_parameters, whole.flat_parameters)


def test_another_average_is_refused_and_an_older_checkpoint_had_none(tmp_path: Any) -> None:
    from gpunet.serialization import read_tensors, write_tensors

    path = tmp_path / "run.npz"
    fit(small_network(), checkpoint=path)
    for decay in (None, 0.9):
        with pytest.raises(gpunet.InvalidValueError, match=rf"average=0\.8\. Expected {decay}"):
            fit(small_network(), decay, checkpoint=path, resume=True)
    fit(small_network(), None, checkpoint=path)
    tensors, header = read_tensors(path)
    del header["settings"]["average"], header["settings"]["accumulate"], header["average"], header["schedule"]
    write_tensors(path, tensors, header)
    with pytest.raises(gpunet.InvalidValueError, match=r"average=None\. Expected 0\.8"):
        fit(small_network(), checkpoint=path, resume=True)
    assert len(fit(small_network(), None, epochs=5, checkpoint=path, resume=True)) == 5


@pytest.mark.parametrize("damage", ["updates", "tensor", "NaN"])
def test_a_damaged_average_is_told(tmp_path: Any, damage: str) -> None:
    from gpunet.serialization import read_tensors, write_tensors

    path, network = tmp_path / "run.npz", small_network()
    fit(small_network(), checkpoint=path)
    tensors, header = read_tensors(path)
    if damage == "updates":
        header["average"]["updates"] = -1
    elif damage == "tensor":
        del tensors["average.W1"]
    else:
        tensors["average.W1"] = np.full_like(tensors["average.W1"], np.nan)
    write_tensors(path, tensors, header)
    before = network.get_parameters()
    with pytest.raises(gpunet.FileFormatError):
        fit(network, checkpoint=path, resume=True)
    for name, value in network.get_parameters().items():
        np.testing.assert_array_equal(value, before[name])


class Interrupting(gpunet.Callback):
    def __init__(self, after: int) -> None:
        self.after = after

    def on_step_end(self, run: gpunet.Run) -> None:
        if run.network.steps == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [3, 6])
def test_an_interrupted_run_leaves_the_average(after: int) -> None:
    network, kept = small_network(), Keeping()
    with pytest.raises(KeyboardInterrupt):
        fit(network, callbacks=[kept, Interrupting(after)])
    for name, value in network.get_parameters().items():
        np.testing.assert_allclose(value, kept.averages[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_run_without_an_update_leaves_the_weights() -> None:
    class Stopping(gpunet.Callback):
        def on_fit_start(self, run: gpunet.Run) -> None:
            run.stop = True

    network = small_network()
    before = network.get_parameters()
    fit(network, callbacks=[Stopping()])
    for name, value in network.get_parameters().items():
        np.testing.assert_array_equal(value, before[name])


class Spike(gpunet.Schedule):
    def __call__(self, step: int) -> float:
        return 1e30 if step == 9 else 0.01


@pytest.mark.parametrize("device", ["cpu", DeviceBackend])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_run_that_diverges_leaves_good_weights_and_no_average(device: Any) -> None:
    """The average has the update that ruined them."""
    options = {"optimizer": gpunet.SGD(Spike()), "network": {"batch_norm": False, "activation": "relu"}}
    device = device if isinstance(device, str) else device()
    averaged, plain = run(device, average=gpunet.WeightAverage(DECAY), **options), run("cpu", **options)
    assert "the loss became" in averaged["error"]
    assert averaged["parameters"] == plain["parameters"]


def test_an_update_that_float16_skips_is_not_averaged() -> None:
    X, y = random_problem(40, 6, 3)
    network = small_network(precision="float16")
    assert network.loss_scale is not None
    network.loss_scale.restore({"scale": 2.0**24, "good_steps": 0, "skipped_steps": 0})
    before = network.get_parameters()
    gpunet.fit(network, X, y, epochs=1, batch_size=40, average=gpunet.WeightAverage(DECAY))
    assert network.loss_scale.to_dict()["skipped_steps"] == 1
    for name, value in network.get_parameters().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_of_half_precision_the_float32_weights_are_averaged(precision: str) -> None:
    network, kept = small_network(precision=precision), Keeping()
    if network.loss_scale is not None:  # small enough that nothing is skipped
        network.loss_scale.restore({"scale": 256.0, "good_steps": 0, "skipped_steps": 0})
    fit(network, callbacks=[kept])
    for name, value in values(network).items():
        np.testing.assert_allclose(value, kept.averages[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_optimizer_begins_anew_after_it() -> None:
    """Its moments belong to other weights than those that the network has."""
    optimizer = gpunet.Adam(0.05)
    fit(small_network(), optimizer=optimizer)
    assert optimizer.step == 0
    assert not optimizer.moments["first_moment"].any()


@pytest.mark.parametrize("value", [1.0, -0.1, float("nan"), "0.9", None])
def test_a_decay_is_below_one(value: Any) -> None:
    with pytest.raises((gpunet.InvalidValueError, gpunet.InvalidTypeError), match="decay"):
        gpunet.WeightAverage(value)
    with pytest.raises(gpunet.InvalidTypeError, match=r"average: got .*Expected WeightAverage"):
        gpunet.fit(small_network(), *learnable(40), average=0.9)  # type: ignore[arg-type]
