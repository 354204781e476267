"""A restricted Boltzmann machine on the device: parameters, conditional distributions, free energy (row L13)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Identity, Sigmoid
from gpunet.backends import Backend
from gpunet.classic.hidden_units import HiddenUnits
from gpunet.layers.base import ParameterSpec
from gpunet.parameters import Layout, flat_values
from gpunet.random import Purpose, host_generator
from gpunet.step_count import StepCount
from gpunet.turns import in_turn

Array = npt.NDArray[Any]

# Every draw of a step has a number of its own, which takes the place of the layer's in the counter of its random words:
# even numbers for hidden units, odd ones for visible units. Training starts at 0, sampling after it here.
SAMPLING_DRAWS = 1 << 24

_ROWS = 4096  # at a time on the device
_HOST_ROWS = 256  # at a time where the host goes through every visible unit: what it holds stays in the cache


class DeviceMachine:
    """The parameters of a machine on the device, and what follows from them.

    Nothing is checked here. The first methods take buffers on the device, the others arrays on the host; those others
    let threads take turns.

    Parameters
    ----------
    backend : Backend
    visible, hidden : int
        d and m.
    units : HiddenUnits
    seed : int
    dtype : dtype

    Attributes
    ----------
    parameters : dict of str to array
        ``W`` (m, d), ``hidden_bias`` b (m,) and ``visible_bias`` a (d,): views of one flat vector.
    step_count : StepCount
        Which step the random bits belong to.
    """

    def __init__(
        self, backend: Backend, visible: int, hidden: int, units: HiddenUnits, seed: int, dtype: np.dtype[Any]
    ) -> None:
        self.backend = backend
        self.lock = backend.lock
        self.visible, self.hidden, self.units = visible, hidden, units
        self.seed = seed
        self.dtype = dtype
        self.layout = Layout(
            [
                ParameterSpec("W", (hidden, visible), is_weight=True),
                ParameterSpec("hidden_bias", (hidden,)),
                ParameterSpec("visible_bias", (visible,)),
            ]
        )
        self.flat_parameters = self.layout.new_vector(backend, dtype)
        self.parameters = self.layout.views(self.flat_parameters)
        self.step_count = StepCount(backend)
        self._noise: tuple[Array, Array] | None = None  # float64, and of dtype

    @in_turn
    def set_parameters(self, W: Array, hidden_bias: Array, visible_bias: Array) -> None:
        """Copy the parameters from the host."""
        values = {"W": W, "hidden_bias": hidden_bias, "visible_bias": visible_bias}
        self.backend.copy(flat_values(self.layout, values, self.dtype), self.flat_parameters)

    def get_parameters(self) -> tuple[Array, Array, Array]:
        """Return host copies of W, b and a."""
        W, hidden_bias, visible_bias = (self.backend.to_numpy(view).copy() for view in self.parameters.values())
        return W, hidden_bias, visible_bias

    def set_step(self, step: int) -> None:
        """Say which step the next random bits belong to."""
        self.step_count.set(step)

    # --- on the device ----------------------------------------------------------------------------------------------

    def hidden_inputs(self, v: Array, out: Array, accumulate: bool = False) -> None:
        """out = W v + b, for each row of v (n, d); out is (n, m), and what it holds is added with ``accumulate``."""
        self.backend.gemm(v, self.parameters["W"], out, transpose_b=True, accumulate=accumulate)
        self.backend.bias_activation_forward(out, self.parameters["hidden_bias"], Identity(), out)

    def hidden_means(self, v: Array, out: Array) -> None:
        """out = E(h | v), for each row of v (n, d); out is (n, m)."""
        self.backend.gemm(v, self.parameters["W"], out, transpose_b=True)
        self.backend.bias_activation_forward(out, self.parameters["hidden_bias"], self.units.activation, out)

    def visible_means(self, h: Array, out: Array) -> None:
        """out = p(v = 1 | h), for each row of h (n, m); out is (n, d)."""
        self.backend.gemm(h, self.parameters["W"], out)
        self.backend.bias_activation_forward(out, self.parameters["visible_bias"], Sigmoid(), out)

    def sample_hidden(self, v: Array, means: Array, noise: Array | None, out: Array, draw: int) -> None:
        """Draw h given v, whose means are known; ``noise`` is standard normal where the units are not binary."""
        if noise is None:
            self.backend.sample_bernoulli(means, out, self.seed, draw, self.step_count.on_device)
            return
        self.backend.copy(noise, out)
        self.hidden_inputs(v, out, accumulate=True)  # the mean of such units is what enters them

    def sample_visible(self, means: Array, draw: int) -> None:
        """Draw v, in place of its means."""
        self.backend.sample_bernoulli(means, means, self.seed, draw, self.step_count.on_device)

    def draw_noise(self, out: Array, first_draw: int, step: int) -> None:
        """out = the host's normal noise for hidden samples (draws, rows, m) of a step, where units are not binary.

        A step has less than 2^26 draws, and there are less than 2^38 steps.
        """
        if self._noise is None or self._noise[0].shape != out.shape:
            drawn = np.empty(out.shape)
            self._noise = drawn, drawn if self.dtype == drawn.dtype else np.empty(out.shape, self.dtype)
        drawn, converted = self._noise
        host_generator(self.seed, Purpose.NOISE, (first_draw << 38) + step).standard_normal(out=drawn)
        if converted is not drawn:
            np.copyto(converted, drawn, casting="same_kind")
        self.backend.copy(converted, out)

    # --- from the host and back -------------------------------------------------------------------------------------

    @in_turn
    def hidden_means_of(self, data: Array) -> Array:
        """Return E(h | v) of each row of a host array (n, d)."""
        return np.concatenate([means for _, means in self._blocks(data, self.hidden, self.hidden_means)])

    @in_turn
    def visible_means_of(self, hidden: Array) -> Array:
        """Return p(v = 1 | h) of each row of a host array (n, m)."""
        return np.concatenate([means for _, means in self._blocks(hidden, self.visible, self.visible_means)])

    @in_turn
    def gibbs(self, data: Array, steps: int, call: int) -> Array:
        """Return v after ``steps`` rounds from each row of a host array; ``call`` numbers the random bits."""
        v = self.backend.empty(data.shape, self.dtype)
        h, h_sample = (self.backend.empty((len(data), self.hidden), self.dtype) for _ in range(2))
        noise = None if self.units.is_binary else self.backend.empty((1, *h.shape), self.dtype)
        self.backend.copy(data, v)
        self.set_step(call)
        for number in range(steps):
            draw = SAMPLING_DRAWS + 2 * number
            if noise is not None:
                self.draw_noise(noise, draw, call)
            self.hidden_means(v, h)
            self.sample_hidden(v, h, None if noise is None else noise[0], h_sample, draw)
            self.visible_means(h_sample, v)
            self.sample_visible(v, draw + 1)
        return self.backend.to_numpy(v).copy()

    @in_turn
    def free_energy(self, data: Array) -> Array:
        """Return F(v) = -a.v - log_partition(W v + b) of each row of a host array, float64 (n,)."""
        _, hidden_bias, visible_bias = self._parameters_64()
        out = -(data.astype(np.float64) @ visible_bias)
        for rows, s in self._blocks(data, self.hidden, self.hidden_inputs):
            out[rows] -= self.units.log_partition(s.astype(np.float64), hidden_bias)
        return out

    @in_turn
    def pseudo_log_likelihood(self, data: Array) -> Array:
        """Return sum_i log p(v_i | the other v) of each row of a host array, float64 (n,)."""
        W, hidden_bias, visible_bias = self._parameters_64()
        out = np.zeros(len(data))
        for rows, s in self._blocks(data, self.hidden, self.hidden_inputs, _HOST_ROWS):
            s = s.astype(np.float64)
            known = self.units.log_partition(s, hidden_bias)
            for i, column in enumerate(W.T):
                v = data[rows, i].astype(np.float64)
                above, below = v > 0, v < 1
                with_0, with_1 = known.copy(), known.copy()  # right where v_i is that already: half the work for bits
                with_0[above] = self.units.log_partition(s[above] - np.outer(v[above], column), hidden_bias)
                with_1[below] = self.units.log_partition(s[below] + np.outer(1 - v[below], column), hidden_bias)
                log_odds = visible_bias[i] + with_1 - with_0
                out[rows] -= v * np.logaddexp(0, -log_odds) + (1 - v) * np.logaddexp(0, log_odds)
        return out

    def _parameters_64(self) -> tuple[Array, Array, Array]:
        W, hidden_bias, visible_bias = self.get_parameters()
        return W.astype(np.float64), hidden_bias.astype(np.float64), visible_bias.astype(np.float64)

    def _blocks(
        self, data: Array, columns: int, compute: Callable[[Array, Array], None], size: int = _ROWS
    ) -> Iterator[tuple[slice, Array]]:
        """Yield slices of the rows of a host array, and host copies (.., columns) of what is computed from them."""
        for start in range(0, len(data), size):
            rows = slice(start, min(start + size, len(data)))
            out = self.backend.empty((len(data[rows]), columns), self.dtype)
            compute(self.backend.asarray(data[rows]), out)
            yield rows, self.backend.to_numpy(out).copy()
