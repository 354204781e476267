"""Initial weights that follow from data (lecture row L21): LSUV, and the data-dependent ones of Krähenbühl et al.

Those that need no data are in :mod:`gpunet.initializers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.data_initializers.balancing import change_rates
from gpunet.data_initializers.data_dependent import data_dependent
from gpunet.data_initializers.lsuv import lsuv

# By the names that `gpunet train --initializer` takes; the functions of a network and its inputs.
DATA_INITIALIZERS: dict[str, Callable[..., Any]] = {"lsuv": lsuv, "data_dependent": data_dependent}

__all__ = ["DATA_INITIALIZERS", "change_rates", "data_dependent", "lsuv"]
