"""What scikit-learn's multilayer perceptron gets from the same rows."""

from __future__ import annotations

import warnings

import numpy as np

from gpunet.cli.scores import Score, regression_quality
from gpunet.data import DataSet, Preparation, Split


def sklearn_score(
    data: DataSet, split: Split, preparation: Preparation, *, hidden: list[int], batch_size: int, epochs: int, seed: int
) -> Score:
    """Train scikit-learn's MLP with its defaults on the training and validation rows and score it on the test rows.

    Parameters
    ----------
    hidden : list of int
        Hidden widths.
    batch_size, epochs : int
        ``max_iter`` is ``epochs``; scikit-learn may stop earlier by its own rule.
    seed : int
        ``random_state``.
    """
    from sklearn.metrics import log_loss
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    assert data.targets is not None
    rows = np.concatenate([split.train, split.validation])
    inputs, test_inputs = preparation.inputs_of(data, rows), preparation.inputs_of(data, split.test)
    targets = preparation.network_targets(data.targets)
    model = (MLPRegressor if preparation.class_names is None else MLPClassifier)(
        hidden_layer_sizes=hidden, batch_size=min(batch_size, len(rows)), max_iter=epochs, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns whenever it uses all its epochs
        model.fit(inputs, targets[rows].ravel())
    test_targets = targets[split.test]
    if preparation.class_names is not None:
        loss = float(log_loss(test_targets, model.predict_proba(test_inputs), labels=model.classes_))
        return Score(len(split.test), loss, accuracy=float(model.score(test_inputs, test_targets)))
    outputs = model.predict(test_inputs).reshape(-1, 1)
    r2, rmse = regression_quality(preparation, data.targets[split.test], outputs)
    return Score(len(split.test), float(((outputs - test_targets) ** 2).mean()) / 2, r2=r2, rmse=rmse)
