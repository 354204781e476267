"""Networks with scikit-learn's contract: the estimators of ``sklearn.neural_network``, on CUDA where there is one.

Needs scikit-learn (``pip install 'gpunet[sklearn]'``); ``gpunet.MLPClassifier`` imports this on first use.
"""

from gpunet.errors import optional_package

with optional_package("sklearn", extra="sklearn", purpose="estimators"):
    from gpunet.estimators.classifier import MLPClassifier
    from gpunet.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
