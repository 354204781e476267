"""How many kernels a CUDA graph launches, and how many of them one after the other."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import Any

_KERNEL_NODE = 0  # CU_GRAPH_NODE_TYPE_KERNEL of cuda.h


def count_kernels(graph: int) -> int | None:
    """Return how many nodes of a graph are kernels; None where the driver does not tell.

    Parameters
    ----------
    graph : int
        The handle, ``CUgraph``.
    """
    nodes = _nodes(graph)
    return None if nodes is None else sum(nodes.values())


def longest_chain(graph: int) -> int | None:
    """Return the most kernels of a graph that wait for one another; None where the driver does not tell.

    Parameters
    ----------
    graph : int
        The handle, ``CUgraph``.
    """
    nodes, edges = _nodes(graph), _edges(graph)
    return None if nodes is None or edges is None else heaviest_path(nodes, edges)


def heaviest_path(weights: Mapping[int, int], edges: Iterable[tuple[int, int]]) -> int:
    """Return the largest sum of weights along the edges of a graph without circles.

    Parameters
    ----------
    weights : mapping of int to int
        Of each node; at least 0.
    edges : iterable of (int, int)
        From a node to one that waits for it.
    """
    before: dict[int, list[int]] = {node: [] for node in weights}
    for start, stop in edges:
        before[stop].append(start)
    longest: dict[int, int] = {}
    waiting = list(weights)
    while waiting:
        node = waiting[-1]
        if missing := [other for other in before[node] if other not in longest]:
            waiting += missing
        else:
            longest[node] = weights[node] + max((longest[other] for other in before[node]), default=0)
            waiting.pop()
    return max(longest.values(), default=0)


def _nodes(graph: int) -> dict[int, int] | None:
    """Return the nodes of a graph, 1 for each that is a kernel and 0 for the others."""
    listed = _listed(graph, "cuGraphGetNodes", 1)
    if listed is None:
        return None
    kernels: dict[int, int] = {}
    for node in listed[0]:
        kind = ctypes.c_int()
        if _driver().cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)) != 0:
            return None
        kernels[node] = int(kind.value == _KERNEL_NODE)
    return kernels


def _edges(graph: int) -> list[tuple[int, int]] | None:
    listed = _listed(graph, "cuGraphGetEdges", 2)
    return None if listed is None else list(zip(*listed, strict=True))


def _listed(graph: int, function: str, arrays: int) -> list[list[int]] | None:
    """Return the arrays that a function of the driver fills, which it tells the size of if there are none."""
    handle, size = ctypes.c_void_p(graph), ctypes.c_size_t()
    call = getattr(_driver(), function)
    if not graph or call(handle, *[None] * arrays, ctypes.byref(size)) != 0:
        return None
    filled = [(ctypes.c_void_p * size.value)() for _ in range(arrays)]
    if size.value and call(handle, *filled, ctypes.byref(size)) != 0:
        return None
    return [[address or 0 for address in array] for array in filled]


def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")
