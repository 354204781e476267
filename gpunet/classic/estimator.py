"""What the estimators of this package share: scikit-learn's habits, without needing scikit-learn.

Constructors take keyword-only parameters and store them as given; ``fit`` checks them, returns the estimator, and sets
attributes whose names end with an underscore. So ``sklearn.base.clone``, pipelines and searches work, and scikit-learn
is imported only when it asks for its own tags.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, NotFittedError, ShapeError, unknown_name
from gpunet.validation import check_features, read_array

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

_LABELS_SHOWN = 6
# Scores are sums of products of features and of weights that are sums of features: those have to be finite too.
_LARGEST_FEATURE = 1e140


class Estimator:
    """Parameters by name, a readable ``repr``, and the check that ``fit`` came first.

    Attributes
    ----------
    n_features_in_ : int
        Columns of the X that ``fit`` was given.
    """

    _estimator_type: ClassVar[str | None] = None

    n_features_in_: int

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters by name; ``deep`` is scikit-learn's, no parameter has parameters here."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **parameters: Any) -> Self:
        """Set constructor parameters; ``fit`` checks their values.

        Raises
        ------
        InvalidValueError
            A name that the constructor does not have; nothing has been set then.
        """
        valid = self._parameter_names()
        for name in parameters:
            if name not in valid:
                raise unknown_name(f"{type(self).__name__} parameter", name, valid)
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Return a call that builds an equal estimator: only what differs from the defaults."""
        defaults = inspect.signature(type(self).__init__).parameters
        given = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if type(value) is not type(defaults[name].default) or value != defaults[name].default
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_in_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags, TransformerTags

        kind = self._estimator_type
        return Tags(
            estimator_type=kind if kind in ("classifier", "regressor") else None,
            target_tags=TargetTags(required=kind in ("classifier", "regressor")),
            classifier_tags=ClassifierTags(multi_class=False) if kind == "classifier" else None,
            regressor_tags=RegressorTags() if kind == "regressor" else None,
            transformer_tags=TransformerTags() if kind == "transformer" else None,
            input_tags=InputTags(),
        )

    def _require_fitted(self, method: str) -> None:
        """Raise NotFittedError where ``fit`` has not been called."""
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(f"{method}: this {type(self).__name__} is not fitted yet. Expected fit(...) first.")

    def _fitted_features(self, method: str, X: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> Array:
        """Return X as a finite (n, n_features_in_) array, or raise."""
        self._require_fitted(method)
        return check_features("X", X, self.n_features_in_, dtype)


class BinaryClassifier(Estimator, ABC):
    """A classifier for two classes that decides by the sign of a score.

    Attributes
    ----------
    classes_ : ndarray, (2,)
        The two labels that ``fit`` was given, sorted; ``classes_[1]`` is +1 inside.
    """

    _estimator_type: ClassVar[str | None] = "classifier"

    classes_: Array

    def _fitted_features(self, method: str, X: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> Array:
        """Return X as a finite (n, n_features_in_) array of moderate numbers, or raise."""
        features = super()._fitted_features(method, X, dtype)
        check_moderate("X", features)
        return features

    @abstractmethod
    def decision_function(self, X: npt.ArrayLike) -> Array:
        """Return the score of each row, float64 (n,); above 0 stands for ``classes_[1]``.

        Raises
        ------
        NotFittedError
            ``fit`` has not been called.
        ShapeError, InvalidTypeError, NonFiniteError, InvalidValueError
            X does not fit the estimator, or has numbers above 1e140.
        """

    def predict(self, X: npt.ArrayLike) -> Array:
        """Return the label of each row, (n,).

        Raises
        ------
        NotFittedError
            ``fit`` has not been called.
        ShapeError, InvalidTypeError, NonFiniteError, InvalidValueError
            X does not fit the estimator, or has numbers above 1e140.
        """
        self._require_fitted("predict")
        return self.classes_[(self.decision_function(X) > 0).astype(np.intp)]

    def score(self, X: npt.ArrayLike, y: npt.ArrayLike) -> float:
        """Return the fraction of rows whose label is predicted.

        Raises
        ------
        NotFittedError
            ``fit`` has not been called.
        ShapeError, InvalidTypeError, NonFiniteError, InvalidValueError
            X does not fit the estimator or has numbers above 1e140, or y does not fit X.
        """
        self._require_fitted("score")
        predicted = self.predict(X)
        return float(np.mean(predicted == check_label_vector("y", y, len(predicted))))


def check_moderate(argument: str, features: Array) -> None:
    """Raise InvalidValueError where a feature is so large that scores or squares of it would overflow."""
    largest = np.unravel_index(np.abs(features).argmax(), features.shape)
    if abs(features[largest]) > _LARGEST_FEATURE:
        row, column = largest
        raise InvalidValueError(
            f"{argument}: {features[largest]} in row {row}, column {column} is too large to add up squares of such "
            f"numbers. Expected at most {_LARGEST_FEATURE:g}: scale the features."
        )


def check_label_vector(argument: str, y: npt.ArrayLike, rows: int) -> Array:
    """Return labels of any kind (numbers, text, booleans) as an array (rows,), or raise.

    Raises
    ------
    ShapeError
        Not one label per row.
    InvalidTypeError
        Objects that are not all text, or all numbers of one kind; complex numbers, dates, masked labels.
    NonFiniteError
        NaN or infinity.
    """
    labels = read_array(argument, y)
    if labels.dtype == object and labels.ndim == 1:  # text, or a data frame's column that once held other things
        kinds = set(map(type, labels))
        if len(kinds) == 1 and issubclass(kinds.pop(), (str, int, float)):
            labels = np.array(labels.tolist())
    if labels.ndim != 1:
        hint = f" Use {argument}.ravel()." if labels.ndim == 2 and labels.shape[1] == 1 else ""
        raise ShapeError(f"{argument}: got shape {labels.shape}. Expected one label per row, shape ({rows},).{hint}")
    if len(labels) != rows:
        raise ShapeError(f"{argument}: got {len(labels)} labels for {rows} rows. Expected one per row.")
    if labels.dtype.kind not in "iufbU":
        raise InvalidTypeError(f"{argument}: got dtype {labels.dtype}. Expected labels: numbers, text or booleans.")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        row = int(np.argmax(~np.isfinite(labels)))
        raise NonFiniteError(f"{argument}: {labels[row]} in row {row}. Expected finite labels.")
    return labels


def encode_two_classes(argument: str, y: npt.ArrayLike, rows: int) -> tuple[Array, Array]:
    """Return the two labels, sorted, and each row's label as -1.0 or +1.0, float64 (rows,).

    Labels -1 and +1 stand for themselves; of any other two, the one that sorts last becomes +1.

    Raises
    ------
    InvalidValueError
        Not exactly two different labels; the message names them.
    ShapeError, InvalidTypeError, NonFiniteError
        See :func:`check_label_vector`.
    """
    classes, index = np.unique(check_label_vector(argument, y, rows), return_inverse=True)
    if len(classes) != 2:
        shown = ", ".join(repr(label) for label in classes[:_LABELS_SHOWN].tolist())
        more = ", ..." if len(classes) > _LABELS_SHOWN else ""
        count = f"{len(classes)} class{'es' if len(classes) != 1 else ''}"
        raise InvalidValueError(f"{argument}: got {count} ({shown}{more}). Expected exactly two classes.")
    return classes, np.where(index == 1, 1.0, -1.0)


def encode_known_classes(
    argument: str, y: npt.ArrayLike, rows: int, known: Array | None, classes: npt.ArrayLike | None
) -> tuple[Array, Array]:
    """Return both labels and each row's label as -1.0 or +1.0, for data that may lack one of them.

    Parameters
    ----------
    argument : str
    y : array_like, (rows,)
    rows : int
    known : ndarray, (2,), or None
        The labels that were settled before.
    classes : array_like, (2,), or None
        The labels to settle now; None takes those of ``y``.

    Raises
    ------
    InvalidValueError
        A label that is not one of the two, or ``classes`` that differ from those known.
    ShapeError, InvalidTypeError, NonFiniteError
        See :func:`check_label_vector`.
    """
    if classes is not None:
        settled, _ = encode_two_classes("classes", classes, 2)
        if known is not None and not np.array_equal(settled, known):
            raise InvalidValueError(f"classes: got {settled.tolist()}. Expected {known.tolist()}, as before.")
        known = settled
    if known is None:
        return encode_two_classes(argument, y, rows)
    labels = check_label_vector(argument, y, rows)
    strange = (labels != known[0]) & (labels != known[1])
    if strange.any():
        row = int(np.argmax(strange))
        raise InvalidValueError(
            f"{argument}: label {labels.tolist()[row]!r} in row {row} is not known. Expected one of {known.tolist()}."
        )
    return known, np.where(labels == known[1], 1.0, -1.0)
