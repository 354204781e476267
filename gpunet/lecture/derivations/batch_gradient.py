"""The gradient of a batch: the lecture's loop over examples, and the same vectorised (rows L4 and L7).

A batch is X (n, d), one example per row, with labels (n,) counted from 0. The cost is

    J = sum_i w_i l_i / sum_i w_i + lambda sum_j ||W_j||^2

where l_i is the loss of example i. Without sample weights every w_i is 1 and the first term is the mean loss,
as in the lecture's algorithm, which divides by ``|D|``. (Its earlier slide on regularization writes the sum.)
L2 applies to the W_j only, and its gradient is 2 lambda W_j.

Parameters and gradients have the same shape, W_i (m_i, m_{i-1}) and b_i (m_i,), so that one can be subtracted
from the other. Inside the loops g is the lecture's row (1, m).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpunet.lecture.derivations.activations import Activation, FloatArray
from gpunet.lecture.derivations.single_example import (
    column,
    forward_pass,
    jacobian_activation_by_scores,
    linear,
    softmax,
)

Labels: TypeAlias = NDArray[np.integer] | FloatArray
Loss: TypeAlias = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]


def cross_entropy(scores: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Softmax cross-entropy l_i = -log(y_i^T p_i) of each row, and its gradient dl_i/ds_i = (p_i - y_i)^T.

    Parameters
    ----------
    scores : ndarray (n, c)
        s_i^T in row i.
    targets : ndarray (n, c)
        The one-hot y_i^T in row i.

    Returns
    -------
    losses : ndarray (n,)
    row_gradients : ndarray (n, c)
    """
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -np.sum(targets * log_p, axis=1), np.exp(log_p) - targets


def squared_error(outputs: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
    """E_i = 1/2 sum_j (t_ij - o_ij)^2 of each row, and its gradient dE_i/do_i = (o_i - t_i)^T.

    The error of Rumelhart, Hinton and Williams (1986), with linear output units.

    Parameters
    ----------
    outputs, targets : ndarray (n, c)
        o_i^T and t_i^T in row i.

    Returns
    -------
    losses : ndarray (n,)
    row_gradients : ndarray (n, c)
    """
    return 0.5 * np.sum((targets - outputs) ** 2, axis=1), outputs - targets


def target_rows(labels: Labels, classes: int) -> FloatArray:
    """One target per row: the one-hot rows of integer labels (n,), or targets (n, c) as they are.

    Raises
    ------
    ValueError
        If labels (n,) are not integers from 0 to classes - 1, or targets are not (n, classes).
    """
    if labels.ndim == 2 and labels.shape[1] == classes:
        return labels.astype(np.float64)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"expected integer labels (n,) or targets (n, {classes}), got {labels.dtype} {labels.shape}")
    if np.any((labels < 0) | (labels >= classes)):
        raise ValueError(f"labels must lie between 0 and {classes - 1}")
    return np.eye(classes)[labels]


def example_weights(sample_weights: FloatArray | None, n: int) -> FloatArray:
    """w_i / sum_i w_i for each of n examples (n,): 1/n without sample weights.

    Raises
    ------
    ValueError
        If there are not n weights, if one is negative or not finite, or if all are zero.
    """
    if sample_weights is None:
        return np.full(n, 1.0 / n)
    finite = bool(np.all(np.isfinite(sample_weights)))
    if sample_weights.shape != (n,) or not finite or sample_weights.min() < 0 or sample_weights.max() == 0:
        raise ValueError(f"expected {n} non-negative sample weights, one of them positive")
    return np.asarray(sample_weights / sample_weights.sum(), dtype=np.float64)


def two_layer_loop_over_examples(
    X: FloatArray,
    labels: NDArray[np.integer],
    W1: FloatArray,
    b1: FloatArray,
    W2: FloatArray,
    b2: FloatArray,
    l2: float,
) -> dict[str, FloatArray]:
    """The gradients of a batch for the 2-layer ReLU network, step by step as on the lecture's slide.

    Parameters
    ----------
    X, labels, l2
        As in `loop_over_examples`, with integer labels.
    W1, b1, W2, b2 : ndarray (m, d), (m,), (c, m) and (c,)

    Returns
    -------
    dict
        "W1", "b1", "W2", "b2", each of the shape of the parameter.
    """
    # Set all entries to zero.
    dL_dW1, dL_db1 = np.zeros_like(W1), np.zeros_like(b1)
    dL_dW2, dL_db2 = np.zeros_like(W2), np.zeros_like(b2)
    for x_row, y_row in zip(X, target_rows(labels, len(b2)), strict=True):
        x, y = column(x_row), column(y_row)
        s1 = linear(x, W1, column(b1))
        h = np.maximum(0.0, s1)
        p = softmax(linear(h, W2, column(b2)))
        # 1. Let g = -(y^T / y^T p)(diag(p) - p p^T), which is (p - y)^T.
        g = (p - y).T
        # 2. Add the gradient with respect to the second layer's parameters.
        dL_db2 += g[0]
        dL_dW2 += g.T @ h.T
        # 3. Propagate the gradient.
        g = g @ W2
        g = g @ np.diag(np.where(s1[:, 0] > 0, 1.0, 0.0))
        # 4. Add the gradient with respect to the first layer's parameters.
        dL_db1 += g[0]
        dL_dW1 += g.T @ x.T
    # Divide by the number of entries in D, and add the gradient of the regularization term.
    n = len(X)
    return {
        "W1": dL_dW1 / n + 2 * l2 * W1,
        "b1": dL_db1 / n,
        "W2": dL_dW2 / n + 2 * l2 * W2,
        "b2": dL_db2 / n,
    }


