"""Result files of the benchmark suite: one for each machine and version of gpunet, rows replaced as they are rerun."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpunet.bench.rows import STATUSES, Row, Spread, row_as_dict, row_from_dict, spread
from gpunet.errors import FileFormatError, MissingFileError
from gpunet.files import write_text

__all__ = ["FORMAT", "FORMAT_VERSION", "STATUSES", "Results", "Row", "Spread", "read_results", "spread"]

FORMAT = "gpunet.benchmark"
FORMAT_VERSION = 1


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
    def date(self) -> str:
        """Of the newest row, ISO 8601; empty where no row has one."""
        return max((row.date for row in self.rows), default="")

    def find(self, key: str, provider: str) -> Row | None:
        """Return the row of a case and provider, or None."""
        return next((row for row in self.rows if (row.key, row.provider) == (key, provider)), None)

    def merge(self, rows: Iterable[Row]) -> None:
        """Add rows; one of the same case and provider is replaced in its place."""
        places = {(row.key, row.provider): place for place, row in enumerate(self.rows)}
        for row in rows:
            place = places.setdefault((row.key, row.provider), len(self.rows))
            self.rows[place : place + 1] = [row]

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


def _integer(text: str) -> int:
    """Return an integer that is not too large for the checks, which compare it as a float."""
    if not math.isfinite(float(text)):
        raise ValueError(f"the number {text[:20]}... is out of range")
    return int(text)


def _is_json(content: Any) -> bool:
    try:
        json.dumps(content, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


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
        content = json.loads(path.read_text(encoding="utf-8"), parse_int=_integer)
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
    machine, version, rows = content.get("machine"), content.get("gpunet"), content.get("rows")
    if not isinstance(machine, dict) or not isinstance(machine.get("name"), str) or not isinstance(version, str):
        raise FileFormatError(f"{path}: is damaged: it does not say which machine and version it is of.")
    if not _is_json(machine):
        raise FileFormatError(f"{path}: is damaged: it says NaN or infinity of its machine.")
    if not isinstance(rows, list):
        raise FileFormatError(f"{path}: is damaged: it has no rows.")
    results = Results(machine, version, path=path)
    places: dict[tuple[str, str], int] = {}
    for place, row_content in enumerate(rows, start=1):
        row = row_from_dict(f"{path}: row {place} is damaged", row_content)
        first = places.setdefault((row.key, row.provider), place)
        if first != place:
            raise FileFormatError(f"{path}: row {place} is damaged: row {first} has the same case and provider.")
        results.rows.append(row)
    return results
