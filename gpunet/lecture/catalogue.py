"""The experiments in the lecture's order, and how to find one."""

from __future__ import annotations

import importlib

from gpunet.errors import unknown_name
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


def find_experiment(name: str) -> Experiment:
    """Return the experiment with a name (``initialization``) or a row (``L19``, in either case).

    Raises
    ------
    InvalidValueError
        There is none; the message has the nearest name.
    """
    known = {experiment.name: experiment for experiment in experiments()}
    known |= {experiment.row.lower(): experiment for experiment in known.values()}
    if name.lower() not in known:
        raise unknown_name("NAME", name, known)
    return known[name.lower()]


def _load(row: str) -> Experiment:
    module = importlib.import_module(f"gpunet.lecture.experiments.{MODULES[row]}")
    experiment: Experiment = module.EXPERIMENT
    return experiment
