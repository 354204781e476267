"""L5: mini-batch SGD for batches of one example to all of them, and how noisy the gradient of a batch is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.lecture.digits import CLASSES, INPUTS, Digits, split_digits
from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plotting import COLOURS, MARKERS, STYLES, label, panels
from gpunet.lecture.wording import listing, tiny
from gpunet.network import Network
from gpunet.optimizers import SGD
from gpunet.random import Purpose, host_generator
from gpunet.training import Callback, Run, evaluate, fit

Array = npt.NDArray[Any]

ROWS = 1024
HIDDEN = 32
RATE = 0.1
EPOCHS = 30
LOOK_AGAIN = 1.2  # after 1.2 times as many updates
BATCHES = (1, 4, 16, 64, 256, ROWS)
NOISE_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# What the paragraph says only where the numbers show it.
SLOPE_TOLERANCE = 0.08  # of the measured exponent, around -1/2
ROUNDING = 1e-10  # float64 weights of size 1 after a few dozen updates
LOW_LOSS = 0.3  # nats per example
SIMILAR = 2.0  # the most updates over the fewest


def measure(settings: Settings) -> dict[str, Any]:
    """Train with several batch sizes at one learning rate, and measure the noise of a batch's gradient."""
    digits = split_digits(settings.seed, 128 if settings.quick else ROWS)
    return {
        "rows": len(digits.X),
        "rate": RATE,
        "runs": [_run(settings, digits, size) for size in BATCHES if size <= len(digits.X)],
        "noise": _noise(settings, digits),
        "difference_by_hand": _difference_by_hand(settings, digits),
    }


def _network(settings: Settings, dtype: str = "float32") -> Network:
    return settings.network([INPUTS, HIDDEN, CLASSES], batch_norm=False, dtype=dtype)


class _LossByUpdates(Callback):
    """Records the loss over all rows after some of the updates, ever fewer of them."""

    def __init__(self, digits: Digits) -> None:
        self.digits = digits
        self.updates: list[int] = []
        self.losses: list[float] = []

    def on_fit_start(self, run: Run) -> None:
        self._record(run)

    def on_step_end(self, run: Run) -> None:
        if run.network.steps >= math.ceil(self.updates[-1] * LOOK_AGAIN):
            self._record(run)

    def _record(self, run: Run) -> None:
        self.updates.append(run.network.steps)
        self.losses.append(evaluate(run.network, self.digits.X, self.digits.y).loss)


def _run(settings: Settings, digits: Digits, size: int) -> dict[str, Any]:
    network, by_updates = _network(settings), _LossByUpdates(digits)
    history = fit(
        network,
        digits.X,
        digits.y,
        epochs=2 if settings.quick else EPOCHS,
        batch_size=size,
        optimizer=SGD(RATE),
        validation=(digits.X, digits.y),
        callbacks=[by_updates],
    )
    return {
        "batch": size,
        "losses": [by_updates.losses[0], *history["validation_loss"]],
        "by_updates": {"updates": by_updates.updates, "losses": by_updates.losses},
    }


