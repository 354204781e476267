"""Arguments of every operation that a backend has a faster version of, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunet.activations import ELU, GELU, Activation, Identity, SiLU, Tanh
from gpunet.backends.numpy import CHUNK, ROWS

Arrays = dict[str, Any]
SHAPES = [(1, 1), (2, 3), (37, 5), (ROWS + 1, 7), (3 * ROWS + 11, CHUNK // 512 + 1)]
WEIGHTS = 13  # of the parameters, how many L2 applies to


class Operands:
    """Random arrays of one shape, in float64."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.rng = np.random.default_rng(shape)
        self.shape = self.rows, self.columns = shape

    def matrix(self) -> Any:
        return self.rng.standard_normal(self.shape)

    def row(self, low: float = -1.0) -> Any:
        return self.rng.uniform(low, 2, self.columns)

    def weights(self) -> Any:
        return self.rng.uniform(0, 2, self.rows)

    def vector(self) -> Any:
        return self.rng.uniform(0.1, 1, max(self.rows, WEIGHTS + 2))

    def unset(self, *shape: int, dtype: str = "float64") -> Any:
        return np.full(shape or self.shape, 99, dtype)


def loss(
    targets: Callable[[Operands], Any], weights: Callable[[Operands], Any], biased: bool, **more: Any
) -> Callable[[Operands], Arrays]:
    """Return what makes the arguments of a loss; more of them are values, or functions of the operands."""
    return lambda p: {
        "bias": p.row() if biased else None,
        "dbias": p.unset(p.columns) if biased else None,
        "outputs": p.matrix(),
        "targets": targets(p),
        "weights": weights(p),
        "doutputs": p.unset(),
        "loss": p.unset(2),
        **{name: value(p) if callable(value) else value for name, value in more.items()},
    }


def labels(p: Operands) -> Any:
    return p.rng.integers(0, p.columns, p.rows, dtype=np.int32)


def level(p: Operands) -> Any:
    return p.rng.uniform(0.1, 0.9, 1)


def levels(p: Operands) -> Any:
    return p.rng.uniform(0.1, 0.9, p.columns)


def distributions(p: Operands) -> Any:
    return p.rng.dirichlet(np.ones(p.columns), p.rows)


def some_zero(p: Operands) -> Any:
    return p.rng.uniform(0.5, 2, p.columns) * (np.arange(p.columns) != 1)


def probabilities(p: Operands) -> Any:
    return p.rng.uniform(0, 1, p.shape)


def score(targets: Callable[[Operands], Any], weights: Callable[[Operands], Any]) -> Callable[[Operands], Arrays]:
    """Return what makes the arguments of a score; ties among the outputs are frequent."""
    return lambda p: {
        "outputs": np.round(p.matrix()),
        "labels" if targets is labels else "targets": targets(p),
        "weights": weights(p),
        "out": p.unset(1),
    }


def not_finite(p: Operands) -> Any:
    return np.where(p.matrix() > 1, np.nan, np.where(p.matrix() > 1, np.inf, p.matrix()))


def zeros(p: Operands) -> Any:
    return np.zeros(p.rows)


def batch_norm(scaled: bool) -> Callable[[Operands], Arrays]:
    return lambda p: {
        "s": p.matrix() + 3,
        "gamma": p.row() if scaled else None,
        "beta": p.row() if scaled else None,
        "activation": Tanh(),
        "out": p.unset(),
        "running_mean": p.row(),
        "running_variance": p.row(0.5),
        "epsilon": 1e-3,
    }


def batch_norm_training(p: Operands) -> Arrays:
    return {"mean": p.unset(p.columns), "inverse_std": p.unset(p.columns), "momentum": 0.3}


def batch_norm_backward(scaled: bool, activation: Activation) -> Callable[[Operands], Arrays]:
    return lambda p: {
        "dy": p.matrix(),
        "s": p.matrix(),
        "y": np.tanh(p.matrix()),
        "gamma": p.row() if scaled else None,
        "beta": p.row() if scaled else None,
        "activation": activation,
        "mean": p.row(),
        "inverse_std": p.row(0.5),
        "ds": p.unset(),
        "dgamma": p.unset(p.columns) if scaled else None,
        "dbeta": p.unset(p.columns) if scaled else None,
    }


