"""Reading result files, the committed ones among them, and choosing rows."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gpunet.errors import FileFormatError, InvalidValueError, MissingFileError, unknown_name

from .results import FORMAT, FORMAT_VERSION, Results, Row

# Beside this package in a checkout, and where it is installed.
RESULTS_FOLDER = Path(__file__).parents[1] / "results"


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
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_number)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: there is no such file.") from None
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: is damaged or no JSON: {error}.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FileFormatError(f"{path}: is not a result file of gpunet's benchmarks.")
    if content.get("format_version") != FORMAT_VERSION:
        raise FileFormatError(
            f"{path}: has format version {content.get('format_version')!r}. Expected {FORMAT_VERSION}: "
            "measure again with this version of gpunet."
        )
    try:
        machine = from_json(dict[str, Any], content.get("machine"))
        from_json(str, machine.get("name"))
        results = Results(machine, from_json(str, content.get("gpunet")), path=path)
        rows = [_read_row(place, row) for place, row in enumerate(from_json(list[Any], content.get("rows")), start=1)]
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"{path}: is damaged: {error}.") from None
    results.merge(rows)
    if len(results.rows) < len(rows):
        raise FileFormatError(f"{path}: is damaged: two rows have the same case and peer.")
    return results


def _number(text: str) -> float:
    """Return an integer or a float, of those that a float holds."""
    if not math.isfinite(float(text)):
        raise ValueError(f"the number {text[:20]} is out of range")
    return int(text) if text.removeprefix("-").isdigit() else float(text)


def _read_row(place: int, content: Any) -> Row:
    try:
        row: Row = from_json(Row, content)
        if row.status == "ok" and row.milliseconds is None:
            raise ValueError("it is 'ok' and has no milliseconds")
        if min([*row.rounds, *row.peaks.values()], default=1) <= 0:
            raise ValueError("rounds and peaks have to be above 0")
    except (TypeError, ValueError) as error:
        raise ValueError(f"row {place}: {error}") from None
    return row


def committed_results(folder: Path | None = None) -> list[Results]:
    """Return the newest results of each machine in a folder, by default those that come with gpunet.

    Raises
    ------
    MissingFileError
        There are none; the message says how to make some.
    FileFormatError
    """
    folder = folder or RESULTS_FOLDER
    newest: dict[str, Results] = {}
    for results in sorted(map(read_results, folder.glob("*.json")), key=_age):
        newest[results.machine["name"]] = results
    if not newest:
        raise MissingFileError(
            f"There are no results in {folder} yet. `make benchmark` in a checkout makes some; or name a file."
        )
    return [newest[name] for name in sorted(newest)]


def choose(
    files: Sequence[Results],
    *,
    peer: Sequence[str] | None = None,
    configuration: Sequence[str] | None = None,
    mode: Sequence[str] | None = None,
    keep_all: bool = False,
) -> list[Results]:
    """Return the results with only the rows of some peers, labels of cases and modes.

    Parameters
    ----------
    files : sequence of Results
    peer, configuration, mode : sequence of str, or None
        Names, or several separated by commas; None takes all.
    keep_all : bool
        Whether results without any such row are returned too, empty.

    Raises
    ------
    InvalidValueError
        No row has a name (the message has the nearest that one has), or none is left.
    """
    rows = [row for results in files for row in results.rows]
    peers = _known("peer", peer, (row.peer for row in rows))
    labels = _known("configuration", configuration, (row.case.label for row in rows))
    modes = _known("mode", mode, (row.case.mode for row in rows))

    def is_wanted(row: Row) -> bool:
        return row.peer in peers and row.case.label in labels and row.case.mode in modes

    chosen = [dataclasses.replace(results, rows=list(filter(is_wanted, results.rows))) for results in files]
    if not any(results.rows for results in chosen):
        raise InvalidValueError("No row is left of all that was asked for together.")
    return [results for results in chosen if results.rows or keep_all]


def from_json(kind: Any, value: Any) -> Any:
    """Return a JSON value as an instance of a type: a dataclass, a container of such, or a plain value.

    Raises
    ------
    TypeError, ValueError
        It is of another type, or a number below 0.
    """
    origin: Any = get_origin(kind) or kind
    inner = get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return None if value is None else from_json(inner[0], value)
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"got {value!r}, expected one of {', '.join(inner)}")
        return value
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, from_json(dict[str, Any], value))
    if origin is float and type(value) is int:
        value = float(value)
    plain: Any = list if origin is tuple else origin
    if type(value) is not plain:
        raise TypeError(f"got {value!r:.60}, expected {plain.__name__}")
    if origin in (int, float) and value < 0:
        raise ValueError(f"got {value!r}, expected a number of at least 0")
    if origin in (list, tuple):
        return origin(from_json(inner[0], part) for part in value)
    return {name: from_json(inner[1], part) for name, part in value.items()} if origin is dict else value


def _read_dataclass(kind: Any, content: dict[str, Any]) -> Any:
    kinds = _field_types(kind)
    parts = {}
    for name, part in content.items():
        try:
            parts[name] = from_json(kinds[name], part)
        except KeyError:
            raise ValueError(f"{name!r} is not known") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from None
    return kind(**parts)


@cache
def _field_types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _known(argument: str, names: Sequence[str] | None, valid: Iterable[str]) -> set[str]:
    known = set(valid)
    if names is None:
        return known
    wanted: set[str] = set()
    for name in names:
        # Labels such as "1,000 parameters" have a comma of their own.
        wanted |= {name} if name in known else {part.strip() for part in name.split(",")}
    for name in sorted(wanted - known):
        raise unknown_name(argument, name, known)
    return wanted


def _age(results: Results) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", results.version)], results.date
