"""What the classifier and the regressor share: parameters, standardisation, and the run of ``gpunet.fit``."""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from gpunet.activations import Activation
from gpunet.backends import Backend, select_backend
from gpunet.data.scaling import Scaling
from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError, shown, unknown_name
from gpunet.estimators.stopping import NotConvergedWarning, Plateau, Printer
from gpunet.initializers import Initializer
from gpunet.interchange.whole_model import WholeModel
from gpunet.network import Network
from gpunet.optimizers import SGD, Adam, AdamW, Optimizer
from gpunet.schedules import Schedule
from gpunet.training import Callback, EarlyStopping, History, fit
from gpunet.training.settings import check_callbacks
from gpunet.validation import LARGEST_SIZE, check_each_size, check_flag, check_integer, check_number, is_sequence

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

# scikit-learn's names, and gpunet's for the same functions.
_ACTIVATIONS = {"logistic": "sigmoid"}
_LARGEST_BATCH = 200
# What a network is made with; another value does not count before the next network.
_OF_THE_NETWORK = ("hidden_layer_sizes", "activation", "batch_norm", "dropout", "precision", "scale_inputs")


@dataclass(eq=False, repr=False)
class MultilayerPerceptron(BaseEstimator):  # type: ignore[misc]
    """Parameters and training of both estimators; see :class:`MLPClassifier` and :class:`MLPRegressor`."""

    _monitor: ClassVar[str]

    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: str | Activation | Sequence[str | Activation] = "relu"
    _: KW_ONLY
    solver: str = "adam"
    alpha: float = 1e-4
    batch_size: int | str = "auto"
    learning_rate_init: float = 1e-3
    max_iter: int = 200
    shuffle: bool = True
    random_state: int | np.random.RandomState | None = None
    tol: float = 1e-4
    verbose: bool = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: int = 10
    batch_norm: bool | Sequence[bool] = False
    dropout: float | Sequence[float] = 0.0
    initializer: str | Initializer | None = None
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    clip_norm: float | None = None
    scale_inputs: bool = True
    device: str | Backend = "auto"
    precision: str = "auto"
    callbacks: Sequence[Callback] = ()

    network_: Network = field(init=False)
    history_: History = field(init=False)
    n_outputs_: int = field(init=False)
    _optimizer: Optimizer = field(init=False)
    _scaler: StandardScaler | None = field(init=False)
    _made_with: dict[str, str] = field(init=False)

    # --- what users read after fit ----------------------------------------------------------------------------------

    @property
    def n_iter_(self) -> int:
        """Epochs done."""
        check_is_fitted(self)
        return len(self.history_)

    @property
    def loss_curve_(self) -> list[float]:
        """The cost J of each epoch: the loss in training mode and the L2 term."""
        check_is_fitted(self)
        return [record.loss + record.penalty for record in self.history_]

    @property
    def loss_(self) -> float:
        """The cost of the last epoch."""
        return self.loss_curve_[-1]

    @property
    def best_loss_(self) -> float | None:
        """The lowest cost of an epoch; None with ``early_stopping``, which looks at the validation."""
        return None if self.early_stopping else min(self.loss_curve_)

    @property
    def validation_scores_(self) -> list[float] | None:
        """What ``early_stopping`` saw after each epoch, higher is better; None without it."""
        check_is_fitted(self)
        if not self.early_stopping:
            return None
        sign = 1 if self._monitor == "validation_accuracy" else -1
        return [sign * value for value in self.history_[self._monitor] if value is not None]

    @property
    def best_validation_score_(self) -> float | None:
        """The best of ``validation_scores_``."""
        scores = self.validation_scores_
        return None if scores is None else max(scores)

    @property
    def n_layers_(self) -> int:
        """Layers of units, inputs and outputs included."""
        check_is_fitted(self)
        return len(self.network_.layer_sizes)

    # --- fitting ----------------------------------------------------------------------------------------------------

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Learn from data; with ``warm_start`` from where the last call stopped, otherwise from scratch.

        Parameters
        ----------
        X : array_like or DataFrame, (n, d)
        y : array_like
        sample_weight : array_like, (n,), or None
            At least 0. A row of weight 0 is left out; one of weight 2 counts like two.

        Returns
        -------
        self

        Raises
        ------
        ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError, ValueError, TypeError
            Data or a parameter do not fit. What was learnt before is still there.
        DeviceError
            The device cannot be used.
        TrainingDivergedError
            The loss became NaN or infinite: a lower ``learning_rate_init`` may help.
        """
        goes_on = self._goes_on()
        epochs = check_integer("max_iter", self.max_iter, 1)
        return self._learn(X, y, sample_weight, epochs, goes_on=goes_on, is_part=False)

    def _goes_on(self) -> bool:
        return check_flag("warm_start", self.warm_start) and hasattr(self, "network_")

    def _check_same_network(self) -> None:
        """Raise where a parameter says another network than the one to go on with."""
        for name, before in self._made_with.items():
            now = repr(getattr(self, name))
            if now != before:
                raise InvalidValueError(
                    f"{name}: got {now}, and the network to go on with was made with {before}. Expected that, or "
                    "warm_start=False and fit."
                )

    def _learn(
        self, X: Any, y: Any, sample_weight: Any, epochs: int, *, goes_on: bool, is_part: bool, classes: Any = None
    ) -> Self:
        before = dict(vars(self))
        if goes_on:
            self._check_same_network()
        try:
            X, y = validate_data(
                self, X, y, reset=not goes_on, dtype=(np.float64, np.float32), multi_output=True, ensure_min_samples=1
            )
            weights = _checked_weights(sample_weight, len(X))
            self._learn_targets(y, weights, classes, goes_on=goes_on, is_part=is_part)
            targets, weights = self._encoded(y, weights)
            if weights is not None and not weights.all():
                X, targets, weights = X[weights > 0], targets[weights > 0], weights[weights > 0]
            if not goes_on:
                self._learn_scaling(X, targets, weights)
            self._train(self._scaled(X), self._scaled_targets(targets), weights, epochs, goes_on, is_part)
        except BaseException:
            self.__dict__ = before
            raise
        return self

    def _train(
        self, X: Array, targets: Array, weights: Array | None, epochs: int, goes_on: bool, is_part: bool
    ) -> None:
        generator = check_random_state(self.random_state)
        stops_early = check_flag("early_stopping", self.early_stopping) and not is_part
        patience = check_integer("n_iter_no_change", self.n_iter_no_change, 1)
        tolerance = check_number("tol", self.tol)
        rows = len(X)
        validation = None
        if stops_early:
            X, targets, weights, validation = self._split(X, targets, weights, generator.randint(2**31))
        batch_size = self._batch_size(rows, len(X))
        mean_weight = 1.0 if weights is None else float(weights.mean())
        l2 = check_number("alpha", self.alpha) / (2 * min(batch_size, len(X)) * mean_weight)
        if not goes_on:
            network = self._new_network(X, generator.randint(2**31))
            self._made_with = {name: repr(getattr(self, name)) for name in _OF_THE_NETWORK}
            optimizer, history = self._new_optimizer(), History()
        else:
            # Of copies: what was learnt before is still there if this fails.
            network, optimizer, history = copy.deepcopy((self.network_, self._optimizer, self.history_))
        done = len(history)
        plateau = Plateau(tolerance, patience)
        callbacks = check_callbacks(self.callbacks)
        watches: list[Callback] = [] if stops_early or is_part else [plateau]
        if self.verbose:
            watches.append(Printer(done))
        found = fit(
            network,
            X,
            targets,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            l2=0.0 if optimizer.decays_weights else l2,
            clip_norm=self.clip_norm,
            shuffle=check_flag("shuffle", self.shuffle),
            sample_weight=weights,
            validation=validation,
            early_stopping=EarlyStopping(patience, tolerance, self._monitor) if stops_early else None,
            callbacks=[*watches, *callbacks],
        )
        history.records.extend(replace(record, epoch=record.epoch + done) for record in found)
        history.stopped_early = found.stopped_early
        history.best_epoch = None if found.best_epoch is None else found.best_epoch + done
        self.network_, self._optimizer, self.history_ = network, optimizer, history
        if not is_part and len(found) == epochs and not (found.stopped_early or plateau.is_over):
            warnings.warn(
                f"max_iter: {epochs} epochs are over and the {'validation' if stops_early else 'loss'} was still "
                "improving. More epochs, or a higher learning_rate_init, may help.",
                NotConvergedWarning,
                stacklevel=4,
            )

    def _split(
        self, X: Array, targets: Array, weights: Array | None, seed: int
    ) -> tuple[Array, Array, Array | None, tuple[Array, Array]]:
        """Hold a part of the rows out, of each class its share."""
        fraction = check_number("validation_fraction", self.validation_fraction, above=True, maximum=1.0)
        is_labels = self._monitor == "validation_accuracy" and targets.ndim == 1
        train, held_out = train_test_split(
            np.arange(len(X)), test_size=fraction, random_state=seed, stratify=targets if is_labels else None
        )
        kept = None if weights is None else weights[train]
        return X[train], targets[train], kept, (X[held_out], targets[held_out])

    def _batch_size(self, rows: int, training_rows: int) -> int:
        if isinstance(self.batch_size, str):
            if self.batch_size != "auto":
                raise InvalidValueError(f"batch_size: got {self.batch_size!r}. Expected a number or 'auto'.")
            return min(_LARGEST_BATCH, rows)
        size = check_integer("batch_size", self.batch_size, 1)
        if size > training_rows:
            warnings.warn(
                f"batch_size: {size} is more than the {training_rows} rows: all of them are one batch", stacklevel=5
            )
        return size

    def _new_network(self, X: Array, seed: int) -> Network:
        widths: Any = self.hidden_layer_sizes
        if isinstance(widths, str) or not is_sequence(widths):
            hidden: tuple[int, ...] = (check_integer("hidden_layer_sizes", widths, 1, LARGEST_SIZE),)
        else:
            hidden = check_each_size("hidden_layer_sizes", widths)
        precision = "float32" if self.precision in ("auto", "float64") else self.precision
        backend = select_backend(self.device, precision)
        is_double = self.precision == "float64"
        if self.precision == "auto":
            is_double = backend.device_name == "cpu" and X.dtype == np.float64
        return Network(
            [X.shape[1], *hidden, self._outputs()],
            activation=_renamed(self.activation),
            batch_norm=self.batch_norm,
            dropout=self.dropout,
            initializer=self.initializer,
            loss=self._loss(),
            seed=seed,
            dtype="float64" if is_double else "float32",
            precision=precision,
            device=backend,
        )

    def _new_optimizer(self) -> Optimizer:
        if self.optimizer is not None:
            if not isinstance(self.optimizer, Optimizer):
                raise InvalidTypeError(f"optimizer: got {shown(self.optimizer)}. Expected gpunet.SGD(...) or another.")
            return copy.deepcopy(self.optimizer)
        rate: float | Schedule = check_number("learning_rate_init", self.learning_rate_init, above=True)
        if self.schedule is not None:
            rate = self.schedule
        if self.solver == "sgd":
            return SGD(rate, momentum=self.momentum, nesterov=self.nesterovs_momentum and self.momentum > 0)
        kinds: dict[str, type[Adam]] = {"adam": Adam, "adamw": AdamW}
        if self.solver not in kinds:
            raise unknown_name("solver", self.solver, ("sgd", *kinds))
        return kinds[self.solver](rate, beta_1=self.beta_1, beta_2=self.beta_2, epsilon=self.epsilon)

    # --- scaling ----------------------------------------------------------------------------------------------------

    def _learn_scaling(self, X: Array, targets: Array, weights: Array | None) -> None:
        self._scaler = None
        if check_flag("scale_inputs", self.scale_inputs):
            self._scaler = standardising("X", X, weights)

    def _scaled(self, X: Array) -> Array:
        return X if self._scaler is None else self._scaler.transform(X)

    def _scaled_targets(self, targets: Array) -> Array:
        return targets

    # --- what the estimators say ------------------------------------------------------------------------------------

    @abstractmethod
    def _loss(self) -> str:
        """Name of the network's loss."""

    @abstractmethod
    def _outputs(self) -> int:
        """Outputs of the network."""

    @abstractmethod
    def _learn_targets(self, y: Array, weights: Array | None, classes: Any, *, goes_on: bool, is_part: bool) -> None:
        """Take over what ``fit`` learns from y: classes, number of outputs."""

    @abstractmethod
    def _encoded(self, y: Array, weights: Array | None) -> tuple[Array, Array | None]:
        """Return y as the network learns it, and the rows' weights."""

    # --- predicting -------------------------------------------------------------------------------------------------

    def _inputs(self, X: npt.ArrayLike) -> Array:
        """Return X as the network takes it."""
        check_is_fitted(self)
        return self._scaled(validate_data(self, X, reset=False, dtype=(np.float64, np.float32)))

    def whole_model(self) -> WholeModel:
        """Return the network with its scaling and classes, for :func:`gpunet.export_onnx` and others."""
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        return WholeModel(
            self.network_,
            () if self._scaler is None else (as_scaling(self._scaler),),
            feature_names=None if names is None else tuple(names.tolist()),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")


def standardising(argument: str, values: Array, weights: Array | None) -> StandardScaler:
    """Return what gives each column mean 0 and deviation 1; constant ones keep their scale.

    Raises
    ------
    NonFiniteError
        A column's numbers are so large, or so small, that their squares are no numbers of double precision.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scaler = StandardScaler().fit(values, sample_weight=weights)
        lost = (scaler.var_ == 0) & (values.max(axis=0) > values.min(axis=0))
    unusable = ~(np.isfinite(scaler.mean_) & np.isfinite(scaler.var_)) | lost
    if unusable.any():
        column = int(np.argmax(unusable))
        raise NonFiniteError(
            f"{argument}: the numbers of column {column}, from {values[:, column].min():g} to "
            f"{values[:, column].max():g}, cannot be standardised in double precision."
        )
    return scaler


def as_scaling(scaler: StandardScaler) -> Scaling:
    """Return what scikit-learn's object does."""
    return Scaling(scaler.mean_.tolist(), scaler.scale_.tolist())


def _renamed(activation: Any) -> Any:
    """Return scikit-learn's names of activations as gpunet's."""
    if isinstance(activation, str):
        return _ACTIVATIONS.get(activation, activation)
    if isinstance(activation, Sequence):
        return [_renamed(one) for one in activation]
    return activation


def _checked_weights(sample_weight: Any, rows: int) -> Array | None:
    if sample_weight is None:
        return None
    weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weights.shape != (rows,):
        raise ShapeError(f"sample_weight: got shape {weights.shape}. Expected one weight per row, shape ({rows},).")
    if (weights < 0).any():
        raise InvalidValueError("sample_weight: got a negative weight. Expected at least 0.")
    if not weights.any():
        raise InvalidValueError("sample_weight: all weights are zero. Expected at least one above 0.")
    return weights
