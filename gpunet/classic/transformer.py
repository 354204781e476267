"""Estimators that turn X into other features: names for these, and tables where they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from gpunet.classic.estimator import Estimator, after_fit, check_name
from gpunet.classic.scikit_learn import configured_output
from gpunet.errors import InvalidValueError, ShapeError, optional_package

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

_CONTAINERS = ("default", "pandas", "polars")


class Transformer(Estimator):
    """An estimator with ``transform``, whose features are named after the class: ``autoencoder0``, ``autoencoder1``."""

    _estimator_type: ClassVar[str | None] = "transformer"

    # scikit-learn's name: its clone copies it.
    _sklearn_output_config: dict[str, str]

    @abstractmethod
    def fit(self, X: npt.ArrayLike, y: object = None) -> Self:
        """Learn from the rows of X."""

    @abstractmethod
    def transform(self, X: npt.ArrayLike) -> Any:
        """Return the features of each row of X, (n, m): an ndarray, or the data frame that was asked for."""

    @abstractmethod
    def _features_out(self) -> int:
        """Return m."""

    def fit_transform(self, X: npt.ArrayLike, y: object = None) -> Any:
        """Return ``fit(X).transform(X)``."""
        return self.fit(X).transform(X)

    @after_fit
    def get_feature_names_out(self, input_features: npt.ArrayLike | None = None) -> Array:
        """Return the names of what :meth:`transform` returns, object (m,).

        Parameters
        ----------
        input_features : array_like of str, or None
            The names of X's columns: compared with those of ``fit``, and not used.
        """
        if input_features is not None:
            given = np.asarray(input_features, dtype=object)
            if len(given) != self.n_features_in_:
                raise ShapeError(
                    "input_features: input_features should have length equal to number of features "
                    f"({self.n_features_in_}), got {len(given)}."
                )
            if not np.array_equal(given, getattr(self, "feature_names_in_", given)):
                raise InvalidValueError("input_features: input_features is not equal to feature_names_in_.")
        return np.array([f"{type(self).__name__.lower()}{i}" for i in range(self._features_out())], dtype=object)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Say what :meth:`transform` returns, now and in clones, instead of what ``sklearn.set_config`` says.

        Parameters
        ----------
        transform : str or None
            ``"default"`` for an ndarray, ``"pandas"`` or ``"polars"`` for a data frame; None changes nothing.

        Raises
        ------
        InvalidValueError
            Another name.
        """
        if transform is not None:
            self._sklearn_output_config = {"transform": check_name("transform", transform, _CONTAINERS)}
        return self

    def _in_container(self, values: Array, X: object) -> Any:
        """Return the features of X as they were asked for; a data frame of pandas keeps its index."""
        kind = getattr(self, "_sklearn_output_config", {}).get("transform") or configured_output()
        if kind == "pandas":
            with optional_package("pandas", extra="data", purpose="a data frame"):
                import pandas
            index = X.index if isinstance(X, pandas.DataFrame) else None
            return pandas.DataFrame(values, index=index, columns=self.get_feature_names_out())
        if kind == "polars":
            import polars

            return polars.DataFrame(values, schema=self.get_feature_names_out().tolist(), orient="row")
        return values
