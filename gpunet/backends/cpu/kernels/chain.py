"""Several kernels on a stripe, one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.backends.cpu.kernels.kernel import kernel
from gpunet.backends.cpu.machine_code import array_at, call_stripe


@kernel()
def run_chain(arguments: Any, stripe: Any) -> Any:
    """Do a stripe of each kernel.

    Arguments: how many kernels, and the address of each and of its arguments.
    """
    count = array_at(arguments, (1,), np.int64)[0]
    calls = array_at(arguments + 8, (count, 2), np.int64)
    for number in range(count):
        call_stripe(calls[number, 0], (calls[number, 1], stripe))
