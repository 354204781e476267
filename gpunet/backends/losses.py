"""The losses with their gradients (lecture rows L4, L12): the NumPy specification."""

from __future__ import annotations

import numpy as np

from gpunet.backends.arrays import Array, ArrayOperations, row_blocks


class LossOperations(ArrayOperations):
    """Weighted means over the rows of a batch."""

    def softmax_cross_entropy(
        self, logits: Array, labels: Array, weights: Array | None, dlogits: Array, loss: Array
    ) -> None:
        """J = sum_i w_i l_i / sum_i w_i with l_i = -log p_i[label_i], p_i = softmax(logits_i), and dJ/dlogits.

        dJ/dlogits_i = w_i / sum w (p_i - y_i) for the one-hot y_i: the product of the lecture's Jacobians. Where every
        weight of the batch is zero, the loss and the gradient are zero.

        Parameters
        ----------
        logits : ndarray, (n, c)
        labels : ndarray of int32, (n,)
            0 to c - 1.
        weights : ndarray, (n,), or None
            At least 0; None stands for ones.
        dlogits : ndarray, (n, c)
            Written. Not ``logits``.
        loss : ndarray, (2,)
            Written: J, and the sum of the weights.
        """
        total = self._total_weight(weights, logits.shape[0])
        row_losses = self.scratch("row_losses", labels.shape, logits.dtype)
        for rows in row_blocks(logits.shape[0]):
            shifted, picked = dlogits[rows], self._one_per_row(labels[rows])
            np.subtract(logits[rows], logits[rows].max(axis=1, keepdims=True), out=shifted)
            row_losses[rows] = -shifted[picked]
            np.exp(shifted, out=shifted)
            partition = shifted.sum(axis=1, keepdims=True)
            row_losses[rows] += np.log(partition[:, 0])
            shifted /= partition
            shifted[picked] -= 1
        self._weigh(dlogits, row_losses, weights, total, loss)

    def squared_error(
        self, outputs: Array, targets: Array, weights: Array | None, doutputs: Array, loss: Array
    ) -> None:
        """J = sum_i w_i E_i / sum_i w_i with E_i = 1/2 sum_j (t_ij - o_ij)^2 (L12), and dJ/doutputs.

        Parameters
        ----------
        outputs, targets : ndarray, (n, c)
        weights : ndarray, (n,), or None
            At least 0; None stands for ones.
        doutputs : ndarray, (n, c)
            Written. Not ``outputs``.
        loss : ndarray, (2,)
            Written: J, and the sum of the weights.
        """
        total = self._total_weight(weights, outputs.shape[0])
        row_losses = self.scratch("row_losses", outputs.shape[:1], outputs.dtype)
        np.subtract(outputs, targets, out=doutputs)
        np.einsum("ij,ij->i", doutputs, doutputs, out=row_losses)
        row_losses /= 2
        self._weigh(doutputs, row_losses, weights, total, loss)

    def sigmoid_cross_entropy(
        self, outputs: Array, targets: Array, weights: Array | None, gradient: Array, loss: Array
    ) -> None:
        """J = sum_i w_i l_i / sum_i w_i for independent sigmoid outputs, and dJ/doutputs.

        With p_ij = sigmoid(o_ij), l_i = -sum_j [t_ij log p_ij + (1 - t_ij) log(1 - p_ij)]
        = sum_j [max(o_ij, 0) - o_ij t_ij + log(1 + exp(-abs(o_ij)))], and dJ/do_ij = w_i / sum w (p_ij - t_ij).

        Both are evaluated without a difference of nearly equal numbers, so that also the smallest of them keep their
        digits: with a = exp(min(o, 0)), b = exp(-max(o, 0)), one of which is 1 and p = a / (a + b),
        l = (1 - t) max(o, 0) - t min(o, 0) + log(1 + a b) and p - t = ((1 - t) a - t b) / (a + b).

        Parameters
        ----------
        outputs : ndarray, (n, c)
            The logits o.
        targets : ndarray, (n, c)
            In [0, 1].
        weights : ndarray, (n,), or None
            At least 0; None stands for ones.
        gradient : ndarray, (n, c)
            Written. Not ``outputs``.
        loss : ndarray, (2,)
            Written: J, and the sum of the weights.
        """
        total = self._total_weight(weights, outputs.shape[0])
        row_losses = self.scratch("row_losses", outputs.shape[:1], outputs.dtype)
        for rows in row_blocks(outputs.shape[0]):
            o, t, dj = outputs[rows], targets[rows], gradient[rows]
            complement = np.subtract(1, t, out=self.scratch("complement", o.shape, o.dtype))
            a = np.minimum(o, 0, out=self.scratch("negative_part", o.shape, o.dtype))
            b = np.maximum(o, 0, out=self.scratch("positive_part", o.shape, o.dtype))
            np.einsum("ij,ij->i", complement, b, out=row_losses[rows])
            row_losses[rows] -= np.einsum("ij,ij->i", t, a)
            np.exp(a, out=a)
            np.negative(b, out=b)
            np.exp(b, out=b)
            np.multiply(a, b, out=dj)
            np.log1p(dj, out=dj)
            row_losses[rows] += dj.sum(axis=1)

            np.multiply(complement, a, out=dj)
            a += b
            b *= t
            dj -= b
            dj /= a
        self._weigh(gradient, row_losses, weights, total, loss)

    def _total_weight(self, weights: Array | None, rows: int) -> float:
        return float(rows) if weights is None else float(weights.sum())

    def _one_per_row(self, columns: Array) -> tuple[Array, Array]:
        """Return the index of one element in each row of a block."""
        return np.arange(len(columns), dtype=columns.dtype), columns

    def _weigh(self, gradient: Array, row_losses: Array, weights: Array | None, total: float, loss: Array) -> None:
        """Turn row losses and their gradients into the weighted mean and its gradient."""
        loss[0], loss[1] = 0, total
        if total == 0:
            gradient.fill(0)
            return
        if weights is not None:
            row_losses *= weights
            gradient *= weights[:, np.newaxis]
        gradient /= total
        loss[0] = row_losses.sum() / total
