"""L7: the gradient of a batch as a loop over examples and vectorised, and the aggregated k-layer backward pass."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gpunet.lecture.counting import CountingArray, Counts
from gpunet.lecture.derivations import batch_gradient as lecture
from gpunet.lecture.derivations import single_example
from gpunet.lecture.derivations.activations import activation_named
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import Figure, draw_lines, label, legend, panels
from gpunet.lecture.probing import central_differences
from gpunet.lecture.wording import listing
from gpunet.network import Network
from gpunet.random import Purpose, host_generator

Gradients = dict[str, Array]

L2 = 0.01
DEPTHS = (1, 2, 3, 4, 6)
WIDTH = 5  # of every layer, inputs and classes included, so that the slide's indices give shapes that fit
ROWS = 7
SIZES = (20, 30, 30, 10)  # of the network whose operations are counted
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
SMALLEST_SCORE = 1e-3  # the kinks of ReLU are further away than any step of a difference
RELU = activation_named("relu")
# Rounding of float64 relative to the largest entry of a gradient, what central differences reach, and an error that no
# rounding explains.
EQUAL, DIFFERENCES_AGREE, WRONG = 1e-12, 1e-7, 0.1


def measure(settings: Settings) -> dict[str, Any]:
    """Compare loop, vectorised code and library, and count operations."""
    return {
        "depths": [_compared(settings, k) for k in DEPTHS[: 3 if settings.quick else None]],
        "width": WIDTH,
        "rows": ROWS,
        "two_layer_difference": _two_layer_difference(settings),
        "sizes": list(SIZES),
        "counts": [_counted(settings, n) for n in BATCHES[: 4 if settings.quick else None]],
    }


def _split(parameters: Gradients) -> tuple[list[Array], list[Array]]:
    k = len(parameters) // 2
    return [parameters[f"W{i}"] for i in range(1, k + 1)], [parameters[f"b{i}"] for i in range(1, k + 1)]


def _problem(settings: Settings, sizes: list[int], rows: int) -> tuple[Network, Array, Array]:
    """Return a float64 network with biases, and a batch none of whose hidden scores is near 0."""
    network = settings.network(sizes, batch_norm=False, dtype="float64", initial_bias=0.1)
    weights, biases = _split(network.get_parameters())
    generator = host_generator(settings.seed, Purpose.SPLIT, len(sizes))
    batch: list[Array] = []
    while len(batch) < rows:
        x = generator.standard_normal(sizes[0])
        scores = single_example.forward_pass(x, weights, biases, RELU)[1][:-1]
        if all(np.abs(s).min() > SMALLEST_SCORE for s in scores):
            batch.append(x)
    return network, np.stack(batch), generator.integers(0, sizes[-1], rows)


def _difference(ours: Gradients, theirs: Gradients) -> float:
    """Return the largest difference of two sets of gradients, each relative to the largest entry of its array."""
    return max(float(np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max()) for name in theirs)


def _compared(settings: Settings, k: int) -> dict[str, Any]:
    network, X, y = _problem(settings, [WIDTH] * (k + 1), ROWS)
    weights, biases = _split(network.get_parameters())
    _, loop = lecture.loop_over_examples(X, y, weights, biases, L2, RELU)
    _, vectorised = lecture.vectorised(X, y, weights, biases, L2, RELU)
    _, library = network.loss_and_gradients(X, y, l2=L2)
    return {
        "layers": k,
        "loop_and_vectorised": _difference(vectorised, loop),
        "loop_and_library": _difference(library, loop),
        "differences": _difference(library, central_differences(network, X, y, L2)),
        "as_on_the_slide": _difference(_as_on_the_slide(X, y, weights, biases), loop),
    }


def _as_on_the_slide(X: Array, y: Array, weights: list[Array], biases: list[Array]) -> Gradients:
    """Return what the aggregated backward pass gives with the slide's indices: x^(i) and s^(i) for x^(i-1), s^(i-1)."""
    k = len(weights)
    gradients = {f"W{i}": 2 * L2 * weights[i - 1] for i in range(1, k + 1)}
    gradients |= {f"b{i}": np.zeros_like(biases[i - 1]) for i in range(1, k + 1)}
    for x, target in zip(X, y, strict=True):
        _, scores = single_example.forward_pass(x, weights, biases, RELU)
        g = (single_example.softmax(scores[-1]) - single_example.one_hot(int(target), len(biases[-1]))).T
        for i in range(k, 0, -1):
            gradients[f"b{i}"] += g[0] / len(X)
            gradients[f"W{i}"] += g.T @ np.maximum(0, scores[i - 1]).T / len(X)  # x^(i)
            g = g @ weights[i - 1]
            g = g @ np.diag((scores[i - 1][:, 0] > 0).astype(np.float64))  # s^(i)
    return gradients


