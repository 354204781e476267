"""The model that ``predict``, ``evaluate`` and ``export`` are given."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from gpunet.errors import FileFormatError, InvalidValueError, MissingFileError
from gpunet.network import Network
from gpunet.network_file import load


def load_model(arguments: argparse.Namespace) -> Network:
    """Return the network in the file MODEL.

    Raises
    ------
    GpunetError
        Its message calls the file what the help calls it.
    """
    try:
        return load(arguments.model, device=arguments.device)
    except (FileFormatError, InvalidValueError, MissingFileError) as error:
        message = str(error)
        if message.startswith("activations: "):
            raise InvalidValueError(
                f"MODEL: {arguments.model!r} has an activation that is none of gpunet's own. Expected another model: "
                "this one predicts in Python, by gpunet.load(..., activations=[...]).predict."
            ) from None
        if message.startswith("loss: "):
            raise InvalidValueError(
                f"MODEL: {arguments.model!r} has a loss that is none of gpunet's own. Expected another model: this one "
                "predicts in Python, by gpunet.load(..., loss=...).predict."
            ) from None
        if not message.startswith("path: "):
            raise
        raise type(error)(f"MODEL: {message.removeprefix('path: ')}") from None


def refuse_to_replace(argument: str, out: Path, *read: str) -> None:
    """Raise InvalidValueError if what is to be written would replace a file that it is made from."""
    for one in read:
        with contextlib.suppress(OSError):  # one of them is not there
            if out.samefile(one):
                raise InvalidValueError(f"{argument}: {out} is {one}, which is read. Expected another file.")
