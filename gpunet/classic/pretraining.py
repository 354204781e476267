"""Layer-wise pre-training with restricted Boltzmann machines, and what it starts: an auto-encoder, a classifier (L13).

References
----------
Hinton and Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks"; Dahl, Yu, Deng, Acero 2012,
"Context-dependent pre-trained deep neural networks for large-vocabulary speech recognition".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.classic.estimator import check_schedule
from gpunet.classic.restricted_boltzmann import RestrictedBoltzmannMachine
from gpunet.classic.scikit_learn import not_fitted_error
from gpunet.errors import InvalidTypeError, InvalidValueError, ShapeError, TrainingDivergedError, shown
from gpunet.network import Network
from gpunet.random import Purpose, host_generator
from gpunet.schedules import Schedule
from gpunet.validation import check_each_size, check_flag, check_integer, is_sequence

Array = npt.NDArray[Any]


def pretrain_stack(
    X: npt.ArrayLike,
    hidden_layer_sizes: Sequence[int],
    *,
    linear_code: bool = False,
    epochs: int = 10,
    learning_rate: float | Schedule = 0.1,
    code_learning_rate: float | Schedule = 0.005,
    batch_size: int = 50,
    momentum: float = 0.5,
    l2: float = 1e-4,
    seed: int = 0,
    dtype: npt.DTypeLike = "float32",
    device: str | Backend = "auto",
) -> list[RestrictedBoltzmannMachine]:
    """Fit a stack of machines, each to the hidden probabilities that the one below gives for X.

    Machines learn by CD-1 with probabilities for the reconstruction, as Hinton and Salakhutdinov's do.

    Parameters
    ----------
    X : array_like, (n, d)
        Numbers from 0 to 1.
    hidden_layer_sizes : sequence of int
        m_1, ..., m_k: at least one.
    linear_code : bool
        Whether the last machine's hidden units are Gaussian.
    epochs : int
        Passes over X for each machine.
    learning_rate, code_learning_rate : float or Schedule
        The second one is for Gaussian units.
    batch_size, momentum, l2, dtype, device
        See :class:`RestrictedBoltzmannMachine`.
    seed : int
        Each machine has a seed of its own that follows from this one.

    Returns
    -------
    list of RestrictedBoltzmannMachine
        k of them, the lowest first.

    Raises
    ------
    ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError, TrainingDivergedError
        As :meth:`RestrictedBoltzmannMachine.fit`.
    """
    sizes = check_hidden_layer_sizes("hidden_layer_sizes", hidden_layer_sizes)
    linear_code = check_flag("linear_code", linear_code)
    seed = check_integer("seed", seed, 0, 2**64 - 1)
    check_schedule("code_learning_rate", code_learning_rate)  # before the machines below are trained
    machines: list[RestrictedBoltzmannMachine] = []
    for number, size in enumerate(sizes, start=1):
        is_code = linear_code and number == len(sizes)
        machine = RestrictedBoltzmannMachine(
            n_components=size,
            learning_rate=code_learning_rate if is_code else learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            sample_visible=False,
            momentum=momentum,
            l2=l2,
            hidden_units="gaussian" if is_code else "bernoulli",
            seed=int(host_generator(seed, Purpose.SEEDS, number).integers(2**63)),
            scale_inputs=False,
            dtype=dtype,
            device=device,
        )
        try:
            machines.append(machine.fit(X))
        except TrainingDivergedError as error:
            message = f"pre-training of layer {number} of {len(sizes)}: {error}"
            raise TrainingDivergedError(message, error.epoch, error.step, error.layer) from error
        if number < len(sizes):
            X = np.asarray(machine.transform(X))
    return machines


def encoder_network(machines: Sequence[RestrictedBoltzmannMachine], outputs: int, **arguments: Any) -> Network:
    """Return a network whose hidden layers are the machines' W and b, under a new last layer, for a classifier.

    Parameters
    ----------
    machines : sequence of RestrictedBoltzmannMachine
        Fitted, the lowest first. The network's inputs are its visible units, from 0 to 1, whatever its ``scaling_``.
    outputs : int
        Units of the last layer, which has the initial weights that ``arguments`` ask for.
    **arguments
        Of :class:`gpunet.Network`: ``loss``, ``seed``, ``device``, ...

    Raises
    ------
    InvalidValueError, InvalidTypeError, ShapeError, NotFittedError
        No machines, machines that are not fitted, or that do not fit one another.
    """
    sizes, activations = _layers(machines)
    network = Network([*sizes, outputs], activation=activations, batch_norm=False, **arguments)
    network.set_parameters(_encoder_parameters(machines))
    return network


def unroll(machines: Sequence[RestrictedBoltzmannMachine], **arguments: Any) -> Network:
    """Return an auto-encoder of 2 k layers: the machines upwards, W and b, and back down, their W^T and a.

    Hidden units are sigmoids, or linear at the code where the last machine's are Gaussian. The loss is the outputs'
    sigmoid cross-entropy, so :meth:`gpunet.Network.predict_proba` gives the reconstruction.

    ``machines``, ``**arguments`` and what is raised are as in :func:`encoder_network`.
    """
    sizes, activations = _layers(machines)
    network = Network(
        [*sizes, *sizes[-2::-1]],
        activation=[*activations, *["sigmoid"] * (len(machines) - 1)],
        batch_norm=False,
        loss="sigmoid_cross_entropy",
        **arguments,
    )
    parameters = _encoder_parameters(machines)
    for number, machine in enumerate(reversed(machines), start=len(machines) + 1):
        parameters[f"W{number}"] = machine.components_.T
        parameters[f"b{number}"] = machine.intercept_visible_
    network.set_parameters(parameters)
    return network


def check_hidden_layer_sizes(argument: str, sizes: Any) -> tuple[int, ...]:
    """Return the sizes, or raise."""
    if isinstance(sizes, (str, bytes)) or not is_sequence(sizes):
        raise InvalidTypeError(f"{argument}: got {shown(sizes)}. Expected a sequence such as (256, 64).")
    if len(sizes) == 0:
        raise InvalidValueError(f"{argument}: got no layers. Expected at least one.")
    return check_each_size(argument, sizes)


def _layers(machines: Sequence[RestrictedBoltzmannMachine]) -> tuple[list[int], list[str]]:
    """Return d, m_1, ..., m_k and the k activations."""
    if not isinstance(machines, Sequence):
        raise InvalidTypeError(f"machines: got {type(machines).__name__}. Expected a list of machines.")
    if not machines:
        raise InvalidValueError("machines: got none. Expected at least one.")
    sizes: list[int] = []
    activations = []
    for number, machine in enumerate(machines):
        if not isinstance(machine, RestrictedBoltzmannMachine):
            raise InvalidTypeError(
                f"machines[{number}]: got {type(machine).__name__}. Expected a RestrictedBoltzmannMachine."
            )
        if not machine.__sklearn_is_fitted__():
            raise not_fitted_error()(f"machines[{number}]: is not fitted yet. Expected fit(...) first.")
        hidden, visible = machine.components_.shape
        if sizes and sizes[-1] != visible:
            raise ShapeError(
                f"machines[{number}]: got {visible} visible units above {sizes[-1]} hidden units. Expected as many."
            )
        sizes.extend([hidden] if sizes else [visible, hidden])
        activations.append("identity" if machine.hidden_units == "gaussian" else "sigmoid")
    return sizes, activations


def _encoder_parameters(machines: Sequence[RestrictedBoltzmannMachine]) -> dict[str, Array]:
    parameters = {}
    for number, machine in enumerate(machines, start=1):
        parameters[f"W{number}"] = machine.components_
        parameters[f"b{number}"] = machine.intercept_hidden_
    return parameters
