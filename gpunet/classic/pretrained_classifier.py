"""A deep sigmoid network for classification whose hidden layers were pre-trained without labels (lecture row L13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from gpunet.classic.estimator import after_fit, learns
from gpunet.classic.inputs import check_same_names, column_names, encode_classes, share_right
from gpunet.classic.pretrained_network import PretrainedNetwork
from gpunet.classic.pretraining import encoder_network
from gpunet.classic.restricted_boltzmann import RestrictedBoltzmannMachine
from gpunet.classic.unit_scaling import as_units
from gpunet.network import Network

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]


@dataclass(kw_only=True, eq=False, repr=False)
class PretrainedClassifier(PretrainedNetwork):
    """Sigmoid layers from a stack of machines, a softmax layer above, and back-propagation through all of them.

    Parameters
    ----------
    hidden_layer_sizes, pretraining_epochs, pretraining_learning_rate, epochs, learning_rate, batch_size
    momentum, l2, initializer, seed, scale_inputs, dtype, device
        See :class:`gpunet.classic.pretrained_network.PretrainedNetwork`.

    Attributes
    ----------
    classes_ : ndarray, (c,)
        The labels, sorted.
    machines_, network_, history_
        See :class:`gpunet.classic.pretrained_network.PretrainedNetwork`.
    scaling_, n_features_in_, feature_names_in_
        See :class:`gpunet.classic.unit_inputs.UnitInputEstimator` and :class:`gpunet.classic.estimator.Estimator`.

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

    @learns
    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, *, unlabelled: npt.ArrayLike | None = None) -> Self:
        """Pre-train the layers, then train all of them on the labels.

        Parameters
        ----------
        X : array_like, (n, d)
            Numbers from 0 to 1, or any numbers with ``scale_inputs``.
        y : array_like, (n,)
            Labels: numbers, text or booleans; at least two different ones.
        unlabelled : array_like, (n', d), or None
            More rows for pre-training alone, which uses X as well.
        """
        given = self._checked_parameters()
        features, scaling, names = given._new_units(X)
        classes, labels = encode_classes("y", y, len(features))
        seen = features
        if unlabelled is not None:
            check_same_names("unlabelled", column_names("unlabelled", unlabelled), names, type(self).__name__)
            more = given._read("unlabelled", unlabelled, features.shape[1])
            seen = np.concatenate([features, as_units("unlabelled", more, scaling)])
        layers = [features.shape[1], *given.hidden_layer_sizes, len(classes)]
        network = Network(layers, activation="sigmoid", batch_norm=False, **given._network_arguments())
        self._adopt(*given._learn(network, seen, features, labels))
        self.classes_ = classes
        self._set_units(features.shape[1], names, scaling)
        return self

    def _network_arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("initializer", "seed", "dtype", "device")}

    def _stacked_network(self, machines: list[RestrictedBoltzmannMachine], random: Network) -> Network:
        return encoder_network(machines, random.layer_sizes[-1], **self._network_arguments())

    @after_fit
    def predict_proba(self, X: npt.ArrayLike) -> Array:
        """Return the probability of each class, (n, c), in the order of ``classes_``."""
        return self.network_.predict_proba(self._check_inputs(X))

    @after_fit
    def predict(self, X: npt.ArrayLike) -> Array:
        """Return the most probable label of each row, (n,)."""
        return self.classes_[self.network_.predict(self._check_inputs(X))]

    @after_fit
    def score(self, X: npt.ArrayLike, y: npt.ArrayLike) -> float:
        """Return the fraction of rows whose label is predicted."""
        return share_right(self.predict(X), y)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = True
        # Hundreds of pre-trained sigmoids need more updates than the few rows of scikit-learn's checks give them.
        tags.classifier_tags.poor_score = True
        return tags
