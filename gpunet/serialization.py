"""Named tensors and a JSON header in one file: ``.safetensors`` (needs that package) or ``.npz``."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import (
    FileFormatError,
    InvalidTypeError,
    InvalidValueError,
    MissingFileError,
    require_package,
    shown,
)

Array = npt.NDArray[Any]
SUFFIXES = (".safetensors", ".npz")
_HEADER = "gpunet"


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Array], header: Mapping[str, Any]) -> Path:
    """Write tensors and a header; the file appears whole or not at all.

    Parameters
    ----------
    path : path
        Ends in ``.safetensors`` or ``.npz``. Missing folders are created.
    tensors : mapping of str to ndarray
    header : mapping
        JSON-serialisable.

    Returns
    -------
    Path

    Raises
    ------
    InvalidValueError
        The file name has another ending.
    MissingDependencyError
        ``.safetensors`` without the package safetensors.
    OSError
        The file cannot be written.
    """
    path = check_path("path", path)
    text = json.dumps(header, allow_nan=False)
    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(descriptor)
    try:
        if path.suffix == ".npz":
            np.savez(temporary, **arrays, **{_HEADER: np.array(text)})  # type: ignore[arg-type]
        else:
            _safetensors().numpy.save_file(arrays, temporary, metadata={_HEADER: text})
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read what :func:`write_tensors` wrote.

    Raises
    ------
    MissingFileError
        There is no such file.
    FileFormatError
        The file is damaged, or gpunet did not write it.
    """
    path = check_path("path", path)
    if not path.is_file():
        raise MissingFileError(f"path: there is no file {str(path)!r}.")
    tensors, text = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    if text is None:
        raise FileFormatError(f"path: {str(path)!r} was not written by gpunet (no header).")
    try:
        header = json.loads(text)
    except ValueError:
        raise FileFormatError(f"path: {str(path)!r} has a damaged header.") from None
    if not isinstance(header, dict):
        raise FileFormatError(f"path: {str(path)!r} has a damaged header.")
    return tensors, header


def _read_npz(path: Path) -> tuple[dict[str, Array], str | None]:
    if not zipfile.is_zipfile(path):  # NumPy would advise to unpickle it
        raise FileFormatError(f"path: {str(path)!r} cannot be read as npz (not a zip archive).")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            tensors = {name: archive[name] for name in archive.files if name != _HEADER}
            return tensors, str(archive[_HEADER]) if _HEADER in archive.files else None
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise FileFormatError(f"path: {str(path)!r} cannot be read as npz ({error}).") from None


def _read_safetensors(path: Path) -> tuple[dict[str, Array], str | None]:
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="numpy") as archive:
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
            return tensors, (archive.metadata() or {}).get(_HEADER)
    except (OSError, safetensors.SafetensorError) as error:
        raise FileFormatError(f"path: {str(path)!r} cannot be read as safetensors ({error}).") from None


def check_path(argument: str, path: str | os.PathLike[str]) -> Path:
    """Return ``path`` if its ending is one that can be read and written here, or raise.

    Raises
    ------
    InvalidTypeError
        It is no path.
    InvalidValueError
        The ending is not one of ``SUFFIXES``.
    MissingDependencyError
        ``.safetensors`` without the package safetensors.
    """
    try:
        path = Path(path)
    except TypeError:
        raise InvalidTypeError(f"{argument}: got {shown(path)}. Expected a path.") from None
    if path.suffix not in SUFFIXES:
        raise InvalidValueError(f"{argument}: {str(path)!r} ends in {path.suffix!r}. Expected {' or '.join(SUFFIXES)}.")
    if path.suffix == ".safetensors":
        _safetensors()
    return path


def _safetensors() -> ModuleType:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise require_package("safetensors", extra="cli", purpose="a .safetensors file") from None
    return safetensors


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
