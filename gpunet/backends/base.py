"""The NumPy backend: the specification of every operation that gpunet runs on arrays.

An operation is coarse (a whole fused step of a layer), has its backward beside it, writes into the buffers it is
given and allocates nothing that grows with the batch or the network. Faster backends override operations; each is
tested against the version here.

Conventions: arrays are C-contiguous and of one dtype (float32 or float64), checked where data enter the network and
not again here. n is the number of rows (examples) of a batch, m the number of columns (units). Labels and indices
are int32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation, Identity
from gpunet.random import dropout_threshold, dropout_words

Array = npt.NDArray[Any]

# Rows summed one after the other before the partial sums are: the rounding error of a sum over n rows grows with
# ROWS + n / ROWS instead of n.
ROWS = 256
# Elements processed at a time by element-wise operations: their temporaries stay this small, and in the cache.
CHUNK = 16_384


def row_blocks(rows: int) -> Iterator[slice]:
    """Yield slices of at most ``ROWS`` rows that cover ``rows``."""
    return (slice(start, min(start + ROWS, rows)) for start in range(0, rows, ROWS))


def chunks(start: int, stop: int) -> Iterator[slice]:
    """Yield slices of at most ``CHUNK`` elements that cover ``start`` to ``stop``."""
    return (slice(first, min(first + CHUNK, stop)) for first in range(start, stop, CHUNK))


class Backend:
    """Runs every operation with NumPy.

    A backend belongs to one network and is not safe for use by two threads at once: it keeps scratch buffers between
    calls.

    Attributes
    ----------
    name : str
        ``"numpy"``; what :attr:`gpunet.Network.device` and benchmark rows call it.
    synchronous : bool
        Whether reading a result costs nothing, because operations finish before they return.
    device_name : str
        Where the arrays are: ``"cpu"``, ``"cuda:0"``.
    """

    name = "numpy"
    synchronous = True

    def __init__(self) -> None:
        self._scratch: dict[tuple[str, np.dtype[Any]], Array] = {}

    @property
    def device_name(self) -> str:
        """Where the arrays are."""
        return "cpu"

    # --- arrays -----------------------------------------------------------------------------------------------------

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return an uninitialised array on the device."""
        return np.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return an array of zeros on the device."""
        return np.zeros(shape, dtype)

    def asarray(self, array: Array) -> Array:
        """Return a host array as an array on the device (here: the same array)."""
        return array

    def to_numpy(self, array: Array) -> Array:
        """Return an array of the device as a host array (here: the same array)."""
        return array

    def copy(self, source: Array, destination: Array) -> None:
        """Copy ``source``, on the host or on the device, into ``destination``, on the device."""
        np.copyto(destination, source)

    def synchronize(self) -> None:
        """Wait until every operation has finished."""

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return a callable that repeats ``step`` on the same buffers.

        ``step`` has run at least once before, so its kernels are compiled and its buffers exist. Everything that
        changes between steps must live in arrays: a device may record the launches once and replay them.
        """
        return step

    def scratch(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return a buffer that keeps its contents only within one operation; it is allocated once and reused."""
        size = int(np.prod(shape))
        key = (name, np.dtype(dtype))
        buffer = self._scratch.get(key)
        if buffer is None or buffer.size < size:
            buffer = self._scratch[key] = self.empty(size, dtype)
        return buffer[:size].reshape(shape)

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
        """Out = op(a) op(b), or out + op(a) op(b), where op(x) is x or its transpose.

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
        """Out = f(s + b).

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
        """Ds = dy f'(s), with f' in terms of y = f(s); db_j = sum_i ds_ij.

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
        """Out = f(gamma (s - mu) / sqrt(v + epsilon) + beta) with the batch's own mean and variance.

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
        The lecture's term-by-term form of the same is in :mod:`gpunet.lecture.batch_norm`.

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
        """Out = f(gamma (s - running_mean) / sqrt(running_variance + epsilon) + beta) (L23).

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

    # --- dropout ----------------------------------------------------------------------------------------------------

    def dropout_forward(
        self, x: Array, out: Array, mask: Array, rate: float, seed: int, layer: int, step: Array
    ) -> None:
        """Out = x / (1 - rate) where kept, 0 elsewhere (inverted dropout).

        Element e of the flattened x is kept where its random word, a function of (seed, layer, step, e) alone
        (:func:`gpunet.random.dropout_words`), is at least rate * 2^32.

        Parameters
        ----------
        x, out : ndarray, (n, m)
            May be the same buffer. At most 2^34 elements.
        mask : ndarray of uint8, (n, m)
            Written: 1 where kept.
        rate : float
            In [0, 1).
        step : ndarray of int64, (1,)
            The number of training steps done before this one.
        """
        threshold, number = dropout_threshold(rate), int(step[0])
        scale = 1 / (1 - rate)
        flat_x, flat_mask, flat_out = x.reshape(-1), mask.reshape(-1), out.reshape(-1)
        for part in chunks(0, flat_x.size):
            words = dropout_words(part.start, part.stop - part.start, seed, layer, number)
            flat_mask[part] = words >= threshold
            np.multiply(flat_x[part], scale, out=flat_out[part])
            flat_out[part] *= flat_mask[part]

    def dropout_backward(self, dy: Array, mask: Array, rate: float, dx: Array) -> None:
        """Dx = dy / (1 - rate) where kept, 0 elsewhere. ``dx`` may be ``dy``."""
        np.multiply(dy, 1 / (1 - rate), out=dx)
        np.multiply(dx, mask, out=dx)

    # --- losses (L4, L12) -------------------------------------------------------------------------------------------

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

    # --- optimisers -------------------------------------------------------------------------------------------------

    def clip_factor(
        self, parameters: Array, gradients: Array, weight_count: int, l2: float, maximum_norm: float, out: Array
    ) -> None:
        """Out = min(1, maximum_norm / ||g||) for the gradient g of J, the L2 term included.

        Parameters
        ----------
        parameters, gradients : ndarray, (p,)
        weight_count : int
            L2 applies to the first ``weight_count`` parameters.
        out : ndarray, (1,)
        """
        total = 0.0
        for part, decay in self._parameter_chunks(parameters.size, weight_count, l2):
            gradient = self._cost_gradient(parameters, gradients, part, decay)
            total += float(np.dot(gradient, gradient))
        norm = total**0.5
        out[0] = 1.0 if norm <= maximum_norm else maximum_norm / norm

    def sgd_step(
        self,
        parameters: Array,
        gradients: Array,
        velocity: Array | None,
        weight_count: int,
        scalars: Array,
        clip: Array | None,
        loss: Array,
        *,
        l2: float,
        momentum: float,
        nesterov: bool,
    ) -> None:
        """One step of stochastic gradient descent (L5), in place.

        g = clip (gradients + 2 l2 parameters); velocity = momentum velocity + g;
        parameters -= learning_rate * (g + momentum velocity if nesterov else velocity).

        Parameters
        ----------
        parameters, gradients, velocity : ndarray, (p,)
            ``velocity`` may be None where ``momentum`` is 0.
        weight_count : int
            L2 applies to the first ``weight_count`` parameters.
        scalars : ndarray, (1,)
            The learning rate.
        clip : ndarray, (1,), or None
            The factor of :meth:`clip_factor`.
        loss : ndarray, (2,)
            What the loss wrote; where ``loss[0]`` is not finite, nothing changes, so that the weights that led there
            can be looked at.
        """
        if not np.isfinite(loss[0]):
            return
        rate, factor = scalars[0], 1.0 if clip is None else clip[0]
        for part, decay in self._parameter_chunks(parameters.size, weight_count, l2):
            gradient = factor * self._cost_gradient(parameters, gradients, part, decay)
            if velocity is None:
                parameters[part] -= rate * gradient
                continue
            velocity[part] *= momentum
            velocity[part] += gradient
            parameters[part] -= rate * (gradient + momentum * velocity[part] if nesterov else velocity[part])

    def adam_step(
        self,
        parameters: Array,
        gradients: Array,
        first_moment: Array,
        second_moment: Array,
        weight_count: int,
        scalars: Array,
        clip: Array | None,
        loss: Array,
        *,
        l2: float,
        beta_1: float,
        beta_2: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        """One step of Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019), in place.

        g = clip (gradients + 2 l2 parameters); m = beta_1 m + (1 - beta_1) g; v = beta_2 v + (1 - beta_2) g^2;
        parameters -= learning_rate * (weight_decay parameters + mhat / (sqrt(vhat) + epsilon)) with
        mhat = m / (1 - beta_1^t) and vhat = v / (1 - beta_2^t).

        Parameters
        ----------
        parameters, gradients, first_moment, second_moment : ndarray, (p,)
        weight_count : int
            L2 and weight decay apply to the first ``weight_count`` parameters.
        scalars : ndarray, (3,)
            The learning rate, 1 / (1 - beta_1^t) and 1 / (1 - beta_2^t) of this step t.
        clip : ndarray, (1,), or None
            The factor of :meth:`clip_factor`.
        loss : ndarray, (2,)
            What the loss wrote; where ``loss[0]`` is not finite, nothing changes, so that the weights that led there
            can be looked at.
        weight_decay : float
            Decoupled decay; 0 is Adam.
        """
        if not np.isfinite(loss[0]):
            return
        rate, correction_1, correction_2 = scalars
        factor = 1.0 if clip is None else clip[0]
        for part, decay in self._parameter_chunks(parameters.size, weight_count, l2):
            gradient = factor * self._cost_gradient(parameters, gradients, part, decay)
            first_moment[part] *= beta_1
            first_moment[part] += (1 - beta_1) * gradient
            second_moment[part] *= beta_2
            second_moment[part] += (1 - beta_2) * gradient * gradient
            if weight_decay and part.start < weight_count:
                parameters[part] *= 1 - rate * weight_decay
            root = np.sqrt(correction_2 * second_moment[part])
            parameters[part] -= rate * correction_1 * first_moment[part] / (root + epsilon)

    def _cost_gradient(self, parameters: Array, gradients: Array, part: slice, decay: float) -> Array:
        """Return the gradient of J, the L2 term included, for one chunk of the parameters."""
        return gradients[part] + decay * parameters[part] if decay else gradients[part]

    def _parameter_chunks(self, size: int, weight_count: int, l2: float) -> Iterator[tuple[slice, float]]:
        """Yield (slice, L2 gradient factor): 2 l2 for the weights, which come first, 0 for the rest."""
        for part in chunks(0, weight_count):
            yield part, 2 * l2
        for part in chunks(weight_count, size):
            yield part, 0.0

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
        np.take(source, index, axis=0, out=out, mode="clip")  # the default mode would buffer the output
