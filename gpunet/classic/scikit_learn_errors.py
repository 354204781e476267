"""Errors of this package that are scikit-learn's too; imported only where scikit-learn is already."""

from __future__ import annotations

from sklearn.exceptions import NotFittedError as _SklearnNotFittedError

from gpunet.errors import NotFittedError


class SklearnNotFittedError(NotFittedError, _SklearnNotFittedError):  # type: ignore[misc]
    """An estimator was asked for something that only ``fit`` provides."""
