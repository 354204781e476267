"""Back propagation for one labelled example, node by node, with explicit Jacobians (rows L4 and L6).

Follows the lecture's "Back propagation for 2-layer neural network" and "Aggregated Backward pass for a
k-layer neural network". Shapes are the lecture's: an input x (d, 1), a one-hot label y (c, 1), a bias b
(m, 1) and all scores and activations are columns; the gradient g of the scalar J with respect to a column of
length m is a row (1, m); the Jacobian of a column of length a with respect to a column of length b is (a, b).
The chain rule is then a product of matrices, from J on the left to the parameter on the right.

What the slides have wrong or leave open is in the list of corrections, rows L4 to L7. So vec(W) stacks the rows of W,
and -(y^T / y^T p)(diag(p) - p p^T) is computed as (p - y)^T where the Jacobians need not be shown: it cannot divide by
zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpunet.lecture.derivations.activations import Activation, FloatArray, activation_named


def column(values: FloatArray) -> FloatArray:
    """The lecture's column vector (m, 1) from an array of shape (m,) or (m, 1)."""
    return np.asarray(values, dtype=np.float64).reshape(-1, 1)


def one_hot(label: int, classes: int) -> FloatArray:
    """The column y (c, 1): 1 at the label (counted from 0), 0 elsewhere.

    Raises
    ------
    ValueError
        If the label is not one of 0, ..., classes - 1.
    """
    if not 0 <= label < classes:
        raise ValueError(f"label {label} is not one of the {classes} classes 0 to {classes - 1}")
    y = np.zeros((classes, 1))
    y[label] = 1.0
    return y


def vec(W: FloatArray) -> FloatArray:
    """vec(W), the rows of W (m, d) stacked into one column (m d, 1)."""
    return W.reshape(-1, 1)


# The nodes of the graph, forward.


def linear(x: FloatArray, W: FloatArray, b: FloatArray) -> FloatArray:
    """s = W x + b: (m, 1) from x (d, 1), W (m, d) and b (m, 1)."""
    return W @ x + b


def softmax(s: FloatArray) -> FloatArray:
    """P = exp(s) / (1^T exp(s)): (c, 1) from scores s (c, 1), shifted by the largest score."""
    e = np.exp(s - s.max())
    return np.asarray(e / e.sum())


def cross_entropy(p: FloatArray, y: FloatArray) -> float:
    """L = -log(y^T p) for probabilities p (c, 1) and a one-hot y (c, 1)."""
    return -float(np.log((y.T @ p).item()))


def cross_entropy_of_scores(s: FloatArray, y: FloatArray) -> float:
    """L = -log(y^T softmax(s)) = log(1^T exp(s)) - y^T s, finite also where y^T p underflows to zero."""
    shifted = s - s.max()
    return float(np.log(np.exp(shifted).sum()) - (y.T @ shifted).item())


def l2_penalty(W: FloatArray, l2: float) -> float:
    """Lambda ||W||^2, lambda times the sum of the squared entries of W."""
    return l2 * float(np.sum(W**2))


# The local Jacobian of each node with respect to each of its inputs.


def jacobian_linear_by_input(W: FloatArray) -> FloatArray:
    """ds/dh = W for s = W h + b: (c, m), since ds_i/dh_j = W_ij."""
    return W


def jacobian_linear_by_bias(m: int) -> FloatArray:
    """ds/db = I_m for s = W x + b with m scores: (m, m)."""
    return np.eye(m)


def jacobian_linear_by_weights(x: FloatArray, m: int) -> FloatArray:
    """ds/dvec(W) = I_m kron x^T for s = W x + b with m scores and x (d, 1): (m, m d)."""
    return np.asarray(np.kron(np.eye(m), x.T), dtype=np.float64)


def jacobian_activation_by_scores(s: FloatArray, activation: Activation) -> FloatArray:
    """dh/ds = diag(activation'(s)) for scores s (m, 1): (m, m). For ReLU it is diag(Ind(s > 0))."""
    return np.diag(activation.derivative(s)[:, 0])


