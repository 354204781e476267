"""L6: back propagation for one example, node by node, with every Jacobian filled in."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.lecture.derivations import single_example as lecture
from gpunet.lecture.derivations.activations import activation_named
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import DIVERGING_MAP, Figure, draw_differences, legend, panels
from gpunet.lecture.probing import central_differences
from gpunet.lecture.wording import listing, rounded
from gpunet.network import Network
from gpunet.random import Purpose, host_generator

INPUTS, HIDDEN, CLASSES = 3, 4, 3
L2 = 0.01
MEANINGS = {
    "dJ/dp": "dJ/dp = -y^T / (y^T p)",
    "dp/ds": r"dp/ds = \mathrm{diag}(p) - p\,p^T",
    "ds/dh": "ds/dh = W_2",
    "dh/ds_1": r"dh/ds_1 = \mathrm{diag}(\mathrm{Ind}(s_1 > 0))",
    "ds_1/db_1": "ds_1/db_1 = I_m",
    "ds_1/dvec(W_1)": r"ds_1/d\,\mathrm{vec}(W_1) = I_m \otimes x^T",
}
SMALLEST_SCORE = 0.05  # the kink of ReLU is further away than any step of a difference
# Rounding of float64 sums of a dozen products; and for central differences of a step of 1e-5, rounding of about
# 1e-16 / 1e-5 and a third derivative times 1e-10 / 6.
GRADIENTS_AGREE, DIFFERENCES_AGREE = 1e-13, 1e-9


def measure(settings: Settings) -> dict[str, Any]:
    """Fill in the Jacobians for one example and compare their product with the library's gradients."""
    network, x, target = _problem(settings)
    p = network.get_parameters()
    W1, b1, W2, b2 = (p["W1"], lecture.column(p["b1"]), p["W2"], lecture.column(p["b2"]))
    y = lecture.one_hot(target, CLASSES)
    values = lecture.two_layer_forward(x, y, W1, b1, W2, b2, L2)
    gradients = lecture.two_layer_backward(x, y, W1, b1, W2, b2, L2)
    cost, of_library = network.loss_and_gradients(x.T, [target], l2=L2)
    return {
        "sizes": [INPUTS, HIDDEN, CLASSES],
        "l2": L2,
        "label": target,
        "x": x[:, 0].tolist(),
        "s1": values.s1[:, 0].tolist(),
        "jacobians": {
            "dJ/dp": rounded(lecture.jacobian_cross_entropy_by_probabilities(values.p, y)),
            "dp/ds": rounded(lecture.jacobian_softmax_by_scores(values.p)),
            "ds/dh": rounded(lecture.jacobian_linear_by_input(W2)),
            "dh/ds_1": rounded(lecture.jacobian_activation_by_scores(values.s1, activation_named("relu"))),
            "ds_1/db_1": rounded(lecture.jacobian_linear_by_bias(HIDDEN)),
            "ds_1/dvec(W_1)": rounded(lecture.jacobian_linear_by_weights(x, HIDDEN)),
        },
        "gradients": {name: rounded(gradient) for name, gradient in gradients.items()},
        "cost_difference": abs(cost - values.J),
        "library_difference": {
            name: float(np.abs(gradients[name].reshape(gradient.shape) - gradient).max())
            for name, gradient in of_library.items()
        },
        "difference_error": {
            name: float(np.abs(of_library[name] - differences).max())
            for name, differences in central_differences(network, x.T, np.array([target]), L2).items()
        },
    }


def _problem(settings: Settings) -> tuple[Network, Array, int]:
    """Return a network, an input x (d, 1) that leaves half of the hidden units off, and its label."""
    network = settings.network([INPUTS, HIDDEN, CLASSES], batch_norm=False, dtype="float64", initial_bias=0.1)
    parameters = network.get_parameters()
    generator = host_generator(settings.seed, Purpose.SPLIT)
    while True:
        x = np.round(generator.standard_normal((INPUTS, 1)), 1)
        s1 = parameters["W1"] @ x + lecture.column(parameters["b1"])
        if np.abs(s1).min() > SMALLEST_SCORE and (s1 > 0).sum() == HIDDEN // 2:
            return network, x, int(generator.integers(CLASSES))


def about(numbers: Numbers) -> str:
    d, m, c = numbers["sizes"]
    return (
        f"Every local Jacobian of a 2-layer network with d = {d} inputs, m = {m} hidden units and c = {c} classes, for "
        "one example; grey is an exact 0. The chain rule multiplies them from J on the left to the parameter on the "
        "right: dJ/dp dp/ds is (p - y)^T, and ds_1/dvec(W_1) = I_m (x) x^T has x^T once in each row, so that "
        f"{m * d} columns make an m x d gradient. Bottom right, the gradients are compared."
    )


def claims(numbers: Numbers) -> Claims:
    active = [float(s > 0) for s in numbers["s1"]]
    off = listing(place + 1 for place, on in enumerate(active) if not on)
    library, differences = (max(numbers[kind].values()) for kind in ("library_difference", "difference_error"))
    return {
        "relu_is_indicator": Claim(
            "dh/ds_1 is diag(Ind(s_1 > 0)), with rows of zeros for the hidden units that are off",
            np.diag(numbers["jacobians"]["dh/ds_1"]).tolist() == active,
            f"those are {off}",
        ),
        "library_agrees": Claim.agree(
            "The products are the gradients that the library computes without any of these matrices",
            max(numbers["cost_difference"], library),
            GRADIENTS_AGREE,
        ),
        "differences_agree": Claim.agree("Both are central differences of J", differences, DIFFERENCES_AGREE),
    }


def draw(numbers: Numbers) -> Figure:
    figure, axes = panels(2, 4, width=0.95, height=0.95)
    figure.set_layout_engine("constrained", wspace=0.06)
    matrices = {f"${meaning}$": numbers["jacobians"][name] for name, meaning in MEANINGS.items()}
    matrices[r"$dJ/dW_1 = g^T x^T + 2\,\lambda\,W_1$"] = numbers["gradients"]["W1"]
    for place, (title, matrix) in zip(axes.flat, matrices.items(), strict=False):
        _draw_matrix(place, matrix, title)
    last, names = axes[1, 3], list(numbers["library_difference"])
    titles = {"library_difference": "Jacobians - library", "difference_error": "library - differences"}
    errors = {title: [numbers[key][name] for name in names] for key, title in titles.items()}
    draw_differences(last, errors, names, 1e-6, 1e-18)
    last.set_ylim(len(names) + 0.6, -0.5)
    last.set_title("gradients compared", fontsize=10)
    legend(last, "lower center", 7, ncols=2)
    return figure


def _draw_matrix(axes: Any, matrix: list[list[float]], title: str) -> None:
    values = np.asarray(matrix)
    largest = float(np.abs(values).max())
    shown = np.where(values == 0, np.nan, values)
    axes.set_facecolor("#e4e4e4")
    axes.imshow(shown, cmap=DIVERGING_MAP, vmin=-1.6 * largest, vmax=1.6 * largest, aspect="auto")
    size = 9 if values.shape[1] <= 4 else 6
    for (row, column), value in np.ndenumerate(values):
        # + 0.0 turns -0 into 0.
        axes.text(column, row, f"{value + 0.0:.2g}", ha="center", va="center", fontsize=size)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(f"{values.shape[0]} x {values.shape[1]}", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
