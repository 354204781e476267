"""Reading NPZ files that anybody may have written: no claim is believed, and nothing is read that nobody asks for."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from gpunet.errors import FileFormatError

Array = npt.NDArray[Any]

# The arrays of a file may claim this many bytes together; beyond, only so many times the bytes that the file has.
UNQUESTIONED_BYTES = 16 * 2**20
DEFLATE_RATIO = 1032  # no Deflate stream, which is how NumPy compresses, holds more
_ENDING = ".npy"


class Kind(NamedTuple):
    """What an array in a file says it is."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class NpzFile:
    """An NPZ file that is open for reading; see :func:`open_npz`.

    Attributes
    ----------
    names : list of str
        Of the arrays, in the order of the file.
    """

    def __init__(self, called: str, file: BinaryIO, largest_ratio: float) -> None:
        self._called = called
        self._archive = zipfile.ZipFile(file)
        self._members = {info.filename.removesuffix(_ENDING): info for info in self._archive.infolist()}
        self.names = list(self._members)
        size, claimed = os.fstat(file.fileno()).st_size, sum(info.file_size for info in self._archive.infolist())
        largest = max(UNQUESTIONED_BYTES, int(largest_ratio * size))
        if claimed > largest:
            raise ValueError(f"a file of {size:,} bytes claims to hold {claimed:,}, expected at most {largest:,}")

    def kind(self, name: str) -> Kind:
        """Return an array's dtype and shape; of its content, only the first bytes are read.

        Raises
        ------
        FileFormatError
            It is damaged, holds Python objects, or has not the bytes that its shape needs.
        KeyError
            There is no such array.
        """
        member = self._members[name]
        with _refusing(self._called), self._archive.open(member) as stream:
            try:
                shape, dtype = _read_header(stream)
            except MemoryError:  # of the parser, which NumPy gives the dtype's description to
                raise ValueError(f"{name!r} has a damaged header") from None
            if dtype.hasobject:
                raise ValueError(f"{name!r} holds Python objects")
            if min(shape, default=0) < 0 or stream.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
                raise ValueError(f"{name!r} has not the bytes that its shape {shape} needs")
        return Kind(dtype, shape)

    def read(self, name: str) -> Array:
        """Return an array. Raises as :meth:`kind` does, before anything is allocated for it."""
        self.kind(name)
        with _refusing(self._called), self._archive.open(self._members[name]) as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
            stream.read(1)  # at its end, the archive compares the checksum
        return array


@contextlib.contextmanager
def open_npz(path: Path, *, called: str, largest_ratio: float = DEFLATE_RATIO) -> Iterator[NpzFile]:
    """Open an NPZ file.

    Parameters
    ----------
    path : Path
    called : str
        What error messages call it.
    largest_ratio : float
        So many times the bytes of the file, its arrays may claim together, if that is more than 16 MiB.

    Raises
    ------
    FileFormatError
        It is no zip archive, damaged, or claims more.
    OSError
        It cannot be opened.
    """
    with path.open("rb") as file:
        with _refusing(called):
            if not zipfile.is_zipfile(file):
                raise ValueError("not a zip archive")
            archive = NpzFile(called, file, largest_ratio)
        yield archive


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Python 2 wrote
        shape, _, dtype = readers[np.lib.format.read_magic(stream)](stream)
    return shape, dtype


@contextlib.contextmanager
def _refusing(called: str) -> Iterator[None]:
    """Make one error of all that zipfile, its decompressors and NumPy raise for damaged bytes, which is anything."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileFormatError(f"{called} cannot be read as npz ({reason}).") from None
