"""What is verified: checks, and on what they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpunet.activations import Activation
from gpunet.backends import Backend
from gpunet.verification.operation import Difference, Later, Operation, compare
from gpunet.verification.storage import Storage


@dataclass(frozen=True)
class Unit:
    """Kernels that are compiled together.

    Attributes
    ----------
    module : str
        The file, without ``.cu``.
    group : tuple of str
        C++ names.
    activation : Activation or None
        The one among the template arguments.
    """

    module: str
    group: tuple[str, ...]
    activation: Activation | None = None


class NotDoneError(Exception):
    """A check is of something that gpunet does without on this device; the message says why."""


@dataclass(frozen=True)
class Check:
    """Something that is tried, and has a right outcome.

    Attributes
    ----------
    what : str
        The row of the table: what is checked, of which there are many variants.
    kind : str
        The type of the numbers, or another word that tells groups of variants apart.
    detail : str
        Which variant.
    run : callable
        Yields how far every result is from the right one.
    units : tuple of Unit
        The kernels that it launches, to be compiled before.
    switch : str
        The environment variable that keeps a network from doing this; empty where there is none.
    """

    what: str
    kind: str
    detail: str
    run: Callable[[], Iterable[Difference]]
    units: tuple[Unit, ...] = ()
    switch: str = ""

    @property
    def name(self) -> str:
        """All of it in one line."""
        return ", ".join(part for part in (self.what, self.kind, self.detail) if part)

    def has(self, word: str) -> bool:
        """Whether its name has a word; ``float16`` is not ``bfloat16``."""
        return word == self.kind or (word in self.name and not self.kind.endswith(word))


# What the table calls an operation, where that is not its name.
NAMES = {
    "bias_activation_forward": "bias and activation forward",
    "bias_activation_backward": "bias and activation backward",
    "batch_norm_statistics": "batch norm statistics",
    "batch_norm_merge": "batch norm merge",
    "batch_norm_activation_apply": "batch norm of a shard",
    "batch_norm_activation_sums": "batch norm sums",
    "batch_norm_activation_input_gradient": "batch norm input gradient",
    "weigh_shard": "weight of a shard",
    "sum_shards": "sum over shards",
    "divide_sums": "mean over shards",
    "sample_bernoulli": "binary samples",
    "sgd_step": "SGD step",
    "adam_step": "Adam step",
    "clip_factor": "clipping factor",
    "gather_batch": "rows of a batch",
    "count_step": "count of a step",
    "keep_weights": "good weights",
    "summarize": "finite numbers and penalty",
    "accumulate_gradients": "mean gradient of batches",
    "average_weights": "average of weights",
    "score_classes": "right classes",
    "score_soft_classes": "most probable classes",
    "score_switches": "right switches",
    "gemm": "matrix product",
    "linear_activation_forward": "linear layer with activation",
    "round_rows": "rows rounded to half precision",
    "round_matrices": "weights rounded to half precision",
    "unscale_gradients": "loss scale",
}


def operation_check(
    backend: Backend,
    kind: str,
    units: tuple[Unit, ...],
    operation: Later,
    detail: str,
    offsets: Mapping[str, int] | None = None,
) -> Check:
    """Return the check of an operation on a backend."""
    what = NAMES.get(operation.method, operation.method.replace("_", " "))
    return Check(what, kind, detail, lambda: compare(backend, operation.make(), offsets), units)


def alignments(operation: Operation, storage: Storage) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield in words and as offsets: all arrays aligned; each alone past it by one element; all by more and more."""
    names = operation.matrices
    yield "aligned", {}
    for name in names:
        yield f"{name} past alignment by 1", {name: 1}
    offset = 1
    while offset < storage.widest_vector:
        yield f"all past alignment by {offset}", dict.fromkeys(names, offset)
        offset *= 2


def shape_text(shape: Any) -> str:
    """Return a shape in words."""
    return " x ".join(map(str, shape))
