"""What a result file holds: a row for each peer in each case, one file for each machine and version of gpunet."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from gpunet.errors import InvalidValueError
from gpunet.files import write_text

FORMAT = "gpunet.benchmark"
FORMAT_VERSION = 2
NETWORK = "network"
# Measured; not there (a package, a GPU); not its work (scikit-learn has no batch norm); computed something else, and
# was not timed; crashed or hung.
Status: TypeAlias = Literal["ok", "missing", "refused", "wrong", "failed"]
# The names of the ways to use gpunet begin with it.
OURS = "gpunet"
# Label of the cases that are done with several numbers of threads, alone and beside a program that keeps cores busy.
BESIDE = "flights"
SHORT_COMMIT = 10
_SWEEP = re.compile(r"(.*[^\d\s])\s+(\d+)")


@dataclass(frozen=True)
class Case:
    """One piece of work, the same for every peer."""

    # "network", or one of the backend's: gemm, copy, bias_activation, batch_norm_activation, softmax_cross_entropy,
    # sgd_step, adam_step.
    operation: str
    # Of a network: "forward" (inference), "forward_backward" (training mode, the gradients of all parameters), "step"
    # (that and the optimiser, on batches on the device), "epoch" (from host data). Else "forward" or "backward".
    mode: str
    label: str  # what tables call it: "a", "batch 1024", "8192 x 512"
    rows: int  # n, the batch
    # d, m_1, ..., m_k of a network; the columns of an operation; of gemm (a, m): (n, a) times (m, a) transposed; of an
    # optimiser's step the number of parameters.
    sizes: tuple[int, ...]
    activation: str = "relu"
    batch_norm: bool = True
    optimizer: str = "adam"
    dtype: str = "float32"
    precision: str = "float32"  # of float32 matrix products: "float32" or "tf32"
    examples: int = 0  # rows of the data set, for "epoch"
    busy: bool = False  # whether a program beside it keeps the same cores busy

    def __post_init__(self) -> None:
        if not self.sizes or min(self.rows, *self.sizes) < 1:
            raise InvalidValueError(f"case: got {self.rows} rows and sizes {self.sizes}. Expected all above 0.")

    @property
    def key(self) -> str:
        """The case in one line, the same in every run; unique."""
        shape = "x".join(map(str, (self.rows, *self.sizes)))
        parts = [self.operation, self.mode, self.label.replace(" ", "-"), shape, self.activation]
        if self.is_network:
            parts += ["batch-norm" if self.batch_norm else "plain", self.optimizer]
        return "/".join([*parts, self.dtype, self.precision, *(["busy"] if self.busy else [])])

    @property
    def is_network(self) -> bool:
        """Whether the work is a whole network's, and not a single operation."""
        return self.operation == NETWORK

    @property
    def sweep(self) -> tuple[str, int] | None:
        """What a network's case varies and its value, ``("batch", 1024)``; None for one of the configurations."""
        match = _SWEEP.fullmatch(self.label) if self.is_network else None
        return (match[1], int(match[2])) if match else None

    @property
    def samples(self) -> int:
        """Examples that one unit of work processes."""
        return self.examples if self.mode == "epoch" else self.rows

    def replace(self, **changes: Any) -> Case:
        """Return a copy with some attributes changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Spread:
    """Median, 10th and 90th percentile over the rounds of a case."""

    median: float
    p10: float
    p90: float

    def __post_init__(self) -> None:
        if not min(self.median, self.p10, self.p90) > 0:
            raise InvalidValueError(f"spread: got {self}. Expected numbers above 0.")


def spread(values: Iterable[float]) -> Spread:
    """Return median, 10th and 90th percentile of at least one value, or raise InvalidValueError."""
    import numpy as np

    array = np.array(list(values), dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise InvalidValueError(f"values: got {array.tolist()}. Expected at least one, all finite.")
    p10, median, p90 = (float(value) for value in np.percentile(array, (10, 50, 90)))
    return Spread(median, p10, p90)


@dataclass
class Row:
    """What one peer did in one case; only ``"ok"`` rows have times."""

    case: Case
    peer: str
    label: str  # what tables call the peer
    versions: dict[str, str] = field(default_factory=dict)
    status: Status = "ok"
    reason: str = ""  # why there is no time
    on_device: bool = False
    milliseconds: Spread | None = None  # of one unit of work, by the host's clock, synchronised
    device_milliseconds: Spread | None = None  # the same by CUDA events
    # Milliseconds of each round; round i of every peer in a case ran beside round i of the others.
    rounds: list[float] = field(default_factory=list)
    repeats: int = 0  # units of work in a round
    ratio: Spread | None = None  # to the milliseconds of `ratio_to` in the same round: above 1 is slower than that
    ratio_to: str = ""  # one of gpunet's peers
    samples_per_second: float | None = None
    gigaflops: float | None = None  # operations of the work per second
    gigabytes_per_second: float | None = None  # the fewest bytes it has to move
    roofline_milliseconds: float | None = None  # the least time of the work at `peaks`; see roofline.py here
    roofline_percent: float | None = None  # that over the median; above 100 where a cache beats the large copy
    cached: bool = False  # whether the arrays of one unit of work fit into the last-level cache
    # gigaflops of a large matrix product, gigabytes_per_second of a large copy, in the same rounds.
    peaks: dict[str, float] = field(default_factory=dict)
    error: float | None = None  # largest relative one of the outputs against float64; none that is not finite
    tolerance: float | None = None
    peak_bytes: int | None = None  # of the process on a CPU, of the device's memory on a GPU
    # What steps of a network add at most to a fresh process that has done a small one, on a CPU.
    growth_bytes: int | None = None
    product_gigaflops: float | None = None  # of a large matrix product by the library of the peer, in the same rounds
    launches: int | None = None  # kernels of one unit of work
    import_seconds: float | None = None
    first_seconds: float | None = None  # building, compiling and the first unit of work
    threads: int = 0
    blas: str = ""
    gpu_megahertz: int = 0  # clock of the multiprocessors right after the last round
    commit: str = ""  # of gpunet, with "+changes" where files had changed
    date: str = ""  # ISO 8601

    @property
    def key(self) -> str:
        """The case in one line; rows of different files with the same key and peer are the same measurement."""
        return self.case.key

    @property
    def is_ours(self) -> bool:
        """Whether it is a way to use gpunet."""
        return self.peer.startswith(OURS)

    @property
    def median(self) -> float:
        """Milliseconds of one unit of work; only of an ``"ok"`` row."""
        assert self.milliseconds is not None
        return self.milliseconds.median

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON takes it, without the fields that have nothing to say."""
        empty = dataclasses.asdict(Row(self.case, "", ""))
        content = dataclasses.asdict(self)
        if self.error is not None and not math.isfinite(self.error):
            content["error"] = None
        always = ("case", "peer", "label", "status")
        return {name: _rounded(value) for name, value in content.items() if name in always or value != empty[name]}


