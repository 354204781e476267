"""Which rows of a batch are in which shard, which shards are a rank's, and the nodes of the tree that sums them."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

# Shards begin at multiples of so many rows: a row is at least as far aligned then as one access of a device wants, so
# that a shard's sums are the same wherever it lies in a buffer, and the random words of dropout come in whole fours.
ROW_MULTIPLE = 8


class Node(NamedTuple):
    """A node of the tree: 2^level shards from ``first`` on, a multiple of 2^level."""

    first: int
    level: int

    @property
    def shards(self) -> range:
        """The numbers of its shards."""
        return range(self.first, self.first + (1 << self.level))


@lru_cache(maxsize=64)
def starts_of(rows: int, shards: int) -> tuple[int, ...]:
    """Return where each shard of a batch begins, and where the last one ends: (shards + 1,) numbers.

    The rows are dealt out in blocks of ``ROW_MULTIPLE``, which are kept together and in order. Where there are fewer
    blocks than shards, some shards have none; the first has always some.
    """
    blocks = -(-rows // ROW_MULTIPLE)
    return tuple(min(rows, ROW_MULTIPLE * -(-shard * blocks // shards)) for shard in range(shards + 1))


def nodes_of(first: int, stop: int) -> tuple[Node, ...]:
    """Return the fewest nodes that have the shards ``first`` to ``stop - 1``, in order."""
    nodes = []
    while first < stop:
        level = (stop - first).bit_length() - 1
        while first % (1 << level):
            level -= 1
        nodes.append(Node(first, level))
        first += 1 << level
    return tuple(nodes)


class Partition(NamedTuple):
    """The shards of a job: as many for each rank, in order.

    Attributes
    ----------
    shards, rank, size : int
    """

    shards: int
    rank: int
    size: int

    @property
    def own(self) -> range:
        """The shards of this rank."""
        each = self.shards // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def starts(self, count: int) -> tuple[int, ...]:
        """Return where each shard of a batch of so many rows begins, and where the last one ends."""
        return starts_of(count, self.shards)

    def rows(self, count: int) -> slice:
        """Return this rank's rows of a batch of so many."""
        starts = self.starts(count)
        return slice(starts[self.own.start], starts[self.own.stop])

    def slices(self, count: int) -> list[slice]:
        """Return each own shard's rows, counted from the first row of this rank."""
        starts = self.starts(count)
        first = starts[self.own.start]
        return [slice(starts[shard] - first, starts[shard + 1] - first) for shard in self.own]

    def nodes(self, rank: int | None = None) -> tuple[Node, ...]:
        """Return the nodes that a rank, by default this one, has the whole of."""
        each = self.shards // self.size
        number = self.rank if rank is None else rank
        return nodes_of(number * each, (number + 1) * each)

    def levels(self) -> list[int]:
        """Return the levels of all ranks' nodes, in order: as many for each rank, -1 where it has fewer."""
        levels = [[node.level for node in self.nodes(rank)] for rank in range(self.size)]
        most = max(map(len, levels))
        return [level for of_rank in levels for level in (*of_rank, *[-1] * (most - len(of_rank)))]
