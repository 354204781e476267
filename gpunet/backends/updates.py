"""The optimisers' steps over the flat parameter vector (lecture row L5): the NumPy specification."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gpunet.backends.arrays import Array, ArrayOperations, chunks


class UpdateOperations(ArrayOperations):
    """One step changes every parameter."""

    def clip_factor(
        self, parameters: Array, gradients: Array, weight_count: int, l2: float, maximum_norm: float, out: Array
    ) -> None:
        """out = min(1, maximum_norm / ||g||) for the gradient g of J, the L2 term included.

        Parameters
        ----------
        parameters, gradients : ndarray, (p,)
        weight_count : int
            L2 applies to the first ``weight_count`` parameters.
        out : ndarray, (1,)
        """
        norm = 0.0
        for part, decay in self._parameter_chunks(parameters.size, weight_count, l2):
            gradient = self._cost_gradient(parameters, gradients, part, decay)
            largest = float(np.abs(gradient).max())
            if largest > 0:
                gradient = gradient / largest  # the squares of large float32 numbers would overflow
                norm = math.hypot(norm, largest * math.sqrt(float(np.dot(gradient, gradient))))
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
