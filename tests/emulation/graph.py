"""What a capture makes of operations on several streams: a graph, of which a device may run any order that fits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpunet.backends.devices.graph_nodes import heaviest_path

Span = tuple[int, int]  # of addresses


class Graph:
    """Operations, and for each those that it waits for.

    Attributes
    ----------
    operations : list
        In the order in which they were asked for.
    """

    def __init__(self) -> None:
        self.operations: list[Any] = []
        self._before: list[frozenset[int]] = []

    def add(self, operation: Any, before: frozenset[int]) -> frozenset[int]:
        """Add an operation that waits for others; return what the next one on its stream waits for."""
        self.operations.append(operation)
        self._before.append(before)
        return frozenset((len(self.operations) - 1,))

    def shuffled(self, seed: int) -> list[Any]:
        """Return the operations in one of the orders in which none comes before one that it waits for."""
        chance, waiting, order = random.Random(seed), set(range(len(self.operations))), []
        while waiting:
            ready = [node for node in sorted(waiting) if not self._before[node] & waiting]
            order.append(chance.choice(ready))
            waiting.remove(order[-1])
        return [self.operations[node] for node in order]

    def longest_chain(self, counts: Callable[[Any], bool] = lambda operation: True) -> int:
        """Return the most operations, of those that count, that wait for one another."""
        weights = {node: int(counts(operation)) for node, operation in enumerate(self.operations)}
        return heaviest_path(weights, ((start, stop) for stop, before in enumerate(self._before) for start in before))

    def followed(self, last: frozenset[int]) -> set[int]:
        """Return the operations of ``last`` and all that they wait for."""
        found: set[int] = set()
        waiting = set(last)
        while waiting:
            node = waiting.pop()
            found.add(node)
            waiting |= self._before[node] - found
        return found

    def races(self, accesses: Callable[[Any], tuple[Sequence[Span], Sequence[Span]]]) -> Iterator[tuple[Any, Any]]:
        """Yield two operations of which neither waits for the other, and one writes what the other reads or writes.

        Parameters
        ----------
        accesses : callable
            Returns what an operation reads and what it writes.
        """
        spans = [accesses(operation) for operation in self.operations]
        for second, before in enumerate(self._before):
            (reads, writes), earlier = spans[second], self.followed(before)
            for first in set(range(second)) - earlier:
                first_reads, first_writes = spans[first]
                if _meet(writes, [*first_reads, *first_writes]) or _meet(reads, first_writes):
                    yield self.operations[first], self.operations[second]


def _meet(some: Sequence[Span], others: Sequence[Span]) -> bool:
    return any(start < stop_of and start_of < stop for start, stop in some for start_of, stop_of in others)
