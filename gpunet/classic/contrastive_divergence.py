"""Contrastive divergence, plain and persistent, on the device (lecture row L13).

The log-likelihood of a batch v under p(v) = sum_h exp(-E(v, h)) / Z has the gradient, per example,

    d log p / dW = <h v^T>_data - <h v^T>_model,    and likewise for a (v alone) and b (h alone),

with h given v in both. The second expectation is out of reach; k steps of Gibbs sampling stand in for it, begun at the
batch (CD-k, Hinton 2002) or where the last update's chains ended (persistent, Tieleman 2008).

References
----------
Hinton 2002, "Training products of experts by minimizing contrastive divergence"; Tieleman 2008, "Training restricted
Boltzmann machines using approximations to the likelihood gradient"; Hinton 2012, "A practical guide to training
restricted Boltzmann machines".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Identity
from gpunet.classic.device_machine import DeviceMachine
from gpunet.layers.base import Workspace
from gpunet.optimizers import Optimizer

Array = npt.NDArray[Any]


class ContrastiveDivergence:
    """What updates a machine: momentum, persistent chains, and one recorded step per batch size.

    Parameters
    ----------
    machine : DeviceMachine
    optimizer : Optimizer
    batch_size : int
        The largest batch, and the number of persistent chains. A smaller batch moves the first of them.
    gibbs_steps, persistent, sample_visible, l2
        See :class:`gpunet.classic.RestrictedBoltzmannMachine`.
    """

    def __init__(
        self,
        machine: DeviceMachine,
        optimizer: Optimizer,
        batch_size: int,
        *,
        gibbs_steps: int,
        persistent: bool,
        sample_visible: bool,
        l2: float,
    ) -> None:
        self.machine, self.optimizer, self.batch_size = machine, optimizer, batch_size
        self.gibbs_steps, self.sample_visible, self.l2 = gibbs_steps, sample_visible, l2
        backend = machine.backend
        self.workspace = Workspace(backend)
        self.flat_gradients = machine.layout.new_vector(backend, machine.dtype)
        self.gradients = machine.layout.views(self.flat_gradients)
        self.chains = backend.zeros((batch_size, machine.hidden), machine.dtype) if persistent else None
        optimizer.attach(backend, machine.flat_parameters)
        self._steps: dict[int, _Step] = {}

    def update(self, data: Array, index: Array, step: int, errors: Array) -> None:
        """Learn from the rows ``index``, int32 (n,) on the host, of ``data``, (N, d) on the device.

        ``step`` is the number of updates done before. ``errors``, (2, 2) on the device, is written: the mean over the
        batch of half the squared distance between v and the chains' last visible units, and n; the same for the hidden
        units. Where the second is not finite, nothing was learnt.
        """
        rows = len(index)
        if rows not in self._steps:
            self._steps[rows] = _Step(self, rows)
        self._steps[rows](data, index, step, errors)

    def learn_epoch(self, data: Array, order: Array, step: int) -> float:
        """Learn once from every row of ``data``, on the device, batch by batch, after ``step`` updates.

        Return the mean squared distance, per element, between v and the chains' last visible units; NaN where that, or
        a weight, is not finite.
        """
        backend, machine = self.machine.backend, self.machine
        errors = backend.zeros((self.updates(len(order)), 2, 2), machine.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # looked for below, once per epoch
            for number in range(len(errors)):
                index = order[number * self.batch_size : (number + 1) * self.batch_size]
                self.update(data, index, step + number, errors[number])
        host = backend.to_numpy(errors).astype(np.float64)
        if not all(np.isfinite(array).all() for array in (host, *machine.get_parameters())):
            return math.nan
        return 2 * float(host[:, 0, 0] @ host[:, 0, 1]) / (len(order) * machine.visible)

    def updates(self, rows: int) -> int:
        """Return how many updates an epoch of so many rows takes."""
        return -(-rows // self.batch_size)


class _Step:
    """The update for batches of one size, on fixed buffers."""

    def __init__(self, divergence: ContrastiveDivergence, rows: int) -> None:
        self.divergence = divergence
        machine = divergence.machine
        backend, workspace, dtype = machine.backend, divergence.workspace, machine.dtype
        self.index = backend.zeros(rows, np.int32)
        self.v, self.v_model, self.dv = (
            workspace.rows(name, rows, machine.visible, dtype) for name in ("v", "v_model", "dv")
        )
        self.h, self.h_model, self.h_sample, self.dh = (
            workspace.rows(name, rows, machine.hidden, dtype) for name in ("h", "h_model", "h_sample", "dh")
        )
        if divergence.chains is not None:
            self.h_sample = divergence.chains[:rows]
        self.noise: Array | None = None
        if not machine.units.is_binary:
            self.noise = backend.zeros((divergence.gibbs_steps, rows, machine.hidden), dtype)
        self.errors = backend.zeros((2, 2), dtype)
        self.replay: Callable[[], None] | None = None

    def __call__(self, data: Array, index: Array, step: int, errors: Array) -> None:
        divergence, machine = self.divergence, self.divergence.machine
        backend = machine.backend
        machine.set_step(step)
        if self.noise is not None:
            machine.draw_noise(self.noise, 0, step)
        divergence.optimizer.advance()
        backend.copy(index, self.index)
        backend.gather_batch(self.index, data, self.v)
        if self.replay is None:
            self.run()
            self.replay = backend.capture(self.run)
        else:
            self.replay()
        backend.copy(self.errors, errors)

    def run(self) -> None:
        divergence = self.divergence
        machine, backend = divergence.machine, divergence.machine.backend
        machine.hidden_means(self.v, self.h)
        if divergence.chains is None:
            self._sample_hidden(self.v, self.h, 0)
        for k in range(divergence.gibbs_steps):
            machine.visible_means(self.h_sample, self.v_model)
            if divergence.sample_visible:
                machine.sample_visible(self.v_model, 2 * k + 1)
            machine.hidden_means(self.v_model, self.h_model)
            if divergence.chains is not None or k + 1 < divergence.gibbs_steps:
                self._sample_hidden(self.v_model, self.h_model, k + 1)

        # Of the negated log-likelihood. The loss is what gives (model - data) / n; its value tells whether all is
        # finite. h v^T is not divided and subtracted: h' v'^T - h v^T = (h' - h) v'^T + h (v' - v)^T.
        backend.squared_error(self.v_model, self.v, None, self.dv, self.errors[0])
        backend.squared_error(self.h_model, self.h, None, self.dh, self.errors[1])
        gradients = divergence.gradients
        backend.gemm(self.dh, self.v_model, gradients["W"], transpose_a=True)
        backend.gemm(self.h, self.dv, gradients["W"], transpose_a=True, accumulate=True)
        backend.bias_activation_backward(self.dh, self.h, Identity(), self.dh, gradients["hidden_bias"])
        backend.bias_activation_backward(self.dv, self.v, Identity(), self.dv, gradients["visible_bias"])
        weights = machine.layout.weight_count
        divergence.optimizer.update(
            machine.flat_parameters, divergence.flat_gradients, weights, divergence.l2, None, self.errors[1]
        )

    def _sample_hidden(self, v: Array, means: Array, number: int) -> None:
        """Draw the chains' hidden units; ``number`` counts the draws of this update."""
        # Chains are drawn after each Gibbs step, and CD's before: in both, one draw of noise for each.
        noise = None
        if self.noise is not None:
            noise = self.noise[number - 1 if self.divergence.chains is not None else number]
        self.divergence.machine.sample_hidden(v, means, noise, self.h_sample, 2 * number)
