"""Result files of the benchmark suite: one for each machine and version of gpunet, rows replaced as they are rerun."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gpunet.errors import FileFormatError, InvalidValueError, MissingFileError

FORMAT = "gpunet.benchmark"
FORMAT_VERSION = 1

# Measured; not there (a package, a GPU); not its work (scikit-learn has no batch norm); computed something else, and
# was not timed; crashed or hung.
STATUSES = ("ok", "missing", "refused", "wrong", "failed")


@dataclass(frozen=True)
class Spread:
    """Median, 10th and 90th percentile over the rounds of a contest."""

    median: float
    p10: float
    p90: float


@dataclass
class Row:
    """What one provider did in one case.

    Attributes
    ----------
    case : dict
        Operation, mode, label, rows, sizes, activation, batch_norm, optimizer, dtype, precision, examples.
    key : str
        The case in one line; rows of different files with the same key and provider are the same measurement.
    provider, label : str
        Its name and what tables call it.
    versions : dict of str to str
    status : str
        One of ``STATUSES``; only ``"ok"`` rows have times.
    reason : str
        Why there is no time.
    on_device : bool
        Whether the work ran on a GPU.
    milliseconds : Spread or None
        Of one unit of work, by the host's clock, synchronised.
    device_milliseconds : Spread or None
        The same by CUDA events.
    rounds : list of float
        Milliseconds of each round; round i of every provider of a case ran beside round i of the others.
    repeats : int
        Units of work in a round.
    ratio : Spread or None
        Of the milliseconds to those of ``ratio_to`` in the same round: above 1 is slower than that.
    ratio_to : str
        Name of gpunet's provider that ratios are taken to.
    samples_per_second, gigaflops, gigabytes_per_second : float or None
        gigaflops counts the operations of the work, gigabytes the fewest bytes it has to move.
    floor_milliseconds : float or None
        The larger of arithmetic and bytes of each operation, summed, at this contest's ceilings.
    floor_percent : float or None
        Floor over median. Above 100 where the arrays stay in a cache that is faster than the copy's ceiling.
    cached : bool
        Whether the arrays of one unit of work fit into the last-level cache.
    ceilings : dict
        ``gigaflops`` of a large matrix product and ``gigabytes_per_second`` of a large copy, in the same rounds.
    error, tolerance : float or None
        Largest relative error of the outputs against float64, and what was allowed.
    peak_bytes : int or None
        Of the process on a CPU, of the device's memory on a GPU.
    launches : int or None
        Kernels of one unit of work.
    import_seconds, first_seconds : float or None
        Cold start: until the package was imported; building, compiling and the first unit of work.
    threads : int
    blas : str
    commit, date : str
        Of gpunet, with ``+changes`` where files had changed; ISO 8601.
    """

    case: dict[str, Any]
    key: str
    provider: str
    label: str
    versions: dict[str, str] = field(default_factory=dict)
    status: str = "ok"
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
    floor_milliseconds: float | None = None
    floor_percent: float | None = None
    cached: bool = False
    ceilings: dict[str, float] = field(default_factory=dict)
    error: float | None = None
    tolerance: float | None = None
    peak_bytes: int | None = None
    launches: int | None = None
    import_seconds: float | None = None
    first_seconds: float | None = None
    threads: int = 0
    blas: str = ""
    commit: str = ""
    date: str = ""


_SPREADS = ("milliseconds", "device_milliseconds", "ratio")
_REQUIRED = ("case", "key", "provider", "label", "status")
_CASE_FIELDS = ("operation", "mode", "label", "rows", "sizes", "activation", "dtype", "precision")


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

    def find(self, key: str, provider: str) -> Row | None:
        """Return the row of a case and provider, or None."""
        return next((row for row in self.rows if (row.key, row.provider) == (key, provider)), None)

    def merge(self, rows: Iterable[Row]) -> None:
        """Add rows; one of the same case and provider is replaced in its place."""
        places = {(row.key, row.provider): place for place, row in enumerate(self.rows)}
        for row in rows:
            place = places.setdefault((row.key, row.provider), len(self.rows))
            self.rows[place : place + 1] = [row]

    def save(self, path: Path) -> None:
        """Write the file; an older one is replaced at once or not at all.

        Raises
        ------
        OSError
        """
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "gpunet": self.version,
            "machine": self.machine,
            "rows": [_row_as_dict(row) for row in self.rows],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        lines = json.dumps(content, indent=1, allow_nan=False) + "\n"
        temporary.write_text(lines, encoding="utf-8")
        temporary.replace(path)


def read_results(path: str | os.PathLike[str]) -> Results:
    """Read a result file.

    Raises
    ------
    MissingFileError
        There is no such file.
    FileFormatError
        It is damaged, no result file, or of another version; the message says which, and where.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"{path}: there is no such file.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path}: is damaged or no JSON: {error}.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FileFormatError(f"{path}: is not a result file of gpunet's benchmarks.")
    if content.get("format_version") != FORMAT_VERSION:
        raise FileFormatError(
            f"{path}: has format version {content.get('format_version')!r}. Expected {FORMAT_VERSION}: "
            "measure again with this version of gpunet."
        )
    machine, version, rows = content.get("machine"), content.get("gpunet"), content.get("rows")
    if not isinstance(machine, dict) or "name" not in machine or not isinstance(version, str):
        raise FileFormatError(f"{path}: is damaged: it does not say which machine and version it is of.")
    if not isinstance(rows, list):
        raise FileFormatError(f"{path}: is damaged: it has no rows.")
    return Results(machine, version, [_row_from_dict(path, place, row) for place, row in enumerate(rows)], path)


