"""What users turn off by environment variables, where a machine's CUDA does something that gpunet expects wrongly."""

from __future__ import annotations

import os
from dataclasses import dataclass

from gpunet.errors import InvalidValueError, shown


@dataclass(frozen=True)
class Switch:
    """Something that is done unless an environment variable is ``0``.

    Attributes
    ----------
    variable : str
        ``1``, the empty string or no value stand for on, ``0`` for off.
    meaning : str
        What is done where it is on.
    """

    variable: str
    meaning: str

    def is_on(self) -> bool:
        """Read the variable.

        Raises
        ------
        InvalidValueError
            It has another value.
        """
        value = os.environ.get(self.variable, "")
        if value not in ("", "0", "1"):
            raise InvalidValueError(
                f"{self.variable}: the environment variable is {shown(value)}. Expected 1, or 0 to turn off that "
                f"{self.meaning}."
            )
        return value != "0"


# Read when a backend is made, which then keeps to it.
CUDA_GRAPH = Switch("GPUNET_CUDA_GRAPH", "training steps are recorded as CUDA graphs and replayed")
CLUSTERS = Switch("GPUNET_CLUSTERS", "batch norm is planned with clusters of blocks where the device has them")
CUBLAS_LT = Switch("GPUNET_CUBLASLT", "cublasLt adds the bias to a matrix product, and applies ReLU, where it can")
TUNING = Switch("GPUNET_TUNING", "launch plans follow what `gpunet tune` has measured on the device")
SWITCHES = (CUDA_GRAPH, CLUSTERS, CUBLAS_LT, TUNING)
