"""What estimators with a pre-trained network share: machines first, then back-propagation (lecture row L13)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.classic.estimator import Estimator, check_float_type, check_schedule, check_seed, parameter
from gpunet.classic.inputs import check_probabilities
from gpunet.classic.pretraining import check_hidden_layer_sizes, pretrain_stack
from gpunet.classic.restricted_boltzmann import RestrictedBoltzmannMachine
from gpunet.initializers import Initializer
from gpunet.network import Network
from gpunet.optimizers import SGD
from gpunet.schedules import Schedule
from gpunet.training import History, fit
from gpunet.validation import check_integer, check_number, check_rate

Array = npt.NDArray[Any]


@dataclass(kw_only=True, eq=False, repr=False)
class PretrainedNetwork(Estimator, ABC):
    """An estimator whose network begins as a stack of machines. What its parameters are, the subclasses say.

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
    dtype: npt.DTypeLike = parameter("float32", check_float_type)
    device: str | Backend = "auto"

    def _new_data(self, argument: str, X: npt.ArrayLike, columns: int | None = None) -> Array:
        """Return data to learn from as a host array (n, columns) of numbers from 0 to 1, or raise."""
        return check_probabilities(argument, X, columns, self.dtype, self.device)

    def _check_inputs(self, X: npt.ArrayLike) -> Array:
        """Return X as a host array (n, d) of numbers from 0 to 1, or raise."""
        self._check_columns(X)
        return check_probabilities("X", X, self.n_features_in_, self.network_.dtype, self.network_.backend)

    def _learn(
        self, network: Network, unlabelled: Array, features: Array, targets: Array, **arguments: Any
    ) -> tuple[Network, list[RestrictedBoltzmannMachine], History]:
        """Pre-train and train, by checked parameters.

        Parameters
        ----------
        network : Network
            With random initial weights: what is trained without pre-training.
        unlabelled : ndarray, (n', d)
            For the machines.
        features, targets : ndarray
            For the network.
        **arguments
            Of :func:`gpunet.classic.pretrain_stack`, beside those that every such estimator has.
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
