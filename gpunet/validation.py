"""Checks at the edge: what enters a network is turned into clean arrays once, or refused with a clear message.

Nothing below this module checks again. What is in CUDA memory is checked there; see :class:`DeviceArray`.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError, counted, shown
from gpunet.frames import frame_numbers, table_columns

Array = npt.NDArray[Any]

# Of a layer: what 32 bits can count.
LARGEST_SIZE = 2**31 - 1
_NUMBERS_AT_A_TIME = 1 << 18
# The part of an array that is all of it.
ALL = 0, 1
# How far the sum of the probabilities of a row may be from 1: half precision and two decimals are welcome.
_SUM_TOLERANCE = 0.01
# DLPack's numbers of the devices whose memory a GPU has at hand: kDLCUDA and kDLCUDAManaged.
_CUDA_DEVICES = (2, 13)
# What float() would turn into a number all the same.
_NO_NUMBERS = (bool, np.bool_, str, bytes, bytearray, np.complexfloating, np.datetime64, np.timedelta64)


@dataclass(frozen=True)
class DeviceArray:
    """An array in CUDA memory to be checked there, not on the host: for :func:`check_features` and its siblings.

    Attributes
    ----------
    array : array
        CuPy's. Its device is the current one, and so is a stream that waits for what still writes the array: NumPy's
        functions leave the work to CuPy.
    """

    array: Array


def check_integer(argument: str, value: Any, minimum: int, maximum: int | None = None) -> int:
    """Return ``value`` as an int of at least ``minimum``."""
    expected = f"an integer of at least {minimum}" if maximum is None else f"an integer from {minimum} to {maximum}"
    if isinstance(value, (bool, np.bool_)):
        raise InvalidTypeError(f"{argument}: got {shown(value)}. Expected {expected}.")
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidTypeError(f"{argument}: got {shown(value)}. Expected {expected}.") from None
    if number < minimum or (maximum is not None and number > maximum):
        raise InvalidValueError(f"{argument}: {number} is out of range. Expected {expected}.")
    return number


def check_number(
    argument: str, value: Any, *, minimum: float = 0.0, above: bool = False, maximum: float = math.inf
) -> float:
    """Return ``value`` as a finite float in [minimum, maximum], or (minimum, maximum] where ``above``."""
    expected = f"a finite number {'above' if above else 'of at least'} {minimum:g}"
    if maximum < math.inf:
        expected += f" and at most {maximum:g}"
    if isinstance(value, _NO_NUMBERS) or value is None:
        raise InvalidTypeError(f"{argument}: got {shown(value)}. Expected {expected}.")
    if getattr(value, "shape", ()) != ():
        raise InvalidTypeError(f"{argument}: got an array of shape {value.shape}. Expected {expected}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except Exception:  # whatever an object's own __float__ raises
        raise InvalidTypeError(f"{argument}: got {type(value).__name__}. Expected {expected}.") from None
    if not math.isfinite(number) or number < minimum or (above and number == minimum) or number > maximum:
        raise InvalidValueError(f"{argument}: {number!r} is out of range. Expected {expected}.")
    return number


def check_json(argument: str, value: Any) -> dict[str, Any]:
    """Return ``value`` if it is a dictionary that JSON can hold."""
    if not isinstance(value, dict):
        raise InvalidTypeError(f"{argument}: got {type(value).__name__}. Expected a dictionary, {{}} for none.")
    try:
        json.loads(json.dumps(value, allow_nan=False), object_pairs_hook=_distinct_keys)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValueError(
            f"{argument}: cannot be written as JSON ({error}). Expected text, finite numbers, True, False, None, and "
            "lists and dictionaries of them."
        ) from None
    return value


def _distinct_keys(pairs: list[tuple[str, Any]]) -> None:
    """Raise ValueError where keys that differ are the same as text, as 1 and "1" are: one of them would be lost."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"two keys of a dictionary are both {key!r} as text")
        seen.add(key)


