"""A row of a result file: what one provider did in one case. Checked when it is read, so that tables need not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from gpunet.errors import FileFormatError, InvalidValueError

# Measured; not there (a package, a GPU); not its work (scikit-learn has no batch norm); computed something else, and
# was not timed; crashed or hung.
STATUSES = ("ok", "missing", "refused", "wrong", "failed")
# Names of gpunet's own providers begin with it; all others are peers.
OURS = "gpunet"


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
    gpu_megahertz: int = 0
    commit: str = ""
    date: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether it is a way to use gpunet, rather than a peer."""
        return self.provider.startswith(OURS)

    @property
    def median(self) -> float:
        """Milliseconds of one unit of work; only of an ``"ok"`` row."""
        assert self.milliseconds is not None
        return self.milliseconds.median


_REQUIRED = ("case", "key", "provider", "label", "status")
_CASE_TEXTS = ("operation", "mode", "label", "activation", "dtype", "precision")


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


def row_as_dict(row: Row) -> dict[str, Any]:
    """Return a row as JSON takes it, without the fields that have nothing to say."""
    content: dict[str, Any] = {}
    for item in fields(row):
        value = getattr(row, item.name)
        if item.name == "error" and value is not None and not math.isfinite(value):
            value = None
        if isinstance(value, Spread):
            value = {"median": value.median, "p10": value.p10, "p90": value.p90}
        if item.name in _REQUIRED or value != _default(item):
            content[item.name] = _rounded(value)
    return content


def row_from_dict(where: str, content: Any) -> Row:
    """Undo :func:`row_as_dict`.

    Parameters
    ----------
    where : str
        What messages begin with.
    content : object

    Raises
    ------
    FileFormatError
        Something is missing, unknown, or of another type than it should be.
    """
    if not isinstance(content, dict):
        raise FileFormatError(f"{where}: it is not an object.")
    for name in _REQUIRED:
        if name not in content:
            raise FileFormatError(f"{where}: it has no {name!r}.")
    kinds = {item.name: str(item.type) for item in fields(Row)}
    for name, value in content.items():
        if name not in kinds:
            raise FileFormatError(f"{where}: {name!r} is not known.")
        if not _fits(kinds[name], value):
            raise FileFormatError(f"{where}: {name} is {_shortened(value)}. Expected {_EXPECTED[kinds[name]]}.")
    _check_case(where, content["case"])
    if content["status"] not in STATUSES:
        raise FileFormatError(f"{where}: status {content['status']!r}. Expected one of {', '.join(STATUSES)}.")
    if content["status"] == "ok" and content.get("milliseconds") is None:
        raise FileFormatError(f"{where}: it is 'ok' and has no milliseconds.")
    values: dict[str, Any] = {
        name: Spread(**value) if "Spread" in kinds[name] and value else value for name, value in content.items()
    }
    return Row(**values)


_EXPECTED = {
    "str": "a text",
    "bool": "true or false",
    "int": "a whole number of at least 0",
    "int | None": "a whole number of at least 0",
    "float | None": "a number of at least 0",
    "dict[str, Any]": "an object",
    "dict[str, str]": "an object of texts",
    "dict[str, float]": "an object of numbers above 0",
    "list[float]": "a list of numbers above 0",
    "Spread | None": "median, p10 and p90 above 0",
}


def _fits(kind: str, value: Any) -> bool:
    if kind.endswith(" | None") and value is None:
        return True
    if kind in ("str", "bool"):
        return isinstance(value, {"str": str, "bool": bool}[kind])
    if kind.startswith("int"):
        return _is_number(value) and isinstance(value, int)
    if kind == "float | None":
        return _is_number(value)
    if kind == "list[float]":
        return isinstance(value, list) and all(map(_is_above_zero, value))
    if not isinstance(value, dict):
        return False
    if kind == "Spread | None":
        return value.keys() == {"median", "p10", "p90"} and all(map(_is_above_zero, value.values()))
    if kind == "dict[str, str]":
        return all(isinstance(part, str) for part in value.values())
    return kind == "dict[str, Any]" or all(map(_is_above_zero, value.values()))


def _check_case(where: str, case: dict[str, Any]) -> None:
    for name in (*_CASE_TEXTS, "rows", "sizes"):
        if name not in case:
            raise FileFormatError(f"{where}: its case has no {name!r}.")
    texts = all(isinstance(case[name], str) for name in _CASE_TEXTS)
    sizes = case["sizes"]
    if not texts or not isinstance(sizes, list) or not all(map(_is_size, [case["rows"], len(sizes), *sizes])):
        raise FileFormatError(
            f"{where}: its case is {_shortened(case)}. Expected texts, and whole numbers above 0 as rows and sizes."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_above_zero(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and _is_above_zero(value)


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _rounded(value: Any) -> Any:
    """Return a value with floats of five digits: more are noise, and make files long."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(part) for part in value]
    return value
