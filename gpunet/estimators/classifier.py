"""``MLPClassifier``: labels of any kind, or several labels per row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import check_is_fitted

from gpunet.errors import InvalidTypeError, InvalidValueError, shown
from gpunet.estimators.perceptron import MultilayerPerceptron
from gpunet.interchange.whole_model import WholeModel
from gpunet.layers import CustomLoss, Loss, SoftmaxCrossEntropy
from gpunet.validation import is_on_cuda

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]


@dataclass(eq=False, repr=False)
class MLPClassifier(ClassifierMixin, MultilayerPerceptron):  # type: ignore[misc]
    """A classifier with scikit-learn's contract, trained by :func:`gpunet.fit`.

    Every parameter of ``sklearn.neural_network.MLPClassifier`` is there and means the same; so changing the import is
    enough. Inputs are standardised by default, which scikit-learn leaves to a pipeline. :doc:`/estimators` says what
    else differs.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
    activation : str, Activation, or a sequence of them, one per hidden layer
        scikit-learn's names, and all of :mod:`gpunet.activations`.
    solver : str
        ``"adam"``, ``"adamw"``, ``"sgd"``, or ``"lbfgs"``, which learns all rows at once, by scipy.
    alpha : float
        Strength of the L2 term. As in scikit-learn the loss gets alpha / (2 b) sum ||W_i||^2 with b the sum of a
        batch's weights; the lambda of :func:`gpunet.fit` is alpha / (2 b) with b that of a full batch. AdamW has a
        decay of its own instead.
    batch_size : int or "auto"
        ``"auto"`` is min(200, n).
    learning_rate : str
        Of ``solver="sgd"``: ``"constant"``; ``"invscaling"``, learning_rate_init / (t + 1)^power_t with t the rows gone
        over in the epochs before; ``"adaptive"``, divided by 5 where training would end, until it is below 1e-6. Within
        ``partial_fit`` an adaptive rate stays.
    learning_rate_init, power_t : float
    max_iter : int
        Epochs at most.
    shuffle : bool
    random_state : int, RandomState or None
        Draws the weights, the order of the rows, the dropout masks and the validation part.
    tol : float
        Training ends when the cost, or the validation with ``early_stopping``, has not improved by more than this for
        more than ``n_iter_no_change`` epochs; with ``solver="lbfgs"`` when no element of the gradient is larger.
    verbose : bool
        Whether to print each epoch.
    warm_start : bool
        Whether ``fit`` goes on from where it stopped, moments of the optimiser included.
    momentum, nesterovs_momentum
        Of ``solver="sgd"``.
    early_stopping : bool
        Whether to hold ``validation_fraction`` of the rows out, end when they no longer improve, and take the weights
        of the best epoch.
    validation_fraction : float
    beta_1, beta_2, epsilon : float
        Of Adam.
    n_iter_no_change : int
    max_fun : int
        Evaluations at most, of ``solver="lbfgs"``.
    batch_norm : bool, or one per hidden layer
    dropout : float, or one per hidden layer
    initializer : str, callable or None
        As of :class:`gpunet.Network`.
    optimizer : Optimizer or None
        Instead of ``solver`` and all that belongs to it; ``fit`` uses a copy.
    schedule : Schedule or None
        The learning rate as a function of the step, instead of ``learning_rate`` and ``learning_rate_init``.
    clip_norm : float or None
    scale_inputs : bool
        Whether inputs get mean 0 and standard deviation 1, column by column, as ``fit`` (or the first ``partial_fit``)
        sees them, weights included.
    device : str or Backend
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    precision : str
        ``"float32"``, ``"float64"``, ``"tf32"``, ...: how the network computes. ``"auto"`` is float32 on CUDA, and on
        the CPU the dtype of X, as in scikit-learn: float32 takes about half of the time of float64.
    callbacks : sequence of Callback
    class_weight : mapping, "balanced" or None
        A weight per label; ``"balanced"`` is n / (c count of the label). A row counts by its label's, smoothed or not.
    label_smoothing : float
        The share of each row's target that goes to all classes alike, 0 to 1, 1 excluded; not for several labels per
        row.
    loss : CustomLoss or None
        One with ``targets="labels"``, for one label per row. None is softmax cross-entropy, and sigmoid cross-entropy
        for several.

    Attributes
    ----------
    classes_ : ndarray
        The labels, sorted; with several labels per row their numbers.
    network_ : Network
        What was trained; its inputs are standardised ones.
    history_ : History
    n_iter_, loss_curve_, loss_, best_loss_, validation_scores_, best_validation_score_, n_layers_
        As in scikit-learn.
    n_features_in_, feature_names_in_
        The columns of X.
    n_outputs_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier((16,), batch_norm=True, max_iter=20, random_state=0, tol=0.1, device="cpu").fit(X, y)
    >>> model.predict_proba(X).shape
    (150, 3)
    """

    _monitor: ClassVar[str] = "validation_accuracy"

    _of_the_network: ClassVar[tuple[str, ...]] = (*MultilayerPerceptron._of_the_network, "label_smoothing", "loss")

    _: KW_ONLY
    class_weight: Mapping[Any, float] | str | None = None
    label_smoothing: float = 0.0
    loss: CustomLoss | None = None

    def partial_fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        classes: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """Go over the rows once, from where learning stands.

        Parameters
        ----------
        X : array_like, (n, d)
        y : array_like
        classes : array_like or None
            All labels there are; needed by the first call.
        sample_weight : array_like, (n,), or None

        Returns
        -------
        self

        Raises
        ------
        As :meth:`fit`.
        """
        goes_on = hasattr(self, "network_")
        if not goes_on and classes is None:
            raise InvalidValueError("classes: got None. Expected all labels, at the first call of partial_fit.")
        return self._learn(X, y, sample_weight, 1, goes_on=goes_on, is_part=True, classes=classes)

    def predict(self, X: npt.ArrayLike) -> Array:
        """Return the label of each row, (n,); with several labels per row 0 or 1 for each, (n, c)."""
        outputs, backend = self._scores(X), self.network_.backend
        with self._beside(X):
            found = self.network_.loss_layer.predict(outputs)
            if not self._is_multilabel:
                if not is_on_cuda(X):
                    return self.classes_[found]
                if self.classes_.dtype.kind not in "biuf":  # no device holds text
                    return self.classes_[backend.to_numpy(found)]
                found = np.take(backend.asarray(self.classes_), found)
        return self._given(found, X)

    def predict_proba(self, X: npt.ArrayLike) -> Array:
        """Return the probability of each class, (n, c), in the order of ``classes_``."""
        outputs = self._scores(X)
        with self._beside(X):
            probabilities = self.network_.loss_layer.probabilities(outputs)
        return self._given(probabilities, X)

    def predict_log_proba(self, X: npt.ArrayLike) -> Array:
        """Return the logarithms of :meth:`predict_proba`."""
        outputs = self._scores(X)
        with self._beside(X), np.errstate(divide="ignore"):
            logarithms = np.log(self.network_.loss_layer.probabilities(outputs))
        return self._given(logarithms, X)

    def decision_function(self, X: npt.ArrayLike) -> Array:
        """Return the scores before softmax or sigmoid, (n, c); for two classes that of the second, (n,)."""
        outputs = self._scores(X)
        with self._beside(X):
            if not self._is_multilabel and len(self.classes_) == 2:
                outputs = outputs[:, 1] - outputs[:, 0]
        return self._given(outputs, X)

    def score(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
        """Return the accuracy; with several labels per row the share of rows with all of them right."""
        return float(super().score(*self._on_host({"X": X, "y": y, "sample_weight": sample_weight})))

    def _scores(self, X: npt.ArrayLike) -> Array:
        """Return the outputs that stand for classes, where X is: not the second one of a single class."""
        outputs = self._outputs_for(X)
        with self._beside(X):
            return outputs[:, : len(self.classes_)].astype(outputs.dtype, order="C", copy=False)

    def whole_model(self) -> WholeModel:
        whole = super().whole_model()
        if self._is_multilabel:
            return whole
        if len(self.classes_) < 2:
            raise InvalidValueError("network: the classifier has learnt one class alone. Expected two or more.")
        return replace(whole, classes=self.classes_)

    @property
    def _is_multilabel(self) -> bool:
        check_is_fitted(self)
        return self.network_.loss == "sigmoid_cross_entropy"

    @property
    def out_activation_(self) -> str:
        """What turns scores into probabilities."""
        return "logistic" if self._is_multilabel else "softmax"

    def _loss(self) -> str | Loss:
        if self.loss is not None and not isinstance(self.loss, CustomLoss):
            raise InvalidTypeError(f"loss: got {shown(self.loss)}. Expected a gpunet.CustomLoss or None.")
        if self.loss is not None and (self._several or not self.loss.is_classifier):
            kind = "several labels per row" if self._several else "numbers for its targets"
            raise InvalidValueError(
                f"loss: got {self.loss!r} with {kind}. Expected one of targets='labels', for one label per row, "
                "or None."
            )
        softmax = SoftmaxCrossEntropy(self.label_smoothing)
        if not self._several and self.loss is None:
            return softmax
        if softmax.label_smoothing:
            what = "several labels per row" if self._several else "a loss of your own"
            raise InvalidValueError(f"label_smoothing: got {shown(self.label_smoothing)} with {what}. Expected 0.")
        return self.loss or "sigmoid_cross_entropy"

    def _outputs(self) -> int:
        return self.n_outputs_ if self._several else max(2, self.n_outputs_)

    def _learn_targets(self, y: Array, weights: Array | None, classes: Any, *, goes_on: bool, is_part: bool) -> None:
        check_classification_targets(y)
        several = type_of_target(y).startswith("multilabel")
        given = y if y.ndim == 2 else y[slice(None) if weights is None else weights > 0]
        if several:
            known = np.arange(y.shape[1])
        elif classes is not None:
            known = unique_labels(classes)
        else:
            known = np.unique(column_or_1d(given, warn=True))
        if not goes_on:
            self._several, self.classes_, self.n_outputs_ = several, known, len(known)
            return
        if several != self._several or (several and len(known) != len(self.classes_)):
            raise InvalidValueError("y: is of another kind than before. Expected labels as in the first call.")
        if classes is not None and not np.array_equal(known, self.classes_):
            raise InvalidValueError(f"classes: got {known.tolist()}. Expected {self.classes_.tolist()}, as before.")
        if not is_part and not np.array_equal(known, self.classes_):
            raise InvalidValueError(
                f"y: has the classes {known.tolist()}. Expected {self.classes_.tolist()}, as before: warm_start=True."
            )

    def _encoded(self, y: Array, weights: Array | None) -> tuple[Array, Array | None]:
        if self._several:
            labels = np.asarray(y, np.float32)
        else:
            y = column_or_1d(y)
            labels = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1).astype(np.int32)
            unknown = (self.classes_[labels] != y) & (True if weights is None else weights > 0)
            if unknown.any():
                wrong = y[int(np.argmax(unknown))]
                raise InvalidValueError(f"y: the label {str(wrong)!r} is not one of {self.classes_.tolist()}.")
        if self.class_weight is not None:
            try:
                per_row = compute_sample_weight(self.class_weight, y)
            except (ValueError, TypeError, KeyError) as error:
                reason = " ".join(str(error).split())
                raise InvalidValueError(f"class_weight: got {shown(self.class_weight)} ({reason}).") from None
            if not (np.isfinite(per_row) & (per_row >= 0)).all():
                raise InvalidValueError(
                    f"class_weight: got {shown(self.class_weight)}. Expected finite weights of at least 0."
                )
            weights = per_row if weights is None else per_row * weights
            if not weights.any():
                raise InvalidValueError("class_weight: every row has weight 0. Expected at least one above 0.")
        return labels, weights

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = self.loss is None
        return tags
