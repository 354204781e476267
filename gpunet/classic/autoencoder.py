"""An auto-encoder, pre-trained layer by layer, unrolled and fine-tuned by back-propagation (lecture row L13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.classic.estimator import after_fit, check_schedule, learns, parameter
from gpunet.classic.pretrained_network import PretrainedNetwork
from gpunet.classic.pretraining import check_hidden_layer_sizes, unroll
from gpunet.classic.restricted_boltzmann import RestrictedBoltzmannMachine
from gpunet.classic.transformer import Transformer
from gpunet.network import Network
from gpunet.schedules import Schedule
from gpunet.validation import check_flag, check_integer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

Array = npt.NDArray[Any]


@dataclass(kw_only=True, eq=False, repr=False)
class Autoencoder(Transformer, PretrainedNetwork):
    """Sigmoid layers down to a code and back up, trained on the cross-entropy between v and its reconstruction.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int
        m_1, ..., m_k of the encoder: m_k is the size of the code. The decoder has them in reverse.
    linear_code : bool
        Whether the code's units are linear, or sigmoids.
    code_learning_rate : float or Schedule
        Of the last machine, for a linear code.
    learning_rate : float or Schedule
        The loss is a sum over d elements: 0.005 suits hundreds of them, 0.03 suits tens.
    pretraining_epochs, pretraining_learning_rate, epochs, batch_size, momentum, l2, initializer, seed
    scale_inputs, dtype, device
        See :class:`gpunet.classic.pretrained_network.PretrainedNetwork`.

    Attributes
    ----------
    network_, encoder_, decoder_ : gpunet.Network
        All layers, those up to the code, and those after it: from numbers from 0 to 1, and to them.
    machines_, history_
        See :class:`gpunet.classic.pretrained_network.PretrainedNetwork`.
    scaling_, n_features_in_, feature_names_in_
        See :class:`gpunet.classic.unit_inputs.UnitInputEstimator` and :class:`gpunet.classic.estimator.Estimator`.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).random((60, 9))
    >>> compressor = Autoencoder(hidden_layer_sizes=(8, 2), device="cpu").fit(X)
    >>> compressor.transform(X).shape, compressor.reconstruct(X).shape
    ((60, 2), (60, 9))
    """

    hidden_layer_sizes: Sequence[int] = parameter((256, 64, 16), check_hidden_layer_sizes)
    linear_code: bool = parameter(True, check_flag)
    code_learning_rate: float | Schedule = parameter(0.005, check_schedule)
    learning_rate: float | Schedule = parameter(0.005, check_schedule)
    batch_size: int = parameter(20, check_integer, minimum=1)

    @learns
    def fit(self, X: npt.ArrayLike, y: object = None) -> Self:
        """Pre-train, unroll and fine-tune.

        Parameters
        ----------
        X : array_like, (n, d)
            Numbers from 0 to 1, or any numbers with ``scale_inputs``.
        y : ignored
        """
        given = self._checked_parameters()
        features, scaling, names = given._new_units(X)
        network, machines, history = given._learn(
            given._random_network(features.shape[1]),
            features,
            features,
            features,
            linear_code=given.linear_code,
            code_learning_rate=given.code_learning_rate,
        )
        encoder, decoder = split_at_code(network, self.device)
        self._adopt(network, machines, history)
        self.encoder_, self.decoder_ = encoder, decoder
        self._set_units(features.shape[1], names, scaling)
        return self

    def _random_network(self, inputs: int) -> Network:
        sizes = self.hidden_layer_sizes
        activations = ["sigmoid"] * (2 * len(sizes) - 1)
        activations[len(sizes) - 1] = "identity" if self.linear_code else "sigmoid"
        return Network(
            [inputs, *sizes, *sizes[-2::-1], inputs],
            activation=activations,
            batch_norm=False,
            initializer=self.initializer,
            loss="sigmoid_cross_entropy",
            seed=self.seed,
            dtype=self.dtype,
            device=self.device,
        )

    def _stacked_network(self, machines: list[RestrictedBoltzmannMachine], random: Network) -> Network:
        return unroll(machines, seed=self.seed, dtype=self.dtype, device=self.device)

    @after_fit
    def transform(self, X: npt.ArrayLike) -> Any:
        """Return the code of each row, (n, m_k): an ndarray, or the data frame that :meth:`set_output` asked for."""
        return self._in_container(self.encoder_.finite_logits(self._check_inputs(X)), X)

    def _features_out(self) -> int:
        return self.encoder_.layer_sizes[-1]

    @after_fit
    def inverse_transform(self, codes: npt.ArrayLike) -> Array:
        """Return what the decoder makes of codes, (n, d): probabilities, as numbers such as X holds."""
        inputs = self.decoder_.check_inputs(self.decoder_.on_host("codes", codes), "codes")
        return self._restored(self.decoder_.predict_proba(inputs))

    @after_fit
    def reconstruct(self, X: npt.ArrayLike) -> Array:
        """Return ``inverse_transform(transform(X))``."""
        return self._restored(self.network_.predict_proba(self._check_inputs(X)))

    @after_fit
    def reconstruction_error(self, X: npt.ArrayLike) -> Array:
        """Return the mean squared difference between each row and its reconstruction, from 0 to 1, float64 (n,)."""
        data = self._check_inputs(X)
        return np.square(self.network_.predict_proba(data).astype(np.float64) - data).mean(axis=1)

    @after_fit
    def score(self, X: npt.ArrayLike, y: object = None) -> float:
        """Return minus the mean of :meth:`reconstruction_error`: more is better."""
        return -float(self.reconstruction_error(X).mean())


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
    common: dict[str, Any] = {"batch_norm": False, "seed": network.seed, "dtype": network.dtype, "device": device}
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
