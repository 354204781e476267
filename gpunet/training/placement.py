"""Where the data of a run are: on the device, or on the host, to be copied batch by batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.backends.feed import is_as_wanted, is_mapped
from gpunet.backends.notices import say_once
from gpunet.errors import InvalidValueError, OutOfDeviceMemoryError, shown

Array = npt.NDArray[Any]

PLACES = ("auto", "device", "host")
# Of the memory that is free before anything of a run is allocated. The rest is for weights, moments and activations.
DEVICE_SHARE = 0.75


def check_place(data_on: str) -> str:
    """Return ``data_on`` if it is one of ``PLACES``, or raise."""
    if not isinstance(data_on, str) or data_on not in PLACES:
        raise InvalidValueError(f"data_on: got {shown(data_on)}. Expected one of: {', '.join(PLACES)}.")
    return data_on


def place(
    backend: Backend, arrays: Mapping[str, Array], dtype: npt.DTypeLike, data_on: str, *, is_shared: bool = False
) -> dict[str, Array]:
    """Return host arrays (n, c) on the device and of ``dtype``; what is to stay on the host is left out.

    Parameters
    ----------
    backend : Backend
    arrays : mapping of str to ndarray
    dtype : dtype
    data_on : str
        ``"device"``; ``"host"``, where only what needs neither copy nor conversion is returned; ``"auto"``: ``"host"``
        for what is shared; for a file that is mapped into memory, where the device is the host; and where the arrays
        together would take more than ``DEVICE_SHARE`` of the device's free memory or, once tried, turn out to have no
        room.
    is_shared : bool
        Whether other ranks read most of the rows.

    Raises
    ------
    OutOfDeviceMemoryError
        With ``"device"`` alone.
    """
    if data_on == "auto" and is_shared:
        data_on = "host"
    free = backend.free_bytes()
    if free is None:
        ready = {name: values for name, values in arrays.items() if is_as_wanted(values, dtype)}
        convert = {
            name: values
            for name, values in arrays.items()
            if name not in ready and (data_on == "device" or (data_on == "auto" and not is_mapped(values)))
        }
        return ready | {name: backend.upload(values, dtype) for name, values in convert.items()}
    if data_on == "host" or not arrays:
        return {}
    if data_on == "device":
        return {name: backend.upload(values, dtype) for name, values in arrays.items()}
    size = sum(math.prod(values.shape) for values in arrays.values()) * np.dtype(dtype).itemsize
    if size > DEVICE_SHARE * free:
        reason = f"they need {size:,} bytes, more than {DEVICE_SHARE:.0%} of the {free:,} that are free"
    else:
        try:
            return {name: backend.upload(values, dtype) for name, values in arrays.items()}
        except OutOfDeviceMemoryError as error:
            reason = str(error)
    say_once(f"on {backend.device_name}, data stay on the host and are copied batch by batch", reason)
    return {}
