"""Whether a folder can be written to, and what would be lost, before the work whose results go there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpunet.data import Preparation
from gpunet.errors import FileFormatError, InvalidValueError
from gpunet.serialization import ForeignFileError, open_tensors

# What the digest of the numbers leaves out.
_NAMES = ("feature_names", "class_names")


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


def holds_other_data(file: Path, preparation: Preparation) -> bool:
    """Whether a model or checkpoint is there and was trained on other data, or does not say on which.

    The first checkpoints cannot say it, and are taken for those of the same data.

    Parameters
    ----------
    file : Path
    preparation : Preparation
        Of the data: their numbers, and the names of their features and classes, are compared.
    """
    if not file.is_file():
        return False
    try:
        with open_tensors(file) as stored:
            header = stored.header
    except ForeignFileError:
        return True
    except FileFormatError:  # damaged, so there is nothing to lose
        return False
    return "metadata" in header and _other_data(header, preparation, ("fingerprint", *_NAMES)) is not None


def check_same_names(checkpoint: Path, preparation: Preparation) -> None:
    """Raise if the run that is resumed had other names for its features or classes; `fit` compares the numbers.

    Raises
    ------
    InvalidValueError
    """
    with open_tensors(checkpoint, "checkpoint") as stored:
        header = stored.header
    differs = _other_data(header, preparation, _NAMES) if "metadata" in header else None
    if differs is not None:
        raise InvalidValueError(f"--resume: {str(checkpoint)!r} is of a run with other {differs.replace('_', ' ')}.")


def _other_data(header: Mapping[str, Any], preparation: Preparation, keys: Sequence[str]) -> str | None:
    """Return the first of ``keys`` in which the file's preparation differs."""
    metadata = header["metadata"]
    found = metadata.get("data") if isinstance(metadata, dict) else None
    expected = preparation.to_metadata()["data"]
    return next((key for key in keys if not isinstance(found, dict) or found.get(key) != expected[key]), None)


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True
