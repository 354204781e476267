"""NumPy, as fast as NumPy goes: in blocks of rows and chunks that stay in the cache, without large temporaries.

An operation here allocates nothing that grows with the batch or the network, and sums over rows in blocks, so that the
rounding error of a sum hardly grows with their number. :mod:`gpunet.backends.reference` says what each computes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gpunet.activations import Activation, Identity
from gpunet.backends.arrays import Array, Scratch
from gpunet.backends.backend import Backend
from gpunet.backends.reference.training import Tally
from gpunet.random import Stream, dropout_threshold, random_words

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


class NumpyBackend(Backend):
    """Runs every operation with NumPy on the CPU."""

    name = "numpy"
    has_half = False

    def __init__(self) -> None:
        super().__init__()
        self._scratch = Scratch(self.empty)

    # --- reductions over the batch ----------------------------------------------------------------------------------

    def _column_sums(self, x: Array, out: Array) -> None:
        """out_j = sum_i x_ij, summed in blocks of rows."""
        partial = self._scratch("partial", (-(-x.shape[0] // ROWS), x.shape[1]), x.dtype)
        for index, rows in enumerate(row_blocks(x.shape[0])):
            np.add.reduce(x[rows], axis=0, out=partial[index])
        np.add.reduce(partial, axis=0, out=out)

    def _centred_dots(self, a: Array, x: Array, mean: Array, out: Array) -> None:
        """out_j = sum_i a_ij (x_ij - mean_j), summed in blocks of rows."""
        partial = self._scratch("partial", (-(-x.shape[0] // ROWS), x.shape[1]), x.dtype)
        for index, rows in enumerate(row_blocks(x.shape[0])):
            centred = self._centred(x[rows], mean)
            np.einsum("ij,ij->j", a[rows], centred, out=partial[index])
        np.add.reduce(partial, axis=0, out=out)

    def _centred(self, x: Array, mean: Array) -> Array:
        """Return x - mean for one block of rows, in scratch."""
        return np.subtract(x, mean, out=self._scratch("centred", x.shape, x.dtype))

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
        left, right = a.T if transpose_a else a, b.T if transpose_b else b
        if accumulate:
            product = self._scratch("product", out.shape, out.dtype)
            np.matmul(left, right, out=product)
            np.add(out, product, out=out)
        else:
            np.matmul(left, right, out=out)

    # --- bias and activation (L1, L3) -------------------------------------------------------------------------------

    def bias_activation_forward(self, s: Array, bias: Array | None, activation: Activation, out: Array) -> None:
        if bias is not None:
            np.add(s, bias, out=out)
        elif out is not s:
            np.copyto(out, s)
        self._activate(out, activation)

    def bias_activation_backward(
        self,
        dy: Array,
        kept: Array,
        activation: Activation,
        ds: Array,
        dbias: Array | None,
        bias: Array | None = None,
    ) -> None:
        if bias is None or activation.derivative_of == "output":
            self._activation_gradient(dy, kept, activation, ds)
        else:
            for rows in row_blocks(dy.shape[0]):
                z = np.add(kept[rows], bias, out=self._scratch("z", kept[rows].shape, kept.dtype))
                self._activation_gradient(dy[rows], z, activation, ds[rows])
        if dbias is not None:
            self._column_sums(ds, out=dbias)

    def _activate(self, y: Array, activation: Activation) -> None:
        if isinstance(activation, Identity):
            return
        flat = y.reshape(-1)
        for part in chunks(0, flat.size):
            flat[part] = activation.forward(flat[part])

    def _activation_gradient(self, dy: Array, kept: Array, activation: Activation, ds: Array) -> None:
        if isinstance(activation, Identity):
            if ds is not dy:
                np.copyto(ds, dy)
            return
        flat_dy, flat_kept, flat_ds = dy.reshape(-1), kept.reshape(-1), ds.reshape(-1)
        for part in chunks(0, flat_kept.size):
            np.multiply(flat_dy[part], activation.derivative(flat_kept[part]), out=flat_ds[part])

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
        rows = s.shape[0]
        variance = self._scratch("variance", mean.shape, s.dtype)
        residual = self._scratch("residual", mean.shape, s.dtype)

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
        sum_dz = self._scratch("sum_dz", mean.shape, s.dtype) if dbeta is None else dbeta
        sum_dz_shat = self._scratch("sum_dz_shat", mean.shape, s.dtype) if dgamma is None else dgamma
        self._through_activation(dy, s, y, gamma, beta, activation, mean, inverse_std, out=ds)
        self._column_sums(ds, out=sum_dz)
        self._centred_dots(ds, s, mean, out=sum_dz_shat)
        sum_dz_shat *= inverse_std
        self._through_statistics(ds, s, gamma, mean, inverse_std, sum_dz_shat, sum_dz, s.shape[0])

    def _through_activation(
        self,
        dy: Array,
        s: Array,
        y: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        mean: Array,
        inverse_std: Array,
        out: Array,
    ) -> None:
        """out = dz = dy f'(z)."""
        if activation.derivative_of == "output":
            self._activation_gradient(dy, y, activation, out)
            return
        for block in row_blocks(s.shape[0]):
            z = self._centred(s[block], mean)
            self._scale_and_shift(z, inverse_std, gamma, beta)
            self._activation_gradient(dy[block], z, activation, out[block])

    def _through_statistics(
        self,
        ds: Array,
        s: Array,
        gamma: Array | None,
        mean: Array,
        inverse_std: Array,
        sum_dz_shat: Array,
        sum_dz: Array,
        rows: int,
    ) -> None:
        """Turn dz, which is where ds is to be, into ds."""
        slope = self._scratch("slope", mean.shape, s.dtype)
        offset = self._scratch("offset", mean.shape, s.dtype)
        np.divide(sum_dz, rows, out=offset)
        np.multiply(sum_dz_shat, inverse_std, out=slope)
        slope /= rows
        for block in row_blocks(s.shape[0]):
            centred = self._centred(s[block], mean)
            centred *= slope
            ds_block = ds[block]
            ds_block -= centred
            ds_block -= offset
            ds_block *= inverse_std
            if gamma is not None:
                ds_block *= gamma

    def batch_norm_statistics(self, s: Array, statistics: Array) -> None:
        mean, squares = statistics
        shift = self._scratch("shift", mean.shape, s.dtype)
        residuals = self._scratch("residuals", (-(-s.shape[0] // ROWS), s.shape[1]), s.dtype)
        partial = self._scratch("partial", residuals.shape, s.dtype)
        self._column_sums(s, out=mean)
        mean /= s.shape[0]
        for index, rows in enumerate(row_blocks(s.shape[0])):
            centred = self._centred(s[rows], mean)
            np.add.reduce(centred, axis=0, out=residuals[index])
            np.einsum("ij,ij->j", centred, centred, out=partial[index])
        np.add.reduce(residuals, axis=0, out=shift)
        np.add.reduce(partial, axis=0, out=squares)
        shift /= s.shape[0]  # what rounding left of the mean
        mean += shift
        shift *= shift
        shift *= s.shape[0]
        np.subtract(squares, shift, out=squares, where=np.isfinite(squares))

    def batch_norm_activation_apply(
        self,
        s: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        out: Array,
        mean: Array,
        inverse_std: Array,
    ) -> None:
        np.subtract(s, mean, out=out)
        self._scale_and_shift(out, inverse_std, gamma, beta)
        self._activate(out, activation)

    def batch_norm_activation_sums(
        self,
        dy: Array,
        s: Array,
        y: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        mean: Array,
        inverse_std: Array,
        dgamma: Array,
        dbeta: Array,
    ) -> None:
        dz = self._scratch("dz", s.shape, s.dtype)
        self._through_activation(dy, s, y, gamma, beta, activation, mean, inverse_std, out=dz)
        self._column_sums(dz, out=dbeta)
        self._centred_dots(dz, s, mean, out=dgamma)
        dgamma *= inverse_std

    def batch_norm_activation_input_gradient(
        self,
        dy: Array,
        s: Array,
        y: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        mean: Array,
        inverse_std: Array,
        dgamma: Array,
        dbeta: Array,
        ds: Array,
        *,
        rows: int,
    ) -> None:
        self._through_activation(dy, s, y, gamma, beta, activation, mean, inverse_std, out=ds)
        self._through_statistics(ds, s, gamma, mean, inverse_std, dgamma, dbeta, rows)

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
        inverse_std = self._scratch("inverse_std", running_variance.shape, s.dtype)
        np.add(running_variance, epsilon, out=inverse_std)
        np.sqrt(inverse_std, out=inverse_std)
        np.reciprocal(inverse_std, out=inverse_std)
        self.batch_norm_activation_apply(s, gamma, beta, activation, out, running_mean, inverse_std)

    def _scale_and_shift(self, x: Array, inverse_std: Array, gamma: Array | None, beta: Array | None) -> None:
        x *= inverse_std
        if gamma is not None and beta is not None:
            x *= gamma
            x += beta

    def _update_average(self, average: Array, value: Array, momentum: float) -> None:
        weighted = self._scratch("weighted", value.shape, value.dtype)
        np.multiply(value, momentum, out=weighted)
        average *= 1 - momentum
        average += weighted

    # --- shards -----------------------------------------------------------------------------------------------------

    def weigh_shard(self, doutputs: Array, dbias: Array | None, loss: Array, sums: Array, *, rows: int) -> None:
        share = loss[1] / rows
        if share != 1:
            doutputs *= share
        if dbias is not None:
            dbias *= share
        sums[0], sums[1] = loss[0] * loss[1], loss[1]

    def sum_shards(self, parts: Array, levels: Array, out: Array) -> None:
        numbers = [(index, level) for index, level in enumerate(levels.tolist()) if level >= 0]
        for part in chunks(0, out.size):
            stack: list[tuple[int, Array]] = []
            for index, level in numbers:
                total = parts[index, part]
                while stack and stack[-1][0] == level:
                    total = stack.pop()[1] + total
                    level += 1
                stack.append((level, total))
            total = stack.pop()[1]
            while stack:
                total = stack.pop()[1] + total
            out[part] = total

    def divide_sums(self, gradients: Array, sums: Array, loss: Array, *, rows: int) -> None:
        total, weight = float(sums[0]), float(sums[1])
        loss[0], loss[1] = total / weight if weight else 0.0, weight
        if weight != rows:
            gradients *= gradients.dtype.type(rows / weight if weight else 0.0)

    # --- data -------------------------------------------------------------------------------------------------------

    def gather_batch(
        self,
        index: Array,
        features: Array | None,
        batch_features: Array,
        targets: Array | None = None,
        batch_targets: Array | None = None,
        weights: Array | None = None,
        batch_weights: Array | None = None,
        first: Array | None = None,
    ) -> None:
        if first is not None:
            index = index[int(first[0]) :]
        for rows in chunks(
            0, len(batch_features)
        ):  # NumPy copies the index to 64 bits, and would buffer `out` in another mode
            for source, out in ((features, batch_features), (targets, batch_targets), (weights, batch_weights)):
                if source is not None and out is not None:
                    np.take(source, index[rows], axis=0, out=out[rows], mode="clip")

    # --- training ---------------------------------------------------------------------------------------------------

    def count_step(
        self,
        loss: Array,
        losses: Array,
        table: Array,
        scalars: Array,
        place: Array,
        steps: Array,
        *,
        rows: int,
        skipped: Array | None = None,
    ) -> None:
        number = int(place[0])  # numbers of Python's: one by one they are faster than NumPy's
        if number and not math.isfinite(losses[number - 1, 0]):
            loss[0] = math.nan
        losses[number], scalars[...] = loss, table[number if skipped is None else number - int(skipped[0])]
        place[0], place[1], steps[0] = number + 1, int(place[1]) + rows, int(steps[0]) + 1

    def summarize(self, vector: Array, out: Array, *, weight_count: int) -> None:
        weights = vector[:weight_count]
        out[0], out[1] = np.dot(weights, weights), vector.size - np.count_nonzero(np.isfinite(vector))

    def accumulate_gradients(
        self, gradients: Array, accumulated: Array, loss: Array, mean: Array, *, is_first: bool, is_last: bool
    ) -> None:
        before = 0 * loss[1] if is_first else mean[1].copy()
        mean[1] = before + loss[1]
        if before == 0:
            mean[0] = loss[0]
            if not is_last:
                accumulated[...] = gradients
            return
        share = loss[1] / mean[1]
        mean[0] += share * (loss[0] - mean[0])
        self._approach(accumulated, gradients, share, gradients if is_last else accumulated)

    def average_weights(
        self,
        parameters: Array,
        averaged_parameters: Array,
        state: Array,
        averaged_state: Array,
        updates: Array,
        loss: Array,
        *,
        decay: float,
    ) -> None:
        if not np.isfinite(loss[0]):
            return
        for values, averaged in ((parameters, averaged_parameters), (state, averaged_state)):
            if updates[0]:
                self._approach(averaged, values, 1 - decay, averaged)
            else:
                averaged[...] = values
        updates += 1

    def _approach(self, start: Array, goal: Array, share: float, out: Array) -> None:
        """out = start + share (goal - start)."""
        for part in chunks(0, start.size):
            step = goal[part] - start[part]
            step *= share
            np.add(start[part], step, out=out[part])

    # --- random bits ------------------------------------------------------------------------------------------------

    def dropout_forward(
        self, x: Array, out: Array, mask: Array, rate: float, seed: int, layer: int, step: Array, *, first: int = 0
    ) -> None:
        threshold, number = dropout_threshold(rate), int(step[0])
        flat_mask = mask.reshape(-1)
        for part in chunks(0, flat_mask.size):
            words = random_words(Stream.DROPOUT, first + part.start, part.stop - part.start, seed, layer, number)
            flat_mask[part] = words >= threshold
        self.dropout_backward(x, mask, rate, out)

    def dropout_backward(self, dy: Array, mask: Array, rate: float, dx: Array) -> None:
        scale = dy.dtype.type(1 / (1 - rate))
        flat_dy, flat_mask, flat_dx = dy.reshape(-1), mask.reshape(-1), dx.reshape(-1)
        for part in chunks(0, flat_dy.size):
            np.multiply(flat_dy[part], flat_mask[part] * scale, out=flat_dx[part])

    def sample_bernoulli(self, probabilities: Array, out: Array, seed: int, layer: int, step: Array) -> None:
        number = int(step[0])
        flat_probabilities, flat_out = probabilities.reshape(-1), out.reshape(-1)
        for part in chunks(0, flat_out.size):
            words = random_words(Stream.SAMPLING, part.start, part.stop - part.start, seed, layer, number)
            flat_out[part] = words < flat_probabilities[part].astype(np.float64) * 2.0**32

    # --- losses (L4, L12) --------------------------------------------------------------------------------------------

    def softmax_cross_entropy(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
    ) -> None:
        total = self._total_weight(weights, outputs.shape[0])
        if bias is not None:
            outputs += bias
        row_losses = self._scratch("row_losses", targets.shape, outputs.dtype)
        for rows in row_blocks(outputs.shape[0]):
            shifted, picked = doutputs[rows], self._one_per_row(targets[rows])
            np.subtract(outputs[rows], outputs[rows].max(axis=1, keepdims=True), out=shifted)
            row_losses[rows] = -shifted[picked]
            np.exp(shifted, out=shifted)
            partition = shifted.sum(axis=1, keepdims=True)
            row_losses[rows] += np.log(partition[:, 0])
            shifted /= partition
            shifted[picked] -= 1
        self._weigh(doutputs, row_losses, weights, total, loss, dbias, tally)

    def soft_cross_entropy(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        label_smoothing: float,
        class_weights: Array | None,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
    ) -> None:
        total = self._total_weight(weights, outputs.shape[0])
        if bias is not None:
            outputs += bias
        row_losses = self._scratch("row_losses", outputs.shape[:1], outputs.dtype)
        for rows in row_blocks(outputs.shape[0]):
            shifted = self._scratch("shifted", outputs[rows].shape, outputs.dtype)
            spread = self._spread(targets[rows], label_smoothing, class_weights, shifted.shape, outputs.dtype)
            np.subtract(outputs[rows], outputs[rows].max(axis=1, keepdims=True), out=shifted)
            gradient = np.exp(shifted, out=doutputs[rows])
            partition = gradient.sum(axis=1, keepdims=True)
            np.subtract(np.log(partition), shifted, out=shifted)
            shifted *= spread
            np.add.reduce(shifted, axis=1, out=row_losses[rows])  # in pairs: rows may be long, and no term is negative
            gradient *= spread.sum(axis=1, keepdims=True) / partition
            gradient -= spread
        self._weigh(doutputs, row_losses, weights, total, loss, dbias, tally)

    def _spread(
        self,
        targets: Array,
        label_smoothing: float,
        class_weights: Array | None,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> Array:
        """Return the q_ij of one block of rows, in scratch."""
        spread = self._scratch("spread", shape, dtype)
        if targets.ndim == 1:
            spread.fill(label_smoothing / shape[1])
        else:
            np.multiply(targets, 1 - label_smoothing, out=spread)
            spread += label_smoothing / shape[1]
        if class_weights is not None:
            spread *= class_weights
        if targets.ndim == 1:
            if class_weights is not None:
                own = class_weights[targets]
                spread *= np.where(own == 0, 0, 1 / np.where(own == 0, 1, own))[:, np.newaxis]
            spread[self._one_per_row(targets)] += 1 - label_smoothing
        return spread

    def squared_error(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
    ) -> None:
        total = self._total_weight(weights, outputs.shape[0])
        if bias is not None:
            outputs += bias
        row_losses = self._scratch("row_losses", outputs.shape[:1], outputs.dtype)
        np.subtract(outputs, targets, out=doutputs)
        np.einsum("ij,ij->i", doutputs, doutputs, out=row_losses)
        row_losses /= 2
        self._weigh(doutputs, row_losses, weights, total, loss, dbias, tally)

    def huber(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        delta: float,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
    ) -> None:
        total = self._total_weight(weights, outputs.shape[0])
        if bias is not None:
            outputs += bias
        row_losses = self._scratch("row_losses", outputs.shape[:1], outputs.dtype)
        for rows in row_blocks(outputs.shape[0]):
            error, gradient = self._error(outputs[rows], targets[rows]), doutputs[rows]
            np.clip(error, -delta, delta, out=gradient)
            error -= gradient / 2
            np.einsum("ij,ij->i", gradient, error, out=row_losses[rows])
        self._weigh(doutputs, row_losses, weights, total, loss, dbias, tally)

    def quantile(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        levels: Array,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
    ) -> None:
        total = self._total_weight(weights, outputs.shape[0])
        if bias is not None:
            outputs += bias
        row_losses = self._scratch("row_losses", outputs.shape[:1], outputs.dtype)
        for rows in row_blocks(outputs.shape[0]):
            error, gradient = self._error(outputs[rows], targets[rows]), doutputs[rows]
            np.copyto(gradient, error)  # which is right where it is 0, or NaN
            np.copyto(gradient, 1 - levels, where=error > 0)
            np.copyto(gradient, -levels, where=error < 0)
            np.einsum("ij,ij->i", gradient, error, out=row_losses[rows])
        self._weigh(doutputs, row_losses, weights, total, loss, dbias, tally)

    def _error(self, outputs: Array, targets: Array) -> Array:
        """Return o - t for one block of rows, in scratch."""
        return np.subtract(outputs, targets, out=self._scratch("error", outputs.shape, outputs.dtype))

    def sigmoid_cross_entropy(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
    ) -> None:
        total = self._total_weight(weights, outputs.shape[0])
        if bias is not None:
            outputs += bias
        row_losses = self._scratch("row_losses", outputs.shape[:1], outputs.dtype)
        for rows in row_blocks(outputs.shape[0]):
            o, t, dj = outputs[rows], targets[rows], doutputs[rows]
            complement = np.subtract(1, t, out=self._scratch("complement", o.shape, o.dtype))
            a = np.minimum(o, 0, out=self._scratch("negative_part", o.shape, o.dtype))
            b = np.maximum(o, 0, out=self._scratch("positive_part", o.shape, o.dtype))
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
        self._weigh(doutputs, row_losses, weights, total, loss, dbias, tally)

    def _total_weight(self, weights: Array | None, rows: int) -> float:
        return float(rows) if weights is None else float(weights.sum())

    def _one_per_row(self, columns: Array) -> tuple[Array, Array]:
        """Return the index of one element in each row of a block."""
        return np.arange(len(columns), dtype=columns.dtype), columns

    def _weigh(
        self,
        gradient: Array,
        row_losses: Array,
        weights: Array | None,
        total: float,
        loss: Array,
        dbias: Array | None,
        tally: Tally | None,
    ) -> None:
        """Turn row losses and their gradients into the weighted mean, its gradient and that of the bias; count."""
        loss[0], loss[1] = 0, total
        if total == 0:
            gradient.fill(0)
        else:
            if weights is not None:
                row_losses *= weights
                gradient *= weights[:, np.newaxis]
            gradient /= total
            loss[0] = row_losses.sum() / total
        if dbias is not None:
            self._column_sums(gradient, out=dbias)
        if tally is not None:
            self.count_step(loss, **tally._asdict(), rows=len(gradient))

    # --- optimisers (L5) ---------------------------------------------------------------------------------------------

    def clip_factor(
        self, parameters: Array, gradients: Array, weight_count: int, l2: float, maximum_norm: float, out: Array
    ) -> None:
        norm = 0.0
        for part, decay in self._parameter_chunks(parameters.size, weight_count, l2):
            gradient = self._cost_gradient(parameters, gradients, part, decay)
            largest = float(np.abs(gradient).max())
            if not math.isfinite(largest):
                out[0] = 0
                return
            if largest > 0:
                gradient = gradient / largest  # the squares of large float32 numbers would overflow
                norm = math.hypot(norm, largest * math.sqrt(float(np.dot(gradient, gradient))))
        out[0] = 1.0 if norm <= maximum_norm else maximum_norm / norm

    def flush_denormals(self, arrays: Iterable[Array]) -> None:
        for values in arrays:
            least = np.finfo(values.dtype).tiny
            for part in chunks(0, values.size):
                values[part][np.abs(values[part]) < least] = 0

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
