"""Reading result files, the committed ones among them, and choosing rows."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gpunet.errors import FileFormatError, InvalidValueError, MissingFileError, unknown_name

from .results import FORMAT, FORMAT_VERSION, Results, Row

# Beside this package in a checkout, and where it is installed.
RESULTS_FOLDER = Path(__file__).parents[1] / "results"
_field_types: Callable[[Any], dict[str, Any]] = cache(get_type_hints)


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
        machine = from_json(dict[str, Any], content.get("machine"), "machine")
        from_json(str, machine.get("name"), "machine: name")
        results = Results(machine, from_json(str, content.get("gpunet"), "gpunet"), path=path)
        rows = enumerate(from_json(list[Any], content.get("rows"), "rows"), start=1)
        results.merge(_row(row, f"row {place}") for place, row in rows)
    except ValueError as error:
        raise FileFormatError(f"{path}: is damaged: {error}.") from None
    if len(results.rows) < len(content["rows"]):
        raise FileFormatError(f"{path}: is damaged: two rows have the same case and peer.")
    return results


def _number(text: str) -> float:
    """Return an integer or a float, of those that a float holds."""
    if not math.isfinite(float(text)):
        raise ValueError(f"the number {text[:20]} is out of range")
    return int(text) if text.removeprefix("-").isdigit() else float(text)


def _row(content: Any, place: str) -> Row:
    row: Row = from_json(Row, content, place)
    if row.status == "ok" and row.milliseconds is None:
        raise ValueError(f"{place}: it is 'ok' and has no milliseconds")
    if min([*row.rounds, *row.peaks.values()], default=1) <= 0:
        raise ValueError(f"{place}: rounds and peaks have to be above 0")
    return row


def from_json(kind: Any, value: Any, place: str) -> Any:
    """Return a JSON value as the type of a field: a dataclass, a container, a plain value.

    Raises
    ------
    ValueError
        It is none; the message begins with ``place``.
    """
    origin: Any = get_origin(kind) or kind
    inner = get_args(kind)
    if kind is Any or (origin is Literal and value in inner):
        return value
    if origin is UnionType:
        return None if value is None else from_json(inner[0], value, place)
    if dataclasses.is_dataclass(kind):
        kinds, parts = _field_types(kind), from_json(dict[str, Any], value, place)
        fields = {name: from_json(kinds.get(name, Any), part, f"{place}: {name}") for name, part in parts.items()}
        try:
            return origin(**fields)
        except (TypeError, InvalidValueError) as error:  # a field too many or too few; a case or spread that is none
            raise ValueError(f"{place}: {error}") from None
    if origin is float and type(value) is int:
        value = float(value)
    json_kind: Any = list if origin is tuple else origin
    if origin is Literal or type(value) is not json_kind:
        expected = f"one of {', '.join(inner)}" if origin is Literal else json_kind.__name__
        raise ValueError(f"{place}: got {value!r:.60}, expected {expected}")
    if origin in (int, float) and value < 0:
        raise ValueError(f"{place}: got {value!r}, expected a number of at least 0")
    if origin in (list, tuple):
        return origin(from_json(inner[0], part, place) for part in value)
    return {name: from_json(inner[1], part, place) for name, part in value.items()} if origin is dict else value


def committed_results(folder: Path | None = None) -> list[Results]:
    """Return the newest results of each machine in a folder, by default those that come with gpunet.

    Raises
    ------
    MissingFileError
        There are none; the message says how to make some.
    FileFormatError
    """
    folder = folder or RESULTS_FOLDER
    newest = {
        results.machine["name"]: results for results in sorted(map(read_results, folder.glob("*.json")), key=_age)
    }
    if not newest:
        raise MissingFileError(
            f"There are no results in {folder} yet. `make benchmark` in a checkout makes some; or name a file."
        )
    return [newest[name] for name in sorted(newest)]


def _age(results: Results) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", results.version)], results.date


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


def _known(argument: str, names: Sequence[str] | None, valid: Iterable[str]) -> set[str]:
    known = set(valid)
    wanted: set[str] = known if names is None else set()
    for name in names or ():
        # Labels such as "1,000 parameters" have a comma of their own.
        wanted |= {name} if name in known else {part.strip() for part in name.split(",")}
    for name in sorted(wanted - known):
        raise unknown_name(argument, name, known)
    return wanted
