"""What is known about an activation: the base of gpunet's own, and what users make theirs of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gpunet.activations.onnx_graph import OnnxGraph
from gpunet.errors import InvalidTypeError, InvalidValueError, shown
from gpunet.specification import check_own_name

Array: TypeAlias = npt.NDArray[Any]
Function: TypeAlias = Callable[[Array], Array]
DerivativeOf: TypeAlias = Literal["output", "input"]

# Where functions of the user's own are compared: no round numbers, where kinks are.
CHECKED_POINTS = np.linspace(-6, 6, 96) + 0.0137
_STEP, _AGREES = 1e-5, 1e-6


OnnxNodes: TypeAlias = Callable[[OnnxGraph, str, str], str]


class Activation:
    """An element-wise non-linearity y = f(s).

    gpunet's own ones are subclasses, whose class attributes say all that layers, kernels, initialisers, diagnostics and
    the ONNX export ask. Made directly, it is one of the user's own functions::

        softsign = gpunet.Activation(
            "softsign",
            forward=lambda s: s / (1 + np.abs(s)),
            derivative=lambda s: (1 + np.abs(s)) ** -2,
            derivative_of="input",
            cuda_forward="s / (1 + fabs(s))",
            cuda_derivative="1 / ((1 + fabs(s)) * (1 + fabs(s)))",
            onnx=lambda graph, s, output: graph.add("Softsign", [s], output),
        )
        gpunet.Network([64, 128, 10], activation=softsign)

    Parameters
    ----------
    name : str
        Lower-case letters, digits and underscores; none of gpunet's own names.
    forward, derivative : callable
        Take an array and return one of the same shape and dtype, float32 or float64; each element depends on its own
        alone. Functions of a module can be pickled, and so can networks that have them.
    derivative_of : {"output", "input"}
        What ``derivative`` takes, and what a layer without batch norm therefore keeps for the backward pass: y = f(s),
        which then overwrites s, or s itself, which costs one more array. Batch norm evaluates either again.
    cuda_forward, cuda_derivative : str, optional
        The same in CUDA C++, compiled into the kernels: an expression, or statements with ``return``. ``s`` is the
        argument, or ``y`` of a derivative of the output, of the type ``A``, float or double. Functions such as ``exp``,
        ``tanh``, ``fabs`` and ``erf`` take both; ``A(0.5)`` is a number of the right type.
    onnx : callable, optional
        Adds the nodes of the function to an :class:`gpunet.activations.OnnxGraph`, for :func:`gpunet.export_onnx`.
        Called with the graph, the name of s and the name the output of the last node has to have, which it returns:
        ``lambda graph, s, output: graph.add("Softsign", [s], output)``.

    Attributes
    ----------
    slopes : (float, float) or None
        f(s) / s left and right of 0, for the functions that are homogeneous: f(r s) = r f(s) for r > 0.
    limits : (float, float) or None
        f(-inf) and f(inf): on a side where that is finite, f saturates. None where it is not known.
    gain : float
        Of the default initial weights: their variance times the fan-in. 2 where about half of the input is passed on
        (He), otherwise 1 (Xavier).
    parameter : float
        The function's one number (slope of leaky ReLU, alpha of ELU), 0 where there is none. Kernels get it as an
        argument.
    torch_name : str or None
        Of the same function in ``torch.nn``, which is made with the number, if there is one, and ``torch_options``.

    Raises
    ------
    InvalidValueError
        The name is not usable, or the derivative is not that of the function.
    InvalidTypeError
        An argument of another type, or a function that does not return an array of its argument's shape and dtype.
    """

    name: str
    derivative_of: DerivativeOf = "output"
    cuda_forward: str | None = None
    cuda_derivative: str | None = None
    slopes: tuple[float, float] | None = None
    limits: tuple[float, float] | None = None
    gain: float = 1.0
    takes_number: bool = False
    parameter: float = 0.0
    torch_name: str | None = None
    torch_options: Mapping[str, Any] = {}
    _onnx: OnnxNodes | None = None

    def __init__(
        self,
        name: str,
        *,
        forward: Function,
        derivative: Function,
        derivative_of: DerivativeOf = "output",
        cuda_forward: str | None = None,
        cuda_derivative: str | None = None,
        onnx: OnnxNodes | None = None,
    ) -> None:
        check_own_name(name)
        for argument, function in (("forward", forward), ("derivative", derivative), ("onnx", onnx)):
            if not callable(function) and (argument, function) != ("onnx", None):
                raise InvalidTypeError(f"{argument}: got {shown(function)}. Expected a function.")
        if not isinstance(derivative_of, str):
            raise InvalidTypeError(f"derivative_of: got {shown(derivative_of)}. Expected 'output' or 'input'.")
        if derivative_of not in ("output", "input"):
            raise InvalidValueError(f"derivative_of: got {shown(derivative_of)}. Expected 'output' or 'input'.")
        texts = (("cuda_forward", cuda_forward), ("cuda_derivative", cuda_derivative))
        for argument, text in texts:
            if text is not None and not isinstance(text, str):
                raise InvalidTypeError(f"{argument}: got {shown(text)}. Expected CUDA C++, or None.")
        if (cuda_forward is None) != (cuda_derivative is None):
            raise InvalidValueError(f"{texts[cuda_forward is not None][0]}: missing. Expected both texts, or none.")
        self.name = name
        self._forward = forward
        self._derivative = derivative
        self.derivative_of = derivative_of
        self.cuda_forward = cuda_forward
        self.cuda_derivative = cuda_derivative
        self._onnx = onnx
        _check_functions(self)

    def forward(self, s: Array) -> Array:
        """Return f(s), of the same shape and dtype."""
        return self._forward(s)

    def derivative(self, kept: Array) -> Array:
        """Return f'(s), of the same shape and dtype, from what ``derivative_of`` names: y = f(s), or s."""
        return self._derivative(kept)

    def derivative_at(self, s: Array) -> Array:
        """Return f'(s) from s, whatever ``derivative_of`` is."""
        return self.derivative(s if self.derivative_of == "input" else self.forward(s))

    @property
    def is_homogeneous(self) -> bool:
        """Whether f(r s) = r f(s) for every r > 0."""
        return self.slopes is not None

    @property
    def saturates(self) -> bool:
        """Whether f has flat ends that are not, as ReLU's, the half of it that is meant to be flat."""
        return not self.is_homogeneous and (self.limits is None or any(map(math.isfinite, self.limits)))

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        """Add the nodes that compute f(``s``), of which the last is named ``output``, and return its name.

        Raises
        ------
        InvalidValueError
            A function of the user's own was made without them, or what it was given adds none of that name.
        """
        if self._onnx is None:
            raise InvalidValueError(
                f"activation: {str(self)!r} has no ONNX nodes. Expected an activation made with onnx=..., or one of "
                "gpunet's own."
            )
        try:
            last = self._onnx(graph, s, output)
        except Exception as error:
            raise InvalidValueError(f"onnx: that of {str(self)!r} raised {shown(error)}.") from error
        if last != output:
            raise InvalidValueError(
                f"onnx: that of {str(self)!r} returned {shown(last)}. Expected {output!r}, the name of its last node."
            )
        return output

    @property
    def cuda_name(self) -> str:
        """The C++ name of the structure in :meth:`cuda_source`, a template argument of the kernels."""
        return f"{self.name}_activation"

    def cuda_source(self) -> str:
        """Return the structure that kernels are compiled with: f and f' as static functions of A, float or double.

        Raises
        ------
        InvalidValueError
            There is no CUDA text.
        """
        if self.cuda_forward is None or self.cuda_derivative is None:
            raise InvalidValueError(
                f"activation: {str(self)!r} has no CUDA text. Expected cuda_forward and cuda_derivative, or "
                "device='cpu'."
            )
        of_input = self.derivative_of == "input"
        return (
            f'\n#line 1 "{self.name}"\n'
            f"struct {self.cuda_name} {{\n"
            f"static constexpr bool DERIVATIVE_OF_INPUT = {str(of_input).lower()};\n"
            f"{_cuda_function('forward', 's', self.cuda_forward, self.name)}"
            f"{_cuda_function('derivative', 's' if of_input else 'y', self.cuda_derivative, self.name)}"
            "};\n"
        )

    def __str__(self) -> str:
        return f"{self.name}({self.parameter!r})" if self.takes_number else self.name

    def __repr__(self) -> str:
        return f"<activation {self}>"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), str(self)))


