"""scikit-learn's own tests of an estimator, all of them: none is expected to fail."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpunet import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore")  # scikit-learn's own suites warn on purpose


@parametrize_with_checks([MLPClassifier(max_iter=100, device="cpu"), MLPRegressor(max_iter=100, device="cpu")])
def test_scikit_learn_finds_nothing(estimator: Any, check: Any) -> None:
    check(estimator)
