"""What a user says of a table: how its file is written, and which of its columns are features."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpunet.data.text_files import WHITESPACE
from gpunet.errors import InvalidTypeError, InvalidValueError, shown, unknown_name

# As the only name among those of `categorical`, or beside others: the columns that hold text.
AUTO = "auto"
STRATEGIES = ("mean", "median", "most_frequent")
_SEPARATORS = {"tab": "\t", r"\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}


@dataclass(frozen=True)
class TableOptions:
    """How a table is read.

    Attributes
    ----------
    columns : sequence of str, or None
        The features; None takes every column but the target and those of ``drop``.
    drop : sequence of str
        Columns that are left out.
    sep : str or None
        What separates values in a text file: one character, ``"tab"``, or ``"whitespace"`` for any number of spaces and
        tabs. None is the comma, and the tab for ``.tsv``.
    decimal : str
        ``"."`` or ``","``.
    encoding : str
        Of a text file, one of Python's names: ``"utf-8"`` (with or without byte order mark), ``"cp1252"``, ...
    no_header : bool
        The text file's first line is a row already. Its columns are called ``"1"``, ``"2"``, ...

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """

    columns: Sequence[str] | None = None
    drop: Sequence[str] = ()
    sep: str | None = None
    decimal: str = "."
    encoding: str = "utf-8"
    no_header: bool = False

    def __post_init__(self) -> None:
        if self.columns is not None:
            check_names("columns", self.columns)
            if not self.columns:
                raise InvalidValueError("columns: names no column. Expected at least one.")
            object.__setattr__(self, "columns", tuple(self.columns))
        check_names("drop", self.drop)
        object.__setattr__(self, "drop", tuple(self.drop))
        if self.sep is not None:
            sep = _SEPARATORS.get(self.sep, self.sep) if isinstance(self.sep, str) else ""
            if sep != WHITESPACE and (len(sep) != 1 or sep in '"\r\n'):
                raise InvalidValueError(
                    f"sep: got {shown(self.sep)}. Expected one character, 'tab', or 'whitespace' for any number of "
                    "spaces and tabs."
                )
            object.__setattr__(self, "sep", sep)
        if self.decimal not in (".", ","):
            raise InvalidValueError(f"decimal: got {shown(self.decimal)}. Expected '.' or ','.")
        self._check_encoding()

    def refuse_of_text(self, label: str) -> None:
        """Raise InvalidValueError if something is said of how a text file is written: ``label`` is none."""
        for name in ("sep", "encoding", "no_header"):
            if getattr(self, name) != getattr(TableOptions(), name):
                raise InvalidValueError(f"{name}: is for text files, and {label} is none. Expected no such.")

    def _check_encoding(self) -> None:
        try:
            name = codecs.lookup(self.encoding).name
            "".encode(self.encoding)  # refuses what is no encoding of text, such as base64
        except (LookupError, TypeError, ValueError):
            raise InvalidValueError(
                f"encoding: {shown(self.encoding)} is not known. Expected one of Python's, such as utf-8, cp1252 "
                "(Windows), latin-1 or utf-16."
            ) from None
        object.__setattr__(self, "encoding", "utf-8-sig" if name == "utf-8" else name)


def check_names(argument: str, names: Any) -> None:
    """Raise unless ``names`` is a sequence of text."""
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InvalidTypeError(f"{argument}: got {shown(names)}. Expected a list of names of columns.")


def check_missing(missing: str | None) -> None:
    """Raise unless ``missing`` is None or one of the ways to fill in values."""
    if missing is not None and missing not in STRATEGIES:
        raise unknown_name("missing", missing, STRATEGIES)
