"""An auto-encoder, pre-trained layer by layer, unrolled and fine-tuned by back-propagation (lecture row L13)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.classic.estimator import Estimator
from gpunet.classic.inputs import check_probabilities
from gpunet.classic.pretraining import check_hidden_layer_sizes, pretrain_stack, unroll
from gpunet.classic.restricted_boltzmann import RestrictedBoltzmannMachine
from gpunet.initializers import Initializer
from gpunet.network import Network
from gpunet.optimizers import SGD
from gpunet.schedules import Schedule, as_schedule
from gpunet.training import History, fit
from gpunet.validation import check_dtype, check_flag, check_integer, check_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

Array = npt.NDArray[Any]


class Autoencoder(Estimator):
    """Sigmoid layers down to a code and back up, trained on the cross-entropy between v and its reconstruction.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int
        m_1, ..., m_k of the encoder: m_k is the size of the code. The decoder has them in reverse.
    linear_code : bool
        Whether the code's units are linear, or sigmoids.
    pretraining_epochs : int
        Passes over X for each machine; 0 leaves every layer with its random initial weights.
    pretraining_learning_rate, code_learning_rate : float or Schedule
        Of the machines; the second one is for a linear code.
    epochs : int
        Passes over X of back-propagation, by stochastic gradient descent.
    learning_rate : float or Schedule
        The loss is a sum over d elements: 0.005 suits hundreds of them, 0.03 suits tens.
    batch_size : int
        Of pre-training too.
    momentum : float
        0 to 1, 1 excluded.
    l2 : float
        The lecture's lambda: the gradient gets 2 l2 W_i.
    initializer : str, callable or None
        Without pre-training; None takes Xavier's.
    seed : int
    dtype : str or dtype
    device : str or Backend
        See :class:`gpunet.Network`.

    Attributes
    ----------
    machines_ : list of RestrictedBoltzmannMachine
        As they were before back-propagation; empty without pre-training.
    network_, encoder_, decoder_ : gpunet.Network
        All layers, those up to the code, and those after it.
    history_ : gpunet.History
        Of back-propagation.
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).random((60, 9))
    >>> compressor = Autoencoder(hidden_layer_sizes=(8, 2), device="cpu").fit(X)
    >>> compressor.transform(X).shape, compressor.reconstruct(X).shape
    ((60, 2), (60, 9))
    """

    _estimator_type: ClassVar[str | None] = "transformer"

    machines_: list[RestrictedBoltzmannMachine]
    network_: Network
    encoder_: Network
    decoder_: Network
    history_: History

    def __init__(
        self,
        *,
        hidden_layer_sizes: Sequence[int] = (256, 64, 16),
        linear_code: bool = True,
        pretraining_epochs: int = 10,
        pretraining_learning_rate: float | Schedule = 0.1,
        code_learning_rate: float | Schedule = 0.005,
        epochs: int = 20,
        learning_rate: float | Schedule = 0.005,
        batch_size: int = 20,
        momentum: float = 0.9,
        l2: float = 0.0,
        initializer: str | Initializer | None = None,
        seed: int = 0,
        dtype: npt.DTypeLike = "float32",
        device: str | Backend = "auto",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.linear_code = linear_code
        self.pretraining_epochs = pretraining_epochs
        self.pretraining_learning_rate = pretraining_learning_rate
        self.code_learning_rate = code_learning_rate
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.momentum = momentum
        self.l2 = l2
        self.initializer = initializer
        self.seed = seed
        self.dtype = dtype
        self.device = device

    def fit(self, X: npt.ArrayLike, y: object = None) -> Self:
        """Pre-train, unroll and fine-tune.

        Parameters
        ----------
        X : array_like, (n, d)
            Numbers from 0 to 1, here and in every other method.
        y : ignored

        Raises
        ------
        ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
            X, or a parameter of the constructor, is not valid. Nothing has changed then.
        TrainingDivergedError
            Weights became NaN or infinite. Nothing has changed then either.
        """
        sizes = check_hidden_layer_sizes(self.hidden_layer_sizes)
        linear_code = check_flag("linear_code", self.linear_code)
        pretraining_epochs = check_integer("pretraining_epochs", self.pretraining_epochs, 0)
        epochs = check_integer("epochs", self.epochs, 1)
        batch_size = check_integer("batch_size", self.batch_size, 1)
        l2 = check_number("l2", self.l2)
        as_schedule(self.pretraining_learning_rate, "pretraining_learning_rate")
        as_schedule(self.code_learning_rate, "code_learning_rate")
        dtype = check_dtype(self.dtype)
        features = check_probabilities("X", X, None, dtype, self.device)
        arguments: dict[str, Any] = {"seed": self.seed, "dtype": dtype, "device": self.device}
        optimizer = SGD(self.learning_rate, momentum=self.momentum)
        activations = ["sigmoid"] * (2 * len(sizes) - 1)
        activations[len(sizes) - 1] = "identity" if linear_code else "sigmoid"
        network = Network(
            [features.shape[1], *sizes, *sizes[-2::-1], features.shape[1]],
            activation=activations,
            batch_norm=False,
            initializer=self.initializer,
            loss="sigmoid_cross_entropy",
            **arguments,
        )
        machines = []
        if pretraining_epochs:
            machines = pretrain_stack(
                features,
                sizes,
                linear_code=linear_code,
                epochs=pretraining_epochs,
                learning_rate=self.pretraining_learning_rate,
                code_learning_rate=self.code_learning_rate,
                batch_size=self.batch_size,
                **arguments,
            )
            network = unroll(machines, **arguments)
        history = fit(
            network,
            features,
            features,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            l2=l2,
        )
        self.network_, self.machines_, self.history_ = network, machines, history
        self.encoder_, self.decoder_ = split_at_code(network, self.device)
        self.n_features_in_ = features.shape[1]
        return self

    def transform(self, X: npt.ArrayLike) -> Array:
        """Return the code of each row, (n, m_k).

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        """
        self._require_fitted("transform")
        return self.encoder_.predict(self._check_inputs(X))

    def fit_transform(self, X: npt.ArrayLike, y: object = None) -> Array:
        """Return ``fit(X).transform(X)``."""
        return self.fit(X).transform(X)

    def inverse_transform(self, codes: npt.ArrayLike) -> Array:
        """Return what the decoder makes of codes, (n, d): probabilities.

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        """
        self._require_fitted("inverse_transform")
        return self.decoder_.predict_proba(self.decoder_.check_inputs(codes, "codes"))

    def reconstruct(self, X: npt.ArrayLike) -> Array:
        """Return ``inverse_transform(transform(X))``.

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        """
        self._require_fitted("reconstruct")
        return self.network_.predict_proba(self._check_inputs(X))

    def reconstruction_error(self, X: npt.ArrayLike) -> Array:
        """Return the mean squared difference between each row and its reconstruction, float64 (n,).

        Raises
        ------
        NotFittedError, ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        """
        self._require_fitted("reconstruction_error")
        data = self._check_inputs(X)
        return np.square(self.network_.predict_proba(data).astype(np.float64) - data).mean(axis=1)

    def score(self, X: npt.ArrayLike, y: object = None) -> float:
        """Return minus the mean of :meth:`reconstruction_error`: more is better."""
        return -float(self.reconstruction_error(X).mean())

    def _check_inputs(self, X: npt.ArrayLike) -> Array:
        """Return X as a host array (n, d) of numbers from 0 to 1, or raise."""
        return check_probabilities("X", X, self.n_features_in_, self.network_.dtype, self.network_.backend)


def split_at_code(network: Network, device: str | Backend) -> tuple[Network, Network]:
    """Return the two halves of an unrolled network, each a network of its own with copies of the parameters.

    Parameters
    ----------
    network : Network
        An even number of layers, sigmoid cross-entropy.
    device : str or Backend
        Of the halves.

    Returns
    -------
    encoder, decoder : Network
        The encoder's loss is the squared error, so that ``predict`` gives the code.
    """
    sizes, activations = network.layer_sizes, network.activations
    half = len(sizes) // 2
    common: dict[str, Any] = {
        "batch_norm": False,
        "seed": network.seed,
        "dtype": network.dtype,
        "device": device,
    }
    encoder = Network(
        sizes[: half + 1],
        activation=activations[: half - 1],
        output_activation=activations[half - 1],
        loss="squared_error",
        **common,
    )
    decoder = Network(sizes[half:], activation=activations[half:], loss="sigmoid_cross_entropy", **common)
    parameters = network.get_parameters()
    for number in range(1, half + 1):
        for kind in ("W", "b"):
            encoder.set_parameters({f"{kind}{number}": parameters[f"{kind}{number}"]})
            decoder.set_parameters({f"{kind}{number}": parameters[f"{kind}{half + number}"]})
    return encoder, decoder
