"""Whether a folder can be written to, and what would be lost, before the work whose results go there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gpunet.errors import FileFormatError, InvalidValueError
from gpunet.serialization import ForeignFileError, read_tensors


def check_folder(folder: Path, argument: str = "--out") -> None:
    """Raise unless files can be written to a folder, or where it would be made; nothing is made yet.

    Parameters
    ----------
    folder : Path
    argument : str
        What a message about it begins with.

    Raises
    ------
    InvalidValueError
        It is a file.
    OSError
    """
    existing = folder
    # stat rather than exists, which takes every error for an absence.
    while not _is_there(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise InvalidValueError(f"{argument}: {str(folder)!r} is a file, expected a folder.")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        # The name of the file that was tried says nothing to anyone.
        raise OSError(error.errno, f"files cannot be written there ({error.strerror})", str(existing)) from None


def holds_other_data(file: Path, fingerprint: str) -> bool:
    """Whether a model or checkpoint is there and was trained on other data, or does not say on which.

    The first checkpoints cannot say it, and are taken for those of the same data.

    Parameters
    ----------
    file : Path
    fingerprint : str
        Of the data; see :meth:`gpunet.data.DataSet.fingerprint`.
    """
    if not file.is_file():
        return False
    try:
        header = read_tensors(file)[1]
    except ForeignFileError:
        return True
    except FileFormatError:  # damaged, so there is nothing to lose
        return False
    if "metadata" not in header:
        return False
    metadata = header["metadata"]
    data = metadata.get("data") if isinstance(metadata, dict) else None
    return not isinstance(data, dict) or data.get("fingerprint") != fingerprint


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True
