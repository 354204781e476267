"""From features to the inputs of a network, before they are scaled: missing values filled in, text encoded one-hot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from gpunet.data.imputation import Imputation
from gpunet.data.one_hot import OneHot

Array = npt.NDArray[Any]


class Input(NamedTuple):
    """One input of a network.

    Attributes
    ----------
    name : str
        ``width``, ``colour = red`` or ``width is missing``.
    feature : int
        The place of the feature that it is made of.
    is_flag : bool
        Whether it is 0 or 1.
    """

    name: str
    feature: int
    is_flag: bool


def input_columns(names: Sequence[str], imputation: Imputation | None, one_hot: OneHot | None) -> list[Input]:
    """Return the inputs that features of these ``names`` become, in order."""
    inputs = []
    for place, name in enumerate(names):
        if one_hot is not None and name in one_hot.categories:
            inputs += [Input(f"{name} = {category}", place, True) for category in one_hot.categories[name]]
        else:
            inputs.append(Input(name, place, False))
    places = {name: place for place, name in enumerate(names)}
    indicated = () if imputation is None else imputation.indicated
    return inputs + [Input(f"{name} is missing", places[name], True) for name in indicated]


def unscaled_inputs(
    features: Array,
    names: Sequence[str],
    imputation: Imputation | None,
    one_hot: OneHot | None,
    categories: Mapping[str, Sequence[str]],
) -> Array:
    """Return the inputs of features, float64 (n, inputs); ``categories`` are those of the features' text."""
    if imputation is not None:
        features = imputation.apply(features, names)
    return features if one_hot is None else one_hot.apply(features, names, categories)
