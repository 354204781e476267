"""A deep sigmoid network for classification whose hidden layers were pre-trained without labels (lecture row L13)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.classic.estimator import Estimator, check_label_vector
from gpunet.classic.inputs import check_probabilities
from gpunet.classic.pretraining import check_hidden_layer_sizes, encoder_network, pretrain_stack
from gpunet.classic.restricted_boltzmann import RestrictedBoltzmannMachine
from gpunet.errors import InvalidValueError
from gpunet.initializers import Initializer
from gpunet.network import Network
from gpunet.optimizers import SGD
from gpunet.schedules import Schedule, as_schedule
from gpunet.training import History, fit
from gpunet.validation import check_dtype, check_integer, check_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

Array = npt.NDArray[Any]


class PretrainedClassifier(Estimator):
    """Sigmoid layers from a stack of machines, a softmax layer above, and back-propagation through all of them.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int
    pretraining_epochs : int
        Passes over the data for each machine; 0 leaves every layer with its random initial weights.
    pretraining_learning_rate : float or Schedule
        Of the machines.
    epochs : int
        Passes over the labelled data, by stochastic gradient descent on the cross-entropy.
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
    dtype : str or dtype
    device : str or Backend
        See :class:`gpunet.Network`.

    Attributes
    ----------
    classes_ : ndarray, (c,)
        The labels, sorted.
    machines_ : list of RestrictedBoltzmannMachine
        As they were before back-propagation; empty without pre-training.
    network_ : gpunet.Network
    history_ : gpunet.History
        Of back-propagation.
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).random((60, 4))
    >>> y = np.where(X[:, 0] > 0.5, "large", "small")
    >>> classifier = PretrainedClassifier(hidden_layer_sizes=(16, 16), device="cpu").fit(X, y)
    >>> classifier.predict_proba(X).shape
    (60, 2)
    """

    _estimator_type: ClassVar[str | None] = "classifier"

    classes_: Array
    machines_: list[RestrictedBoltzmannMachine]
    network_: Network
    history_: History

    def __init__(
        self,
        *,
        hidden_layer_sizes: Sequence[int] = (256, 256),
        pretraining_epochs: int = 10,
        pretraining_learning_rate: float | Schedule = 0.1,
        epochs: int = 20,
        learning_rate: float | Schedule = 0.1,
        batch_size: int = 50,
        momentum: float = 0.9,
        l2: float = 0.0,
        initializer: str | Initializer | None = None,
        seed: int = 0,
        dtype: npt.DTypeLike = "float32",
        device: str | Backend = "auto",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.pretraining_epochs = pretraining_epochs
        self.pretraining_learning_rate = pretraining_learning_rate
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.momentum = momentum
        self.l2 = l2
        self.initializer = initializer
        self.seed = seed
        self.dtype = dtype
        self.device = device

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, *, unlabelled: npt.ArrayLike | None = None) -> Self:
        """Pre-train the layers, then train all of them on the labels.

        Parameters
        ----------
        X : array_like, (n, d)
            Numbers from 0 to 1, here and in every other method.
        y : array_like, (n,)
            Labels: numbers, text or booleans; at least two different ones.
        unlabelled : array_like, (n', d), or None
            More rows for pre-training alone, which uses X as well.

        Raises
        ------
        ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
            The data, or a parameter of the constructor, is not valid. Nothing has changed then.
        TrainingDivergedError
            Weights became NaN or infinite. Nothing has changed then either.
        """
        sizes = check_hidden_layer_sizes(self.hidden_layer_sizes)
        pretraining_epochs = check_integer("pretraining_epochs", self.pretraining_epochs, 0)
        epochs = check_integer("epochs", self.epochs, 1)
        batch_size = check_integer("batch_size", self.batch_size, 1)
        l2 = check_number("l2", self.l2)
        as_schedule(self.pretraining_learning_rate, "pretraining_learning_rate")
        dtype = check_dtype(self.dtype)
        features = check_probabilities("X", X, None, dtype, self.device)
        classes, labels = np.unique(check_label_vector("y", y, len(features)), return_inverse=True)
        if len(classes) < 2:
            raise InvalidValueError(f"y: got one class ({classes.tolist()[0]!r}). Expected at least two.")
        seen = features
        if unlabelled is not None:
            more = check_probabilities("unlabelled", unlabelled, features.shape[1], dtype, self.device)
            seen = np.concatenate([features, more])
        arguments: dict[str, Any] = {
            "initializer": self.initializer,
            "seed": self.seed,
            "dtype": dtype,
            "device": self.device,
        }
        optimizer = SGD(self.learning_rate, momentum=self.momentum)
        layers = [features.shape[1], *sizes, len(classes)]
        network = Network(layers, activation="sigmoid", batch_norm=False, **arguments)
        machines = []
        if pretraining_epochs:
            machines = pretrain_stack(
                seen,
                sizes,
                epochs=pretraining_epochs,
                learning_rate=self.pretraining_learning_rate,
                batch_size=self.batch_size,
                seed=self.seed,
                dtype=dtype,
                device=self.device,
            )
            network = encoder_network(machines, len(classes), **arguments)
        history = fit(
            network,
            features,
            labels,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            l2=l2,
        )
        self.network_, self.machines_, self.history_ = network, machines, history
        self.classes_ = classes
        self.n_features_in_ = features.shape[1]
        return self

    def predict_proba(self, X: npt.ArrayLike) -> Array:
        """Return the probability of each class, (n, c), in the order of ``classes_``.

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        """
        self._require_fitted("predict_proba")
        return self.network_.predict_proba(self._check_inputs(X))

    def predict(self, X: npt.ArrayLike) -> Array:
        """Return the most probable label of each row, (n,).

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        """
        self._require_fitted("predict")
        return self.classes_[self.network_.predict(self._check_inputs(X))]

    def score(self, X: npt.ArrayLike, y: npt.ArrayLike) -> float:
        """Return the fraction of rows whose label is predicted.

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        """
        self._require_fitted("score")
        predicted = self.predict(X)
        return float(np.mean(predicted == check_label_vector("y", y, len(predicted))))

    def _check_inputs(self, X: npt.ArrayLike) -> Array:
        """Return X as a host array (n, d) of numbers from 0 to 1, or raise."""
        return check_probabilities("X", X, self.n_features_in_, self.network_.dtype, self.network_.backend)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = True
        return tags
