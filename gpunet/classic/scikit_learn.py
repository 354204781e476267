"""What scikit-learn's callers look for by its own classes, where they have loaded it; it is not imported for them."""

from __future__ import annotations

import sys

from gpunet.errors import NotFittedError


def not_fitted_error() -> type[NotFittedError]:
    """Return what to raise before ``fit``: an error that is scikit-learn's NotFittedError too."""
    if "sklearn.exceptions" not in sys.modules:
        return NotFittedError
    from gpunet.classic.scikit_learn_errors import SklearnNotFittedError

    return SklearnNotFittedError


def column_vector_warning() -> type[Warning]:
    """Return the category for labels in one column."""
    exceptions = sys.modules.get("sklearn.exceptions")
    return UserWarning if exceptions is None else exceptions.DataConversionWarning


def configured_output() -> str:
    """Return what ``sklearn.set_config(transform_output=...)`` asks transformers for."""
    sklearn = sys.modules.get("sklearn")
    return "default" if sklearn is None else str(sklearn.get_config()["transform_output"])
