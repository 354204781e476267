"""``MLPRegressor``: one number per row, or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.utils import column_or_1d

from gpunet.errors import InvalidTypeError, InvalidValueError, ShapeError, counted, shown, unknown_name
from gpunet.estimators.perceptron import MultilayerPerceptron, as_scaling, standardising
from gpunet.interchange.whole_model import WholeModel
from gpunet.layers import CustomLoss, Huber, Loss, Quantile, SquaredError
from gpunet.validation import check_flag, is_on_cuda, is_sequence

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]


@dataclass(eq=False, repr=False)
class MLPRegressor(RegressorMixin, MultilayerPerceptron):  # type: ignore[misc]
    """A regressor with scikit-learn's contract, trained by :func:`gpunet.fit`.

    Parameters are those of :class:`MLPClassifier`, but for ``class_weight`` and ``label_smoothing``; the cost is half
    the mean squared error plus the L2 term, as in scikit-learn, or another loss.

    Parameters
    ----------
    loss : str or CustomLoss
        ``"squared_error"``; ``"huber"``, where outliers are among the targets; ``"quantile"``; or one of your own, with
        ``targets="numbers"``. What :meth:`predict` returns, and :meth:`score` compares with y, are the outputs that it
        is a function of.
    quantile : float or sequence of float
        Of ``loss="quantile"``, above 0 and below 1. Several are for one target per row: :meth:`predict` has a column
        for each.
    delta : float
        Of ``loss="huber"``, above 0: where squared error ends and absolute error begins, in the units of what the
        network learns; with ``scale_targets`` those are standard deviations of y.
    scale_targets : bool or None
        Whether the network learns (y - mean) / deviation; predictions are in the units of y all the same. ``tol`` and
        ``loss_curve_`` speak of what the network learns. None is yes, but for a loss of your own: that gets y.

    Attributes
    ----------
    network_, history_, n_iter_, loss_curve_, loss_, best_loss_, n_layers_, n_outputs_
        As of :class:`MLPClassifier`.
    validation_scores_, best_validation_score_
        The validation loss, its sign turned.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = MLPRegressor((16,), max_iter=20, random_state=0, tol=0.1, device="cpu").fit(X, y)
    >>> model.predict(X).shape
    (442,)
    """

    _monitor: ClassVar[str] = "validation_loss"
    out_activation_: ClassVar[str] = "identity"

    _of_the_network: ClassVar[tuple[str, ...]] = (
        *MultilayerPerceptron._of_the_network,
        "loss",
        "quantile",
        "delta",
    )

    _: KW_ONLY
    loss: str | CustomLoss = "squared_error"
    quantile: float | Sequence[float] = 0.5
    delta: float = 1.0
    scale_targets: bool | None = None

    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Go over the rows once, from where learning stands.

        Parameters
        ----------
        X : array_like, (n, d)
        y : array_like, (n,) or (n, c)
        sample_weight : array_like, (n,), or None

        Returns
        -------
        self

        Raises
        ------
        As :meth:`fit`.
        """
        return self._learn(X, y, sample_weight, 1, goes_on=hasattr(self, "network_"), is_part=True)

    def predict(self, X: npt.ArrayLike) -> Array:
        """Return the predictions, (n,), or (n, c) where ``fit`` was given several targets or quantiles."""
        outputs = self._outputs_for(X)
        backend, scaler = self.network_.backend, self._target_scaler
        with self._beside(X):
            if scaler is not None:
                scale, mean = (backend.asarray(one) if is_on_cuda(X) else one for one in (scaler.scale_, scaler.mean_))
                outputs = outputs.astype(np.float64) * scale + mean
            outputs = outputs[:, 0] if self._is_single and outputs.shape[1] == 1 else outputs
        return self._given(outputs, X)

    def score(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
        """Return the coefficient of determination, R^2, of one prediction per target.

        Raises
        ------
        InvalidValueError
            There are several quantiles.
        """
        if self._has_quantiles() and len(self._levels()) > 1:
            raise InvalidValueError(
                f"score: R^2 is of one prediction per row, and there are those of the quantiles {self.quantile}. "
                "Expected one quantile; sklearn.metrics.mean_pinball_loss scores each column of predict(X)."
            )
        return float(super().score(*self._on_host({"X": X, "y": y, "sample_weight": sample_weight})))

    def whole_model(self) -> WholeModel:
        whole = super().whole_model()
        scaler = self._target_scaler
        return whole if scaler is None else replace(whole, target_scaling=as_scaling(scaler))

    def _loss(self) -> Loss:
        if isinstance(self.loss, CustomLoss):
            if self.loss.is_classifier:
                raise InvalidValueError(
                    f"loss: got {self.loss!r}, whose targets are labels. Expected one of targets='numbers', or a "
                    "gpunet.MLPClassifier."
                )
            return self.loss
        if self._has_quantiles():
            return Quantile(*self._levels())
        return Huber(self.delta) if self.loss == Huber.name else SquaredError()

    def _has_quantiles(self) -> bool:
        if isinstance(self.loss, CustomLoss):
            return False
        names = SquaredError.name, Huber.name, Quantile.name
        if not isinstance(self.loss, str):
            raise InvalidTypeError(
                f"loss: got {shown(self.loss)}. Expected one of the names {', '.join(names)}, or a gpunet.CustomLoss."
            )
        if self.loss not in names:
            raise unknown_name("loss", self.loss, names)
        return self.loss == Quantile.name

    def _levels(self) -> tuple[Any, ...]:
        """Return the quantiles that are asked for."""
        given: Any = self.quantile
        levels = tuple(given) if is_sequence(given) else (given,)
        if not levels or (len(levels) > 1 and not self._is_single):
            raise InvalidValueError(
                f"quantile: got {len(levels)} for {counted(self.n_outputs_, 'target')} per row. Expected one, or for "
                "one target several."
            )
        return levels

    def _outputs(self) -> int:
        return len(self._levels()) if self._has_quantiles() and self._is_single else self.n_outputs_

    def _learn_targets(self, y: Array, weights: Array | None, classes: Any, *, goes_on: bool, is_part: bool) -> None:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if goes_on and outputs != self.n_outputs_:
            raise ShapeError(f"y: got {counted(outputs, 'target')} per row. Expected {self.n_outputs_}, as before.")
        self.n_outputs_, self._is_single = outputs, y.ndim == 1

    def _encoded(self, y: Array, weights: Array | None) -> tuple[Array, Array | None]:
        return np.asarray(y, np.float64).reshape(len(y), -1), weights

    def _learn_scaling(self, X: Array, targets: Array, weights: Array | None) -> None:
        super()._learn_scaling(X, targets, weights)
        self._target_scaler = None
        scales = not isinstance(self.loss, CustomLoss) if self.scale_targets is None else self.scale_targets
        if check_flag("scale_targets", scales):
            self._target_scaler = standardising("y", targets, weights)

    def _scaled_targets(self, targets: Array) -> Array:
        return targets if self._target_scaler is None else self._target_scaler.transform(targets)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
