"""Batch normalisation: forward, at test time, and backward term by term (rows L22, L23 and L24).

Follows the lecture's "Batch normalization" and "Back-Prop for a Batch Normalization layer". A batch of
scores is S (n, m) with s_i^T in row i; mu_b and v_b have shape (m,); gradients of J with respect to mu_b or
v_b are the lecture's rows (1, m), those with respect to the s_i are the rows of an (n, m) array, and
Jacobians are (m, m) matrices. V_b = diag(v_b + epsilon).

What the slides have wrong is in the list of corrections, row L24. Beyond that:

- The sum in dv_b/dmu_b is zero. The term is kept, to show it.
- dshat_i/ds_i = V_b^(-1/2) holds mu_b and v_b fixed; what flows through those is in the two other terms.
- Here the "children" of a node are the nodes computed from it; earlier in the lecture they are its inputs.
- A bias b_i before batch norm is redundant, since subtracting the mean removes it: it is left out.
- gamma and beta multiply and shift element by element. L2 applies to neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpunet.lecture.derivations.activations import Activation, FloatArray
from gpunet.lecture.derivations.batch_gradient import Labels, Loss, cross_entropy, example_weights, target_rows

# Forward.


class Normalised(NamedTuple):
    """A batch of normalised scores and the statistics it was normalised with.

    Attributes
    ----------
    S_hat : ndarray (n, m)
        shat_i^T in row i.
    mu_b, v_b : ndarray (m,)
        Mean and biased variance of the batch.
    """

    S_hat: FloatArray
    mu_b: FloatArray
    v_b: FloatArray


def batch_mean(S: FloatArray) -> FloatArray:
    """mu_b = 1/n sum_i s_i: (m,) from S (n, m)."""
    return np.asarray(S.sum(axis=0) / len(S))


def batch_variance(S: FloatArray, mu_b: FloatArray) -> FloatArray:
    """v_b,j = 1/n sum_i (s_i,j - mu_b,j)^2, the biased variance: (m,) from S (n, m) and mu_b (m,)."""
    return np.asarray(np.sum((S - mu_b) ** 2, axis=0) / len(S))


def normalise(S: FloatArray, epsilon: float = 1e-5) -> Normalised:
    """shat_i = V_b^(-1/2) (s_i - mu_b) with V_b = diag(v_b + epsilon), for each row of S (n, m)."""
    mu_b = batch_mean(S)
    v_b = batch_variance(S, mu_b)
    S_hat = np.stack([V_b_to_the(-1 / 2, v_b, epsilon) @ (s_i - mu_b) for s_i in S])
    return Normalised(S_hat, mu_b, v_b)


def scale_and_shift(S_hat: FloatArray, gamma: FloatArray, beta: FloatArray) -> FloatArray:
    """y_i = gamma * shat_i + beta, element by element: (n, m) from S_hat (n, m), gamma and beta (m,)."""
    return gamma * S_hat + beta


def V_b_to_the(power: float, v_b: FloatArray, epsilon: float) -> FloatArray:
    """V_b^power = diag(v_b + epsilon)^power: (m, m) from v_b (m,)."""
    return np.diag((v_b + epsilon) ** power)


# At test time.


def updated_running_statistics(
    running_mean: FloatArray, running_variance: FloatArray, S: FloatArray, momentum: float = 0.1
) -> tuple[FloatArray, FloatArray]:
    """The running averages after one more training batch S (n, m).

    The lecture says "running averages" and leaves the rule open; this is the usual one::

        running = (1 - momentum) running + momentum new

    with mu_b as the new mean and n/(n-1) v_b, the unbiased estimate, as the new variance.

    Parameters
    ----------
    running_mean, running_variance : ndarray (m,)
        The averages so far.
    S : ndarray (n, m)
        Scores of the batch, n at least 2.
    momentum : float
        Weight of the new value.

    Returns
    -------
    running_mean, running_variance : ndarray (m,)

    Raises
    ------
    ValueError
        If the batch has fewer than two examples: one example has no unbiased variance.
    """
    n = len(S)
    if n < 2:
        raise ValueError(f"a batch of {n} has no unbiased variance")
    mu_b = batch_mean(S)
    unbiased_variance = n / (n - 1) * batch_variance(S, mu_b)
    return (
        (1 - momentum) * running_mean + momentum * mu_b,
        (1 - momentum) * running_variance + momentum * unbiased_variance,
    )


def normalise_at_test_time(
    S: FloatArray, running_mean: FloatArray, running_variance: FloatArray, epsilon: float = 1e-5
) -> FloatArray:
    """shat_i = diag(running_variance + epsilon)^(-1/2) (s_i - running_mean): (n, m) from S (n, m)."""
    return np.stack([V_b_to_the(-1 / 2, running_variance, epsilon) @ (s_i - running_mean) for s_i in S])


# The local Jacobians of the batch norm graph.


def jacobian_normalised_by_score(v_b: FloatArray, epsilon: float) -> FloatArray:
    """dshat_i/ds_i = V_b^(-1/2): (m, m), with mu_b and v_b held fixed."""
    return V_b_to_the(-1 / 2, v_b, epsilon)


def jacobian_normalised_by_variance(s_i: FloatArray, mu_b: FloatArray, v_b: FloatArray, epsilon: float) -> FloatArray:
    """dshat_i/dv_b = -1/2 V_b^(-3/2) diag(s_i - mu_b): (m, m) from s_i, mu_b and v_b (m,)."""
    return -1 / 2 * V_b_to_the(-3 / 2, v_b, epsilon) @ np.diag(s_i - mu_b)


def jacobian_normalised_by_mean(v_b: FloatArray, epsilon: float) -> FloatArray:
    """dshat_i/dmu_b = -V_b^(-1/2): (m, m), with v_b held fixed."""
    return -V_b_to_the(-1 / 2, v_b, epsilon)


def jacobian_variance_by_score(s_i: FloatArray, mu_b: FloatArray, n: int) -> FloatArray:
    """dv_b/ds_i = 2/n diag(s_i - mu_b): (m, m) from s_i and mu_b (m,), with mu_b held fixed."""
    return 2 / n * np.diag(s_i - mu_b)


def jacobian_variance_by_mean(S: FloatArray, mu_b: FloatArray) -> FloatArray:
    """dv_b/dmu_b = -2/n diag(sum_i (s_i - mu_b)): (m, m), zero when mu_b is the mean of S (n, m)."""
    return -2 / len(S) * np.diag(np.sum(S - mu_b, axis=0))


def jacobian_mean_by_score(n: int, m: int) -> FloatArray:
    """dmu_b/ds_i = 1/n I_m: (m, m)."""
    return 1 / n * np.eye(m)


# The gradients of J, term by term.


def gradient_of_variance(
    dJ_dS_hat: FloatArray, S: FloatArray, mu_b: FloatArray, v_b: FloatArray, epsilon: float
) -> FloatArray:
    """dJ/dv_b = sum_i dJ/dshat_i dshat_i/dv_b: (1, m) from dJ_dS_hat and S (n, m)."""
    dJ_dv_b = np.zeros((1, S.shape[1]))
    for dJ_ds_hat_i, s_i in zip(dJ_dS_hat, S, strict=True):
        dJ_dv_b += dJ_ds_hat_i @ jacobian_normalised_by_variance(s_i, mu_b, v_b, epsilon)
    return dJ_dv_b


def gradient_of_mean(
    dJ_dS_hat: FloatArray,
    dJ_dv_b: FloatArray,
    S: FloatArray,
    mu_b: FloatArray,
    v_b: FloatArray,
    epsilon: float,
) -> FloatArray:
    """dJ/dmu_b = sum_i dJ/dshat_i dshat_i/dmu_b + dJ/dv_b dv_b/dmu_b: (1, m) from dJ_dS_hat and S (n, m)."""
    dJ_dmu_b = dJ_dv_b @ jacobian_variance_by_mean(S, mu_b)
    for dJ_ds_hat_i in dJ_dS_hat:
        dJ_dmu_b += dJ_ds_hat_i @ jacobian_normalised_by_mean(v_b, epsilon)
    return dJ_dmu_b


def gradient_of_scores(dJ_dS_hat: FloatArray, S: FloatArray, epsilon: float = 1e-5) -> FloatArray:
    """dJ/ds_i for each score vector of the batch, as the sum of the lecture's three terms: (n, m).

    Parameters are those of `three_terms`.
    """
    return np.asarray(three_terms(dJ_dS_hat, S, epsilon).sum(axis=0))


def three_terms(dJ_dS_hat: FloatArray, S: FloatArray, epsilon: float = 1e-5) -> FloatArray:
    """The three terms of dJ/ds_i for each score vector of the batch: (3, n, m).

    ::

        dJ/ds_i = dJ/dshat_i dshat_i/ds_i + dJ/dv_b dv_b/ds_i + dJ/dmu_b dmu_b/ds_i

    Parameters
    ----------
    dJ_dS_hat : ndarray (n, m)
        dJ/dshat_i in row i.
    S : ndarray (n, m)
        Scores of the batch, before normalisation.
    epsilon : float
        Added to the variance.
    """
    n, m = S.shape
    _, mu_b, v_b = normalise(S, epsilon)
    dJ_dv_b = gradient_of_variance(dJ_dS_hat, S, mu_b, v_b, epsilon)
    dJ_dmu_b = gradient_of_mean(dJ_dS_hat, dJ_dv_b, S, mu_b, v_b, epsilon)
    terms = np.zeros((3, n, m))
    for i in range(n):
        terms[0, i] = dJ_dS_hat[i] @ jacobian_normalised_by_score(v_b, epsilon)
        terms[1, i] = (dJ_dv_b @ jacobian_variance_by_score(S[i], mu_b, n))[0]
        terms[2, i] = (dJ_dmu_b @ jacobian_mean_by_score(n, m))[0]
    return terms


def gradient_of_scores_closed_form(dJ_dS_hat: FloatArray, S: FloatArray, epsilon: float = 1e-5) -> FloatArray:
    """The `three_terms` collected into one formula, as a fused kernel computes it.

    With means over the batch, element by element::

        dJ/ds_i = (v_b + epsilon)^(-1/2) (dJ/dshat_i - mean_l dJ/dshat_l - shat_i mean_l(dJ/dshat_l shat_l))

    Put dJ/dmu_b = -(v_b + epsilon)^(-1/2) sum_l dJ/dshat_l into the third term to get the first mean. In the
    second term write s_i - mu_b = (v_b + epsilon)^(1/2) shat_i, there and inside dJ/dv_b: the factors 2 and
    1/2 cancel, and the second mean remains.

    Parameters and returned value are those of `gradient_of_scores`.
    """
    S_hat, _, v_b = normalise(S, epsilon)
    centred = dJ_dS_hat - dJ_dS_hat.mean(axis=0) - S_hat * (dJ_dS_hat * S_hat).mean(axis=0)
    return np.asarray(centred / np.sqrt(v_b + epsilon))


def gradients_of_scale_and_shift(
    dJ_dY: FloatArray, S_hat: FloatArray, gamma: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Back through y_i = gamma * shat_i + beta, one example at a time.

    ::

        dJ/dshat_i = dJ/dy_i diag(gamma)
        dJ/dgamma  = sum_i dJ/dy_i diag(shat_i)
        dJ/dbeta   = sum_i dJ/dy_i I_m

    Returns
    -------
    dJ_dS_hat : ndarray (n, m)
        dJ/dshat_i in row i.
    dJ_dgamma, dJ_dbeta : ndarray (m,)
        Sums over the batch.
    """
    m = len(gamma)
    dJ_dS_hat, dJ_dgamma, dJ_dbeta = np.zeros_like(S_hat), np.zeros(m), np.zeros(m)
    for i in range(len(S_hat)):
        dJ_dS_hat[i] = dJ_dY[i] @ np.diag(gamma)
        dJ_dgamma += dJ_dY[i] @ np.diag(S_hat[i])
        dJ_dbeta += dJ_dY[i] @ np.eye(m)
    return dJ_dS_hat, dJ_dgamma, dJ_dbeta


