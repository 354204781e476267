"""The errors gpunet raises.

Every error derives from :class:`GpunetError`, and from the built-in exception that a caller would expect, so
``except ValueError`` keeps working. Each message names the argument, says what came and what was expected, and is
raised before any state changes.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LONGEST_SHOWN = 80
# Whose lines a warning does not point to: packages that call gpunet for the user, and what they are built of.
_NOT_THE_USERS = {"gpunet", "sklearn", "joblib", "contextlib", "functools"}


class GpunetError(Exception):
    """Base class of every error that gpunet raises on purpose."""


class InvalidValueError(GpunetError, ValueError):
    """An argument has the right type but a value that makes no sense (a negative rate, an unknown name)."""


class InvalidTypeError(GpunetError, TypeError):
    """An argument has a type or dtype that gpunet cannot use (an object array, text where numbers belong)."""


class ShapeError(InvalidValueError):
    """An array's shape does not fit the network or the other arrays."""


class NonFiniteError(InvalidValueError):
    """Data, or what a network makes of them, contain NaN or infinity.

    Attributes
    ----------
    row : int or None
        The first row of the data that does, where it is one row's fault.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[Any, ...]]:
        return type(self), (str(self), self.row)


class NotFittedError(GpunetError, ValueError, AttributeError):
    """An estimator was asked for something that only ``fit`` provides."""


class FileFormatError(GpunetError, ValueError):
    """A file exists but does not hold what gpunet expects."""


class MissingFileError(GpunetError, FileNotFoundError):
    """A file that was named does not exist."""


class MissingDependencyError(GpunetError, ImportError):
    """An optional package is needed for what was asked; the message says which extra brings it."""


class DeviceError(GpunetError, RuntimeError):
    """The device that was asked for cannot be used on this machine."""


class OutOfDeviceMemoryError(DeviceError, MemoryError):
    """The device has no room for an array; the message says how many bytes were asked for and how many are free."""


class InUseError(GpunetError, RuntimeError):
    """A network or an optimiser is being trained by another call of ``fit``."""


class DistributedError(GpunetError, RuntimeError):
    """The ranks of a distributed run do not fit together, or cannot reach each other."""


class TrainingDivergedError(GpunetError, ArithmeticError):
    """The loss became NaN or infinite; the network holds the last good weights.

    Attributes
    ----------
    epoch, step : int
        Where it was seen: epoch from 1, step from 1 over the whole run.
    layer : str
        The first quantity, in the order of the forward pass, that is not finite.
    history : gpunet.History or None
        The epochs that were finished before.
    """

    def __init__(self, message: str, epoch: int = 0, step: int = 0, layer: str = "", history: Any = None) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.layer = layer
        self.history = history

    def __reduce__(self) -> tuple[type[TrainingDivergedError], tuple[Any, ...]]:
        return type(self), (str(self), self.epoch, self.step, self.layer, self.history)


class ConvergenceWarning(UserWarning):
    """A learning rule reached its limit of epochs before its stopping rule was met; the result is usable."""


class ResumeWarning(UserWarning):
    """A run goes on from a checkpoint, but perhaps not bit for bit as it would have gone on without interruption."""


class UnknownCategoryWarning(UserWarning):
    """Data for a trained model hold a text that none of its training rows had."""


class NoKernelWarning(UserWarning):
    """Something has no CUDA kernel yet and runs as array expressions on the device: right, and slower."""


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn with the line of the user's that called gpunet, however many calls lie between, also of scikit-learn."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _NOT_THE_USERS:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def shown(value: object) -> str:
    """Return a value as error messages show it: its ``repr`` on one line, not too long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an object's own __repr__ runs here
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def counted(count: int, noun: str) -> str:
    """Return ``"1 row"``, ``"2,000 rows"``, ``"3 classes"``."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def unknown_name(argument: str, name: object, valid: Iterable[str]) -> InvalidValueError:
    """Build the error for a name that is not one of ``valid``, with the nearest valid name if there is one."""
    names = sorted(valid)
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InvalidValueError(f"{argument}: {shown(name)} is not known.{hint} Expected one of: {', '.join(names)}.")


def wrong_ending(argument: str, path: Path, endings: Sequence[str]) -> InvalidValueError:
    """Build the error for a file's name that ends in none of ``endings``, which begin with a point."""
    ending = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
    *others, last = endings
    expected = f"{', '.join(others)} or {last}" if others else last
    return InvalidValueError(f"{argument}: {str(path)!r} {ending}. Expected {expected}.")


def require_package(module: str, *, extra: str, purpose: str) -> MissingDependencyError:
    """Build the error for an optional package that is not installed."""
    return MissingDependencyError(
        f"{purpose} needs the package {module!r}, which is not installed: pip install 'gpunet[{extra}]'"
    )


@contextmanager
def optional_package(package: str, *, extra: str, purpose: str, module: str | None = None) -> Iterator[None]:
    """Let a block import an optional package, and say what brings it where it is missing.

    An import fails for other reasons too: a library that the package needs, or an interrupt that its code takes for a
    missing part. The message has the reason then.

    Parameters
    ----------
    package : str
        What pip calls it.
    extra : str
        The extra of gpunet that brings it.
    purpose : str
        What needs it.
    module : str, optional
        What Python calls it; by default, the same.

    Raises
    ------
    MissingDependencyError
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == (module or package):
            raise require_package(package, extra=extra, purpose=purpose) from None
        reason = " ".join(str(error).split())
        raise MissingDependencyError(
            f"{purpose} needs the package {package!r}, which does not import: {reason}"
        ) from error