def _two_layer_difference(settings: Settings) -> float:
    """Return how far the library is from the lecture's slide for two layers, the loop over (x, y) in D."""
    network, X, y = _problem(settings, [6, 9, 4], 11)
    (W1, W2), (b1, b2) = _split(network.get_parameters())
    loop = lecture.two_layer_loop_over_examples(X, y, W1, b1, W2, b2, L2)
    return _difference(network.loss_and_gradients(X, y, l2=L2)[1], loop)


def _counted(settings: Settings, n: int) -> dict[str, Any]:
    generator = host_generator(settings.seed, Purpose.SPLIT)
    X, y = generator.standard_normal((n, SIZES[0])), generator.integers(0, SIZES[-1], n)
    weights = [generator.standard_normal((m, d)) for d, m in pairwise(SIZES)]
    biases = [generator.standard_normal(m) for m in SIZES[1:]]
    counted: dict[str, Any] = {"batch": n}
    for name, gradient in (("loop", lecture.loop_over_examples), ("vectorised", lecture.vectorised)):
        counts = Counts()
        watched_weights = [CountingArray.wrap(W, counts) for W in weights]
        watched_biases = [CountingArray.wrap(b, counts) for b in biases]
        gradient(CountingArray.wrap(X, counts), y, watched_weights, watched_biases, L2, RELU)
        counted[name] = {"operations": counts.operations, "multiplications": counts.multiplications}
    return counted


def about(numbers: Numbers) -> str:
    last = numbers["counts"][-1]
    ratio = last["loop"]["multiplications"] / last["vectorised"]["multiplications"]
    return (
        "Left, the array operations that the lecture's gradient of a batch asks NumPy for, counted while it runs on a "
        f"{'-'.join(map(str, numbers['sizes']))} network. In the middle, the multiplications within them: the loop has "
        f"{ratio:.2f} times as many, because g diag(...) is a matrix product where a mask would do. Right, the "
        f"gradients of networks of {listing(one['layers'] for one in numbers['depths'])} layers are compared."
    )


def claims(numbers: Numbers) -> Claims:
    depths, counts = numbers["depths"], numbers["counts"]
    first, *_, last = (one["loop"]["operations"] for one in counts)
    equal = max(max(one["loop_and_vectorised"], one["loop_and_library"]) for one in depths)
    wrong = [one["as_on_the_slide"] for one in depths]
    vectorised = {one["vectorised"]["operations"] for one in counts}
    return {
        "vectorised_is_constant": Claim(
            "The vectorised code needs as many operations for a batch as for one example",
            len(vectorised) == 1,
            listing(sorted(vectorised)),
        ),
        "loop_grows": Claim(
            "The loop's grow with the batch",
            last > 0.5 * counts[-1]["batch"] * first,
            f"{first:,} for one example, {last:,} for {counts[-1]['batch']}",
        ),
        "all_equal": Claim.agree(
            "Loop, vectorised code and library give the same gradients",
            max(equal, numbers["two_layer_difference"]),
            EQUAL,
        ),
        "differences_agree": Claim.agree(
            "They are central differences of J", max(one["differences"] for one in depths), DIFFERENCES_AGREE
        ),
        "slide_is_wrong": Claim(
            "With the slide's own indices, x^(i) and s^(i) in place of x^(i-1) and s^(i-1), the pass is wrong",
            min(wrong) > WRONG,
            f"off by {min(wrong):.1f} to {max(wrong):.1f} times the gradient's largest entry",
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, axes = panels(1, 3, width=0.88, height=1.05)
    counts, depths = numbers["counts"], numbers["depths"]
    titles = {"array operations": "what Python asks NumPy for", "multiplications": "within matrix products"}
    for place, (y, title) in zip(axes[0], titles.items(), strict=False):
        ways = {"loop": "loop over examples", "vectorised": "vectorised"}
        lines = {way: [entry[name][y.split()[-1]] for entry in counts] for name, way in ways.items()}
        draw_lines(place, lines, [entry["batch"] for entry in counts], size=6)
        label(place, "examples in the batch", y, title, scale="xy")
        legend(place)
    ways = {
        "as_on_the_slide": "the slide's indices - loop",
        "differences": "library - central differences",
        "loop_and_library": "library - loop",
        "loop_and_vectorised": "vectorised - loop",
    }
    floor, last = 1e-17, axes[0, 2]  # where a difference of 0 is drawn
    lines = {way: [max(entry[name], floor) for entry in depths] for name, way in ways.items()}
    layers = [entry["layers"] for entry in depths]
    draw_lines(last, lines, layers, size=6)
    label(last, "layers $k$", "largest relative difference", "gradients compared", scale="y")
    last.set_ylim(floor / 10, 1e6)
    last.set_xticks(layers)
    legend(last, "center", bbox_to_anchor=(0.55, 0.58))
    return figure