def _noise(settings: Settings, digits: Digits) -> dict[str, Any]:
    """Return the root mean squared distance of a batch's gradient from that of all rows, relative to its norm.

    Batches are drawn without replacement, as an epoch draws them, so that the expected square is sigma^2 / B times
    (n - B) / (n - 1), where sigma^2 is the mean squared distance of one example's gradient.
    """
    network = _network(settings, "float64")
    fit(network, digits.X, digits.y, epochs=1, batch_size=64, optimizer=SGD(RATE))
    whole = _flat_gradient(network, digits.X, digits.y)
    norm = float(np.linalg.norm(whole))
    single = [_distance(network, digits, np.array([row]), whole) for row in range(len(digits.X))]
    sigma = math.sqrt(float(np.mean(np.square(single)))) / norm
    generator = host_generator(settings.seed, Purpose.SHUFFLE, 1)
    n = len(digits.X)
    sizes = [size for size in NOISE_BATCHES if size <= n // 2]
    draws = 20 if settings.quick else 200
    measured = []
    for size in sizes:
        distances = [_distance(network, digits, generator.permutation(n)[:size], whole) for _ in range(draws)]
        measured.append(math.sqrt(float(np.mean(np.square(distances)))) / norm)
    # Without the correction for drawing from n rows only, the exponent is that of B alone.
    corrected = [noise / math.sqrt((n - size) / (n - 1)) for noise, size in zip(measured, sizes, strict=True)]
    exponent = float(np.polyfit(np.log(sizes), np.log(corrected), 1)[0])
    return {
        "batches": sizes,
        "draws": draws,
        "measured": measured,
        "expected": [sigma / math.sqrt(size) * math.sqrt((n - size) / (n - 1)) for size in sizes],
        "exponent": exponent,
    }


def _distance(network: Network, digits: Digits, rows: Array, whole: Array) -> float:
    return float(np.linalg.norm(_flat_gradient(network, digits.X[rows], digits.y[rows]) - whole))


def _flat_gradient(network: Network, X: Array, y: Array) -> Array:
    _, gradients = network.loss_and_gradients(X, y)
    return np.concatenate([gradient.ravel() for gradient in gradients.values()])


def _difference_by_hand(settings: Settings, digits: Digits) -> float:
    """Return how far ``fit`` is from the lecture's four steps, written out, after an epoch of batches of 32."""
    network, by_hand = _network(settings, "float64"), _network(settings, "float64")
    fit(network, digits.X, digits.y, epochs=1, batch_size=32, optimizer=SGD(RATE), l2=1e-3)
    order = np.arange(len(digits.X), dtype=np.int32)
    host_generator(by_hand.seed, Purpose.SHUFFLE, 0).shuffle(order)
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]  # 1. sample a batch
        # 2. and 3. propagate it forward and backward
        _, gradients = by_hand.loss_and_gradients(digits.X[rows], digits.y[rows], l2=1e-3)
        parameters = by_hand.get_parameters()
        # 4. update
        by_hand.set_parameters({name: parameters[name] - RATE * gradients[name] for name in parameters})
    trained = network.get_parameters()
    return max(float(np.abs(trained[name] - value).max()) for name, value in by_hand.get_parameters().items())


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show."""
    runs = numbers["runs"]
    reached = _reached(numbers)
    return {
        "small_batches_need_fewer_epochs": runs[1]["losses"][-1] < runs[-1]["losses"][-1],
        "batches_need_similar_updates": len(reached) > 1 and max(reached.values()) <= SIMILAR * min(reached.values()),
        "noise_is_root": abs(numbers["noise"]["exponent"] + 0.5) < SLOPE_TOLERANCE,
        "fit_is_the_four_steps": numbers["difference_by_hand"] < ROUNDING,
    }


def _updates_to(run: Numbers) -> float:
    """Return the updates after which the loss over all rows was first seen to be low."""
    seen = run["by_updates"]
    return next(
        (update for update, loss in zip(seen["updates"], seen["losses"], strict=True) if loss < LOW_LOSS), math.inf
    )


def _reached(numbers: Numbers) -> dict[int, float]:
    """Return the updates to a low loss by batch size, where it was reached."""
    found = {run["batch"]: _updates_to(run) for run in numbers["runs"]}
    return {batch: updates for batch, updates in found.items() if updates < math.inf}


def describe(numbers: Numbers) -> str:
    """Return the paragraph."""
    shown, runs, noise = claims(numbers), numbers["runs"], numbers["noise"]
    reached = _reached(numbers)
    epochs = len(runs[0]["losses"]) - 1
    final = listing(f"{run['losses'][-1]:.2g}" for run in runs)
    return (
        f"The same network starts from the same weights and trains at the same learning rate, {numbers['rate']:g}, on "
        f"{numbers['rows']:,} images of digits, with batches of {listing(run['batch'] for run in runs)}. "
        f"Left, against epochs, each of which computes the gradient of every example once: after {epochs} epochs the "
        f"loss over all of them is {final}"
        + (
            ", so that for the same work small batches get further, because they update more often. "
            if shown["small_batches_need_fewer_epochs"]
            else ", so that small batches do not get further here for the same work. "
        )
        + f"In the middle, against updates: {_updates_text(reached)}"
        + (
            ", so that an update brings much the same whatever its batch, within a factor of "
            f"{max(reached.values()) / min(reached.values()):.1f}, although one of {max(reached)} examples costs "
            f"{max(reached) // min(reached)} times one of {min(reached)}. "
            if shown["batches_need_similar_updates"]
            else ". "
        )
        + f"Right, how far the gradient of a batch of B is from that of all rows, over {noise['draws']} draws each: "
        f"it falls with B to the power {noise['exponent']:.2f}"
        + (
            ", as the standard error of a mean does, -1/2, so that halving the noise takes four times the work. "
            if shown["noise_is_root"]
            else ", where a mean's standard error falls with -1/2. "
        )
        + "The lecture's four steps written out give "
        + ("the same weights as" if shown["fit_is_the_four_steps"] else "other weights than")
        + f" the library's training (largest difference {tiny(numbers['difference_by_hand'])})."
    )


def _updates_text(reached: dict[int, float]) -> str:
    if not reached:
        return f"no batch size comes to a loss of {LOW_LOSS:g}"
    updates = listing(f"{updates:,.0f}" for updates in reached.values())
    return f"about {updates} of them bring a loss of {LOW_LOSS:g} with batches of {listing(reached)}"


def draw(numbers: Numbers) -> Any:
    """Return the figure."""
    figure, axes = panels(1, 3, width=1.1, height=1.15)
    for run, colour, style, marker in zip(numbers["runs"], COLOURS, STYLES, MARKERS, strict=False):
        look = {"color": colour, "linestyle": style, "marker": marker, "markersize": 3.5, "label": f"{run['batch']}"}
        axes[0, 0].semilogy(range(len(run["losses"])), run["losses"], **look)
        axes[0, 1].loglog(run["by_updates"]["updates"], run["by_updates"]["losses"], **look)
    label(axes[0, 0], x="epochs", y="loss over all rows, nats per example", title="equal work per epoch")
    label(axes[0, 1], x="updates", y="loss over all rows, nats per example", title="the same runs, by updates")
    axes[0, 1].legend(title="batch size", fontsize=8, title_fontsize=8, ncols=2, loc="lower left")
    noise = numbers["noise"]
    place = axes[0, 2]
    place.loglog(noise["batches"], noise["measured"], MARKERS[0], color=COLOURS[0], label="measured")
    place.loglog(
        noise["batches"],
        noise["expected"],
        "--",
        color=COLOURS[1],
        label="sigma / sqrt(B), of n rows without replacement",
    )
    label(place, x="batch size B", y="distance from the full gradient / its norm", title="noise of the gradient")
    place.legend(fontsize=7, loc="lower left")
    return figure