def jacobian_softmax_by_scores(p: FloatArray) -> FloatArray:
    """dp/ds = diag(p) - p p^T for p = softmax(s) (c, 1): (c, c)."""
    return np.diag(p[:, 0]) - p @ p.T


def jacobian_cross_entropy_by_probabilities(p: FloatArray, y: FloatArray) -> FloatArray:
    """dl/dp = -y^T / (y^T p) for p and a one-hot y (c, 1): (1, c)."""
    return -y.T / (y.T @ p)


def jacobian_l2_penalty_by_weights(W: FloatArray, l2: float) -> FloatArray:
    """d(lambda ||W||^2)/dvec(W) = 2 lambda vec(W)^T for W (m, d): (1, m d)."""
    return 2 * l2 * vec(W).T


def gradient_cross_entropy_by_scores(p: FloatArray, y: FloatArray) -> FloatArray:
    """G = dl/ds = (p - y)^T for p = softmax(s) and a one-hot y (c, 1): (1, c).

    It is the lecture's -(y^T / y^T p)(diag(p) - p p^T): y^T diag(p) = (y^T p) y^T for a one-hot y, so the
    product is -(y^T - p^T).
    """
    return (p - y).T


# The 2-layer network, as in the lecture: ReLU between the layers.


class TwoLayerValues(NamedTuple):
    """The value at every node of the 2-layer network for one example.

    Attributes
    ----------
    s1, h : ndarray (m, 1)
        s_1 = W_1 x + b_1 and h = max(0, s_1).
    s, p : ndarray (c, 1)
        s = W_2 h + b_2 and p = softmax(s).
    J : float
        J = -log(y^T p) + lambda (||W_1||^2 + ||W_2||^2).
    """

    s1: FloatArray
    h: FloatArray
    s: FloatArray
    p: FloatArray
    J: float


def two_layer_forward(
    x: FloatArray,
    y: FloatArray,
    W1: FloatArray,
    b1: FloatArray,
    W2: FloatArray,
    b2: FloatArray,
    l2: float = 0.0,
) -> TwoLayerValues:
    """Forward propagate one example through the 2-layer ReLU network.

    Parameters
    ----------
    x, y : ndarray (d, 1) and (c, 1)
        The input, and its one-hot label.
    W1, b1, W2, b2 : ndarray (m, d), (m, 1), (c, m) and (c, 1)
    l2 : float
        lambda, the weight of the L2 term.
    """
    relu = activation_named("relu")
    s1 = linear(x, W1, b1)
    h = relu.function(s1)
    s = linear(h, W2, b2)
    p = softmax(s)
    J = cross_entropy(p, y) + l2_penalty(W1, l2) + l2_penalty(W2, l2)
    return TwoLayerValues(s1, h, s, p, J)


def two_layer_backward(
    x: FloatArray,
    y: FloatArray,
    W1: FloatArray,
    b1: FloatArray,
    W2: FloatArray,
    b2: FloatArray,
    l2: float = 0.0,
) -> dict[str, FloatArray]:
    """Backward propagate one example through the 2-layer ReLU network, one local Jacobian at a time.

    Each line is one step of the lecture's backward pass: the gradient at a node is the gradient at the node
    it feeds times the local Jacobian between the two.

    Parameters
    ----------
    x, y, W1, b1, W2, b2, l2
        As in `two_layer_forward`.

    Returns
    -------
    dict
        The gradient of J with respect to every node: "s" (1, c), "W2" (c, m), "b2" (1, c), "h" (1, m),
        "s1" (1, m), "W1" (m, d), "b1" (1, m).
    """
    s1, h, _, p, _ = two_layer_forward(x, y, W1, b1, W2, b2, l2)
    m, c = len(s1), len(p)

    dJ_dp = jacobian_cross_entropy_by_probabilities(p, y)
    dJ_ds = dJ_dp @ jacobian_softmax_by_scores(p)
    dJ_db2 = dJ_ds @ jacobian_linear_by_bias(c)
    dJ_dvecW2 = dJ_ds @ jacobian_linear_by_weights(h, c) + jacobian_l2_penalty_by_weights(W2, l2)

    dJ_dh = dJ_ds @ jacobian_linear_by_input(W2)
    dJ_ds1 = dJ_dh @ jacobian_activation_by_scores(s1, activation_named("relu"))
    dJ_db1 = dJ_ds1 @ jacobian_linear_by_bias(m)
    dJ_dvecW1 = dJ_ds1 @ jacobian_linear_by_weights(x, m) + jacobian_l2_penalty_by_weights(W1, l2)

    return {
        "s": dJ_ds,
        "W2": dJ_dvecW2.reshape(W2.shape),
        "b2": dJ_db2,
        "h": dJ_dh,
        "s1": dJ_ds1,
        "W1": dJ_dvecW1.reshape(W1.shape),
        "b1": dJ_db1,
    }


