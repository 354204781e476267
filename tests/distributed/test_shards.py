"""Which rows are in which shard, which nodes of the tree a rank has, and the sum over all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gpunet.backends import Backend, NumpyBackend
from gpunet.distributed.ordered_sum import ALL_TO_ONE_BYTES, OrderedSum
from gpunet.distributed.shards import ROW_MULTIPLE, Partition, nodes_of, starts_of
from tests.helpers.threaded_ranks import run_ranks

ROWS = (1, 2, 7, 8, 9, 16, 37, 64, 100, 128, 1023)
SHARDS = (1, 2, 3, 5, 8, 12)


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("rows", ROWS)
def test_shards_cover_the_rows_in_order_and_begin_at_multiples(rows: int, shards: int) -> None:
    starts = starts_of(rows, shards)
    assert starts[0] == 0
    assert starts[-1] == rows
    assert starts[1] > 0  # batch norm's statistics are merged around those of the first
    assert all(a <= b for a, b in itertools.pairwise(starts))
    assert all(start % ROW_MULTIPLE == 0 or start == rows for start in starts)
    sizes = np.diff(starts)
    assert sizes.max() - sizes[:-1].min(initial=sizes.max()) <= 2 * ROW_MULTIPLE


@pytest.mark.parametrize(("shards", "size"), [(12, size) for size in (1, 2, 3, 4, 6, 12)] + [(5, 5), (7, 1)])
def test_ranks_have_all_rows_once_and_their_own_shards(shards: int, size: int) -> None:
    for rows in ROWS:
        parts = [Partition(shards, rank, size) for rank in range(size)]
        indices = [range(rows)[part.rows(rows)] for part in parts]
        assert [row for part in indices for row in part] == list(range(rows))
        for part, own in zip(parts, indices, strict=True):
            slices = part.slices(rows)
            assert len(slices) == shards // size
            assert [own[here] for here in slices] == [
                range(*pair)
                for pair in list(itertools.pairwise(starts_of(rows, shards)))[part.own.start : part.own.stop]
            ]


@pytest.mark.parametrize(("first", "stop"), [(0, 1), (0, 8), (0, 12), (3, 6), (5, 12), (9, 12), (1, 31)])
def test_nodes_are_aligned_and_cover_their_shards(first: int, stop: int) -> None:
    nodes = nodes_of(first, stop)
    assert [shard for node in nodes for shard in node.shards] == list(range(first, stop))
    assert all(node.first % (1 << node.level) == 0 for node in nodes)
    assert all(a.first + (1 << a.level) == b.first for a, b in itertools.pairwise(nodes))


def whole(leaves: np.ndarray) -> np.ndarray:
    """Sum neighbours in pairs, pairs in pairs; what is left over is added at the end, from the right: the tree."""
    if len(leaves) == 1:
        return leaves[0]
    left = 1 << (len(leaves) - 1).bit_length() - 1
    return whole(leaves[:left]) + whole(leaves[left:])


@pytest.mark.parametrize("backend", [Backend, NumpyBackend])
@pytest.mark.parametrize("shards", range(1, 18))
def test_sums_of_nodes_are_those_of_the_tree_bit_by_bit(shards: int, backend: type[Backend]) -> None:
    leaves = np.random.default_rng(shards).standard_normal((shards, 5)).astype(np.float32)
    expected = whole(leaves)
    for size in (divisor for divisor in range(1, shards + 1) if shards % divisor == 0):
        partition = Partition(shards, 0, size)
        nodes = [node for rank in range(size) for node in partition.nodes(rank)]
        parts = np.array([whole(leaves[node.first : node.first + len(node.shards)]) for node in nodes])
        out = np.empty(5, np.float32)
        backend().sum_shards(parts, np.array([node.level for node in nodes], np.int32), out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("length", [1, 5, ALL_TO_ONE_BYTES // 16 + 3])
@pytest.mark.parametrize(("shards", "size"), [(12, 1), (12, 2), (12, 3), (12, 4), (4, 4), (10, 2)])
def test_the_sum_over_ranks_is_that_of_the_tree_bit_by_bit(shards: int, size: int, length: int) -> None:
    leaves = np.random.default_rng(shards).standard_normal((shards, length)).astype(np.float32)

    def run(ranks) -> np.ndarray:
        backend = NumpyBackend()
        exchange = ranks.communicator.exchange(backend)
        total = OrderedSum(backend, exchange, ranks.partition, length, np.float32, is_ordered=True)
        for _ in range(2):  # the same buffers again
            for part, node in zip(total.parts, ranks.partition.nodes(), strict=True):
                part[...] = whole(leaves[node.first : node.first + len(node.shards)])
            total.start()
            total.go_on()
            found = total.finish().copy()
        return found

    for found in run_ranks(size, shards, run):
        np.testing.assert_array_equal(found, whole(leaves))
