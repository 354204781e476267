"""Copies of a network's weights on its device: the best so far, and the last known to be good."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from gpunet.network import Network

Array = npt.NDArray[Any]

# A snapshot every so many steps: the weights lost to a diverging run are at most this old, and copying them costs a
# few per cent of one step in this many.
GOOD_WEIGHTS_EVERY = 16


class Snapshot:
    """Parameters, running averages and step count of a network at one moment."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.parameters = network.backend.zeros(network.flat_parameters.shape, network.dtype)
        self.state = network.backend.zeros(network.flat_state.shape, network.dtype)
        self.take()

    def take(self) -> None:
        """Copy the network as it is."""
        backend = self.network.backend
        backend.copy(self.network.flat_parameters, self.parameters)
        backend.copy(self.network.flat_state, self.state)
        self.steps = self.network.steps

    def set(self, parameters: Array, state: Array, steps: int) -> None:
        """Hold these flat vectors, given on the host, instead of what the network has."""
        self.network.backend.copy(parameters, self.parameters)
        self.network.backend.copy(state, self.state)
        self.steps = steps

    def put(self) -> None:
        """Let the network have these weights, whatever its step count is."""
        backend = self.network.backend
        backend.copy(self.parameters, self.network.flat_parameters)
        backend.copy(self.state, self.network.flat_state)

    def restore(self) -> None:
        """Put the network back."""
        self.put()
        self.network.set_step(self.steps)


class GoodWeights:
    """The weights at the start of the newest two windows of steps: the newest of those that gave a finite loss is good.

    Parameters
    ----------
    network : Network
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._kept = []
        for vector in filter(len, (network.flat_parameters, network.flat_state)):
            kept = network.backend.zeros((2, vector.size), network.dtype)
            for row in kept[0], kept[1]:
                network.backend.copy(vector, row)
            self._kept.append((vector, kept))
        # Steps done at the start of the last window of the epoch before, and of each of this one.
        self._steps = [network.steps]
        self._windows = 0  # before this epoch

    def begin_epoch(self) -> int:
        """Return how many windows there have been so far."""
        self._windows += len(self._steps) - 1
        self._steps = self._steps[-1:]
        return self._windows

    def begin_window(self, steps: int) -> None:
        """Take note of a window that begins after ``steps`` steps."""
        self._steps.append(steps)

    def keep(self, losses: Array, place: Array) -> None:
        """Copy the weights at the start of a window; which one it is, and whether they count, the device knows.

        Parameters
        ----------
        losses, place
            See :func:`gpunet.backends.reference.training.keep_weights`.
        """
        for vector, kept in self._kept:
            self.network.backend.keep_weights(vector, kept, losses, place, every=GOOD_WEIGHTS_EVERY)

    def restore(self, finite: int) -> None:
        """Put the network back to the newest weights known to give a finite loss.

        Parameters
        ----------
        finite : int
            How many losses of this epoch are finite, up to the first that is not.
        """
        window = (finite - 1) // GOOD_WEIGHTS_EVERY
        for vector, kept in self._kept:
            self.network.backend.copy(kept[(self._windows + window) % 2], vector)
        self.network.set_step(self._steps[window + 1])
