"""What users turn off by environment variables, where a machine does it wrongly, and what they turn on."""

from __future__ import annotations

import os
from dataclasses import dataclass

from gpunet.errors import InvalidValueError, shown


@dataclass(frozen=True)
class Switch:
    """Something that is done, or not, as an environment variable says.

    Attributes
    ----------
    variable : str
        ``1`` stands for on, ``0`` for off, the empty string and no value for the default.
    meaning : str
        What is done where it is on.
    default : bool
        Whether it is on where the variable says nothing.
    """

    variable: str
    meaning: str
    default: bool = True

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
        return self.default if value == "" else value == "1"


# Read when a backend is made, which then keeps to it; the last one when the first is made in a process.
CUDA_GRAPH = Switch("GPUNET_CUDA_GRAPH", "training steps are recorded as CUDA graphs and replayed")
CLUSTERS = Switch("GPUNET_CLUSTERS", "batch norm is planned with clusters of blocks where the device has them")
CUBLAS_LT = Switch("GPUNET_CUBLASLT", "cublasLt adds the bias to a matrix product, and applies ReLU, where it can")
TUNING = Switch("GPUNET_TUNING", "launch plans follow what `gpunet tune` has measured on the device")
NARROW_PASS = Switch(
    "GPUNET_NARROW_PASS", "the forward and backward pass of a narrow network is one kernel where it fits", default=False
)
MKL = Switch("GPUNET_MKL", "compiled kernels multiply matrices with MKL where the package mkl is installed")
COMPILED_CPU = Switch("GPUNET_COMPILED_CPU", "large work on the CPU runs on compiled kernels where Numba is installed")
SWITCHES = (CUDA_GRAPH, CLUSTERS, CUBLAS_LT, TUNING, NARROW_PASS, MKL, COMPILED_CPU)
