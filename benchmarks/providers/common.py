"""What the providers share: which work there is, how outputs are made comparable, when a package is missing."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy.typing as npt

from benchmarks.cases import NETWORK, NETWORK_MODES, Case
from benchmarks.providers.base import as_host

Array = npt.NDArray[Any]

ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON = 0.9, 0.999, 1e-8
# scikit-learn and Keras add epsilon to the root of the second moment before its bias correction, the paper (and the
# others) after: the paper's epsilon is this one of theirs at the second of the checked steps.
ADAM_EPSILON_BEFORE_CORRECTION = ADAM_EPSILON * (1 - ADAM_BETA_2**2) ** 0.5

OPERATIONS = (
    ("gemm", "forward"),
    ("bias_activation", "forward"),
    ("bias_activation", "backward"),
    ("batch_norm_activation", "forward"),
    ("batch_norm_activation", "backward"),
    ("softmax_cross_entropy", "forward"),
    ("sgd_step", "forward"),
    ("adam_step", "forward"),
)


def as_logits(values: Any) -> Array:
    """Return logits on the host with the mean of each row taken off.

    Softmax does not see it, and a library that gives only probabilities cannot know it.
    """
    logits = as_host(values)
    return logits - logits.mean(axis=1, keepdims=True)


def refuse_unknown(case: Case) -> str | None:
    """Return why no provider does a case: there is no such work."""
    if case.operation == NETWORK:
        return None if case.mode in NETWORK_MODES else f"a network has no mode {case.mode!r}"
    if (case.operation, case.mode) not in OPERATIONS:
        return f"there is no operation {case.operation!r} with mode {case.mode!r}"
    return None


def refuse_on_cpu(case: Case) -> str | None:
    """Return why nothing that runs on a CPU does a case."""
    if case.precision == "tf32":
        return "CPUs multiply in float32; TF32 is of NVIDIA's tensor cores"
    return None


def refuse_single_row(case: Case) -> str | None:
    """Return why a case's epoch ends in a batch that batch norm cannot normalise (gpunet's ``fit`` avoids such)."""
    if case.mode == "epoch" and case.batch_norm and case.examples % case.rows == 1:
        return "the last batch of the epoch has one row, which batch norm cannot normalise"
    return None


def missing_package(module: str, distribution: str) -> str | None:
    """Return that a package is not installed, or None."""
    return None if importlib.util.find_spec(module) else f"{distribution} is not installed"


def first_refusal(*reasons: str | None) -> str | None:
    """Return the first reason that is one."""
    return next((reason for reason in reasons if reason), None)


def hidden_layers(case: Case) -> range:
    """Return the numbers of a network's hidden linear layers, from 1."""
    return range(1, len(case.sizes) - 1)
