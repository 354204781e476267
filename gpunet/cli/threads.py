"""As many BLAS threads as the products of a network are worth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from gpunet.cli.output import device_name
from gpunet.network import Network

# Below it, threads wait for each other longer than they compute; on a busy machine, ten times as long.
SMALLEST_SHARED_PRODUCT = 8e6
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def suitable_threads(network: Network, rows: int, work: float) -> Iterator[None]:
    """Let BLAS use one thread while a network on the CPU works on batches too small to be shared.

    Nothing changes where the user chose the number of threads, where compiled kernels do the work, whose threads are
    counted while they run, or without the package threadpoolctl.

    Parameters
    ----------
    network : Network
    rows : int
        Of a batch.
    work : float
        See :meth:`gpunet.backends.Backend.working`.
    """
    is_chosen = any(os.environ.get(name) for name in VARIABLES)
    is_numpys = device_name(network.backend) == "cpu" and not network.backend.is_compiled_for(work)
    if is_chosen or not is_numpys or largest_product(network, rows) >= SMALLEST_SHARED_PRODUCT:
        yield
        return
    with one_blas_thread():
        yield


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS use one thread, where the package threadpoolctl is installed."""
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        yield
        return
    with threadpool_limits(1, user_api="blas"):
        yield


def largest_product(network: Network, rows: int) -> int:
    """Return the floating point operations of the largest matrix product that a batch of so many rows needs."""
    return max(2 * rows * inputs * outputs for inputs, outputs in pairwise(network.layer_sizes))