# The k-layer network with batch norm.


def batch_norm_network_gradients(
    X: FloatArray,
    labels: Labels,
    weights: Sequence[FloatArray],
    gammas: Sequence[FloatArray] | None,
    betas: Sequence[FloatArray] | None,
    last_bias: FloatArray,
    l2: float,
    activation: Activation,
    epsilon: float = 1e-5,
    sample_weights: FloatArray | None = None,
    *,
    loss: Loss = cross_entropy,
) -> tuple[float, dict[str, FloatArray]]:
    """Cost and gradients of a batch for the k-layer network with batch norm in every hidden layer.

    Hidden layer i < k is linear without bias, batch norm, scale and shift, activation; layer k is linear with
    bias. Each layer runs over the whole batch before the next, since batch norm ties the examples together::

        S^(i) = X^(i-1) W_i^T,   Shat^(i) = BatchNormalise(S^(i)),   Y^(i) = gamma^(i) Shat^(i) + beta^(i),
        X^(i) = activation(Y^(i))

    Parameters
    ----------
    X, labels, weights, l2, activation, sample_weights, loss
        As in `gpunet.lecture.derivations.batch_gradient.loop_over_examples`. The batch statistics are not weighted.
    gammas, betas : sequence of ndarray, or None
        Scale and shift of the k - 1 hidden layers, each (m_i,). Both None: no scale and shift.
    last_bias : ndarray (c,)
        b_k.
    epsilon : float
        Added to the variances.

    Returns
    -------
    cost : float
        J.
    gradients : dict
        {"W1", "gamma1", "beta1", ..., "Wk", "bk"}, each of the shape of the parameter (without "gamma" and
        "beta" when those are None), and "X" (n, d), the gradient with respect to the input.

    Raises
    ------
    ValueError
        If only one of gammas and betas is None, if there are not k - 1 of each, or if labels or sample
        weights do not fit.
    """
    k = len(weights)
    if gammas is None and betas is None:
        hidden_gammas = [np.ones(len(W)) for W in weights[:-1]]
        hidden_betas = [np.zeros(len(W)) for W in weights[:-1]]
    elif gammas is not None and betas is not None and len(gammas) == len(betas) == k - 1:
        hidden_gammas, hidden_betas = list(gammas), list(betas)
    else:
        raise ValueError(f"give gammas and betas for the {k - 1} hidden layers, or None for both")

    inputs, scores, normalised, shifted = [X], [], [], []
    for W, gamma, beta in zip(weights[:-1], hidden_gammas, hidden_betas, strict=True):
        scores.append(np.stack([W @ x for x in inputs[-1]]))
        normalised.append(normalise(scores[-1], epsilon).S_hat)
        shifted.append(scale_and_shift(normalised[-1], gamma, beta))
        inputs.append(activation.function(shifted[-1]))
    outputs = np.stack([weights[-1] @ x + last_bias for x in inputs[-1]])

    weight = example_weights(sample_weights, len(X))
    losses, row_gradients = loss(outputs, target_rows(labels, len(last_bias)))
    cost = float(weight @ losses) + l2 * sum(float(np.sum(W**2)) for W in weights)

    gradients: dict[str, FloatArray] = {}
    G = weight[:, np.newaxis] * row_gradients  # the row g of each example, for layer k
    gradients[f"b{k}"] = G.sum(axis=0)
    for i in range(k, 0, -1):
        W = weights[i - 1]
        gradients[f"W{i}"] = sum_of_outer_products(G, inputs[i - 1]) + 2 * l2 * W
        G = np.stack([g @ W for g in G])  # dJ/dx^(i-1) of each example
        if i > 1:
            Y = shifted[i - 2]
            G = np.stack([g @ np.diag(activation.derivative(y)) for g, y in zip(G, Y, strict=True)])
            G, dJ_dgamma, dJ_dbeta = gradients_of_scale_and_shift(G, normalised[i - 2], hidden_gammas[i - 2])
            if gammas is not None:
                gradients[f"gamma{i - 1}"], gradients[f"beta{i - 1}"] = dJ_dgamma, dJ_dbeta
            G = gradient_of_scores(G, scores[i - 2], epsilon)
    gradients["X"] = G
    return cost, gradients


def sum_of_outer_products(G: FloatArray, X: FloatArray) -> FloatArray:
    """sum_i g_i^T x_i^T: (m, d) from the rows g_i of G (n, m) and x_i^T of X (n, d)."""
    total = np.zeros((G.shape[1], X.shape[1]))
    for g, x in zip(G, X, strict=True):
        total += np.outer(g, x)
    return total