def batch_norm_merge(*counts: int) -> Callable[[Operands], Arrays]:
    """Return what makes the arguments of merging shards of so many rows; those without any have NaN."""

    def make(p: Operands) -> Arrays:
        statistics = p.rng.uniform(1, 2, (len(counts), 2, p.columns))
        statistics[np.array(counts) == 0] = np.nan
        arrays = {"mean": p.unset(p.columns), "inverse_std": p.unset(p.columns)}
        averages = {"running_mean": p.row(), "running_variance": p.row(0.5)}
        numbers = {"momentum": 0.3, "epsilon": 1e-3}
        return {"statistics": statistics, "counts": np.array(counts, np.int32), **arrays, **averages, **numbers}

    return make


def batch_norm_apply(scaled: bool) -> Callable[[Operands], Arrays]:
    """Return what makes the arguments of inference, with statistics in the place of running averages."""

    def make(p: Operands) -> Arrays:
        given = batch_norm(scaled)(p)
        del given["running_mean"], given["running_variance"], given["epsilon"]
        return given | {"mean": p.row(), "inverse_std": p.row(0.5)}

    return make


def batch_norm_sums(scaled: bool, activation: Activation) -> Callable[[Operands], Arrays]:
    """Return what makes the arguments of the first part of the backward pass."""

    def make(p: Operands) -> Arrays:
        given = batch_norm_backward(scaled, activation)(p)
        del given["ds"]
        return given | {"dgamma": p.unset(p.columns), "dbeta": p.unset(p.columns)}

    return make


def batch_norm_input_gradient(scaled: bool, activation: Activation) -> Callable[[Operands], Arrays]:
    """Return what makes the arguments of the second part of the backward pass."""
    return lambda p: (
        batch_norm_backward(scaled, activation)(p) | {"dgamma": p.row(), "dbeta": p.row(), "rows": 2 * p.rows + 3}
    )


def shard_sums(*levels: int) -> Callable[[Operands], Arrays]:
    return lambda p: {
        "parts": p.rng.standard_normal((len(levels), p.columns * p.rows)),
        "levels": np.array(levels, np.int32),
        "out": p.unset(p.columns * p.rows),
    }


def step(scalars: int, *moments: str, clip: bool = False, loss: float = 1.0, **numbers: Any) -> Callable[..., Arrays]:
    """Return what makes the arguments of an optimiser's step."""
    return lambda p: {
        "parameters": p.vector(),
        "gradients": p.vector(),
        **{name: p.vector() for name in moments},
        "weight_count": WEIGHTS,
        "scalars": p.rng.uniform(0.1, 2, scalars),
        "clip": np.array([0.3]) if clip else None,
        "loss": np.array([loss, 1.0]),
        **numbers,
    }


def adam(**more: Any) -> Callable[[Operands], Arrays]:
    numbers = {"l2": 0.1, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-8, "weight_decay": 0.0} | more
    return step(3, "first_moment", "second_moment", **numbers)


def clipping(maximum: float, l2: float) -> Callable[[Operands], Arrays]:
    return lambda p: {
        "parameters": p.vector(),
        "gradients": p.vector(),
        "weight_count": WEIGHTS,
        "l2": l2,
        "maximum_norm": maximum,
        "out": p.unset(1),
    }


def random_bits(matrix: str) -> Callable[[Operands], Arrays]:
    return lambda p: {
        matrix: probabilities(p),
        "out": p.unset(),
        "seed": 2**63 + 5,
        "layer": 3,
        "step": np.array([2**33 + 1]),
    }