# The k-layer network, for any activation.


def forward_pass(
    x: FloatArray, weights: Sequence[FloatArray], biases: Sequence[FloatArray], activation: Activation
) -> tuple[list[FloatArray], list[FloatArray]]:
    """s^(i) = W_i x^(i-1) + b_i for i = 1, ..., k and x^(i) = activation(s^(i)) for i < k, with x^(0) = x.

    Parameters
    ----------
    x : ndarray (d,) or (d, 1)
        The input.
    weights : sequence of ndarray
        W_1 (m_1, d), W_2 (m_2, m_1), ..., W_k (c, m_{k-1}).
    biases : sequence of ndarray
        b_1, ..., b_k, each (m_i,) or (m_i, 1).
    activation : Activation
        Applied after every layer but the last.

    Returns
    -------
    inputs : list of ndarray
        [x^(0), ..., x^(k-1)], the input of each layer, as columns.
    scores : list of ndarray
        [s^(1), ..., s^(k)], the scores of each layer, as columns.
    """
    inputs, scores = [column(x)], []
    for W, b in zip(weights, biases, strict=True):
        scores.append(linear(inputs[-1], W, column(b)))
        inputs.append(activation.function(scores[-1]))
    return inputs[:-1], scores


def cost(
    x: FloatArray,
    y: FloatArray,
    weights: Sequence[FloatArray],
    biases: Sequence[FloatArray],
    activation: Activation,
    l2: float = 0.0,
) -> float:
    """J = -log(y^T p) + lambda sum_i ||W_i||^2 for one example; parameters as in `aggregated_backward`."""
    _, scores = forward_pass(x, weights, biases, activation)
    return cross_entropy_of_scores(scores[-1], column(y)) + sum(l2_penalty(W, l2) for W in weights)


def aggregated_backward(
    x: FloatArray,
    y: FloatArray,
    weights: Sequence[FloatArray],
    biases: Sequence[FloatArray],
    activation: Activation,
    l2: float = 0.0,
) -> dict[str, FloatArray]:
    """The lecture's "Aggregated Backward pass for a k-layer neural network", for one example.

    ::

        g = (p - y)^T
        for i = k, k-1, ..., 1
            dJ/db_i = g
            dJ/dW_i = g^T x^(i-1)^T + 2 lambda W_i          (the slide has x^(i))
            if i > 1
                g = g W_i
                g = g diag(activation'(s^(i-1)))            (the slide has s^(i))

    Parameters
    ----------
    x, weights, biases, activation
        As in `forward_pass`.
    y : ndarray (c,) or (c, 1)
        The one-hot label.
    l2 : float
        lambda, the weight of the L2 term.

    Returns
    -------
    dict
        The gradients of J: "W1" (m_1, d), "b1" (1, m_1), ..., "Wk" (c, m_{k-1}), "bk" (1, c).
    """
    inputs, scores = forward_pass(x, weights, biases, activation)
    gradients: dict[str, FloatArray] = {}
    g = gradient_cross_entropy_by_scores(softmax(scores[-1]), column(y))
    for i in range(len(weights), 0, -1):
        W, x_before = weights[i - 1], inputs[i - 1]  # W_i and x^(i-1); the lists count from 0
        gradients[f"b{i}"] = g
        gradients[f"W{i}"] = g.T @ x_before.T + 2 * l2 * W
        if i > 1:
            g = g @ W
            g = g @ jacobian_activation_by_scores(scores[i - 2], activation)  # s^(i-1)
    return gradients
