"""A loss of the user's own, made of its value and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np

from gpunet.backends.reference.custom_loss import LossFunctions
from gpunet.errors import InvalidTypeError, InvalidValueError, shown
from gpunet.layers.base import Array, Memory, fixed
from gpunet.layers.loss import Loss
from gpunet.layers.softmax_cross_entropy import SoftmaxCrossEntropy
from gpunet.layers.squared_error import SquaredError
from gpunet.specification import check_own_name

Function: TypeAlias = Callable[[Array, Array], Array]

_ROWS, _DIRECTIONS, _STEP, _AGREES = 16, 4, 1e-5, 1e-6


class CustomLoss(Loss):
    """A loss of the user's own: J is the weighted mean of its l_i over the rows of a batch.

    For counts, with the logarithm of their mean as output (Poisson regression)::

        poisson = gpunet.CustomLoss(
            "poisson",
            value=lambda outputs, targets: (np.exp(outputs) - targets * outputs).sum(axis=1),
            gradient=lambda outputs, targets: np.exp(outputs) - targets,
        )
        gpunet.Network([8, 64, 1], loss=poisson)

    It runs as array expressions, on every device: NumPy's functions take CuPy's arrays as well. On CUDA, steps with it
    are not recorded, and one :class:`gpunet.NoKernelWarning` says so.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and underscores; none of gpunet's own names.
    value : callable
        Takes outputs and targets, both (n, c), and returns l, (n,); of the same dtype, float32 or float64. Each row
        depends on its own alone; nothing is written into the arguments. Functions of a module can be pickled, and so
        can networks that have them.
    gradient : callable
        Takes the same, and returns dl_i / do_ij, (n, c). When a network is made it is compared with differences of
        ``value``, for outputs about 0 and labels, or targets between 0 and 1, wherever these are finite;
        :func:`gpunet.diagnostics.check_gradients` does so with data.
    targets : {"numbers", "labels"}
        ``"labels"`` for classes: y are labels, or probabilities, and the functions get 1 in the column of the label and
        0 elsewhere. The outputs stand for classes then as with softmax cross-entropy, in predictions, probabilities and
        accuracy. Of probabilities, ``class_weight`` counts a row by their mean of the classes' weights.

    Raises
    ------
    InvalidValueError
        The name is not usable; or, when a network is made, the gradient is not that of the value.
    InvalidTypeError
        An argument of another type; or, when a network is made, a function that returns something else.
    """

    name = fixed("name")
    is_classifier = has_probabilities = fixed("takes_labels")

    def __init__(
        self, name: str, *, value: Function, gradient: Function, targets: Literal["numbers", "labels"] = "numbers"
    ) -> None:
        self._name = check_own_name(name)
        for argument, function in (("value", value), ("gradient", gradient)):
            if not callable(function):
                raise InvalidTypeError(f"{argument}: got {shown(function)}. Expected a function.")
        if not isinstance(targets, str):
            raise InvalidTypeError(f"targets: got {shown(targets)}. Expected 'numbers' or 'labels'.")
        if targets not in ("numbers", "labels"):
            raise InvalidValueError(f"targets: got {shown(targets)}. Expected 'numbers' or 'labels'.")
        self._functions = LossFunctions(name, value, gradient)
        self._takes_labels = targets == "labels"
        # What is made of the outputs: labels, probabilities and an accuracy, or the numbers that they are.
        self._reading: Loss = SoftmaxCrossEntropy() if self._takes_labels else SquaredError()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CustomLoss):
            return NotImplemented
        return (self._functions, self._takes_labels) == (other._functions, other._takes_labels)

    def __hash__(self) -> int:
        return hash(self._name)

    def unbound(self) -> CustomLoss:
        name, value, gradient = self._functions
        return CustomLoss(name, value=value, gradient=gradient, targets="labels" if self._takes_labels else "numbers")

    def check_outputs(self, outputs: int) -> None:
        if self._takes_labels and outputs < 2:
            raise InvalidValueError(
                f"layer_sizes: 1 output for the loss {self._name!r} of labels. Expected at least 2, one per class."
            )
        self._check_functions(outputs)

    def _check_functions(self, columns: int) -> None:
        """Compare what the functions return with what they took, and the gradient with central differences."""
        generator = np.random.default_rng(0)
        outputs = generator.standard_normal((_ROWS, columns))
        targets = generator.uniform(0.05, 0.95, (_ROWS, columns))
        if self._takes_labels:
            targets = 1.0 * (generator.integers(columns, size=(_ROWS, 1)) == np.arange(columns))
        _, value, gradient = self._functions
        with np.errstate(all="ignore"):
            for dtype in (np.float32, np.float64):
                given = outputs.astype(dtype), targets.astype(dtype)
                _call("value", value, (_ROWS,), *given)
                found = _call("gradient", gradient, outputs.shape, *given)
            for _ in range(_DIRECTIONS):
                change = generator.standard_normal(outputs.shape)
                change *= _STEP / np.linalg.norm(change, axis=1, keepdims=True)
                expected = (value(outputs + change, targets) - value(outputs - change, targets)) / (2 * _STEP)
                predicted = (found * change).sum(axis=1) / _STEP
                agrees = np.abs(predicted - expected) <= _AGREES * np.maximum(1, np.abs(expected))
                wrong = np.isfinite(expected) & ~agrees
                if wrong.any():
                    first = int(np.flatnonzero(wrong)[0])
                    raise InvalidValueError(
                        f"loss: the gradient of {self._name!r} says that l changes by {predicted[first]:.6g} per unit "
                        f"in a direction of {columns} outputs, and differences of its value give "
                        f"{expected[first]:.6g}. Expected the derivatives of each row's value by its outputs."
                    )

    def bind(self, memory: Memory) -> None:
        super().bind(memory)
        self._reading.bind(memory)

    def evaluate(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        class_weights: Array | None,
        places: dict[str, Any],
    ) -> None:
        self.backend.custom_loss(
            outputs, targets, weights, doutputs, self.value, self._functions, class_weights, **places
        )

    def predict(self, outputs: Array) -> Array:  # type: ignore[override]
        return self._reading.predict(outputs)

    def probabilities(self, outputs: Array) -> Array:  # type: ignore[override]
        return self._reading.probabilities(outputs)

    def score(self, outputs: Array, targets: Array, weights: Array | None, out: Array) -> None:
        self._reading.score(outputs, targets, weights, out)


def _call(argument: str, function: Function, shape: tuple[int, ...], outputs: Array, targets: Array) -> Array:
    """Return what a function makes of copies of these, or raise where it is not of this shape and their dtype."""
    try:
        result = function(outputs.copy(), targets.copy())
    except Exception as error:
        raise InvalidValueError(
            f"{argument}: raised {shown(error)} for outputs and targets {outputs.shape} of {outputs.dtype}. "
            "Expected a function of two arrays."
        ) from error
    if not isinstance(result, np.ndarray) or (result.shape, result.dtype) != (shape, outputs.dtype):
        what = getattr(result, "dtype", type(result).__name__)
        raise InvalidTypeError(
            f"{argument}: returned {what}, of shape {np.shape(result)}, for {outputs.dtype}, of shape {outputs.shape}. "
            f"Expected an array of shape {shape} and of the same dtype."
        )
    return result
