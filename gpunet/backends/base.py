"""The NumPy backend: the specification of every operation that gpunet runs on arrays.

An operation is coarse (a whole fused step of a layer), has its backward beside it, writes into the buffers it is
given and allocates nothing that grows with the batch or the network. Faster backends override operations; each is
tested against the version here.

Conventions: arrays are C-contiguous and of one dtype (float32 or float64), checked where data enter the network and
not again here. n is the number of rows (examples) of a batch, m the number of columns (units). Labels and indices
are int32.

This file has the operations of the layers; :mod:`gpunet.backends.stochastic` those with random bits,
:mod:`gpunet.backends.losses` those of the losses, :mod:`gpunet.backends.updates` those of the optimisers.
"""

from __future__ import annotations

import numpy as np

from gpunet.activations import Activation, Identity
from gpunet.backends.arrays import ROWS, Array, chunks, row_blocks
from gpunet.backends.losses import LossOperations
from gpunet.backends.stochastic import StochasticOperations
from gpunet.backends.updates import UpdateOperations


class Backend(StochasticOperations, LossOperations, UpdateOperations):
    """Runs every operation with NumPy.

    A backend belongs to one network and serves one thread at a time, the one that holds its ``lock``: it keeps scratch
    buffers between calls.
    """

    # --- reductions over the batch ----------------------------------------------------------------------------------

    def _column_sums(self, x: Array, out: Array) -> None:
        """out_j = sum_i x_ij, summed in blocks of rows."""
        partial = self.scratch("partial", (-(-x.shape[0] // ROWS), x.shape[1]), x.dtype)
        for index, rows in enumerate(row_blocks(x.shape[0])):
            np.add.reduce(x[rows], axis=0, out=partial[index])
        np.add.reduce(partial, axis=0, out=out)

    def _centred_dots(self, a: Array, x: Array, mean: Array, out: Array) -> None:
        """out_j = sum_i a_ij (x_ij - mean_j), summed in blocks of rows."""
        partial = self.scratch("partial", (-(-x.shape[0] // ROWS), x.shape[1]), x.dtype)
        for index, rows in enumerate(row_blocks(x.shape[0])):
            centred = self._centred(x[rows], mean)
            np.einsum("ij,ij->j", a[rows], centred, out=partial[index])
        np.add.reduce(partial, axis=0, out=out)

    def _centred(self, x: Array, mean: Array) -> Array:
        """Return x - mean for one block of rows, in scratch."""
        return np.subtract(x, mean, out=self.scratch("centred", x.shape, x.dtype))

    # --- linear layer (L1) ------------------------------------------------------------------------------------------

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
    ) -> None:
        """out = op(a) op(b), or out + op(a) op(b), where op(x) is x or its transpose.

        Parameters
        ----------
        a, b : ndarray, two-dimensional
        out : ndarray
            The product; added to where ``accumulate``.
        """
        left, right = a.T if transpose_a else a, b.T if transpose_b else b
        if accumulate:
            product = self.scratch("product", out.shape, out.dtype)
            np.matmul(left, right, out=product)
            np.add(out, product, out=out)
        else:
            np.matmul(left, right, out=out)

    # --- bias and activation (L1, L3) -------------------------------------------------------------------------------

    def bias_activation_forward(self, s: Array, bias: Array | None, activation: Activation, out: Array) -> None:
        """out = f(s + b).

        Parameters
        ----------
        s : ndarray, (n, m)
        bias : ndarray, (m,), or None
            None stands for no bias.
        out : ndarray, (n, m)
            May be ``s``.
        """
        if bias is not None:
            np.add(s, bias, out=out)
        elif out is not s:
            np.copyto(out, s)
        self._activate(out, activation)

    def bias_activation_backward(
        self, dy: Array, y: Array, activation: Activation, ds: Array, dbias: Array | None
    ) -> None:
        """ds = dy f'(s), with f' in terms of y = f(s); db_j = sum_i ds_ij.

        Parameters
        ----------
        dy, y : ndarray, (n, m)
        ds : ndarray, (n, m)
            May be ``dy``.
        dbias : ndarray, (m,), or None
        """
        self._activation_gradient(dy, y, activation, ds)
        if dbias is not None:
            self._column_sums(ds, out=dbias)

    def _activate(self, y: Array, activation: Activation) -> None:
        if isinstance(activation, Identity):
            return
        flat = y.reshape(-1)
        for part in chunks(0, flat.size):
            flat[part] = activation.forward(flat[part])

    def _activation_gradient(self, dy: Array, y: Array, activation: Activation, ds: Array) -> None:
        if isinstance(activation, Identity):
            if ds is not dy:
                np.copyto(ds, dy)
            return
        flat_dy, flat_y, flat_ds = dy.reshape(-1), y.reshape(-1), ds.reshape(-1)
        for part in chunks(0, flat_y.size):
            np.multiply(flat_dy[part], activation.derivative(flat_y[part]), out=flat_ds[part])

    # --- batch normalisation and activation (L22-L24) ---------------------------------------------------------------

    def batch_norm_activation_forward(
        self,
        s: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        out: Array,
        mean: Array,
        inverse_std: Array,
        running_mean: Array,
        running_variance: Array,
        momentum: float,
        epsilon: float,
    ) -> None:
        """out = f(gamma (s - mu) / sqrt(v + epsilon) + beta) with the batch's own mean and variance.

        The variance is summed from centred values, and corrected by the mean of those: sums of squares of values far
        from zero would lose every digit. The batch's unbiased variance n / (n - 1) v enters the running average.

        Parameters
        ----------
        s, out : ndarray, (n, m)
            n at least 2. Distinct buffers.
        gamma, beta : ndarray, (m,), or None
            Scale and shift; both None for neither.
        mean, inverse_std : ndarray, (m,)
            Written: mu and 1 / sqrt(v + epsilon), which the backward pass reads.
        running_mean, running_variance : ndarray, (m,)
            Updated: (1 - momentum) old + momentum new.
        momentum : float
            The weight of the new value, in [0, 1].
        epsilon : float
            Added to the variance.
        """
        rows = s.shape[0]
        variance = self.scratch("variance", mean.shape, s.dtype)
        residual = self.scratch("residual", mean.shape, s.dtype)

        self._column_sums(s, out=mean)
        mean /= rows
        np.subtract(s, mean, out=out)
        self._column_sums(out, out=residual)
        residual /= rows  # what rounding left of the mean
        self._centred_dots(out, out, residual, out=variance)
        variance /= rows
        np.add(variance, epsilon, out=inverse_std)
        np.sqrt(inverse_std, out=inverse_std)
        np.reciprocal(inverse_std, out=inverse_std)

        out -= residual
        mean += residual
        self._scale_and_shift(out, inverse_std, gamma, beta)
        self._activate(out, activation)

        variance *= rows / (rows - 1)
        self._update_average(running_mean, mean, momentum)
        self._update_average(running_variance, variance, momentum)

    def batch_norm_activation_backward(
        self,
        dy: Array,
        s: Array,
        y: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        mean: Array,
        inverse_std: Array,
        ds: Array,
        dgamma: Array | None,
        dbeta: Array | None,
    ) -> None:
        """The gradient through activation, scale, shift and normalisation, the statistics included.

        With dz = dy f'(z) and shat = (s - mu) inverse_std:
        dbeta = sum_i dz_i, dgamma = sum_i dz_i shat_i,
        ds = gamma inverse_std (dz - dbeta / n - shat dgamma / n).
        The lecture's term-by-term form of the same is in :mod:`gpunet.lecture.derivations.batch_norm`.

        Parameters
        ----------
        dy, s, y : ndarray, (n, m)
            The incoming gradient, and the input and output of the forward pass.
        ds : ndarray, (n, m)
            May be ``dy``.
        dgamma, dbeta : ndarray, (m,), or None
            None where there is no scale and shift.
        """
        rows = s.shape[0]
        sum_dz = self.scratch("sum_dz", mean.shape, s.dtype) if dbeta is None else dbeta
        sum_dz_shat = self.scratch("sum_dz_shat", mean.shape, s.dtype) if dgamma is None else dgamma
        slope = self.scratch("slope", mean.shape, s.dtype)
        offset = self.scratch("offset", mean.shape, s.dtype)

        self._activation_gradient(dy, y, activation, ds)
        self._column_sums(ds, out=sum_dz)
        self._centred_dots(ds, s, mean, out=sum_dz_shat)
        sum_dz_shat *= inverse_std

        np.divide(sum_dz, rows, out=offset)
        np.multiply(sum_dz_shat, inverse_std, out=slope)
        slope /= rows
        for block in row_blocks(rows):
            centred = self._centred(s[block], mean)
            centred *= slope
            ds_block = ds[block]
            ds_block -= centred
            ds_block -= offset
            ds_block *= inverse_std
            if gamma is not None:
                ds_block *= gamma

    def batch_norm_activation_inference(
        self,
        s: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        out: Array,
        running_mean: Array,
        running_variance: Array,
        epsilon: float,
    ) -> None:
        """out = f(gamma (s - running_mean) / sqrt(running_variance + epsilon) + beta) (L23).

        Parameters
        ----------
        s, out : ndarray, (n, m)
            n at least 1. May be the same buffer.
        """
        inverse_std = self.scratch("inverse_std", running_variance.shape, s.dtype)
        np.add(running_variance, epsilon, out=inverse_std)
        np.sqrt(inverse_std, out=inverse_std)
        np.reciprocal(inverse_std, out=inverse_std)
        np.subtract(s, running_mean, out=out)
        self._scale_and_shift(out, inverse_std, gamma, beta)
        self._activate(out, activation)

    def _scale_and_shift(self, x: Array, inverse_std: Array, gamma: Array | None, beta: Array | None) -> None:
        x *= inverse_std
        if gamma is not None and beta is not None:
            x *= gamma
            x += beta

    def _update_average(self, average: Array, value: Array, momentum: float) -> None:
        weighted = self.scratch("weighted", value.shape, value.dtype)
        np.multiply(value, momentum, out=weighted)
        average *= 1 - momentum
        average += weighted

    # --- data -------------------------------------------------------------------------------------------------------

    def gather_rows(self, source: Array, index: Array, out: Array) -> None:
        """out_i = source[index_i]: a batch from the data set.

        Parameters
        ----------
        source : ndarray, (N,) or (N, d)
        index : ndarray of int32, (n,)
            0 to N - 1.
        out : ndarray, (n,) or (n, d)
        """
        for rows in chunks(0, len(index)):  # NumPy copies the index to 64 bits, and would buffer `out` in another mode
            np.take(source, index[rows], axis=0, out=out[rows], mode="clip")