@dataclass
class Results:
    """A result file: the machine (``name`` and what else is known of it), gpunet's version, the rows; where it is."""

    machine: dict[str, Any]
    version: str
    rows: list[Row] = field(default_factory=list)
    path: Path | None = None

    @property
    def file_name(self) -> str:
        """The file's name: machine and version."""
        return f"{self.machine['name']}-{self.version}.json"

    @property
    def title(self) -> str:
        """Machine and version in words."""
        return f"{self.machine['name']}, gpunet {self.version}"

    @property
    def date(self) -> str:
        """Of the newest row, ISO 8601; empty where no row has one."""
        return max((row.date for row in self.rows), default="")

    def merge(self, rows: Iterable[Row]) -> None:
        """Add rows; one of the same case and peer is replaced in its place."""
        merged = {(row.key, row.peer): row for row in (*self.rows, *rows)}
        self.rows = list(merged.values())

    def as_dict(self) -> dict[str, Any]:
        """Return what the file holds."""
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "gpunet": self.version, "machine": self.machine}
        return {**head, "rows": [row.as_dict() for row in self.rows]}

    def save(self, path: Path) -> None:
        """Write the file; an older one is replaced at once or not at all."""
        content = self.as_dict()
        # A row to a line: what a new run changed can then be read in a diff.
        rows = ",\n  ".join(json.dumps(row, allow_nan=False) for row in content.pop("rows"))
        head = json.dumps(content, indent=1, allow_nan=False).removesuffix("\n}")
        write_text(path, f'{head},\n "rows": [\n  {rows}\n ]\n}}\n')


def _rounded(value: Any) -> Any:
    """Return a value with floats of five digits: more are noise, and make files long."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, (list, tuple)) else value
