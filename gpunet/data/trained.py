"""Using, in Python, a network that ``gpunet train`` wrote: it takes scaled features and answers with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpunet.columns import columns_in_order, known_columns
from gpunet.data.loading import wanted_by
from gpunet.data.preparation import Preparation
from gpunet.data.tables import read_rows
from gpunet.errors import InvalidTypeError, InvalidValueError
from gpunet.validation import check_features

Array = npt.NDArray[Any]


class _Trained(Protocol):
    """What is asked of a :class:`gpunet.Network`, which this layer does not import."""

    metadata: dict[str, Any]

    @property
    def layer_sizes(self) -> Sequence[int]: ...


def scale_inputs(network: _Trained, X: npt.ArrayLike) -> Array:
    """Return raw features as the network takes them: scaled as ``gpunet train`` scaled its training rows.

    A network that was trained in the shell has never seen raw features, and predicts nonsense from them.

    Parameters
    ----------
    network : Network
        Loaded from a file that ``gpunet train`` wrote.
    X : array_like, (n, d)
        Features as they stand in the data set, in the order of its columns without the target; of a DataFrame in any
        order, because the network knows their names. Text and missing values where ``gpunet train`` was told what to
        make of them.

    Returns
    -------
    ndarray of float64, (n, inputs)

    Raises
    ------
    FileFormatError
        The network has no scaling: ``gpunet train`` did not write it.
    ShapeError, InvalidTypeError, NonFiniteError
        X does not fit the network.
    InvalidValueError
        A DataFrame with other columns than the network knows.

    Warns
    -----
    UnknownCategoryWarning
        A text that no training row had.

    Examples
    --------
    After ``gpunet train iris.csv --target species``:

    >>> import gpunet
    >>> from gpunet.data import class_names, scale_inputs
    >>> network = gpunet.load("runs/iris/model.safetensors")  # doctest: +SKIP
    >>> labels = network.predict(scale_inputs(network, [[5.1, 3.5, 1.4, 0.2]]))  # doctest: +SKIP
    >>> [class_names(network)[label] for label in labels]  # doctest: +SKIP
    ['setosa']
    """
    preparation = _preparation(network)
    columns = len(preparation.feature_names)
    if preparation.imputation is not None or preparation.one_hot is not None:
        raw = read_rows(X, wanted_by(preparation, need_target=False), "X")
        if preparation.one_hot is not None:
            preparation.one_hot.warn_of_unknown(raw)
        return preparation.inputs(raw.features, raw.categories)
    X = columns_in_order("X", X, known_columns(network.metadata, columns))
    return preparation.inputs(check_features("X", X, columns, np.float64))


def class_names(network: _Trained) -> list[str]:
    """Return what the labels of a network stand for: ``class_names(network)[label]``.

    Parameters
    ----------
    network : Network
        Loaded from a file that ``gpunet train`` wrote.

    Raises
    ------
    FileFormatError
        ``gpunet train`` did not write it.
    InvalidValueError
        It predicts numbers.

    Examples
    --------
    >>> import gpunet
    >>> network = gpunet.load("runs/iris/model.safetensors")  # doctest: +SKIP
    >>> class_names(network)  # doctest: +SKIP
    ['setosa', 'versicolor', 'virginica']
    """
    names = _preparation(network).class_names
    if names is None:
        raise InvalidValueError("network: predicts numbers. Expected one that was trained for classification.")
    return list(names)


def _preparation(network: _Trained) -> Preparation:
    if not hasattr(network, "metadata"):
        raise InvalidTypeError(f"network: got {type(network).__name__}. Expected a gpunet.Network.")
    return Preparation.from_metadata(network.metadata, network.layer_sizes, "network")