def loop_over_examples(
    X: FloatArray,
    labels: Labels,
    weights: Sequence[FloatArray],
    biases: Sequence[FloatArray],
    l2: float,
    activation: Activation,
    *,
    loss: Loss = cross_entropy,
    sample_weights: FloatArray | None = None,
) -> tuple[float, dict[str, FloatArray]]:
    """Cost and gradients of a batch for the k-layer network, one example at a time.

    The lecture's loop over (x, y) in D with its aggregated backward pass as the body: accumulate, weigh by
    w_i / sum_i w_i (divide by ``|D|`` when there are no sample weights), add 2 lambda W_i.

    Parameters
    ----------
    X : ndarray (n, d)
        The batch, one example per row.
    labels : ndarray (n,) or (n, c)
        Integer labels from 0 to c - 1, or one target per row.
    weights : sequence of ndarray
        W_1 (m_1, d), W_2 (m_2, m_1), ..., W_k (c, m_{k-1}).
    biases : sequence of ndarray
        b_1 (m_1,), ..., b_k (c,).
    l2 : float
        lambda.
    activation : Activation
        Applied after every layer but the last.
    loss : callable
        `cross_entropy`, `squared_error`, or another function with their signature.
    sample_weights : ndarray (n,), optional
        w_i, non-negative, not all zero.

    Returns
    -------
    cost : float
        J.
    gradients : dict
        {"W1": (m_1, d), "b1": (m_1,), ..., "Wk": (c, m_{k-1}), "bk": (c,)}.

    Raises
    ------
    ValueError
        If labels or sample weights do not fit (see `target_rows` and `example_weights`).
    """
    k = len(weights)
    targets = target_rows(labels, len(weights[-1]))
    cost = 0.0
    gradients: dict[str, FloatArray] = {}
    for i in range(1, k + 1):
        gradients[f"W{i}"] = np.zeros_like(weights[i - 1])
        gradients[f"b{i}"] = np.zeros_like(biases[i - 1])

    for x, target, weight in zip(X, targets, example_weights(sample_weights, len(X)), strict=True):
        inputs, scores = forward_pass(x, weights, biases, activation)
        losses, g = loss(scores[-1].T, target[np.newaxis])
        cost += weight * losses[0]
        for i in range(k, 0, -1):
            gradients[f"b{i}"] += weight * g[0]
            gradients[f"W{i}"] += weight * g.T @ inputs[i - 1].T  # x^(i-1)
            if i > 1:
                g = g @ weights[i - 1]
                g = g @ jacobian_activation_by_scores(scores[i - 2], activation)  # s^(i-1)

    for i in range(1, k + 1):
        cost += l2 * float(np.sum(weights[i - 1] ** 2))
        gradients[f"W{i}"] += 2 * l2 * weights[i - 1]
    return cost, gradients


def vectorised(
    X: FloatArray,
    labels: Labels,
    weights: Sequence[FloatArray],
    biases: Sequence[FloatArray],
    l2: float,
    activation: Activation,
    *,
    loss: Loss = cross_entropy,
    sample_weights: FloatArray | None = None,
) -> tuple[float, dict[str, FloatArray]]:
    """Cost and gradients of a batch for the k-layer network, all examples at once.

    The aggregated backward pass with a matrix G (n, m) that holds in row i the gradient g of example i,
    already weighted, so that sums over examples become matrix products::

        G = rows w_i / sum_i w_i (p_i - y_i)^T
        for i = k, k-1, ..., 1
            dJ/db_i = 1^T G
            dJ/dW_i = G^T X^(i-1) + 2 lambda W_i
            if i > 1
                G = (G W_i) * activation'(S^(i-1))          element by element, in place of g diag(...)

    Parameters and returned values are those of `loop_over_examples`.
    """
    inputs, scores = [X], []
    for W, b in zip(weights, biases, strict=True):
        scores.append(inputs[-1] @ W.T + b)
        inputs.append(activation.function(scores[-1]))

    weight = example_weights(sample_weights, len(X))
    losses, G = loss(scores[-1], target_rows(labels, len(weights[-1])))
    cost = float(weight @ losses) + l2 * sum(float(np.sum(W**2)) for W in weights)

    G = weight[:, np.newaxis] * G
    gradients: dict[str, FloatArray] = {}
    for i in range(len(weights), 0, -1):
        W = weights[i - 1]
        gradients[f"b{i}"] = G.sum(axis=0)
        gradients[f"W{i}"] = G.T @ inputs[i - 1] + 2 * l2 * W
        if i > 1:
            G = (G @ W) * activation.derivative(scores[i - 2])
    return cost, gradients
