"""Named tensors and a JSON header in one file: ``.safetensors`` (needs that package) or ``.npz``."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import FileFormatError, InvalidValueError, MissingFileError, require_package

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
    path = Path(path)
    _check_suffix(path)
    text = json.dumps(header, allow_nan=False)
    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(descriptor)
    try:
        if path.suffix == ".npz":
            np.savez(temporary, **arrays, **{_HEADER: np.array(text)})  # type: ignore[arg-type]
        else:
            _safetensors().save_file(arrays, temporary, metadata={_HEADER: text})
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
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
    path = Path(path)
    _check_suffix(path)
    if not path.is_file():
        raise MissingFileError(f"path: there is no file {str(path)!r}.")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                tensors = {name: archive[name] for name in archive.files if name != _HEADER}
                text = str(archive[_HEADER]) if _HEADER in archive.files else None
        else:
            with _safetensors().safe_open(path, framework="numpy") as archive:
                tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
                text = (archive.metadata() or {}).get(_HEADER)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, _safetensors_error()) as error:
        raise FileFormatError(f"path: {str(path)!r} cannot be read as {path.suffix[1:]} ({error}).") from None
    if text is None:
        raise FileFormatError(f"path: {str(path)!r} was not written by gpunet (no header).")
    try:
        header = json.loads(text)
    except ValueError:
        raise FileFormatError(f"path: {str(path)!r} has a damaged header.") from None
    return tensors, header


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise InvalidValueError(f"path: {str(path)!r} ends in {path.suffix!r}. Expected {' or '.join(SUFFIXES)}.")


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise require_package("safetensors", extra="cli", purpose="a .safetensors file") from None

    class Both:
        save_file = staticmethod(safetensors.numpy.save_file)
        safe_open = staticmethod(safetensors.safe_open)

    return Both


def _safetensors_error() -> type[Exception]:
    try:
        from safetensors import SafetensorError
    except ImportError:
        return FileFormatError
    return SafetensorError


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
