"""How operations are cut: into all of their elements, each once, by shape and machine alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gpunet.backends.cpu import plan

SHAPES = [(1, 1, 1), (3, 1000, 1000), (256, 256, 784), (4096, 500, 500), (500, 500, 4096), (4096, 2048, 3072)]


@pytest.mark.parametrize("shape", SHAPES)
def test_large_products_have_no_more_tiles_than_the_machine_has_cores(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    rows, columns = plan.tile(m, n, k)
    tiles = -(-m // rows) * -(-n // columns)
    assert 1 <= rows <= m
    assert 1 <= columns <= n
    assert tiles <= (os.cpu_count() or 1)


def test_products_with_small_weights_have_the_blocks_of_the_passes_beside_them() -> None:
    assert plan.tile(8192, 64, 64) == (plan.block_rows(8192, 64), 64)


@pytest.mark.parametrize(("cores", "tiles"), [(None, 1), (1, 1), (2, 2), (3, 2), (6, 4), (8, 8), (96, 8)])
def test_tiles_are_a_power_of_two(cores: int | None, tiles: int) -> None:
    assert plan.most_tiles(cores) == tiles


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no processes to cores")
def test_a_process_that_is_bound_to_a_core_cuts_as_one_that_is_not() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from gpunet.backends.cpu import plan; "
        "print(plan.MOST_TILES, plan.tile(4096, 500, 500))"
    )
    found = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert found.strip() == f"{plan.MOST_TILES} {plan.tile(4096, 500, 500)}"


@pytest.mark.parametrize("size", [1, 15, 8192, 8193, 269_856, 1_048_576, 6_300_000])
def test_vectors_are_cut_in_pieces_that_threads_can_share_out_evenly(size: int) -> None:
    piece = plan.chunk(size)
    assert 1 <= piece <= size
    assert piece % 16 == 0 or piece == size
    assert -(-size // piece) >= min(16, size // 8192)
