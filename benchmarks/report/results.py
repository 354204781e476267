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
_SWEEP = re.compile(r"(.*[^\d\s])\s+(\d+)")


@dataclass(frozen=True)
class Case:
    """One piece of work, the same for every peer.

    Attributes
    ----------
    operation : str
        ``"network"``, or one of the backend's operations: ``"gemm"``, ``"bias_activation"``,
        ``"batch_norm_activation"``, ``"softmax_cross_entropy"``, ``"sgd_step"``, ``"adam_step"``.
    mode : str
        Of a network: ``"forward"`` (inference), ``"forward_backward"`` (training mode, the gradients of all
        parameters), ``"step"`` (that and the optimiser, on batches that are on the device), ``"epoch"`` (from host
        data). Of an operation: ``"forward"`` or ``"backward"``.
    label : str
        What tables call it: ``"a"``, ``"batch 1024"``, ``"8192 x 512"``.
    rows : int
        n, the batch.
    sizes : tuple of int
        Layer sizes d, m_1, ..., m_k of a network; the columns m of an operation; of ``gemm`` the inner and the outer
        dimension (a, m): (n, a) times (m, a) transposed; of an optimiser's step the number of parameters.
    activation, batch_norm, optimizer
        Of a network, those that the operation has.
    dtype : str
    precision : str
        Of float32 matrix products: ``"float32"`` or ``"tf32"``.
    examples : int
        Rows of the data set, for ``"epoch"``.
    """

    operation: str
    mode: str
    label: str
    rows: int
    sizes: tuple[int, ...]
    activation: str = "relu"
    batch_norm: bool = True
    optimizer: str = "adam"
    dtype: str = "float32"
    precision: str = "float32"
    examples: int = 0

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
        return "/".join([*parts, self.dtype, self.precision])

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
    """Return median, 10th and 90th percentile.

    Raises
    ------
    InvalidValueError
        There are no values, or some are not finite or not above 0.
    """
    import numpy as np

    array = np.array(list(values), dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise InvalidValueError(f"values: got {array.tolist()}. Expected at least one, all finite.")
    p10, median, p90 = (float(value) for value in np.percentile(array, (10, 50, 90)))
    return Spread(median, p10, p90)


@dataclass
class Row:
    """What one peer did in one case.

    Attributes
    ----------
    case : Case
    peer, label : str
        The peer's name, and what tables call it.
    versions : dict of str to str
    status : str
        Only ``"ok"`` rows have times.
    reason : str
        Why there is no time.
    on_device : bool
        Whether the work ran on a GPU.
    milliseconds : Spread or None
        Of one unit of work, by the host's clock, synchronised.
    device_milliseconds : Spread or None
        The same by CUDA events.
    rounds : list of float
        Milliseconds of each round; round i of every peer in a case ran beside round i of the others.
    repeats : int
        Units of work in a round.
    ratio : Spread or None
        Of the milliseconds to those of ``ratio_to`` in the same round: above 1 is slower than that.
    ratio_to : str
        Which of gpunet's peers ratios are taken to.
    samples_per_second, gigaflops, gigabytes_per_second : float or None
        gigaflops counts the operations of the work, gigabytes the fewest bytes it has to move.
    roofline_milliseconds : float or None
        The least time of the work at ``peaks``; see :mod:`benchmarks.roofline`.
    roofline_percent : float or None
        That over the median. Above 100 where the arrays stay in a cache that is faster than the large copy.
    cached : bool
        Whether the arrays of one unit of work fit into the last-level cache.
    peaks : dict
        ``gigaflops`` of a large matrix product and ``gigabytes_per_second`` of a large copy, in the same rounds.
    error, tolerance : float or None
        Largest relative error of the outputs against float64, and what was allowed. An error that is not finite is
        not kept.
    peak_bytes : int or None
        Of the process on a CPU, of the device's memory on a GPU.
    launches : int or None
        Kernels of one unit of work.
    import_seconds, first_seconds : float or None
        Cold start: until the package was imported; building, compiling and the first unit of work.
    threads : int
    blas : str
    gpu_megahertz : int
        Clock of the GPU's multiprocessors right after the last round.
    commit, date : str
        Of gpunet, with ``+changes`` where files had changed; ISO 8601.
    """

    case: Case
    peer: str
    label: str
    versions: dict[str, str] = field(default_factory=dict)
    status: Status = "ok"
    reason: str = ""
    on_device: bool = False
    milliseconds: Spread | None = None
    device_milliseconds: Spread | None = None
    rounds: list[float] = field(default_factory=list)
    repeats: int = 0
    ratio: Spread | None = None
    ratio_to: str = ""
    samples_per_second: float | None = None
    gigaflops: float | None = None
    gigabytes_per_second: float | None = None
    roofline_milliseconds: float | None = None
    roofline_percent: float | None = None
    cached: bool = False
    peaks: dict[str, float] = field(default_factory=dict)
    error: float | None = None
    tolerance: float | None = None
    peak_bytes: int | None = None
    launches: int | None = None
    import_seconds: float | None = None
    first_seconds: float | None = None
    threads: int = 0
    blas: str = ""
    gpu_megahertz: int = 0
    commit: str = ""
    date: str = ""

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


@dataclass
class Results:
    """A result file.

    Attributes
    ----------
    machine : dict
        ``name`` (short, in file names), ``cpu``, ``cores``, ``memory_bytes``, ``cache_bytes``, ``system``, ``python``;
        and where there is one ``gpu``, ``driver``, ``gpu_memory_bytes``, ``clocks``.
    version : str
        Of gpunet.
    rows : list of Row
    path : Path or None
        Where it was read from.
    """

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

    def find(self, key: str, peer: str) -> Row | None:
        """Return the row of a case and peer, or None."""
        return next((row for row in self.rows if (row.key, row.peer) == (key, peer)), None)

    def merge(self, rows: Iterable[Row]) -> None:
        """Add rows; one of the same case and peer is replaced in its place."""
        merged = {(row.key, row.peer): row for row in (*self.rows, *rows)}
        self.rows = list(merged.values())

    def as_dict(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "gpunet": self.version,
            "machine": self.machine,
            "rows": [row_as_dict(row) for row in self.rows],
        }

    def save(self, path: Path) -> None:
        """Write the file; an older one is replaced at once or not at all.

        Raises
        ------
        OSError
        """
        content = self.as_dict()
        # A row to a line: what a new run changed can then be read in a diff.
        rows = ",\n  ".join(json.dumps(row, allow_nan=False) for row in content.pop("rows"))
        head = json.dumps(content, indent=1, allow_nan=False).removesuffix("\n}")
        write_text(path, f'{head},\n "rows": [\n  {rows}\n ]\n}}\n')


def row_as_dict(row: Row) -> dict[str, Any]:
    """Return a row as JSON takes it, without the fields that have nothing to say."""
    empty = dataclasses.asdict(Row(row.case, "", ""))
    content = dataclasses.asdict(row)
    if row.error is not None and not math.isfinite(row.error):
        content["error"] = None
    always = ("case", "peer", "label", "status")
    return {name: _rounded(value) for name, value in content.items() if name in always or value != empty[name]}


def _rounded(value: Any) -> Any:
    """Return a value with floats of five digits: more are noise, and make files long."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(part) for part in value]
    return value
