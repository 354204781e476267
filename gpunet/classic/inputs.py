"""What X may hold, checked where it enters: numbers from 0 to 1, or numbers whose squares can be added up."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend, select_backend
from gpunet.errors import InvalidValueError
from gpunet.validation import check_features, is_on_cuda

Array = npt.NDArray[Any]

# Scores are sums of products of features and of weights that are sums of features: those have to be finite too.
_LARGEST_FEATURE = 1e140


def check_probabilities(
    argument: str, values: npt.ArrayLike, columns: int | None, dtype: npt.DTypeLike, device: str | Backend
) -> Array:
    """Return ``values`` as a finite, C-contiguous host array (n, columns) of numbers from 0 to 1.

    Parameters
    ----------
    argument : str
        The name that error messages give the array.
    values : array_like, (n, columns)
        Also an array in CUDA memory, where ``device`` is CUDA.
    columns : int or None
        None takes any.
    dtype : dtype
    device : str or Backend
        Where it is going to be used.

    Raises
    ------
    ShapeError, InvalidTypeError, NonFiniteError
        See :func:`gpunet.validation.check_features`.
    InvalidValueError
        A number below 0 or above 1; the message has the row and the column.
    """
    if is_on_cuda(values):
        values = select_backend(device).fetch(argument, values)
    array = check_features(argument, values, columns, dtype)
    if array.min() < 0 or array.max() > 1:
        row, column = np.argwhere((array < 0) | (array > 1))[0]
        raise InvalidValueError(
            f"{argument}: {array[row, column]} in row {row}, column {column} is out of range. Expected numbers from 0 "
            "to 1, such as scikit-learn's MinMaxScaler(clip=True) makes."
        )
    return array


def check_moderate(argument: str, features: Array) -> None:
    """Raise InvalidValueError where a feature is so large that scores or squares of it would overflow."""
    largest = np.unravel_index(np.abs(features).argmax(), features.shape)
    if abs(features[largest]) > _LARGEST_FEATURE:
        row, column = largest
        raise InvalidValueError(
            f"{argument}: {features[largest]} in row {row}, column {column} is too large to add up squares of such "
            f"numbers. Expected at most {_LARGEST_FEATURE:g}: scale the features."
        )
