"""Named tensors and a JSON header in one file: ``.safetensors`` (needs that package) or ``.npz``.

The header holds a digest of itself and of the tensors, which tells a damaged file from a whole one. Files without it,
of the first versions or of others, are read all the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import (
    FileFormatError,
    InvalidValueError,
    MissingFileError,
    optional_package,
    wrong_ending,
)
from gpunet.files import as_path, replacing
from gpunet.npz import open_npz
from gpunet.version import __version__

Array = npt.NDArray[Any]
# The name of a dtype, and a shape.
_Kind = tuple[str, tuple[int, ...]]
SUFFIXES = (".safetensors", ".npz")
_HEADER = "gpunet"
# In the header: the version that wrote the file, and the digest of the rest.
VERSION, DIGEST = "gpunet", "digest"
_DTYPES = {"F32": "float32", "F64": "float64"}
# The tensors of an .npz file may claim so many times its bytes: trained weights hardly become smaller by compression.
_LARGEST_RATIO = 20


class ForeignFileError(FileFormatError):
    """A file of tensors that gpunet did not write: somebody else's, rather than damaged."""


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Array], header: Mapping[str, Any]) -> Path:
    """Write tensors and a header; the file appears whole or not at all.

    Parameters
    ----------
    path : path
        Ends in ``.safetensors`` or ``.npz``. Missing folders are created.
    tensors : mapping of str to ndarray
        float32 or float64.
    header : mapping
        What JSON can hold; the version of gpunet and the digest are added.

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
    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    # As it will be read: tuples as lists, say.
    content = json.loads(json.dumps({**header, VERSION: __version__}, allow_nan=False))
    content[DIGEST] = _digest(arrays, _as_text(content))
    text = json.dumps(content)
    with replacing(path) as file:
        if path.suffix == ".npz":
            np.savez(file, **arrays, **{_HEADER: np.array(text)})  # type: ignore[arg-type]
        else:
            # Not its save_file, whose errors do not say whether the disk is full.
            file.write(require_safetensors().numpy.save(arrays, {_HEADER: text}))
    return path


class StoredTensors:
    """A file of tensors that is open for reading; see :func:`open_tensors`.

    Attributes
    ----------
    header : dict
        Without version and digest.
    version : str or None
        Of gpunet, which wrote the file.
    digest : str or None
    shapes : dict of str to tuple of int
    dtypes : dict of str to str
    """

    def __init__(self, called: str, kinds: Mapping[str, _Kind], text: str, read: Callable[[str], Array]) -> None:
        self._called = called
        self._read = read
        self.shapes = {name: shape for name, (_, shape) in kinds.items()}
        self.dtypes = {name: dtype for name, (dtype, _) in kinds.items()}
        try:
            self.header: dict[str, Any] = dict(json.loads(text).items())
            self.digest = self.header.pop(DIGEST, None)
            self._content = _as_text(self.header)
            self.version = self.header.pop(VERSION, None)
        except (ValueError, AttributeError, RecursionError):
            raise FileFormatError(f"{called} has a damaged header.") from None
        # Those that write their version write a digest too: its name in the header has been hit.
        if self.version is not None and self.digest is None:
            raise FileFormatError(f"{called} has a damaged header: a version, but no digest.")

    def read(self, shapes: Mapping[str, Sequence[int]] | None = None, *, check_digest: bool = True) -> dict[str, Array]:
        """Return the tensors, in the order of this machine's bytes.

        Parameters
        ----------
        shapes : mapping of str to tuple of int, or None
            What must be there, and nothing else; compared before anything is read. None takes all.
        check_digest : bool
            Whether to refuse a file that does not fit its digest.

        Raises
        ------
        FileFormatError
            Other names, shapes or dtypes; a damaged tensor; a digest that does not fit.
        """
        self._check(self.shapes if shapes is None else shapes)
        tensors = {name: self._read(name) for name in self.shapes}
        tensors = {name: tensor.astype(self.dtypes[name], copy=False) for name, tensor in tensors.items()}
        if check_digest and self.digest is not None and not self.fits_digest(tensors):
            raise FileFormatError(f"{self._called} is damaged: what it holds does not fit its digest.")
        return tensors

    def fits_digest(self, tensors: Mapping[str, Array]) -> bool:
        """Return whether the digest is that of the header and of these tensors."""
        return bool(self.digest == _digest(tensors, self._content))

    def _check(self, shapes: Mapping[str, Sequence[int]]) -> None:
        for name in sorted(self.shapes.keys() ^ shapes.keys()):
            problem = "lacks" if name in shapes else "has no use for"
            raise FileFormatError(f"{self._called} holds tensors that do not fit: it {problem} {name!r}.")
        for name, dtype in self.dtypes.items():
            if dtype not in _DTYPES.values():
                raise FileFormatError(
                    f"{self._called} holds {name!r} as {dtype}. Expected {' or '.join(_DTYPES.values())}."
                )
            if self.shapes[name] != tuple(shapes[name]):
                found, expected = self.shapes[name], tuple(shapes[name])
                raise FileFormatError(f"{self._called} holds {name!r} of shape {found}. Expected {expected}.")


@contextlib.contextmanager
def open_tensors(path: str | os.PathLike[str], argument: str = "path") -> Iterator[StoredTensors]:
    """Open what :func:`write_tensors` wrote; only the header has been read then.

    Parameters
    ----------
    path : path
    argument : str
        What error messages begin with.

    Raises
    ------
    InvalidValueError
        The file name has another ending.
    MissingFileError
        There is no such file.
    FileFormatError
        The file is damaged, or gpunet did not write it.
    """
    path = as_path(path, argument)
    called = f"{argument}: {str(path)!r}"
    if path.is_dir():
        raise InvalidValueError(f"{called} is a folder. Expected a {' or '.join(SUFFIXES)} file.")
    if not path.is_file():
        raise MissingFileError(f"{argument}: there is no file {str(path)!r}.")
    check_path(argument, path)
    with _open_npz(path, called) if path.suffix == ".npz" else _open_safetensors(path, called) as stored:
        yield stored


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return all tensors of a file and its header; raises as :func:`open_tensors` and its ``read`` do."""
    with open_tensors(path) as stored:
        return stored.read(), stored.header