def check_sizes(layer_sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the layer sizes: at least inputs and outputs, each at least 1."""
    if isinstance(layer_sizes, (str, bytes)) or not is_sequence(layer_sizes):
        raise InvalidTypeError(f"layer_sizes: got {shown(layer_sizes)}. Expected a sequence such as [64, 128, 10].")
    if len(layer_sizes) < 2:
        raise InvalidValueError(f"layer_sizes: got {shown(list(layer_sizes))}. Expected at least inputs and outputs.")
    return check_each_size("layer_sizes", layer_sizes)


def check_each_size(argument: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return numbers of units, each from 1 to ``LARGEST_SIZE``."""
    return tuple(check_integer(f"{argument}[{place}]", size, 1, LARGEST_SIZE) for place, size in enumerate(sizes))


def per_layer(argument: str, value: Any, hidden: int, check: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Return one checked value per hidden layer; a single value stands for all of them."""
    if isinstance(value, str) or not is_sequence(value):
        return (check(value),) * hidden
    if len(value) != hidden:
        raise InvalidValueError(
            f"{argument}: got {counted(len(value), 'value')}. Expected {hidden}, one per hidden layer."
        )
    return tuple(check(one) for one in value)


def is_sequence(value: Any) -> bool:
    """Say whether a value is a list of values, and no array without dimensions."""
    return isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim > 0)


def check_flag(argument: str, value: Any) -> bool:
    """Return ``value`` if it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidTypeError(f"{argument}: got {shown(value)}. Expected True or False.")
    return bool(value)


def check_rate(argument: str, value: Any) -> float:
    """Return ``value`` as a float of at least 0 and below 1."""
    rate = check_number(argument, value, maximum=1.0)
    if rate == 1.0:
        raise InvalidValueError(f"{argument}: 1.0 is out of range. Expected a number of at least 0 and below 1.")
    return rate


def check_dtype(dtype: npt.DTypeLike, argument: str = "dtype") -> np.dtype[Any]:
    """Return float32 or float64 as a dtype."""
    try:
        checked = np.dtype(dtype)
    except Exception:  # also what an object's own attribute "dtype" raises
        checked = None
    if checked is None or dtype is None:  # for NumPy, None is float64
        raise InvalidTypeError(f"{argument}: got {shown(dtype)}. Expected 'float32' or 'float64'.")
    if checked.name not in ("float32", "float64"):
        raise InvalidValueError(f"{argument}: got {checked.name!r}. Expected 'float32' or 'float64'.")
    return checked.newbyteorder("=")


def check_normal(argument: str, number: float, dtype: np.dtype[Any]) -> None:
    """Raise if a positive number is 0 or subnormal in ``dtype``: it would not keep a denominator away from 0."""
    smallest = float(np.finfo(dtype).tiny)
    if number < smallest:
        raise InvalidValueError(f"{argument}: {number!r} is too small for {dtype}. Expected at least {smallest:.3g}.")


PRECISIONS = ("float32", "tf32", "bfloat16", "float16")


def check_precision(precision: str, dtype: np.dtype[Any]) -> str:
    """Return one of ``PRECISIONS``; others than ``"float32"`` for float32 networks only."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        expected = f"{', '.join(map(repr, PRECISIONS[:-1]))} or {PRECISIONS[-1]!r}"
        raise InvalidValueError(f"precision: got {shown(precision)}. Expected {expected}.")
    if precision != "float32" and dtype != np.float32:
        raise InvalidValueError(f"precision: {precision!r} is for dtype='float32', got dtype={dtype.name!r}.")
    return precision


def check_features(
    argument: str,
    values: Any,
    columns: int | None,
    dtype: npt.DTypeLike,
    *,
    whole: bool = True,
    part: tuple[int, int] = ALL,
) -> Array:
    """Return ``values`` as a finite, C-contiguous (n, columns) array of ``dtype``, on the host or in CUDA memory.

    Parameters
    ----------
    argument : str
        The name that error messages give the array.
    values : array_like
        Two-dimensional numbers; an array of ``dtype`` that is contiguous already is not copied.
    columns : int or None
        The width the network expects; None takes any.
    dtype : dtype
        float32 or float64.
    whole : bool
        False returns an array of the host as it is, of whatever dtype and layout: to be converted batch by batch, which
        no number will then be too large for.
    part : (int, int)
        Which part of the rows is looked at, from 0, and how many there are: where others look at theirs. What is
        converted or in CUDA memory is looked at whole.

    Raises
    ------
    InvalidTypeError
        Objects, text, complex numbers, or sparse matrices.
    ShapeError
        Not two-dimensional, of another width, or without rows.
    NonFiniteError
        NaN or infinity, or too large for ``dtype``; the message has the row and the column.
    """
    array = _numeric_array(argument, values)
    if array.ndim != 2:
        hint = f" Reshape your data: {argument}.reshape(1, -1) is one example." if array.ndim == 1 else ""
        raise ShapeError(f"{argument}: got shape {array.shape}. Expected two dimensions (rows, columns).{hint}")
    if columns is not None and array.shape[1] != columns:
        raise ShapeError(f"{argument}: got {counted(array.shape[1], 'column')}. Expected {columns}.")
    if array.shape[0] == 0:
        raise ShapeError(f"{argument}: got no rows, shape {array.shape}. Expected at least one.")
    if array.shape[1] == 0:
        raise ShapeError(f"{argument}: got 0 feature(s) (shape={array.shape}) while a minimum of 1 is required.")
    return _finite(argument, array, dtype, whole or isinstance(values, DeviceArray), part)


def are_probabilities(argument: str, values: Any, classes: int) -> bool:
    """Say whether targets of a classifier are the probabilities of its classes, floats (n, classes), and not labels.

    Raises
    ------
    InvalidTypeError, ShapeError
        As :func:`read_array`.
    """
    array = values.array if isinstance(values, DeviceArray) else read_array(argument, values)
    return array.ndim == 2 and array.shape[1] == classes and array.dtype.kind == "f"


def check_distributions(
    argument: str,
    values: Any,
    rows: int,
    classes: int,
    dtype: npt.DTypeLike,
    *,
    whole: bool = True,
    part: tuple[int, int] = ALL,
) -> Array:
    """Return ``values`` as a (rows, classes) array of probabilities whose rows sum to 1 within a hundredth.

    Raises
    ------
    InvalidTypeError, ShapeError, NonFiniteError, InvalidValueError
        As :func:`check_targets`; the sum of a row is another.
    """
    targets = check_targets(argument, values, rows, classes, dtype, probabilities=True, whole=whole, part=part)
    for rows_here in pieces(targets, part):
        sums = _contiguous(targets[rows_here], dtype).sum(axis=1)
        if (wrong := first(abs(sums - 1) > _SUM_TOLERANCE)) is not None:
            raise InvalidValueError(
                f"{argument}: row {rows_here.start + wrong[0]} sums to {element(sums, wrong):.4g}. Expected labels, or "
                "the probabilities of the classes, which sum to 1."
            )
    return targets


def check_targets(
    argument: str,
    values: Any,
    rows: int,
    columns: int | None,
    dtype: npt.DTypeLike,
    *,
    probabilities: bool = False,
    shared: bool = False,
    whole: bool = True,
    part: tuple[int, int] = ALL,
) -> Array:
    """Return ``values`` as a finite (rows, columns) array of targets that are numbers; (rows,) fits one column.

    Parameters
    ----------
    columns : int or None
        None takes any number from 1.
    probabilities : bool
        Whether the numbers must lie in [0, 1]; true and false will do then.
    shared : bool
        Whether one column will do for all.
    whole : bool
    part : (int, int)
        As in :func:`check_features`.

    Raises
    ------
    InvalidTypeError, ShapeError, NonFiniteError
        As :func:`check_features`.
    InvalidValueError
        Not in [0, 1]; the message has the row and the column.
    """
    array = _numeric_array(argument, values, booleans=probabilities)
    if columns is None:
        columns = max(array.shape[1], 1) if array.ndim == 2 else 1
    if array.ndim == 1 and columns == 1:
        array = array.reshape(-1, 1)
    if shared and array.shape in ((rows,), (rows, 1)):
        array = np.broadcast_to(array.reshape(-1, 1), (rows, columns))
    if array.shape != (rows, columns):
        raise ShapeError(f"{argument}: got shape {array.shape}. Expected ({rows}, {columns}).")
    targets = _finite(argument, array, dtype, whole or isinstance(values, DeviceArray), part)
    for rows_here in pieces(targets, part) if probabilities else ():
        here = _contiguous(targets[rows_here], dtype)
        if (wrong := first((here < 0) | (here > 1))) is not None:
            position = rows_here.start + wrong[0], wrong[1]
            raise InvalidValueError(
                f"{argument}: {element(array, position)} in row {position[0]}, column {position[1]} is out of range. "
                "Expected numbers from 0 to 1."
            )
    return targets


def check_parameter(name: str, values: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return a copy of a parameter's or running average's new value as a finite array of ``shape`` and ``dtype``.

    Raises
    ------
    InvalidTypeError, ShapeError, NonFiniteError, InvalidValueError
    """
    source = _numeric_array(name, values)
    with np.errstate(over="ignore"):
        array = np.array(source, dtype=dtype)  # a copy: it may be a view of another parameter
    if array.shape != shape:
        raise ShapeError(f"{name}: got shape {array.shape}. Expected {shape}.")
    if not np.isfinite(array).all():
        raise NonFiniteError(f"{name}: holds NaN or infinity. Expected finite {dtype} numbers.")
    if name.startswith("running_variance") and (array < 0).any():
        raise InvalidValueError(f"{name}: holds a negative number. Expected variances of at least 0.")
    return array


def check_weights(argument: str, values: Any, rows: int, dtype: npt.DTypeLike, *, some: bool = True) -> Array:
    """Return ``values`` as a finite (rows,) array of weights of at least 0, each 0 or normal in ``dtype``.

    Parameters
    ----------
    some : bool
        Whether one of them must be above 0.

    Raises
    ------
    InvalidTypeError, ShapeError, NonFiniteError, InvalidValueError
    """
    given = _numeric_array(argument, values)
    if given.shape != (rows,):
        raise ShapeError(f"{argument}: got shape {given.shape}. Expected one weight per row, shape ({rows},).")
    array = _finite(argument, given, dtype)
    negative = first(given < 0)
    if negative is not None:
        raise InvalidValueError(
            f"{argument}: weight {element(given, negative)} in row {negative[0]} is negative. Expected at least 0."
        )
    if some and not given.any():
        raise InvalidValueError(f"{argument}: every weight is 0. Expected at least one above 0.")
    check_no_underflow(argument, array, given > 0)
    with np.errstate(over="ignore"):
        if not np.isfinite(float(array.sum())):
            raise InvalidValueError(f"{argument}: the sum of the weights is too large for {array.dtype}.")
    return array


def check_no_underflow(argument: str, weights: Array, positive: Array) -> None:
    """Raise where a weight that is ``positive`` before rounding is 0 or subnormal: a batch of such has no gradient.

    Parameters
    ----------
    argument : str
    weights : ndarray, (rows,)
        Of the network's dtype, each at least 0.
    positive : ndarray of bool, (rows,)
    """
    smallest = np.finfo(weights.dtype).tiny
    lost = first(positive & (weights < smallest))
    if lost is not None:
        raise InvalidValueError(
            f"{argument}: the weight in row {lost[0]} is too small for {weights.dtype}. "
            f"Expected 0, or at least {smallest:.3g}: multiply all weights with one number, only their ratios count."
        )


def is_on_cuda(values: Any) -> bool:
    """Say whether an array-like says that it is in CUDA memory."""
    if isinstance(values, np.ndarray):
        return False
    try:
        if hasattr(values, "__cuda_array_interface__"):
            return True
    except Exception:  # PyTorch's property raises where the tensor has gradients
        return True
    try:
        return values.__dlpack_device__()[0] in _CUDA_DEVICES
    except Exception:  # has none, or one that does not work
        return False


def read_array(argument: str, values: Any) -> Array:
    """Return any array-like as a host array: sequences, NumPy, pandas, CPU tensors, objects with DLPack only.

    Raises
    ------
    InvalidTypeError
        Masked or sparse values, or an object that does not give its values to NumPy; the message says why.
    ShapeError
        Rows of different lengths.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise InvalidTypeError(f"{argument}: got a masked array. Expected every value: fill or drop the masked ones.")
    if hasattr(values, "tocsr"):
        raise InvalidTypeError(f"{argument}: got a sparse matrix. Expected a dense array: use {argument}.toarray().")
    try:
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            return np.from_dlpack(values)
        return np.asarray(values)
    except MemoryError:
        raise
    except Exception as error:  # an object's own methods run here, and raise what they like
        reason = " ".join(str(error).split())
        if isinstance(error, ValueError):
            raise ShapeError(
                f"{argument}: cannot be read as an array ({reason}). Expected rows of one length."
            ) from None
        raise InvalidTypeError(
            f"{argument}: {type(values).__name__} cannot be read as an array ({reason}). Expected numbers that NumPy "
            "can read, without gradients, dense, on the host."
        ) from None


def _numeric_array(argument: str, values: Any, *, booleans: bool = False) -> Array:
    """Return ``values`` as an array of numbers, whatever array-like it is; ``booleans`` lets (n,) of them pass too."""
    array = values.array if isinstance(values, DeviceArray) else read_array(argument, values)
    if array.dtype == object and table_columns(values) and (found := frame_numbers(argument, values)) is not None:
        return found
    if array.dtype.kind not in "iufb" or (array.dtype.kind == "b" and array.ndim == 1 and not booleans):
        odd, hint = _first_odd(array), ""
        # Such as a DataFrame whose columns have several dtypes, or dtypes that may lack values.
        if array.dtype == object and array.ndim and array.size and not odd:
            hint = f" They are numbers, so {argument}.astype(float) does it."
        raise InvalidTypeError(f"{argument}: got dtype {array.dtype}{odd}. Expected numbers.{hint}")
    return array


def _first_odd(array: Array) -> str:
    """Say which element keeps an array of objects from being one of numbers."""
    if array.dtype != object:
        return ""
    for position, value in np.ndenumerate(array):
        if not isinstance(value, (int, float, np.number)):
            place = ", ".join(f"{name} {index}" for name, index in zip(("row", "column"), position, strict=False))
            return f" ({value!r} in {place})" if place else ""
    return ""


def _finite(
    argument: str, array: Array, dtype: npt.DTypeLike, whole: bool = True, part: tuple[int, int] = ALL
) -> Array:
    """Return a contiguous array of ``dtype``, or with ``whole=False`` ``array`` itself.

    NaN and infinity are refused, also where the conversion makes them.
    """
    with np.errstate(over="ignore"):
        checked = _contiguous(array, dtype) if whole else array
        for rows in pieces(checked, ALL if whole else part):
            finite = np.isfinite(_contiguous(checked[rows], dtype))
            if not finite.all():
                break
        else:
            return checked
    wrong = first(~finite)
    assert wrong is not None
    position = (rows.start + wrong[0], *wrong[1:])
    place = f"row {position[0]}" + (f", column {position[1]}" if len(position) > 1 else "")
    value = element(array, position)
    suffix = f", too large for {np.dtype(dtype)}" if np.isfinite(value) else ""
    raise NonFiniteError(
        f"{argument}: {value} in {place}{suffix}. Expected finite numbers, not NaN or infinity.", position[0]
    )


def pieces(array: Array, part: tuple[int, int] = ALL) -> Iterator[slice]:
    """Yield the rows of an array, or of a part of it, so many at a time that what is computed takes little memory."""
    rows = max(1, _NUMBERS_AT_A_TIME // max(1, math.prod(array.shape[1:])))
    number, parts = part
    first_row, last = number * len(array) // parts, (number + 1) * len(array) // parts
    for start in range(first_row, last, rows):
        yield slice(start, min(start + rows, last))


def _contiguous(array: Array, dtype: npt.DTypeLike) -> Array:
    return array.astype(dtype, order="C", copy=False)


def first(wrong: Array) -> tuple[int, ...] | None:
    """Return the position of the first element that is true, in the order of the rows, or None."""
    if not wrong.any():
        return None
    return tuple(int(index) for index in np.unravel_index(int(wrong.argmax()), wrong.shape))


def element(array: Array, position: tuple[int, ...]) -> Any:
    """Return one element on the host, as a scalar of the array's dtype."""
    return array.dtype.type(array[position].item())
