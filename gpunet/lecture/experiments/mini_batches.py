"""L5: mini-batch SGD for batches of one example to all of them, and how noisy the gradient of a batch is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunet.lecture.digits import CLASSES, INPUTS, Digits, split_digits
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, MARKERS, Figure, label, legend, look, panels
from gpunet.lecture.wording import listing
from gpunet.network import Network
from gpunet.random import Purpose, host_generator
from gpunet.training import Callback, Run, evaluate

ROWS = 1024
HIDDEN = 32
RATE = 0.1
EPOCHS = 30
LOOK_AGAIN = 1.2  # after 1.2 times as many updates
BATCHES = (1, 4, 16, 64, 256, ROWS)
NOISE_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
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
    arguments: dict[str, Any] = {"batch_size": size, "validation": (digits.X, digits.y), "callbacks": [by_updates]}
    history = digits.fit(network, RATE, epochs=2 if settings.quick else EPOCHS, **arguments)
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
    digits.fit(network, RATE, epochs=1, batch_size=64)
    whole = _flat_gradient(network, digits.X, digits.y)
    norm = float(np.linalg.norm(whole))
    single = [_distance(network, digits, np.array([row]), whole) for row in range(len(digits.X))]
    sigma = math.sqrt(float(np.mean(np.square(single)))) / norm
    generator = host_generator(settings.seed, Purpose.SHUFFLE, 1)
    n, draws = len(digits.X), 20 if settings.quick else 200
    sizes = [size for size in NOISE_BATCHES if size <= n // 2]
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
    digits.fit(network, RATE, epochs=1, batch_size=32, l2=1e-3)
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


def _reached(numbers: Numbers) -> dict[int, int]:
    """Return the updates after which the loss over all rows was first seen to be low, by batch size."""
    seen = {run["batch"]: zip(*run["by_updates"].values(), strict=True) for run in numbers["runs"]}
    first = {batch: next((update for update, loss in run if loss < LOW_LOSS), None) for batch, run in seen.items()}
    return {batch: updates for batch, updates in first.items() if updates is not None}


def about(numbers: Numbers) -> str:
    runs, reached = numbers["runs"], _reached(numbers)
    final = listing(f"{run['losses'][-1]:.2g}" for run in runs)
    updates = listing(f"{updates:,.0f}" for updates in reached.values())
    by_updates = f"about {updates} of them bring a loss of {LOW_LOSS:g} with batches of {listing(reached)}"
    return (
        f"The same network starts from the same weights and trains at the same learning rate, {numbers['rate']:g}, on "
        f"{numbers['rows']:,} images of digits, with batches of {listing(run['batch'] for run in runs)}. Left, against "
        f"epochs: after {len(runs[0]['losses']) - 1} the loss over all examples is {final}. In the middle, against "
        f"updates: {by_updates if reached else f'no batch size comes to a loss of {LOW_LOSS:g}'}. Right, how far the "
        f"gradient of a batch is from that of all rows, over {numbers['noise']['draws']} draws each."
    )


def claims(numbers: Numbers) -> Claims:
    small, large = (numbers["runs"][place]["losses"][-1] for place in (1, -1))
    reached, exponent = _reached(numbers), numbers["noise"]["exponent"]
    spread = max(reached.values()) / min(reached.values()) if reached else math.inf
    return {
        "small_batches_need_fewer_epochs": Claim(
            "For the same work small batches get further, because they update more often",
            small < large,
            f"a loss of {small:.2g} with batches of {numbers['runs'][1]['batch']}, {large:.2g} with all rows at once",
        ),
        "batches_need_similar_updates": Claim(
            f"An update brings much the same, within a factor of {SIMILAR:g}, although it costs as much as its batch",
            len(reached) > 1 and spread <= SIMILAR,
            f"{spread:.1f} between batches of {min(reached)} and {max(reached)}" if reached else "none got there",
        ),
        "noise_is_root": Claim(
            "The noise falls with B to the power -1/2, so that halving it takes four times the work",
            abs(exponent + 0.5) < SLOPE_TOLERANCE,
            f"to the power {exponent:.2f}",
        ),
        "fit_is_the_four_steps": Claim.agree(
            "The lecture's four steps written out give the library's weights", numbers["difference_by_hand"], ROUNDING
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, ((by_epochs, by_updates, noisy),) = panels(1, 3, width=1.1, height=1.15)
    for place, run in enumerate(numbers["runs"]):
        style = look(place, 3.5) | {"label": f"{run['batch']}"}
        by_epochs.plot(range(len(run["losses"])), run["losses"], **style)
        by_updates.plot(run["by_updates"]["updates"], run["by_updates"]["losses"], **style)
    label(by_epochs, "epochs", "loss over all rows, nats per example", "equal work per epoch", scale="y")
    label(by_updates, "updates", "loss over all rows, nats per example", "the same runs, by updates", scale="xy")
    legend(by_updates, "lower left", title="batch size", ncols=2)
    noise, theory = numbers["noise"], "$\\sigma / \\sqrt{B}$, of n rows without replacement"
    noisy.plot(noise["batches"], noise["measured"], MARKERS[0], color=COLOURS[0], label="measured")
    noisy.plot(noise["batches"], noise["expected"], "--", color=COLOURS[1], label=theory)
    label(noisy, "batch size $B$", "distance from the full gradient / its norm", "noise of the gradient", scale="xy")
    legend(noisy, "lower left", 7)
    return figure
