"""The experiments in the lecture's order, and how to find one."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable

from gpunet.errors import InvalidValueError, unknown_name
from gpunet.lecture.experiment import Experiment

# The module of each row; imported when asked for, so that `gpunet --help` stays quick.
MODULES = {
    "L1": "linear_scores",
    "L2": "layers",
    "L3": "activations",
    "L4": "softmax_loss",
    "L5": "mini_batches",
    "L6": "single_example",
    "L7": "batch_gradient",
    "L8": "capacity",
    "L9": "perceptron",
    "L10": "adaline",
    "L11": "madaline",
    "L12": "delta_rule",
    "L13": "pretraining",
    "L14": "saturation",
    "L15": "zig_zag",
    "L16": "activation_cost",
    "L17": "dead_units",
    "L18": "initial_bias",
    "L19": "initialization",
    "L20": "relu_initialization",
    "L21": "initializers",
    "L22": "batch_norm",
    "L23": "test_time",
    "L24": "batch_norm_gradient",
    "L25": "batch_norm_benefits",
}


def experiments() -> list[Experiment]:
    """Return every experiment, L1 first."""
    return [_load(row) for row in MODULES]


def find_experiment(name: str, other_words: Iterable[str] = ()) -> Experiment:
    """Return the experiment with a name (``initialization``) or a row (``L19``, in either case).

    Parameters
    ----------
    name : str
    other_words : iterable of str
        What else the caller would have understood, for the error message.

    Raises
    ------
    InvalidValueError
        There is none; the message has the nearest name.
    """
    if name.upper() in MODULES:
        return _load(name.upper())
    if re.fullmatch(r"[lL]?\d+", name):
        rows = list(MODULES)
        raise InvalidValueError(
            f"NAME: {name!r} is no row of the lecture. Expected {rows[0]} to {rows[-1]}, or a name."
        )
    rows_by_name = {module.replace("_", "-"): row for row, module in MODULES.items()}
    wanted = name.lower().replace("_", "-")
    if wanted not in rows_by_name:
        raise unknown_name("NAME", name, [*rows_by_name, *other_words])
    return _load(rows_by_name[wanted])


def _load(row: str) -> Experiment:
    module = importlib.import_module(f"gpunet.lecture.experiments.{MODULES[row]}")
    experiment: Experiment = module.EXPERIMENT
    return experiment
