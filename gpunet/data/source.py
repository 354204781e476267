"""Where a table comes from, as messages name its places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from gpunet.data.text_files import Record, TextFile
from gpunet.errors import FileFormatError, GpunetError, counted


@dataclass(frozen=True)
class Source:
    """A table, as messages name it.

    Attributes
    ----------
    label : str
        Its path, or what an argument is called.
    columns : int
        How many columns it has.
    text : TextFile or None
        The text file that it is.
    """

    label: str
    columns: int = 0
    text: TextFile | None = None

    @property
    def header(self) -> str:
        """Where the names of columns stand."""
        return f"{self.label}, line 1" if self.text is not None and self.text.has_header else self.label

    def row(self, row: int) -> str:
        """Where a row stands."""
        return f"row {row}" if self.text is None else f"line {self.text.line_number(row)}"

    def refuse(self, column: str, row: int, problem: str, kind: type[GpunetError]) -> NoReturn:
        """Raise ``kind`` for a value, unless its row has other columns than the table."""
        record = None if self.text is None else self.text.find_record(row)
        # A separator too few moves values into other columns, and the last is then missing: no fault of that column.
        if record is not None and len(record.fields) != self.columns:
            raise self._ragged(record)
        raise kind(f"{self.label}, {self.row(row)}, column {column!r}: {problem}.")

    def refuse_ragged(self) -> None:
        """Raise FileFormatError for the first row of a text file with more or fewer values than columns, if any."""
        record = None if self.text is None else self.text.first_ragged_record(self.columns)
        if record is not None:
            raise self._ragged(record) from None

    def _ragged(self, record: Record) -> FileFormatError:
        values = counted(len(record.fields), "value")
        return FileFormatError(f"{self.label}: line {record.line} has {values}, expected {self.columns}.")
