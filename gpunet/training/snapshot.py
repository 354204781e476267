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

    def restore(self) -> None:
        """Put the network back."""
        backend = self.network.backend
        backend.copy(self.parameters, self.network.flat_parameters)
        backend.copy(self.state, self.network.flat_state)
        self.network.set_step(self.steps)


class GoodWeights:
    """The newest snapshot that is known to give a finite loss, and a candidate for the next.

    Parameters
    ----------
    network : Network
    """

    def __init__(self, network: Network) -> None:
        self._good = Snapshot(network)
        self._candidate = Snapshot(network)

    def take_candidate(self) -> None:
        """Copy the weights; the loss that they give is not known yet."""
        self._candidate.take()

    def confirm(self) -> None:
        """The candidate's loss turned out finite."""
        self._good, self._candidate = self._candidate, self._good

    def restore(self) -> None:
        """Put the network back to the newest weights that gave a finite loss."""
        self._good.restore()
