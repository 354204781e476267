"""The generalised delta rule (lecture row L12): back-propagation as Rumelhart, Hinton and Williams wrote it in 1986."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from gpunet.classic.estimator import Estimator, after_fit, check_float_type, check_name, check_seed, learns, parameter
from gpunet.classic.inputs import check_given, check_moderate, on_host, read_numbers
from gpunet.classic.unit_scaling import UnitScaling, learn_scaling
from gpunet.errors import ConvergenceWarning, InvalidTypeError, InvalidValueError, counted, shown, warn_user
from gpunet.network import Network
from gpunet.optimizers import SGD
from gpunet.training import Callback, EpochRecord, Run, fit
from gpunet.validation import (
    LARGEST_SIZE,
    check_flag,
    check_integer,
    check_number,
    check_rate,
    check_targets,
    is_sequence,
    read_array,
)

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

# What float32 holds; saturated units learn nothing long before.
_LARGEST_RANGE = 1e38


def _check_hidden_units(argument: str, value: Any) -> list[int]:
    """Return the units of each hidden layer; one number stands for one layer."""
    if isinstance(value, str):
        raise InvalidTypeError(f"{argument}: got {shown(value)}. Expected an integer or a sequence of integers.")
    counts = value if is_sequence(value) else [value]
    return [check_integer(argument, count, 1, LARGEST_SIZE) for count in counts]


@dataclass(kw_only=True, eq=False, repr=False)
class DeltaRule(Estimator):
    """A network of sigmoid units trained by the generalised delta rule, on the CPU or a GPU.

    With o_pj the output of unit j for pattern p, and t_pj its target where it is an output unit, the rule descends
    E = sum_p E_p, E_p = 1/2 sum_j (t_pj - o_pj)^2, by

        Delta w_ji(n + 1) = eta delta_pj o_pi + alpha Delta w_ji(n),
        delta_pj = (t_pj - o_pj) o_pj (1 - o_pj)             for output units,
        delta_pj = o_pj (1 - o_pj) sum_k delta_pk w_kj       for hidden units,

    and the same for biases, which are weights of an input that is always 1. Weights change after each pattern, or once
    for all patterns with the sum of their terms. This is :class:`gpunet.Network` with sigmoid units and the loss
    ``squared_error``, trained by :func:`gpunet.fit` with batches of one row, or of all, and momentum.

    The rule can end in a local minimum; XOR with two hidden units does so for some seeds.

    Parameters
    ----------
    hidden_units : int or sequence of int
        Units of each hidden layer; an empty sequence connects inputs to outputs.
    learning_rate : float
        eta, above 0.
    momentum : float
        alpha, 0 to 1, 1 excluded.
    update : str
        ``"pattern"`` or ``"epoch"``.
    epochs : int
        Presentations of all patterns at most.
    tolerance : float
        Training ends with the first epoch after which every output unit is this close to its target. 0 runs all epochs.
    scale_targets : bool
        Whether targets with numbers below 0 or above 1 are mapped to [0, 1], each column from its smallest and its
        largest number in ``fit``; predictions are in their units all the same. False refuses such targets. Where all
        numbers are from 0 to 1, they are taken as they are.
    initial_range : float
        Initial weights are uniform in plus or minus this, above 0 and at most 1e38; initial biases are 0.
    shuffle : bool
        Whether each epoch has an order of its own; False keeps the order of X.
    seed : int
        Draws the initial weights and the orders.
    dtype, device : str
        See :class:`gpunet.Network`; ``"float32"`` is the other dtype.

    Attributes
    ----------
    network_ : Network
    converged_ : bool
        Whether every output came within the tolerance of its target; False where the tolerance is 0.
    n_iter_ : int
        Epochs done.
    history_ : dict of str to list
        ``"error"``: E in each epoch, each pattern's E_p taken when its turn came.
    target_scaling_ : UnitScaling or None
        How targets are mapped to [0, 1]; None where they are taken as they are.
    n_outputs_ : int
    n_features_in_, feature_names_in_
        See :class:`gpunet.classic.estimator.Estimator`.

    References
    ----------
    Rumelhart, Hinton, Williams 1986, "Learning internal representations by error propagation", in "Parallel Distributed
    Processing", vol. 1, ch. 8: eqs. (13), (14) and (16); eta = 0.25 and alpha = 0.9 are that chapter's.

    Examples
    --------
    >>> X = [[0, 0], [0, 1], [1, 0], [1, 1]]
    >>> model = DeltaRule(hidden_units=2, seed=1, tolerance=0.2, device="cpu").fit(X, [0, 1, 1, 0])
    >>> model.predict(X).round().tolist()
    [0.0, 1.0, 1.0, 0.0]
    """

    _estimator_type: ClassVar[str | None] = "regressor"

    hidden_units: int | Sequence[int] = parameter(2, _check_hidden_units)
    learning_rate: float = parameter(0.25, check_number, above=True)
    momentum: float = parameter(0.9, check_rate)
    update: str = parameter("pattern", check_name, names=("pattern", "epoch"))
    epochs: int = parameter(2000, check_integer, minimum=1)
    tolerance: float = parameter(0.0, check_number)
    initial_range: float = parameter(1.0, check_number, above=True, maximum=_LARGEST_RANGE)
    scale_targets: bool = parameter(True, check_flag)
    shuffle: bool = parameter(False, check_flag)
    seed: int = parameter(0, check_seed)
    dtype: npt.DTypeLike = parameter("float64", check_float_type)
    device: str = "auto"

    @learns
    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Learn from scratch; warn (ConvergenceWarning) where outputs are not within the tolerance at the end.

        Parameters
        ----------
        X : array_like, (n, d)
        y : array_like, (n, c) or (n,)
            Targets from 0 to 1, or any numbers with ``scale_targets``. A sigmoid never gets to 0 or 1; the paper uses
            0.1 and 0.9 where it wants them reached.
        """
        given = self._checked_parameters()
        features, names = given._new_features(X)
        y = on_host("y", y, self.device)
        numbers = _read_targets(y, len(features), None)
        scaling = learn_scaling("y", numbers, scales=given.scale_targets)
        targets = numbers if scaling is None else scaling.scaled(numbers)
        by_pattern = given.update == "pattern"
        # The library's J is the mean of the E_p, the paper's E their sum.
        step = given.learning_rate if by_pattern else given.learning_rate * len(features)
        if not math.isfinite(step):
            raise InvalidValueError(
                f"learning_rate: {given.learning_rate!r} is too large for the sum over {len(features)} patterns."
            )
        network = given._new_network(features.shape[1], targets.shape[1])
        reached = _Reached(features, targets, given.tolerance)
        history = fit(
            network,
            features,
            targets,
            epochs=given.epochs,
            batch_size=1 if by_pattern else len(features),
            optimizer=SGD(step, momentum=given.momentum),
            shuffle=given.shuffle,
            callbacks=[reached] if given.tolerance > 0 else [],
        )
        self.network_ = network
        self._set_columns(features.shape[1], names)
        self.target_scaling_: UnitScaling | None = scaling
        self.n_outputs_ = targets.shape[1]
        self.converged_ = reached.stopped
        self.n_iter_ = len(history)
        self.history_: dict[str, list[float]] = {"error": [record.loss * len(features) for record in history]}
        self._is_vector = read_array("y", y).ndim == 1
        if given.tolerance > 0 and not self.converged_:
            warn_user(
                f"DeltaRule: after {counted(self.n_iter_, 'epoch')} E is {self.history_['error'][-1]:.3g} "
                f"and not every output is within {given.tolerance:g} of its target. Another seed, "
                "more hidden units or more epochs may help.",
                ConvergenceWarning,
            )
        return self

    @after_fit
    def predict(self, X: npt.ArrayLike) -> Array:
        """Return the outputs for X, float64 (n, c), or (n,) where ``fit`` was given such targets."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._is_vector else outputs

    def _outputs(self, X: npt.ArrayLike) -> Array:
        """Return the outputs for X in the units of the targets, float64 (n, c)."""
        units = _unit_outputs(self.network_, self._fitted_features(X))
        return units if self.target_scaling_ is None else self.target_scaling_.restored(units)

    @after_fit
    def hidden_outputs(self, X: npt.ArrayLike) -> Array:
        """Return the outputs of the last hidden layer, (n, units): the paper's internal representations."""
        network = self.network_
        if len(network.layer_sizes) == 2:
            raise InvalidValueError("hidden_outputs: this network has no hidden units.")
        features = network.check_inputs(self._fitted_features(X))
        with network.lock:
            network.forward(network.backend.asarray(features))
            # Each layer is a linear map and the activation behind it: the last two belong to the outputs.
            return network.backend.to_numpy(network.layers[-3].output).copy()

    @after_fit
    def score(self, X: npt.ArrayLike, y: npt.ArrayLike) -> float:
        """Return R^2, 1 - sum (t - o)^2 / sum (t - mean t)^2, averaged over the outputs.

        An output whose targets are all the same counts 1 where it equals them, else 0.
        """
        outputs = self._outputs(X)
        targets = _read_targets(on_host("y", y, self.device), len(outputs), self.n_outputs_)
        residual = ((targets - outputs) ** 2).sum(axis=0)
        total = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
        explained = np.where(residual == 0, 1.0, 0.0)
        np.divide(total - residual, total, out=explained, where=total > 0)
        return float(explained.mean())

    def _read(self, argument: str, values: npt.ArrayLike, columns: int | None = None) -> Array:
        return super()._read(argument, on_host(argument, values, self.device), columns)

    def _new_network(self, inputs: int, outputs: int) -> Network:
        return Network(
            [inputs, *_check_hidden_units("hidden_units", self.hidden_units), outputs],
            activation="sigmoid",
            output_activation="sigmoid",
            batch_norm=False,
            initializer=_Uniform(self.initial_range),
            loss="squared_error",
            seed=self.seed,
            dtype=self.dtype,
            device=self.device,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _read_targets(y: npt.ArrayLike, rows: int, columns: int | None) -> Array:
    """Return targets as finite float64 numbers (rows, columns), or raise."""
    check_given("y", y)
    numbers = read_numbers("y", y)
    if numbers.dtype.kind == "b":
        numbers = numbers.astype(np.float64)
    targets = check_targets("y", numbers, rows, columns, np.float64)
    check_moderate("y", targets)
    return targets


def _unit_outputs(network: Network, features: Array) -> Array:
    """Return the output units, from 0 to 1, float64 (n, c)."""
    return network.predict(features).reshape(len(features), -1).astype(np.float64)


@dataclass(frozen=True)
class _Uniform:
    """Initial weights uniform in plus or minus a limit, whatever the layer's size."""

    limit: float

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        return generator.uniform(-self.limit, self.limit, shape)

    def __str__(self) -> str:
        return f"uniform({self.limit!r})"


class _Reached(Callback):
    """Ends training once every output is close enough to its target."""

    def __init__(self, features: Array, targets: Array, tolerance: float) -> None:
        self.features = features
        self.targets = targets
        self.tolerance = tolerance
        self.stopped = False

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        distances = np.abs(_unit_outputs(run.network, self.features) - self.targets)
        self.stopped = run.stop = bool((distances <= self.tolerance).all())