CASES: list[tuple[str, Callable[[Operands], Arrays]]] = [
    *(
        (
            "gemm",
            lambda p, ta=ta, tb=tb, add=add: {
                "a": p.rng.standard_normal((7, p.rows) if ta else (p.rows, 7)),
                "b": p.rng.standard_normal((p.columns, 7) if tb else (7, p.columns)),
                "out": p.matrix() if add else p.unset(),
                "transpose_a": ta,
                "transpose_b": tb,
                "accumulate": add,
            },
        )
        for ta in (False, True)
        for tb in (False, True)
        for add in (False, True)
    ),
    *(
        (
            "bias_activation_forward",
            lambda p, f=f, biased=biased: {
                "s": p.matrix(),
                "bias": p.row() if biased else None,
                "activation": f,
                "out": p.unset(),
            },
        )
        for f in (Identity(), ELU(0.7), GELU())
        for biased in (False, True)
    ),
    *(
        (
            "bias_activation_backward",
            lambda p, f=f, summed=summed: {
                "dy": p.matrix(),
                "kept": f.forward(p.matrix()) if f.derivative_of == "output" else p.matrix(),
                "activation": f,
                "ds": p.unset(),
                "dbias": p.unset(p.columns) if summed else None,
                "bias": p.row() if summed else None,
            },
        )
        for f in (Identity(), ELU(0.7), GELU())
        for summed in (False, True)
    ),
    *(
        ("batch_norm_activation_forward", lambda p, scaled=scaled: batch_norm(scaled)(p) | batch_norm_training(p))
        for scaled in (False, True)
    ),
    *(
        ("batch_norm_activation_backward", batch_norm_backward(scaled, f))
        for scaled in (False, True)
        for f in (Tanh(), SiLU())
    ),
    *(("batch_norm_activation_inference", batch_norm(scaled)) for scaled in (False, True)),
    ("batch_norm_statistics", lambda p: {"s": p.matrix() + 3, "statistics": p.unset(2, p.columns)}),
    *(("batch_norm_merge", batch_norm_merge(*counts)) for counts in ((2,), (1, 1), (5, 5, 5, 3), (7, 0, 3, 0))),
    *(("batch_norm_activation_apply", batch_norm_apply(scaled)) for scaled in (False, True)),
    *(
        (name, make(scaled, f))
        for name, make in (
            ("batch_norm_activation_sums", batch_norm_sums),
            ("batch_norm_activation_input_gradient", batch_norm_input_gradient),
        )
        for scaled in (False, True)
        for f in (Tanh(), SiLU())
    ),
    *(
        (
            "weigh_shard",
            lambda p, biased=biased, weight=weight: {
                "doutputs": p.matrix(),
                "dbias": p.row() if biased else None,
                "loss": np.array([0.5, weight]),
                "sums": p.unset(2),
                "rows": 3 * p.rows,
            },
        )
        for biased in (False, True)
        for weight in (0.0, 7.0)
    ),
    *(
        ("sum_shards", shard_sums(*levels))
        for levels in ((0,), (0, 0), (0, 1, 1, 0), (2, 0, 0, 1, 1), (-1, 1, -1, 0), (0,) * 7)
    ),
    *(
        (
            "divide_sums",
            lambda p, weight=weight: {
                "gradients": p.matrix().ravel(),
                "sums": np.array([3.0, weight]),
                "loss": p.unset(2),
                "rows": 20,
            },
        )
        for weight in (0.0, 7.5, 20.0)
    ),
    *(
        (
            "dropout_forward",
            lambda p, first=first: (
                random_bits("x")(p) | {"mask": p.unset(*p.shape, dtype="uint8"), "rate": 0.4, "first": first}
            ),
        )
        for first in (0, 8 * 5, 2**33 + 4)
    ),
    (
        "dropout_backward",
        lambda p: {
            "dy": p.matrix(),
            "mask": p.rng.integers(0, 2, p.shape, dtype=np.uint8),
            "rate": 0.4,
            "dx": p.unset(),
        },
    ),
    ("sample_bernoulli", random_bits("probabilities")),
    *(
        (name, loss(targets, weights, biased, **more))
        for name, targets, more in (
            ("softmax_cross_entropy", labels, {}),
            *(
                ("soft_cross_entropy", targets, {"label_smoothing": smoothing, "class_weights": class_weights})
                for targets in (labels, distributions)
                for smoothing, class_weights in ((0.1, None), (0.0, some_zero), (0.3, some_zero))
            ),
            ("sigmoid_cross_entropy", probabilities, {}),
            ("squared_error", Operands.matrix, {}),
            ("huber", Operands.matrix, {"delta": 0.7}),
            ("quantile", Operands.matrix, {"levels": level}),
            ("quantile", Operands.matrix, {"levels": levels}),
        )
        for weights in (lambda p: None, Operands.weights, zeros)
        for biased in (False, True)
    ),
    *(("clip_factor", clipping(maximum, l2)) for maximum in (1e-3, 1e6) for l2 in (0.1, 0.0)),
    *(("sgd_step", step(1, clip=clip, velocity=None, l2=0.1, momentum=0.0, nesterov=False)) for clip in (False, True)),
    *(
        ("sgd_step", step(1, "velocity", clip=clip, l2=0.1, momentum=0.9, nesterov=nesterov))
        for nesterov in (False, True)
        for clip in (False, True)
    ),
    ("sgd_step", step(1, velocity=None, l2=0.0, momentum=0.0, nesterov=False)),
    ("sgd_step", step(1, "velocity", loss=np.inf, l2=0.1, momentum=0.9, nesterov=False)),
    ("adam_step", adam()),
    ("adam_step", adam(l2=0.0)),
    ("adam_step", adam(l2=0.0, weight_decay=0.1)),
    ("adam_step", adam(weight_decay=0.1, clip=True)),
    ("adam_step", adam(loss=np.nan)),
    ("gather_batch", lambda p: features(p)),
    ("gather_batch", lambda p: features(p) | {"targets": labels(p), "batch_targets": p.unset(p.rows, dtype="int32")}),
    (
        "gather_batch",
        lambda p: (
            features(p)
            | {"targets": p.matrix(), "batch_targets": p.unset()}
            | {"weights": p.weights(), "batch_weights": p.unset(p.rows)}
        ),
    ),
    (
        "gather_batch",
        lambda p: features(p) | {"index": np.repeat(labels_of_rows(p), 2), "first": np.array([p.rows // 2])},
    ),
    *(
        (
            "count_step",
            lambda p, number=number, before=before, skipped=skipped: {
                "loss": np.array([0.5, 20.0]),
                "losses": np.full((9, 2), before),
                "table": p.rng.uniform(0, 1, (9, 3)),
                "scalars": p.unset(3),
                "place": np.array([number, 20 * number, 2]),
                "steps": np.array([2**40]),
                "rows": 20,
                "skipped": None if skipped is None else np.array([skipped], np.float32),
            },
        )
        for number, before, skipped in (
            (0, np.nan, None),
            (3, 0.5, 2),
            (8, np.inf, 8),
        )
    ),
    *(
        (
            "keep_weights",
            lambda p, number=number, before=before: {
                "source": p.vector(),
                "kept": np.stack([p.vector(), p.vector()]),
                "losses": np.full((9, 2), before),
                "place": np.array([number, 20 * number, 2]),
                "every": 4,
            },
        )
        for number, before in ((0, np.nan), (3, 0.5), (4, 0.5), (8, np.inf))
    ),
    *(
        (
            "accumulate_gradients",
            lambda p, first=first, last=last, before=before, weight=weight: {
                "gradients": p.vector(),
                "accumulated": p.vector(),
                "loss": np.array([1.5, weight]),
                "mean": np.array([0.75, before]),
                "is_first": first,
                "is_last": last,
            },
        )
        for first, last, before, weight in (
            *((True, False, np.nan, 7.0), (False, False, 20.0, 7.0), (False, True, 20.0, 7.0), (True, True, 3.0, 7.0)),
            *((False, False, 0.0, 0.0), (False, True, 0.0, 7.0), (False, True, 20.0, 0.0)),
        )
    ),
    *(
        (
            "average_weights",
            lambda p, updates=updates, state=state, loss=loss: {
                "parameters": p.vector(),
                "averaged_parameters": p.vector(),
                "state": p.vector()[:state],
                "averaged_state": p.vector()[:state],
                "updates": np.array([updates]),
                "loss": np.array([loss, 7.0]),
                "decay": 0.9,
            },
        )
        for updates, state, loss in ((0, 3, 0.5), (4, 3, 0.5), (4, 0, 0.5), (4, 3, np.nan))
    ),
    *(
        (name, score(targets, weights))
        for name, targets in (("score_classes", labels), ("score_switches", probabilities))
        for weights in (lambda p: None, Operands.weights)
    ),
    ("score_classes", lambda p: score(labels, lambda p: None)(p) | {"outputs": not_finite(p)}),
    *(
        ("summarize", lambda p, count=count: {"vector": p.vector(), "out": p.unset(2), "weight_count": count})
        for count in (0, WEIGHTS)
    ),
]


def features(p: Operands) -> Arrays:
    return {"features": p.matrix(), "index": labels_of_rows(p), "batch_features": p.unset()}


def labels_of_rows(p: Operands) -> Any:
    return p.rng.integers(0, p.rows, p.rows, dtype=np.int32)
