"""A network together with what stands before and after it: from raw rows to answers in the data's own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gpunet.data.preparation import Preparation
from gpunet.data.scaling import Scaling
from gpunet.errors import InvalidTypeError, InvalidValueError, shown
from gpunet.network import Network

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FilledIn:
    """What stands in for NaN, column by column, and which columns have an indicator behind all of them: 1 where NaN.

    Parameters
    ----------
    fill : list of float
        One number per column.
    indicated : list of int
        Places of columns, ascending.
    """

    fill: list[float]
    indicated: list[int]


Step = FilledIn | Scaling


@dataclass(frozen=True)
class WholeModel:
    """What other tools need to answer as ``gpunet predict`` or an estimator does.

    Attributes
    ----------
    network : Network
    steps : tuple of FilledIn or Scaling
        What raw rows go through before the network, in order; each is computed in double precision.
    target_scaling : Scaling or None
        What the targets of a regression went through; the outputs go back through it.
    classes : ndarray, (c,), or None
        What the labels stand for, where they stand for something: text, or integers, numbers, truth values.
    feature_names : tuple of str, or None
        The columns of a raw row.
    """

    network: Network
    steps: tuple[Step, ...] = ()
    target_scaling: Scaling | None = None
    classes: Array | None = None
    feature_names: tuple[str, ...] | None = None

    @property
    def columns(self) -> int:
        """How many a raw row has."""
        return self.network.layer_sizes[0] if self.feature_names is None else len(self.feature_names)


@runtime_checkable
class Whole(Protocol):
    """An estimator: it knows what it has around its network."""

    def whole_model(self) -> WholeModel:
        """Return it."""


def whole_model(model: Any, *, bare: bool = False) -> WholeModel:
    """Return what is known around a network.

    Parameters
    ----------
    model : Network, MLPClassifier or MLPRegressor
        A network tells by its metadata, which ``gpunet train`` writes; the estimators are fitted ones.
    bare : bool
        Whether to leave all of it out.

    Raises
    ------
    InvalidTypeError
        It is something else.
    FileFormatError
        The metadata are damaged.
    InvalidValueError
        Text is encoded before the network, which has no place in numbers.
    """
    if isinstance(model, Whole):
        whole = model.whole_model()
    elif isinstance(model, Network):
        whole = WholeModel(model) if bare else _of_metadata(model)
    else:
        raise InvalidTypeError(
            f"network: got {type(model).__name__}. Expected a gpunet.Network, or a fitted gpunet.MLPClassifier or "
            "gpunet.MLPRegressor."
        )
    return WholeModel(whole.network) if bare else whole


def _of_metadata(network: Network) -> WholeModel:
    metadata = network.metadata
    if "data" not in metadata:
        return WholeModel(network, classes=network.classes)
    preparation = Preparation.from_metadata(metadata, network.layer_sizes, "network")
    names, imputation = preparation.feature_names, preparation.imputation
    if preparation.one_hot is not None:
        text = list(preparation.one_hot.categories)
        raise InvalidValueError(
            f"network: was trained on columns of text, {shown(text)}, and what is exported takes numbers alone. "
            "Expected a model of numbers; or bare=True, for inputs that are encoded and scaled already: "
            "gpunet.data.scale_inputs makes them."
        )
    steps: list[Step] = [preparation.scaling]
    if imputation is not None:
        places = [names.index(name) for name in imputation.indicated]
        steps.insert(0, FilledIn([imputation.fill[name] for name in names], places))
    return WholeModel(
        network,
        tuple(steps),
        preparation.target_scaling,
        None if preparation.class_names is None else np.array(preparation.class_names),
        tuple(names),
    )