def spread(values: Iterable[float]) -> Spread:
    """Return median, 10th and 90th percentile.

    Raises
    ------
    InvalidValueError
        There are no values, or some are not finite.
    """
    import numpy as np

    array = np.array(list(values), dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise InvalidValueError(f"values: got {array.tolist()}. Expected at least one, all finite.")
    p10, median, p90 = (float(value) for value in np.percentile(array, (10, 50, 90)))
    return Spread(median, p10, p90)


def _row_as_dict(row: Row) -> dict[str, Any]:
    """Return a row without the fields that have nothing to say."""
    content: dict[str, Any] = {}
    for item in fields(row):
        value = getattr(row, item.name)
        if isinstance(value, Spread):
            value = {"median": value.median, "p10": value.p10, "p90": value.p90}
        if item.name in _REQUIRED or value not in (None, "", [], {}, False):
            content[item.name] = _rounded(value)
    return content


def _row_from_dict(path: Path, place: int, content: Any) -> Row:
    where = f"{path}: row {place + 1} is damaged"
    if not isinstance(content, dict):
        raise FileFormatError(f"{where}: it is not an object.")
    for name in _REQUIRED:
        if name not in content:
            raise FileFormatError(f"{where}: it has no {name!r}.")
    known = {item.name for item in fields(Row)}
    if unknown := sorted(set(content) - known):
        raise FileFormatError(f"{where}: {unknown[0]!r} is not known.")
    case = content["case"]
    if not isinstance(case, dict) or any(name not in case for name in _CASE_FIELDS):
        raise FileFormatError(f"{where}: its case lacks one of {', '.join(_CASE_FIELDS)}.")
    if content["status"] not in STATUSES:
        raise FileFormatError(f"{where}: status {content['status']!r}. Expected one of {', '.join(STATUSES)}.")
    values = dict(content)
    for name in _SPREADS:
        if values.get(name) is not None:
            values[name] = _spread_from_dict(where, name, values[name])
    if values["status"] == "ok" and values.get("milliseconds") is None:
        raise FileFormatError(f"{where}: it is 'ok' and has no milliseconds.")
    return Row(**values)


def _spread_from_dict(where: str, name: str, content: Any) -> Spread:
    try:
        numbers = Spread(*(float(content[part]) for part in ("median", "p10", "p90")))
    except (KeyError, TypeError, ValueError):
        raise FileFormatError(f"{where}: {name} is not median, p10 and p90.") from None
    if not all(math.isfinite(value) and value > 0 for value in (numbers.median, numbers.p10, numbers.p90)):
        raise FileFormatError(f"{where}: {name} has a number that is not above 0.")
    return numbers


def _rounded(value: Any) -> Any:
    """Return a value with floats of five digits: more are noise, and make files long."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(part) for part in value]
    return value