class OwnActivation(Activation):
    """One of gpunet's own: a class, which says what :class:`Activation` has as attributes."""

    def __init__(self) -> None:
        """Take nothing: all is said by the class."""


def _cuda_function(function: str, argument: str, text: str, name: str) -> str:
    """Return a static function with the text as its body; compilers name its lines as the user knows them."""
    body = text if re.search(r"\breturn\b", text) else f"return {text};"
    return (
        "template <typename A>\n"
        f"static __device__ __forceinline__ A {function}(A {argument}, A parameter) {{\n"
        f'#line 1 "cuda_{function} of {name}"\n'
        f"{body}\n"
        "}\n"
    )


def _check_functions(activation: Activation) -> None:
    """Compare a derivative with central differences, and what the functions return with what they took."""
    for dtype in (np.float32, np.float64):
        s = CHECKED_POINTS.astype(dtype)
        for argument, function, given in (
            ("forward", activation.forward, s),
            ("derivative", activation.derivative_at, s),
        ):
            try:
                result = function(given.copy())
            except Exception as error:
                raise InvalidValueError(
                    f"{argument}: raised {shown(error)} for numbers of {s.dtype}. Expected a function of an array."
                ) from error
            if not isinstance(result, np.ndarray) or (result.shape, result.dtype) != (s.shape, s.dtype):
                what = getattr(result, "dtype", type(result).__name__)
                raise InvalidTypeError(
                    f"{argument}: returned {what}, of shape {np.shape(result)}, for {s.dtype}, of shape {s.shape}. "
                    "Expected an array of the same shape and dtype."
                )
    found = activation.derivative_at(CHECKED_POINTS)
    expected = (activation.forward(CHECKED_POINTS + _STEP) - activation.forward(CHECKED_POINTS - _STEP)) / (2 * _STEP)
    wrong = ~(np.abs(found - expected) <= _AGREES * np.maximum(1, np.abs(expected)))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise InvalidValueError(
            f"derivative: f'({CHECKED_POINTS[first]:g}) of {activation.name!r} is {found[first]:.6g}, and differences "
            f"of forward give {expected[first]:.6g}. Expected the derivative as a function of the "
            f"{activation.derivative_of}, as derivative_of={activation.derivative_of!r} says."
        )
