"""The operations of a backend as plain array expressions."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from gpunet.activations import Activation
from gpunet.backends import Backend

Array = npt.NDArray[Any]


class PlainOperations(Backend):
    """The operations as a user of CuPy writes them: one array expression after the other, with their temporaries.

    Means, variances and sums are the library's reductions, every other operator is a kernel of its own. Results go
    straight into the given arrays where the last operator can write there. The optimisers do not look at the loss:
    that would be another kernel, and plain code has none. ``xp`` is the array module; with NumPy, which the tests take,
    the same lines compute the same numbers.
    """

    xp: Any

    def bias_activation_forward(self, s: Array, bias: Array | None, activation: Activation, out: Array) -> None:
        self._activate_into(s if bias is None else s + bias, activation, out)

    def bias_activation_backward(
        self, dy: Array, y: Array, activation: Activation, ds: Array, dbias: Array | None
    ) -> None:
        self._gradient_into(dy, y, activation, ds)
        if dbias is not None:
            ds.sum(axis=0, out=dbias)

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
        s.mean(axis=0, out=mean)
        variance = s.var(axis=0)
        self.xp.divide(1, self.xp.sqrt(variance + epsilon), out=inverse_std)
        self._normalise_into(s, mean, inverse_std, gamma, beta, activation, out)
        running_mean *= 1 - momentum
        running_mean += momentum * mean
        running_variance *= 1 - momentum
        running_variance += (momentum * rows / (rows - 1)) * variance

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
        rows = s.shape[0]
        shat = (s - mean) * inverse_std
        dz = self.xp.empty_like(s)
        self._gradient_into(dy, y, activation, dz)
        sum_dz = dz.sum(axis=0, out=dbeta)
        sum_dz_shat = (dz * shat).sum(axis=0, out=dgamma)
        scale = inverse_std if gamma is None else gamma * inverse_std
        self.xp.multiply(scale, dz - sum_dz / rows - shat * (sum_dz_shat / rows), out=ds)

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
        inverse_std = 1 / self.xp.sqrt(running_variance + epsilon)
        self._normalise_into(s, running_mean, inverse_std, gamma, beta, activation, out)

    def softmax_cross_entropy(
        self, logits: Array, labels: Array, weights: Array | None, dlogits: Array, loss: Array
    ) -> None:
        if weights is not None:
            raise NotImplementedError("the benchmarks have no weights")
        xp, rows = self.xp, logits.shape[0]
        picked = xp.arange(rows), labels
        exponentials = xp.exp(logits - logits.max(axis=1, keepdims=True))
        xp.divide(exponentials, exponentials.sum(axis=1, keepdims=True), out=dlogits)
        loss[0] = -xp.log(dlogits[picked]).mean()
        loss[1] = rows
        dlogits[picked] -= 1
        dlogits /= rows

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
        if velocity is None or clip is not None or l2 or nesterov:
            raise NotImplementedError("the benchmarks have momentum, and neither clipping nor L2")
        velocity *= momentum
        velocity += gradients
        parameters -= scalars * velocity

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
        if clip is not None or l2 or weight_decay:
            raise NotImplementedError("the benchmarks have neither clipping, L2 nor weight decay")
        rate, correction_1, correction_2 = scalars[:1], scalars[1:2], scalars[2:]
        first_moment *= beta_1
        first_moment += (1 - beta_1) * gradients
        second_moment *= beta_2
        second_moment += (1 - beta_2) * gradients * gradients
        root = self.xp.sqrt(second_moment * correction_2)
        parameters -= rate * (first_moment * correction_1) / (root + epsilon)

    def gather_rows(self, source: Array, index: Array, out: Array) -> None:
        self.xp.take(source, index, axis=0, out=out)

    def _normalise_into(
        self,
        s: Array,
        mean: Array,
        inverse_std: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        out: Array,
    ) -> None:
        z = (s - mean) * inverse_std
        self._activate_into(z if gamma is None or beta is None else gamma * z + beta, activation, out)

    def _activate_into(self, z: Array, activation: Activation, out: Array) -> None:
        xp, number = self.xp, activation.parameter
        if activation.name == "relu":
            xp.maximum(z, 0, out=out)
        elif activation.name == "tanh":
            xp.tanh(z, out=out)
        elif activation.name == "sigmoid":
            xp.divide(1, 1 + xp.exp(-z), out=out)
        elif activation.name == "leaky_relu":
            out[...] = xp.where(z > 0, z, number * z)
        elif activation.name == "elu":
            out[...] = xp.where(z > 0, z, number * xp.expm1(xp.minimum(z, 0)))
        elif z is not out:
            out[...] = z

    def _gradient_into(self, dy: Array, y: Array, activation: Activation, ds: Array) -> None:
        xp, number = self.xp, activation.parameter
        if activation.name == "relu":
            xp.multiply(dy, y > 0, out=ds)
        elif activation.name == "tanh":
            xp.multiply(dy, 1 - y * y, out=ds)
        elif activation.name == "sigmoid":
            xp.multiply(dy, y * (1 - y), out=ds)
        elif activation.name == "leaky_relu":
            ds[...] = xp.where(y > 0, dy, number * dy)
        elif activation.name == "elu":
            ds[...] = xp.where(y > 0, dy, dy * (y + number))
        elif ds is not dy:
            ds[...] = dy
