"""What estimators with a pre-trained network share: machines first, then back-propagation (lecture row L13)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from gpunet.classic.estimator import check_schedule, check_seed, parameter
from gpunet.classic.pretraining import check_hidden_layer_sizes, pretrain_stack
from gpunet.classic.restricted_boltzmann import RestrictedBoltzmannMachine
from gpunet.classic.unit_inputs import UnitInputEstimator
from gpunet.initializers import Initializer
from gpunet.network import Network
from gpunet.optimizers import SGD
from gpunet.schedules import Schedule
from gpunet.training import History, fit
from gpunet.validation import check_integer, check_number, check_rate

Array = npt.NDArray[Any]


@dataclass(kw_only=True, eq=False, repr=False)
class PretrainedNetwork(UnitInputEstimator, ABC):
    """An estimator whose network begins as a stack of machines.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int
    pretraining_epochs : int
        Passes over the data for each machine; 0 leaves every layer with its random initial weights.
    pretraining_learning_rate : float or Schedule
        Of the machines.
    epochs : int
        Passes over the data of back-propagation, by stochastic gradient descent.
    learning_rate : float or Schedule
    batch_size : int
        Of pre-training too.
    momentum : float
        0 to 1, 1 excluded.
    l2 : float
        The lecture's lambda: the gradient gets 2 l2 W_i.
    initializer : str, callable or None
        Of the layers that are not pre-trained; None takes Xavier's.
    seed : int
    scale_inputs, dtype, device
        See :class:`gpunet.classic.unit_inputs.UnitInputEstimator`.

    Attributes
    ----------
    machines_ : list of RestrictedBoltzmannMachine
        As they were before back-propagation; empty without pre-training.
    network_ : gpunet.Network
    history_ : gpunet.History
        Of back-propagation.
    """

    hidden_layer_sizes: Sequence[int] = parameter((256, 256), check_hidden_layer_sizes)
    pretraining_epochs: int = parameter(10, check_integer, minimum=0)
    pretraining_learning_rate: float | Schedule = parameter(0.1, check_schedule)
    epochs: int = parameter(20, check_integer, minimum=1)
    learning_rate: float | Schedule = parameter(0.1, check_schedule)
    batch_size: int = parameter(50, check_integer, minimum=1)
    momentum: float = parameter(0.9, check_rate)
    l2: float = parameter(0.0, check_number)
    initializer: str | Initializer | None = None
    seed: int = parameter(0, check_seed)

    def _check_inputs(self, X: npt.ArrayLike) -> Array:
        """Return X as a host array (n, d) of numbers from 0 to 1, or raise."""
        return self._fitted_units(X, self.network_.dtype, self.network_.backend)

    def _learn(
        self, network: Network, unlabelled: Array, features: Array, targets: Array, **arguments: Any
    ) -> tuple[Network, list[RestrictedBoltzmannMachine], History]:
        """Pre-train machines on ``unlabelled``, and train, by checked parameters.

        ``network`` has random initial weights: what is trained without pre-training. The other arguments are those of
        :func:`gpunet.classic.pretrain_stack` that not every such estimator has.
        """
        machines: list[RestrictedBoltzmannMachine] = []
        optimizer = SGD(self.learning_rate, momentum=self.momentum)
        if self.pretraining_epochs:
            machines = pretrain_stack(
                unlabelled,
                self.hidden_layer_sizes,
                epochs=self.pretraining_epochs,
                learning_rate=self.pretraining_learning_rate,
                batch_size=self.batch_size,
                seed=self.seed,
                dtype=self.dtype,
                device=self.device,
                **arguments,
            )
            network = self._stacked_network(machines, network)
        history = fit(
            network, features, targets, epochs=self.epochs, batch_size=self.batch_size, optimizer=optimizer, l2=self.l2
        )
        return network, machines, history

    def _adopt(self, network: Network, machines: list[RestrictedBoltzmannMachine], history: History) -> None:
        self.network_, self.machines_, self.history_ = network, machines, history

    @abstractmethod
    def _stacked_network(self, machines: list[RestrictedBoltzmannMachine], random: Network) -> Network:
        """Return the network that begins as the machines, for the one that begins at random."""
