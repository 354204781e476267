"""How many kernels a CUDA graph launches."""

from __future__ import annotations

import ctypes

_KERNEL_NODE = 0  # CU_GRAPH_NODE_TYPE_KERNEL of cuda.h


def count_kernels(graph: int) -> int | None:
    """Return how many nodes of a graph are kernels; None where the driver does not tell.

    Parameters
    ----------
    graph : int
        The handle, ``CUgraph``.
    """
    driver, handle, size = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(graph), ctypes.c_size_t()
    if not graph or driver.cuGraphGetNodes(handle, None, ctypes.byref(size)) != 0:
        return None
    nodes = (ctypes.c_void_p * size.value)()
    if driver.cuGraphGetNodes(handle, nodes, ctypes.byref(size)) != 0:
        return None
    kernels = 0
    for node in nodes:
        kind = ctypes.c_int()
        if driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)) != 0:
            return None
        kernels += kind.value == _KERNEL_NODE
    return kernels
