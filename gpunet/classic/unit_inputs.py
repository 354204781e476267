"""What estimators share whose visible units hold numbers from 0 to 1 (lecture row L13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.classic.estimator import Estimator, check_float_type, parameter
from gpunet.classic.inputs import column_names, on_host, read_features
from gpunet.classic.unit_scaling import UnitScaling, as_units, learn_scaling
from gpunet.validation import check_flag

Array = npt.NDArray[Any]


@dataclass(kw_only=True, eq=False, repr=False)
class UnitInputEstimator(Estimator):
    """An estimator that learns from numbers from 0 to 1, on a device.

    Parameters
    ----------
    scale_inputs : bool
        Whether an X with numbers below 0 or above 1 is mapped to [0, 1]: each column from the smallest and the largest
        number that ``fit`` sees there, and what lies beyond them later counts as them. False refuses such an X. Where
        all numbers are from 0 to 1, they are taken as they are, and later ones have to be from 0 to 1 too.
    dtype : str or dtype
        ``"float32"`` or ``"float64"``.
    device : str or Backend
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...; see :class:`gpunet.Network`.

    Attributes
    ----------
    scaling_ : UnitScaling or None
        How X is mapped to [0, 1]; None where it is taken as it is.
    """

    scale_inputs: bool = parameter(True, check_flag)
    dtype: npt.DTypeLike = parameter("float32", check_float_type)
    device: str | Backend = "auto"

    def _new_units(self, X: npt.ArrayLike) -> tuple[Array, UnitScaling | None, Array | None]:
        """Return X as a host array (n, d) of numbers from 0 to 1, how it was mapped, and the names of its columns."""
        names = column_names("X", X)
        features = self._read("X", X)
        scaling = learn_scaling("X", features, scales=self.scale_inputs)
        return features if scaling is None else scaling.scaled(features), scaling, names

    def _fitted_units(self, X: npt.ArrayLike, dtype: npt.DTypeLike, device: str | Backend) -> Array:
        """Return X, its columns those of ``fit``, as a host array (n, d) of numbers from 0 to 1, or raise."""
        self._check_columns(X)
        features = read_features("X", on_host("X", X, device), self.n_features_in_, dtype, type(self).__name__)
        return as_units("X", features, self.scaling_)

    def _restored(self, units: Array) -> Array:
        """Return numbers such as X holds for numbers from 0 to 1, (n, d)."""
        return units if self.scaling_ is None else self.scaling_.restored(units)

    def _read(self, argument: str, values: npt.ArrayLike, columns: int | None = None) -> Array:
        return read_features(argument, on_host(argument, values, self.device), columns, self.dtype, type(self).__name__)

    def _set_units(self, columns: int, names: Array | None, scaling: UnitScaling | None) -> None:
        """Take over what ``fit`` knows of X."""
        self._set_columns(columns, names)
        self.scaling_: UnitScaling | None = scaling

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = not self.scale_inputs
        return tags
