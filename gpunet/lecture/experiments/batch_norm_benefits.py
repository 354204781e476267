"""L25: what batch norm buys: deeper networks, higher learning rates, less dependence on the initial weights."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from gpunet.diagnostics import inspect
from gpunet.lecture.digits import CLASSES, INPUTS, TEST_ROWS, Digits, split_digits
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import MAP, Figure, label, legend, look, name_ticks, panels
from gpunet.lecture.probing import hidden_scores
from gpunet.network import Network
from gpunet.random import Purpose, host_generator

INITIALIZERS: tuple[str, ...] = ("normal(0.01)", "xavier_normal", "he_normal", "normal(1)")
KINDS = {"without": False, "with": True}
CHANCE = 1 / CLASSES
BATCH_SIZE = 128

LEARNS = 0.5  # test accuracy
CLEARLY = 1.5
SIGNIFICANT = 2.0  # standard errors


def measure(settings: Settings) -> dict[str, Any]:
    """Train every cell of the grid, then small data sets in small batches."""
    depths, rates, initializers = [2, 5, 10, 20, 50], [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0], INITIALIZERS
    epochs, width, rows = 10, 50, 1280
    if settings.quick:
        depths, rates, initializers, epochs, width, rows = [2, 4], [0.01, 0.1, 1.0], INITIALIZERS[1:3], 2, 20, 256
    digits = split_digits(settings.seed, rows)

    def accuracies(uses: bool, initializer: str) -> list[list[float | None]]:
        arguments = {"batch_norm": uses, "initializer": initializer}
        return [
            [cell_accuracy(digits, _network(settings, depth, width, **arguments), rate, epochs) for rate in rates]
            for depth in depths
        ]

    grid = {kind: {name: accuracies(uses, name) for name in initializers} for kind, uses in KINDS.items()}
    sizes = {"epochs": epochs, "steps": epochs * math.ceil(rows / BATCH_SIZE), "width": width, "rows": rows}
    return sizes | {
        "depths": depths,
        "learning_rates": rates,
        "initializers": list(initializers),
        "grid": grid,
        "gradient_growth": gradient_growth(settings, digits, depths[-1], width),
        "regularisation": _regularisation(settings),
    }


def _network(settings: Settings, depth: int, width: int, **arguments: Any) -> Network:
    """Return a network of ``depth`` linear layers."""
    return settings.network([INPUTS] + [width] * (depth - 1) + [CLASSES], **arguments)


def cell_accuracy(digits: Digits, network: Network, rate: float, epochs: int) -> float | None:
    """Return the test accuracy of a network once it is trained, None where training diverged."""
    _, diverged = digits.fit_or_diverge(network, rate, epochs=epochs, batch_size=BATCH_SIZE)
    return None if diverged else digits.test_accuracy(network)


def gradient_growth(settings: Settings, digits: Digits, depth: int, width: int) -> float:
    """Return by what the gradient at the scores grows per layer on its way back, before any training.

    Of the deepest network with batch norm, He's initial weights, and the training rows as one batch. For wide ReLU
    layers Yang et al. 2019, "A mean field theory of batch normalization", give sqrt(pi / (pi - 1)) = 1.21.
    """
    network = _network(settings, depth, width, batch_norm=True, initializer="he_normal")
    layers = inspect(network, digits.X, digits.y, bins=1).hidden
    first, last = (layers[place].score_gradients.root_mean_square for place in (0, -1))
    return float((first / last) ** (1 / max(1, len(layers) - 1)))


def _regularisation(settings: Settings) -> dict[str, Any]:
    """Train on few rows with large and small batches, several seeds, and measure the noise of the batch statistics."""
    rows, width, epochs, seeds, sizes, rate = 200, 50, 40, 5, [4, 10, 25, 100], 0.2
    if settings.quick:
        rows, width, epochs, seeds, sizes = 60, 20, 2, 2, [4, 30]
    accuracies: dict[str, list[list[float]]] = {kind: [[] for _ in sizes] for kind in KINDS}
    noise = []
    for place, size in enumerate(sizes):
        noises = []
        for seed in range(settings.seed, settings.seed + seeds):
            digits = split_digits(seed, rows)
            for kind, uses in KINDS.items():
                network = settings.network([INPUTS, width, width, CLASSES], batch_norm=uses, seed=seed)
                digits.fit(network, rate, epochs=epochs, batch_size=size)
                accuracies[kind][place].append(digits.test_accuracy(network))
            noises.append(batch_noise(network, digits.X, size, seed))
        noise.append(float(np.mean(noises)))
    found = {"rows": rows, "epochs": epochs, "seeds": seeds, "learning_rate": rate, "batch_sizes": sizes}
    return found | {"test_accuracy": accuracies, "noise": noise}


def batch_noise(network: Network, X: Array, size: int, seed: int) -> float:
    """Return how much a row's normalised scores in the first layer vary with the batch it is in.

    Their standard deviation over 30 random batches with row 0, mean over the units. The mean of n of N rows has a
    standard deviation of sqrt((1 - n / N) / n) of the scores' own.
    """
    generator = host_generator(seed, Purpose.NOISE)
    found = []
    for _ in range(30):
        rows = [0, *generator.choice(np.arange(1, len(X)), size - 1, replace=False)]
        scores = hidden_scores(network, X[rows])[0]
        deviation = np.sqrt(scores.var(axis=0) + network.batch_norm_epsilon)
        found.append((scores[0] - scores.mean(axis=0)) / deviation)
    return float(np.std(found, axis=0).mean())


def learning(numbers: Numbers, kind: str) -> Array:
    """Return which cells learnt, bool (initialisers, depths, rates): a test accuracy of at least ``LEARNS``."""
    cells = [numbers["grid"][kind][initializer] for initializer in numbers["initializers"]]
    return np.array([[[(cell or 0.0) >= LEARNS for cell in row] for row in rows] for rows in cells])


def reach(numbers: Numbers, kind: str) -> dict[str, float]:
    """Return what the cells that learnt span.

    ``share``: of all cells. ``deepest``: the largest depth at which any initialiser and rate learnt. ``deep_share``:
    of the cells with at least 10 layers, or the deepest there are. ``high_rate_share``: of the cells whose learning
    rate is in the highest decade. ``rate_range``: decades between the lowest and the highest learning rate that
    learn, mean over initialisers and depths (a single one counts 0). ``initializer_share``: mean share of the
    initialisers that learn, over the depths and rates at which at least one does, with or without batch norm.
    """
    learnt = learning(numbers, kind)
    depths, rates = np.array(numbers["depths"]), np.log10(numbers["learning_rates"])
    at_depth = learnt.any(axis=(0, 2))
    deep = depths >= min(10, depths.max())
    spans = [float(np.ptp(rates[cells])) if cells.any() else 0.0 for cells in learnt.reshape(-1, len(rates))]
    possible = learning(numbers, "without").any(axis=0) | learning(numbers, "with").any(axis=0)
    return {
        "share": float(learnt.mean()),
        "deepest": float(depths[at_depth].max()) if at_depth.any() else 0.0,
        "deep_share": float(learnt[:, deep].mean()),
        "high_rate_share": float(learnt[:, :, rates >= rates.max() - 1.0001].mean()),
        "rate_range": float(np.mean(spans)),
        "initializer_share": float(learnt.mean(axis=0)[possible].mean()) if possible.any() else 0.0,
    }


def accuracy_difference(numbers: Numbers) -> list[tuple[float, float]]:
    """Return test accuracy with batch norm less without, and its standard error over the seeds, per batch size."""
    accuracies = numbers["regularisation"]["test_accuracy"]
    pairs = zip(accuracies["with"], accuracies["without"], strict=True)
    differences = [np.subtract(with_it, without) for with_it, without in pairs]
    return [(float(d.mean()), float(d.std(ddof=1) / math.sqrt(len(d)))) for d in differences]


def about(numbers: Numbers) -> str:
    regular = numbers["regularisation"]
    without, with_it = (reach(numbers, kind) for kind in KINDS)
    diverged = [sum(row.count(None) for rows in numbers["grid"][kind].values() for row in rows) for kind in KINDS]
    return (
        "Each square is a network of that depth, learning the digits at that rate from those initial weights "
        f"({numbers['width']} units wide, {numbers['steps']} steps of SGD), with its test accuracy in per cent; "
        f"crosses diverged ({diverged[0]} without and {diverged[1]} with batch norm). Counting as learnt what reaches "
        f"{LEARNS:.0%}, {without['share']:.0%} of the squares learn without batch norm and {with_it['share']:.0%} with "
        f"it. With it the gradients of the deepest network change {numbers['gradient_growth']:.2f}-fold from layer to "
        f"layer on their way back ({math.sqrt(math.pi / (math.pi - 1)):.2f}-fold in theory, where layers are wide). "
        "The last row has the noise that a batch's statistics put on a row's score, and the test accuracy after "
        f"{regular['epochs']} epochs on {regular['rows']} rows, mean and standard error of {regular['seeds']} seeds."
    )


def claims(numbers: Numbers) -> Claims:
    regular, differences = numbers["regularisation"], accuracy_difference(numbers)
    noise, depth = regular["noise"], numbers["depths"][-1]
    without, with_it = (reach(numbers, kind) for kind in KINDS)
    unexpected = int(learning(numbers, "with")[:, -1].sum())

    def clearly_more(of: str, share: str, more: str = "") -> Claim:
        sentence = f"{of} {CLEARLY:g} times as many learn with batch norm"
        holds = with_it[share] > 0 and with_it[share] >= CLEARLY * without[share]
        return Claim(sentence, holds, f"{with_it[share]:.0%} against {without[share]:.0%}{more}")

    deepest = f", the deepest having {with_it['deepest']:.0f} and {without['deepest']:.0f}"
    decades = f", and the rates span {with_it['rate_range']:.1f} against {without['rate_range']:.1f} decades"
    gained = ", ".join(
        f"{100 * mean:+.1f} ± {100 * error:.1f} points at batch size {size}"
        for size, (mean, error) in zip(regular["batch_sizes"], differences, strict=True)
    )
    return {
        "deeper": clearly_more(f"Of networks with {min(10, depth)} layers or more", "deep_share", deepest),
        "higher_rates": clearly_more("In the highest decade of learning rates", "high_rate_share", decades),
        "less_initialisation": clearly_more("Of the initial weights, where any of them does,", "initializer_share"),
        "depth_has_a_limit": Claim(
            f"Even with it nothing learns at {depth} layers within these {numbers['steps']} steps",
            unexpected == 0,
            f"{unexpected} squares",
        ),
        "noise_falls": Claim(
            "The noise of a batch's statistics falls with the batch size",
            all(later < earlier for earlier, later in itertools.pairwise(noise)),
            f"from {noise[0]:.2f} to {noise[-1]:.2f} standard deviations",
        ),
        "regularises": Claim(
            f"It regularises: on test rows it is better by more than {SIGNIFICANT:g} standard errors at some batch "
            "size, and worse by as much at none",
            any(mean > SIGNIFICANT * error for mean, error in differences)
            and not any(mean < -SIGNIFICANT * error for mean, error in differences),
            gained,
        ),
    }


def draw(numbers: Numbers) -> Figure:
    rows = len(numbers["initializers"])
    figure, axes = panels(rows + 1, 2, width=1.1, height=0.75)
    image: Any = None
    for column, kind in enumerate(KINDS):
        for row, initializer in enumerate(numbers["initializers"]):
            image = _draw_map(axes[row, column], numbers, kind, initializer)
    bar = figure.colorbar(image, ax=axes[:rows], location="bottom", shrink=0.7, aspect=50, pad=0.01)
    bar.set_label("test accuracy, % (\u00d7: training diverged)", fontsize=9)
    bar.ax.tick_params(labelsize=8)

    regular = numbers["regularisation"]
    noise, accuracy = axes[rows]
    sizes = regular["batch_sizes"]
    theory = [math.sqrt((1 - size / regular["rows"]) / size) for size in sizes]
    noise.plot(sizes, regular["noise"], label="measured", **look(0))
    noise.plot(sizes, theory, linestyle="--", color="0.5", label="of the mean, in theory")
    label(noise, "batch size", "noise of a score,\nstandard deviations", "what a batch's statistics add", scale="xy")
    noise.set_yticks([0.1, 0.2, 0.5], ["0.1", "0.2", "0.5"])
    for place, kind in enumerate(KINDS):
        values = 100 * np.array(regular["test_accuracy"][kind])
        beside = np.array(sizes) * (0.97, 1.03)[place]
        errors = values.std(axis=1, ddof=1) / math.sqrt(values.shape[1])
        accuracy.errorbar(beside, values.mean(axis=1), errors, label=f"{kind} batch norm", capsize=2, **look(place))
    title = f"after {regular['epochs']} epochs on {regular['rows']} rows: mean, standard error"
    label(accuracy, "batch size", f"accuracy on {TEST_ROWS} test rows, %", title, scale="x")
    for panel in (noise, accuracy):
        name_ticks(panel, sizes)
        panel.minorticks_off()
        legend(panel)
    return figure


def _draw_map(panel: Any, numbers: Numbers, kind: str, initializer: str) -> Any:
    cells = numbers["grid"][kind][initializer]
    percent = 100 * np.array([[CHANCE if cell is None else cell for cell in row] for row in cells])
    image = panel.imshow(percent, cmap=MAP, vmin=0, vmax=100, origin="lower", aspect="auto")
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            text = "\u00d7" if cell is None else f"{100 * cell:.0f}"
            colour = "white" if (cell or 0) < 0.7 else "black"
            panel.text(x, y, text, ha="center", va="center", fontsize=9, color=colour)
    label(panel, "learning rate", "depth, linear layers", f"{initializer}, {kind} batch norm")
    panel.grid(visible=False)
    panel.set_xticks(range(len(numbers["learning_rates"])), [f"{rate:g}" for rate in numbers["learning_rates"]])
    panel.set_yticks(range(len(numbers["depths"])), [str(depth) for depth in numbers["depths"]])
    return image
