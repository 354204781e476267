"""How many training steps are done, told in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend


class StepCount:
    """A number of steps, on the host and on the device, where dropout and sampling read it.

    Parameters
    ----------
    backend : Backend

    Attributes
    ----------
    value : int
    on_device : array of int64, (1,)
        The same number. A recorded step reads it anew each time.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.value = 0
        self.on_device: npt.NDArray[Any] = backend.zeros(1, np.int64)

    def set(self, value: int) -> None:
        """Set the number, 0 to 2^63 - 1."""
        self._backend.copy(np.array([value], dtype=np.int64), self.on_device)
        self.value = value