@contextlib.contextmanager
def _open_npz(path: Path, called: str) -> Iterator[StoredTensors]:
    with open_npz(path, called=called, largest_ratio=_LARGEST_RATIO) as archive:
        if _HEADER not in archive.names:
            raise _no_header(called)
        kinds = {name: archive.kind(name) for name in archive.names if name != _HEADER}
        named = {name: (kind.dtype.newbyteorder("=").name, kind.shape) for name, kind in kinds.items()}
        yield StoredTensors(called, named, str(archive.read(_HEADER)), archive.read)


@contextlib.contextmanager
def _open_safetensors(path: Path, called: str) -> Iterator[StoredTensors]:
    safetensors = require_safetensors()
    with contextlib.ExitStack() as closing:
        try:
            archive = closing.enter_context(safetensors.safe_open(path, framework="numpy"))
            text = (archive.metadata() or {}).get(_HEADER)
            slices = {name: archive.get_slice(name) for name in archive.keys()}  # noqa: SIM118
            kinds = {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
        except (OSError, safetensors.SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise FileFormatError(f"{called} cannot be read as safetensors ({reason}).") from None
        if text is None:
            raise _no_header(called)
        named = {name: (_DTYPES.get(dtype, dtype), shape) for name, (dtype, shape) in kinds.items()}
        yield StoredTensors(called, named, text, archive.get_tensor)


def _no_header(called: str) -> ForeignFileError:
    return ForeignFileError(f"{called} was not written by gpunet (no header).")


def _as_text(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True)


def _digest(tensors: Mapping[str, Array], header: str) -> str:
    """Return a digest of names, shapes, dtypes and bytes of tensors, and of a header."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        little = np.ascontiguousarray(tensors[name], tensors[name].dtype.newbyteorder("<"))
        digest.update(json.dumps([name, little.dtype.str, little.shape]).encode())
        digest.update(little.reshape(-1).view(np.uint8).data)
    digest.update(header.encode())
    return f"sha256:{digest.hexdigest()}"


def check_path(argument: str, path: str | os.PathLike[str]) -> Path:
    """Return ``path`` if its ending is one that can be read and written here, or raise.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        It is no path.
    InvalidValueError
        The ending is not one of ``SUFFIXES``.
    MissingDependencyError
        ``.safetensors`` without the package safetensors.
    """
    path = as_path(path, argument)
    if path.suffix not in SUFFIXES:
        raise wrong_ending(argument, path, SUFFIXES)
    if path.suffix == ".safetensors":
        require_safetensors()
    return path


def require_safetensors() -> ModuleType:
    """Return the package, or raise MissingDependencyError."""
    with optional_package("safetensors", extra="cli", purpose="a .safetensors file"):
        import safetensors
        import safetensors.numpy
    return safetensors
