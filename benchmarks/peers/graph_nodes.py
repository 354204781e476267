"""How many kernels a CUDA graph launches, whoever recorded it."""

from __future__ import annotations

import ctypes

_KERNEL_NODE = 0  # CU_GRAPH_NODE_TYPE_KERNEL of cuda.h


def count_kernels(graph: int) -> int | None:
    """Return how many nodes of a graph, ``CUgraph``, are kernels; None where the driver does not tell."""
    driver, handle, size = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(graph), ctypes.c_size_t()
    if not graph or driver.cuGraphGetNodes(handle, None, ctypes.byref(size)) != 0:
        return None
    nodes, kind = (ctypes.c_void_p * size.value)(), ctypes.c_int()
    failed = driver.cuGraphGetNodes(handle, nodes, ctypes.byref(size)) != 0
    kinds = []
    for node in nodes:
        failed |= driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)) != 0
        kinds.append(kind.value)
    return None if failed else kinds.count(_KERNEL_NODE)
