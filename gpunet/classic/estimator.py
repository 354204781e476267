"""What the estimators of this package share: scikit-learn's habits, without needing scikit-learn.

Constructors take keyword-only parameters and store them as given; ``fit`` checks them, returns the estimator, and sets
attributes whose names end with an underscore. So ``sklearn.base.clone``, pipelines and searches work, and scikit-learn
is imported only when it asks for its own tags.

An estimator is a dataclass: a field declares a parameter with its default and, by :func:`parameter`, its check.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from gpunet.classic.inputs import check_same_names, column_names, read_features
from gpunet.classic.scikit_learn import not_fitted_error
from gpunet.errors import InvalidValueError, unknown_name
from gpunet.schedules import Schedule, as_schedule
from gpunet.validation import check_dtype, check_integer

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

_P = ParamSpec("_P")
_Result = TypeVar("_Result")
_Method = TypeVar("_Method", bound=Callable[..., Any])


class Estimator:
    """Parameters by name, a readable ``repr``, and the check that ``fit`` came first.

    Attributes
    ----------
    n_features_in_ : int
        Columns of the X that ``fit`` was given.
    feature_names_in_ : ndarray of str, (columns,)
        Their names, where that X was a data frame whose column names are all text.
    """

    _estimator_type: ClassVar[str | None] = None

    n_features_in_: int
    feature_names_in_: Array

    # Subclasses are dataclasses.
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters by name; ``deep`` is scikit-learn's, no parameter has parameters here."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **parameters: Any) -> Self:
        """Set constructor parameters; ``fit`` checks their values.

        Raises
        ------
        InvalidValueError
            A name that the constructor does not have; nothing has been set then.
        """
        valid = self.get_params()
        for name in parameters:
            if name not in valid:
                raise unknown_name(f"{type(self).__name__} parameter", name, valid)
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Return a call that builds an equal estimator: only what differs from the defaults."""
        defaults = inspect.signature(type(self)).parameters
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
            transformer_tags=TransformerTags(preserves_dtype=[]) if kind == "transformer" else None,
            input_tags=InputTags(),
        )

    def _declared_parameters(self) -> dict[str, Any]:
        """Return what the class declares, whatever the constructor of a subclass takes."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def _checked_parameters(self) -> Self:
        """Return a copy with the parameters as their checks return them, or raise what a check raises."""
        given = copy.copy(self)
        for one in fields(self):
            if "check" in one.metadata:
                setattr(given, one.name, one.metadata["check"](one.name, getattr(self, one.name)))
        return given

    def _new_features(self, X: npt.ArrayLike) -> tuple[Array, Array | None]:
        """Return X as :meth:`_read` does, and the names of its columns, for ``fit``."""
        names = column_names("X", X)
        return self._read("X", X), names

    def _fitted_features(self, X: npt.ArrayLike) -> Array:
        """Return X as :meth:`_read` does, its columns those of ``fit``, or raise."""
        self._check_columns(X)
        return self._read("X", X, self.n_features_in_)

    def _read(self, argument: str, values: npt.ArrayLike, columns: int | None = None) -> Array:
        """Return ``values`` as a finite float64 array (n, columns), or raise."""
        return read_features(argument, values, columns, np.float64, type(self).__name__)

    def _check_columns(self, X: npt.ArrayLike) -> None:
        """Raise InvalidValueError where the names of X's columns are known and not those of ``fit``."""
        check_same_names("X", column_names("X", X), getattr(self, "feature_names_in_", None), type(self).__name__)

    def _set_columns(self, count: int, names: Array | None) -> None:
        """Take over what ``fit`` knows of the columns of X."""
        self.n_features_in_ = count
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_


def parameter(default: Any, check: Callable[..., Any], *, optional: bool = False, **limits: Any) -> Any:
    """Declare a parameter of an estimator.

    Parameters
    ----------
    default : object
    check : callable
        Takes the name, the value and ``limits``; returns the value that ``fit`` uses, or raises.
    optional : bool
        Whether None will do, unchecked.
    """

    def checked(name: str, value: Any) -> Any:
        return None if optional and value is None else check(name, value, **limits)

    return field(default=default, metadata={"check": checked})


def check_name(argument: str, value: Any, names: Collection[str]) -> str:
    """Return ``value`` if it is one of some names."""
    if not isinstance(value, str) or value not in names:
        raise unknown_name(argument, value, names)
    return value


def check_seed(argument: str, value: Any) -> int:
    """Return a seed of 64 bits."""
    return check_integer(argument, value, 0, 2**64 - 1)


def check_float_type(argument: str, value: npt.DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64; the argument is called ``dtype`` everywhere."""
    return check_dtype(value)


def check_schedule(argument: str, value: Any) -> Schedule:
    """Return a learning rate as a schedule that goes by the updates alone: nothing else is measured here."""
    schedule = as_schedule(value, argument)
    if schedule.monitor is not None:
        raise InvalidValueError(
            f"{argument}: follows {schedule.monitor}, which nobody measures here. Expected another."
        )
    return schedule


_RAISES_LEARNING = """

Raises
------
ShapeError, InvalidTypeError, NonFiniteError, InvalidValueError
    The data or a parameter of the constructor is not what it should be. Nothing has changed, here and below.
DeviceError
    The device cannot be used; for estimators that have one.
TrainingDivergedError
    Weights or the loss became NaN or infinite: a lower learning rate may help."""

_RAISES_AFTER_FIT = """

Raises
------
NotFittedError
    ``fit`` has not been called.
ShapeError, InvalidTypeError, NonFiniteError, InvalidValueError
    An argument does not fit the estimator: its width, the names of its columns, or its values. Nothing has changed."""


def learns(method: _Method) -> _Method:
    """Add to the docstring of ``fit`` or ``partial_fit`` what each of them raises."""
    if method.__doc__:
        method.__doc__ = inspect.cleandoc(method.__doc__) + _RAISES_LEARNING
    return method


def after_fit(method: Callable[Concatenate[Any, _P], _Result]) -> Callable[Concatenate[Any, _P], _Result]:
    """Make a method refuse to run before ``fit``, and add to its docstring what every such method raises."""

    @functools.wraps(method)
    def checked(self: Estimator, /, *args: _P.args, **kwargs: _P.kwargs) -> _Result:
        if not self.__sklearn_is_fitted__():
            who = type(self).__name__
            raise not_fitted_error()(f"{method.__name__}: this {who} is not fitted yet. Expected fit(...) first.")
        return method(self, *args, **kwargs)

    if method.__doc__:
        checked.__doc__ = inspect.cleandoc(method.__doc__) + _RAISES_AFTER_FIT
    return checked
