"""Which columns of a table are features: those that a user chooses, or those that a model knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpunet.data.numerals import is_number
from gpunet.data.options import AUTO, TableOptions
from gpunet.data.source import Source
from gpunet.errors import FileFormatError, InvalidValueError, ShapeError, counted, unknown_name

_MOST_NAMES = 12
# What pandas calls columns without a name in a text file, with their place from 0, and an index in a Parquet file.
_UNNAMED = "Unnamed: "
_INDEX = "__index_level_"


@dataclass(frozen=True)
class Wanted:
    """What is asked of a table.

    Attributes
    ----------
    target : str or None
        Name of the target column.
    need_target : bool
        Whether the target column must be there; where not, it is not read.
    expected : sequence of str, or None
        The features that a model wants, in its order; None asks for training data.
    known : sequence of str, or None
        All columns of the table that the model was trained on, in their order.
    categorical : sequence of str
        The columns whose values are categories; ``"auto"`` for those that hold text.
    accept_missing : bool
    options : TableOptions
    """

    target: str | None
    need_target: bool = True
    expected: Sequence[str] | None = None
    known: Sequence[str] | None = None
    categorical: Sequence[str] = ()
    accept_missing: bool = False
    options: TableOptions = field(default_factory=TableOptions)

    def features(self, source: Source, names: Sequence[str]) -> list[str]:
        """Return which columns of a table with these ``names`` are features, in the order of the inputs.

        Raises
        ------
        FileFormatError
            None is.
        InvalidValueError
            A column that is missing, not expected, or without a name.
        """
        self._check_target(source, names)
        for argument, chosen in (("columns", self.options.columns or ()), ("drop", self.options.drop)):
            for name in chosen:
                if name not in names:
                    raise unknown_name(argument, name, names)
        chosen = [name for name in self._chosen(names) if name != self.target]
        if self.expected is not None:
            self._check_expected(source, names, chosen)
            return list(self.expected)
        if self.options.columns is None:
            for name in chosen:
                _refuse_nameless(source, names, name)
        if not chosen:
            raise FileFormatError(
                f"{source.label}: has no column besides the target {self.target!r}. Expected features."
                if len(names) == 1
                else f"drop: {source.label} has no features left. Expected at least one."
            )
        for name in self.categorical:
            if name != AUTO and name not in chosen:
                raise unknown_name("categorical", name, chosen)
        return chosen

    def _chosen(self, names: Sequence[str]) -> list[str]:
        kept = set(names if self.options.columns is None else self.options.columns) - set(self.options.drop)
        return [name for name in names if name in kept]

    def _check_target(self, source: Source, names: Sequence[str]) -> None:
        if self.target is None and self.need_target:
            raise InvalidValueError(
                f"target: {source.label} needs the name of its target column. It has {listing(names)}."
            )
        if self.need_target and self.target not in names:
            error = unknown_name("target column", self.target, names)
            raise InvalidValueError(f"{source.header}: {error}{self._header_hint(source, names)}")
        for argument, chosen in (("columns", self.options.columns or ()), ("drop", self.options.drop)):
            if self.target is not None and self.target in chosen:
                raise InvalidValueError(f"{argument}: {self.target!r} is the target. Expected names of features.")

    def _header_hint(self, source: Source, names: Sequence[str]) -> str:
        if source.text is None or not source.text.has_header or not any(map(is_number, names)):
            return ""
        return " If its first line is a row already, no_header=True numbers the columns from 1."

    def _check_expected(self, source: Source, names: Sequence[str], chosen: Sequence[str]) -> None:
        assert self.expected is not None
        there, kept = set(names), set(chosen)
        for name in self.expected:
            if name not in there:
                raise InvalidValueError(f"{source.header}: the column {name!r}, which the model needs, is not there.")
            if name not in kept:
                argument = "drop" if name in self.options.drop else "columns"
                raise InvalidValueError(f"{argument}: leaves out {name!r}, which the model needs.")
        passed_over = {*self.expected, *(self.known or ())}
        for name in chosen:
            if name not in passed_over:
                _refuse_nameless(source, names, name)
                raise InvalidValueError(
                    f"{source.header}: {unknown_name('column', name, self.expected)} The model has no such; "
                    f'drop="{name}" leaves it out.'
                )

    def names_without_header(self, source: Source, columns: int) -> list[str]:
        """Return what the columns of a text file without a header are called: numbers, or as the model's data.

        Raises
        ------
        ShapeError
            More or fewer columns than the model's data have.
        """
        if self.expected is None:
            return [str(number) for number in range(1, columns + 1)]
        known = list(self.known or self.expected)
        for names in (known, [name for name in known if name != self.target], list(self.expected)):
            if len(names) == columns:
                return names
        raise ShapeError(
            f"{source.label}: has {counted(columns, 'column')}. The model was trained on {listing(known)}."
        )


def clean_names(source: Source, written: Sequence[str]) -> list[str]:
    """Return the names in a header without blanks around them; a column without a name is called as pandas calls it.

    Raises
    ------
    FileFormatError
        Two columns have one name.
    """
    names = [name.strip() or f"{_UNNAMED}{place}" for place, name in enumerate(written)]
    seen = set()
    for name in names:
        if name in seen:
            raise FileFormatError(f"{source.header}: the column name {name!r} occurs twice. Expected different names.")
        seen.add(name)
    return names


def _refuse_nameless(source: Source, names: Sequence[str], name: str) -> None:
    """Raise if a column has no name: it is an index that pandas wrote, or a separator too many."""
    if not name.startswith((_UNNAMED, _INDEX)):
        return
    place = names.index(name)
    likely = ", as pandas writes the index of its rows" if place == 0 or name.startswith(_INDEX) else ""
    raise InvalidValueError(
        f'{source.header}: column {place + 1} has no name{likely}. drop="{name}" leaves it out; if it is a '
        f'feature, columns="{name},..." takes it, with the others.'
    )


def listing(names: Sequence[str]) -> str:
    """Return names for a message, the first dozen of them."""
    return ", ".join([*names[:_MOST_NAMES], "..."] if len(names) > _MOST_NAMES else names)
