"""What the classifier and the regressor share: parameters, standardisation, and the run of ``gpunet.fit``."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
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
from gpunet.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    counted,
    shown,
    unknown_name,
    warn_user,
)
from gpunet.estimators.full_batch import FullBatch
from gpunet.estimators.stopping import InverseScaling, NotConvergedWarning, Plateau, Printer
from gpunet.initializers import Initializer
from gpunet.interchange.whole_model import WholeModel
from gpunet.layers import CustomLoss, Loss
from gpunet.network import Network
from gpunet.optimizers import SGD, Adam, AdamW, Optimizer
from gpunet.schedules import Schedule, as_schedule
from gpunet.training import Callback, EarlyStopping, History, fit
from gpunet.training.settings import check_callbacks
from gpunet.validation import (
    LARGEST_SIZE,
    DeviceArray,
    check_each_size,
    check_features,
    check_flag,
    check_integer,
    check_number,
    check_rate,
    is_on_cuda,
    is_sequence,
)

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

# scikit-learn's names, and gpunet's for the same functions.
_ACTIVATIONS = {"logistic": "sigmoid"}
_LARGEST_BATCH = 200
_SOLVERS = ("adam", "adamw", "lbfgs", "sgd")
_RATE_RULES = ("constant", "invscaling", "adaptive")


@dataclass(eq=False, repr=False)
class MultilayerPerceptron(BaseEstimator):  # type: ignore[misc]
    """Parameters and training of both estimators; see :class:`MLPClassifier` and :class:`MLPRegressor`."""

    _monitor: ClassVar[str]
    # What a network is made with; another value does not count before the next network.
    _of_the_network: ClassVar[tuple[str, ...]] = (
        "hidden_layer_sizes",
        "activation",
        "batch_norm",
        "dropout",
        "precision",
        "scale_inputs",
    )

    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: str | Activation | Sequence[str | Activation] = "relu"
    _: KW_ONLY
    solver: str = "adam"
    alpha: float = 1e-4
    batch_size: int | str = "auto"
    learning_rate: str = "constant"
    learning_rate_init: float = 1e-3
    power_t: float = 0.5
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
    max_fun: int = 15000
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
    _optimizer: Optimizer | None = field(init=False)
    _scaler: StandardScaler | None = field(init=False)
    _made_with: dict[str, tuple[str, list[object]]] = field(init=False)

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
            now = _description(getattr(self, name))
            if now != before:
                other = " of other functions" if now[0] == before[0] else ""
                raise InvalidValueError(
                    f"{name}: got {now[0]}{other}, and the network to go on with was made with {before[0]}. Expected "
                    "that, or warm_start=False and fit."
                )

    def _learn(
        self, X: Any, y: Any, sample_weight: Any, epochs: int, *, goes_on: bool, is_part: bool, classes: Any = None
    ) -> Self:
        before = dict(vars(self))
        if goes_on:
            self._check_same_network()
        try:
            X, y, sample_weight = self._on_host({"X": X, "y": y, "sample_weight": sample_weight})
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
        generator = _generator(self.random_state)
        at_once = self._learns_at_once(is_part)
        stops_early = check_flag("early_stopping", self.early_stopping) and not (is_part or at_once)
        tolerance = check_number("tol", self.tol)
        evaluations = check_integer("max_fun", self.max_fun, 1)
        rows = len(X)
        validation = None
        if stops_early:
            X, targets, weights, validation = self._split(X, targets, weights, generator.randint(2**31))
        batch_size = len(X) if at_once else self._batch_size(rows, len(X))
        mean_weight = 1.0 if weights is None else float(weights.mean())
        l2 = check_number("alpha", self.alpha) / (2 * min(batch_size, len(X)) * mean_weight)
        optimizer: Optimizer | None
        if not goes_on:
            network = self._new_network(X, generator.randint(2**31))
            self._made_with = {name: _description(getattr(self, name)) for name in self._of_the_network}
            optimizer, history, self._rows_done = None, History(), 0
        else:
            # Of copies: what was learnt before is still there if this fails.
            network, optimizer, history = copy.deepcopy((self.network_, self._optimizer, self.history_))
        done = len(history)
        watches: list[Callback] = [Printer(done)] if check_flag("verbose", self.verbose) else []
        if at_once:
            optimizer = None
            found, is_over = FullBatch(epochs, evaluations, tolerance, l2).run(network, X, targets, weights, watches)
        else:
            optimizer = self._new_optimizer() if optimizer is None else optimizer
            found, is_over = self._train_in_batches(
                network,
                X,
                targets,
                optimizer,
                watches,
                tolerance,
                is_part,
                epochs=epochs,
                batch_size=batch_size,
                l2=0.0 if optimizer.decays_weights else l2,
                sample_weight=weights,
                validation=validation,
                early_stopping=EarlyStopping(epochs, 0.0, self._monitor) if stops_early else None,  # a plateau ends it
            )
        history.records.extend(replace(record, epoch=record.epoch + done) for record in found)
        history.stopped_early = stops_early and is_over
        history.best_epoch = None if found.best_epoch is None else found.best_epoch + done
        self.network_, self._optimizer, self.history_ = network, optimizer, history
        self._rows_done += len(X) * len(found)
        if not (is_part or is_over):
            warn_user(
                f"max_iter: after {counted(len(found), 'epoch')} the {'validation' if stops_early else 'loss'} was "
                "still improving. More epochs, or a higher learning_rate_init, may help.",
                NotConvergedWarning,
            )

    def _train_in_batches(
        self,
        network: Network,
        X: Array,
        targets: Array,
        optimizer: Optimizer,
        watches: list[Callback],
        tolerance: float,
        is_part: bool,
        **settings: Any,
    ) -> tuple[History, bool]:
        """Run ``gpunet.fit``, and return its history and whether a plateau ended it."""
        rule, power = self._rate_rule(), check_number("power_t", self.power_t)
        watched = optimizer.schedule.monitor
        if watched is not None and watched.startswith("validation") and settings["early_stopping"] is None:
            raise InvalidValueError(
                f"schedule: it watches {watched!r}, and no rows are held out. Expected early_stopping=True with fit, "
                "or monitor='loss'."
            )
        plateau = Plateau(
            tolerance,
            check_integer("n_iter_no_change", self.n_iter_no_change, 1),
            self._monitor if settings["early_stopping"] is not None else None,
            optimizer if rule == "adaptive" else None,
        )
        if not is_part:
            watches = [plateau, *watches]
        if rule == "invscaling":
            watches.append(InverseScaling(optimizer, self.learning_rate_init, power, self._rows_done, len(X)))
        found = fit(
            network,
            X,
            targets,
            optimizer=optimizer,
            clip_norm=self.clip_norm,
            shuffle=check_flag("shuffle", self.shuffle),
            callbacks=[*watches, *check_callbacks(self.callbacks)],
            **settings,
        )
        return found, plateau.is_over

    def _learns_at_once(self, is_part: bool) -> bool:
        """Say whether ``solver="lbfgs"`` is to learn, which refuses what it would have to leave out."""
        if self.optimizer is not None:
            return False
        if not isinstance(self.solver, str) or self.solver not in _SOLVERS:
            raise unknown_name("solver", self.solver, _SOLVERS)
        if self.solver != "lbfgs":
            return False
        if is_part:
            raise InvalidValueError(f"solver: {self.solver!r} learns all rows at once. Expected another, or fit.")
        has = {
            "batch_norm": np.any(self.batch_norm),
            "dropout": np.any(self.dropout),
            "clip_norm": self.clip_norm is not None,
            "schedule": self.schedule is not None,
            "callbacks": check_callbacks(self.callbacks),
        }
        for name, is_given in has.items():
            if is_given:
                raise InvalidValueError(
                    f"{name}: got {shown(getattr(self, name))} with solver='lbfgs', which learns all rows at once. "
                    "Expected none, or another solver: 'adam', 'adamw' or 'sgd'."
                )
        return True

    def _rate_rule(self) -> str:
        """Return how the learning rate changes after an epoch: as in scikit-learn, of ``solver="sgd"`` alone."""
        if not isinstance(self.learning_rate, str) or self.learning_rate not in _RATE_RULES:
            raise unknown_name("learning_rate", self.learning_rate, _RATE_RULES)
        is_used = self.solver == "sgd" and self.optimizer is None and self.schedule is None
        return self.learning_rate if is_used else "constant"

    def _split(
        self, X: Array, targets: Array, weights: Array | None, seed: int
    ) -> tuple[Array, Array, Array | None, tuple[Array, Array]]:
        """Hold a part of the rows out, of each class its share."""
        fraction = check_number("validation_fraction", self.validation_fraction, above=True, maximum=1.0)
        is_labels = self._monitor == "validation_accuracy" and targets.ndim == 1
        try:
            train, held_out = train_test_split(
                np.arange(len(X)), test_size=fraction, random_state=seed, stratify=targets if is_labels else None
            )
        except ValueError as error:
            raise InvalidValueError(
                f"validation_fraction: {fraction} of {counted(len(X), 'row')} cannot be held out ({error})."
            ) from None
        kept = None if weights is None else weights[train]
        return X[train], targets[train], kept, (X[held_out], targets[held_out])

    def _batch_size(self, rows: int, training_rows: int) -> int:
        if isinstance(self.batch_size, str):
            if self.batch_size != "auto":
                raise InvalidValueError(f"batch_size: got {self.batch_size!r}. Expected a number or 'auto'.")
            return min(_LARGEST_BATCH, rows)
        size = check_integer("batch_size", self.batch_size, 1)
        if size > training_rows:
            warn_user(f"batch_size: {size} is more than the {counted(training_rows, 'row')}: all of them are one batch")
        return size

    def _new_network(self, X: Array, seed: int) -> Network:
        widths: Any = self.hidden_layer_sizes
        if isinstance(widths, str) or not is_sequence(widths):
            hidden: tuple[int, ...] = (check_integer("hidden_layer_sizes", widths, 1, LARGEST_SIZE),)
        else:
            hidden = check_each_size("hidden_layer_sizes", widths)
        backend, precision = self._backend()
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

    def _backend(self) -> tuple[Backend, str]:
        """Return where a new network is to run, and its precision."""
        if not isinstance(self.precision, str):
            raise InvalidTypeError(
                f"precision: got {shown(self.precision)}. Expected 'auto', 'float32', 'float64', ..."
            )
        precision = "float32" if self.precision in ("auto", "float64") else self.precision
        return select_backend(self.device, precision), precision

    def _new_optimizer(self) -> Optimizer:
        if self.optimizer is not None:
            if not isinstance(self.optimizer, Optimizer):
                raise InvalidTypeError(f"optimizer: got {shown(self.optimizer)}. Expected gpunet.SGD(...) or another.")
            return copy.deepcopy(self.optimizer)
        rate: float | Schedule = check_number("learning_rate_init", self.learning_rate_init, above=True)
        if self.schedule is not None:
            rate = as_schedule(copy.deepcopy(self.schedule), "schedule")
        if self.solver == "sgd":
            nesterov = check_flag("nesterovs_momentum", self.nesterovs_momentum)
            return SGD(rate, momentum=self.momentum, nesterov=nesterov and check_rate("momentum", self.momentum) > 0)
        kind = AdamW if self.solver == "adamw" else Adam
        return kind(rate, beta_1=self.beta_1, beta_2=self.beta_2, epsilon=self.epsilon)

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
    def _loss(self) -> str | Loss:
        """The network's loss."""

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
        """Return X as the network takes it, where X is."""
        check_is_fitted(self)
        if not is_on_cuda(X):
            return self._scaled(validate_data(self, X, reset=False, dtype=(np.float64, np.float32)))
        backend = self.network_.backend
        array = backend.take("X", X)
        with backend.array_module():
            dtype = np.float32 if array.dtype.kind == "f" and array.dtype.itemsize < 8 else np.float64
            array = check_features("X", DeviceArray(array), self.n_features_in_, dtype)
            if self._scaler is not None:
                array = (array - backend.asarray(self._scaler.mean_)) / backend.asarray(self._scaler.scale_)
        return array

    def _outputs_for(self, X: npt.ArrayLike) -> Array:
        """Return the network's outputs for X, where X is."""
        inputs = self._inputs(X)
        return self.network_.finite_outputs(inputs)

    def _beside(self, X: Any) -> AbstractContextManager[Any]:
        """Return a context for array expressions with the outputs for X."""
        return self.network_.backend.array_module() if is_on_cuda(X) else nullcontext()

    def _given(self, result: Array, X: Any) -> Any:
        """Return a result as an array of the library of X where that is in CUDA memory, otherwise as it is."""
        return self.network_.backend.give(result, X) if is_on_cuda(X) else result

    def _on_host(self, arguments: Mapping[str, Any]) -> list[Any]:
        """Return what is in CUDA memory as copies on the host, and all else as it is."""
        if not any(map(is_on_cuda, arguments.values())):
            return list(arguments.values())
        backend = self.network_.backend if hasattr(self, "network_") else self._backend()[0]
        return [
            backend.to_numpy(backend.take(name, values)) if is_on_cuda(values) else values
            for name, values in arguments.items()
        ]

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


def _generator(random_state: Any) -> np.random.RandomState:
    try:
        return check_random_state(random_state)
    except (ValueError, TypeError):
        raise InvalidValueError(
            f"random_state: got {shown(random_state)}. Expected an integer from 0 to 2^32 - 1, a RandomState, or None."
        ) from None


def _description(parameter: Any) -> tuple[str, list[object]]:
    """Return its text, and what is the user's own in it, of which others may have the name."""
    parts = parameter if is_sequence(parameter) else (parameter,)
    return repr(parameter), [part for part in parts if isinstance(part, (Activation, CustomLoss))]


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
