"""The values of a feature column: numbers, or the places of its categories; whatever else it holds is refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpunet.data.choice import Wanted
from gpunet.data.numerals import is_missing, is_number, with_point
from gpunet.data.options import AUTO
from gpunet.data.source import Source
from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError
from gpunet.frames import Array, Values

Categories = list[str]

_TRUTHS = {"true": 1.0, "false": 0.0}
# Of a text column that nobody named: names, comments and numbers of tickets have more, and teach a network nothing.
MOST_CATEGORIES = 100


@dataclass(frozen=True)
class FeatureReader:
    """Reads the features of one table.

    Attributes
    ----------
    source : Source
    wanted : Wanted
    """

    source: Source
    wanted: Wanted

    def read(self, name: str, values: Values) -> tuple[Array, Categories | None]:
        """Return a column, float64 (n,): numbers, or the places of its values among its categories; NaN where missing.

        Parameters
        ----------
        name : str
        values : ndarray of float64, NaN where missing, or list of str, None where missing

        Raises
        ------
        InvalidTypeError, NonFiniteError, InvalidValueError
            The message has the place.
        """
        if not isinstance(values, list):
            return self._finite(name, values, np.isnan(values)), None
        texts = [None if text is None or is_missing(text.strip()) else text.strip() for text in values]
        if name in self.wanted.categorical:
            return self._categories(name, texts)
        if AUTO in self.wanted.categorical and self._holds_text(name, texts):
            numbers, categories = self._categories(name, texts)
            if len(categories) > MOST_CATEGORIES:
                raise InvalidValueError(
                    f"{self.source.label}, column {name!r}: holds {len(categories)} different texts, which is too many "
                    f'for categories that nobody asked for. drop="{name}" leaves it out; categorical="auto,{name}" '
                    "encodes it all the same."
                )
            return numbers, categories
        numbers = self._numbers(name, texts)
        return self._finite(name, numbers, np.array([text is None for text in texts])), None

    def _number(self, text: str) -> float | None:
        plain = with_point(text, self.wanted.options.decimal)
        return float(plain) if plain is not None and is_number(plain) else None

    def _numbers(self, name: str, texts: list[str | None]) -> Array:
        # A column of true, false and missing values, which pandas leaves as text.
        truths = [np.nan if text is None else _TRUTHS.get(text.lower()) for text in texts]
        if None not in truths:
            return np.array(truths, dtype=np.float64)
        numbers = np.full(len(texts), np.nan)
        for row, text in enumerate(texts):
            number = np.nan if text is None else self._number(text)
            if text is None and not self.wanted.accept_missing:
                self._refuse_missing(name, row)
            if text is not None and number is None:
                problem = f"{text!r} is not a number. Features must be numbers"
                self.source.refuse(name, row, problem + self._text_hint(name, text), InvalidTypeError)
            numbers[row] = number
        return numbers

    def _holds_text(self, name: str, texts: list[str | None]) -> bool:
        """Whether a column is one of text: one of numbers with a few others in it has those refused."""
        present = [text for text in texts if text is not None]
        wrong = sum(self._number(text) is None for text in present)
        return wrong > len(present) / 2 and not all(text.lower() in _TRUTHS for text in present)

    def _categories(self, name: str, texts: list[str | None]) -> tuple[Array, Categories]:
        missing = np.array([text is None for text in texts])
        if missing.any() and not self.wanted.accept_missing:
            self._refuse_missing(name, int(np.argmax(missing)))
        codes = np.full(len(texts), np.nan)
        categories, places = np.unique(
            np.array([text for text in texts if text is not None], dtype=object), return_inverse=True
        )
        codes[~missing] = places
        return codes, categories.tolist()

    def _finite(self, name: str, numbers: Array, missing: Array) -> Array:
        if missing.any() and not self.wanted.accept_missing:
            self._refuse_missing(name, int(np.argmax(missing)))
        wrong = ~(np.isfinite(numbers) | missing)
        if wrong.any():
            row = int(np.argmax(wrong))
            self.source.refuse(name, row, f"{numbers[row]} is not a finite number", NonFiniteError)
        return numbers

    def _refuse_missing(self, name: str, row: int) -> None:
        hint = "" if self.wanted.expected is not None else f'; missing="mean" fills such in, {leaving_out(name)}'
        self.source.refuse(name, row, f"the value is missing. Expected one{hint}", InvalidValueError)

    def _text_hint(self, name: str, text: str) -> str:
        if self.wanted.options.decimal == "." and is_number(text.replace(",", ".")):
            return '; decimal="," reads such'
        if self.wanted.expected is not None:
            return ""
        return f'; categorical="{name}" makes inputs of text, {leaving_out(name)}'


def leaving_out(name: str) -> str:
    """Return how a column is left out, for a message."""
    return f'drop="{name}" leaves the column out'
