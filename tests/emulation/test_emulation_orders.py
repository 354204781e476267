"""The orders in which blocks, warps and threads run, and the launches that a device refuses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from . import ORDERS, EmulatedDevice, EmulationError, Kernel

SOURCE = """
__global__ void arrivals(int* order, int* count) {
    order[atomicAdd(count, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
    __syncthreads();
}

// Every block adds 1 and waits for all: only blocks that are on the device together get through.
__global__ void meet(unsigned int* arrived, unsigned int blocks) {
    if (threadIdx.x == 0) {
        atomicAdd(arrived, 1u);
        while (*reinterpret_cast<volatile unsigned int*>(arrived) < blocks) __nanosleep(100);
    }
    __syncthreads();
}

template <int THREADS>
__global__ void __launch_bounds__(THREADS * (2 - 1), THREADS > 64 ? 1 : 2) bounded(int* out) { out[threadIdx.x] = 1; }

__global__ void mixed_memory(float* out) {
    SHARED(float, mine, [64]);
    DYNAMIC_SHARED(float, values);
    mine[0] = values[0] = 1.0f;
    out[0] = mine[0];
}
"""
KERNELS = ("arrivals", "meet", "bounded<64>", "bounded<96>", "mixed_memory")


def load(device: EmulatedDevice) -> Mapping[str, Kernel]:
    return device.load(SOURCE, (), KERNELS, "orders.cu")


def arrivals(order: str | None, seed: int = 0, blocks: int = 4, threads: int = 96) -> np.ndarray:
    """Return in which order the threads of a launch began: rows are (block, warp, lane)."""
    device = EmulatedDevice(seed=seed, order=order)
    found, count = device.empty(blocks * threads, np.int32), device.zeros(1, np.int32)
    device.launch(load(device)["arrivals"], blocks, threads, (found, count))
    return np.stack([found // threads, found % threads // 32, found % 32], axis=1)


@pytest.mark.parametrize("order", ORDERS)
def test_every_thread_runs_in_every_order_and_the_order_follows_the_seed(order: str) -> None:
    first = arrivals(order)
    assert len(np.unique(first, axis=0)) == 4 * 96
    np.testing.assert_array_equal(first, arrivals(order))
    assert not np.array_equal(first, arrivals(order, seed=1))


def test_blocks_run_interleaved() -> None:
    """In some of the launches they do: in others there is room for one at a time."""
    first = [arrivals("shuffled", seed)[:, 0] for seed in range(8)]
    assert any(len(set(blocks[:96])) == 4 for blocks in first)
    assert any(len(set(blocks[:96])) == 1 for blocks in first)


def test_what_each_order_puts_first() -> None:
    for seed in range(4):
        ahead, behind = arrivals("warp_ahead", seed, blocks=1), arrivals("warp_behind", seed, blocks=1)
        assert len(set(ahead[:32, 1])) == 1
        assert len(set(behind[-32:, 1])) == 1
        assert arrivals("reversed", seed, blocks=1)[:, 1].tolist() == [2] * 32 + [1] * 32 + [0] * 32
        blocks = arrivals("block_ahead", seed)[:, 0]
        assert (np.diff(blocks) != 0).sum() == 3
    lasts = [arrivals("lane_behind", seed, blocks=1)[-3:, 2] for seed in range(16)]
    assert any(len(set(lanes)) == 1 for lanes in lasts)


def test_every_order_is_drawn() -> None:
    device, drawn = EmulatedDevice(), set()
    kernel, out = load(device)["bounded<64>"], device.empty(64, np.int32)

    class Watched:
        name, check_arguments, parameters = kernel.name, kernel.check_arguments, kernel.parameters

        def run(self, *arguments: object) -> None:
            drawn.add(arguments[-2])

    for _ in range(40):
        device.launch(Watched(), 1, 64, (out,))  # type: ignore[arg-type]
    assert drawn == set(ORDERS)


@pytest.mark.parametrize("order", ORDERS)
def test_blocks_that_wait_for_blocks_without_room_are_found(order: str) -> None:
    """One multiprocessor holds two blocks of 1024 threads: four that wait for one another wait for ever."""

    def launch(blocks: int) -> int:
        refused = 0
        for seed in range(6):
            device = EmulatedDevice(seed=seed, multiprocessor_count=1, order=order)
            try:
                device.launch(load(device)["meet"], blocks, 1024, (device.zeros(1, np.uint32), np.uint32(blocks)))
            except EmulationError as error:
                refused += "wait in loops for what no other thread brings; " in str(error)
        return refused

    assert launch(4) == 6
    assert launch(2) < 6  # where both have room
    assert launch(1) == 0


def test_more_threads_than_the_launch_bounds(device: EmulatedDevice) -> None:
    kernels, out = load(device), device.empty(128, np.int32)
    device.launch(kernels["bounded<64>"], 1, 64, (out,))
    device.launch(kernels["bounded<96>"], 1, 96, (out,))
    with pytest.raises(EmulationError, match="65 threads in a block, where __launch_bounds__ allows 64"):
        device.launch(kernels["bounded<64>"], 1, 65, (out,))
    with pytest.raises(EmulationError, match="97 threads in a block, where __launch_bounds__ allows 96"):
        device.launch(kernels["bounded<96>"], 1, 97, (out,))


def test_more_registers_than_a_multiprocessor_has(device: EmulatedDevice) -> None:
    """Of gpunet's kernels the device knows the budget."""
    source = (
        "template <typename T, int N> __global__ void softmax_cross_entropy_lanes(T* out) { out[threadIdx.x] = N; }"
    )
    name = "softmax_cross_entropy_lanes<double, 3>"
    kernel, out = device.load(source, (), (name,), "registers.cu")[name], device.empty(512, np.float64)
    device.launch(kernel, 1, 256, (out,))
    with pytest.raises(EmulationError, match="512 threads of a block need more registers"):
        device.launch(kernel, 1, 512, (out,))


def test_more_shared_memory_than_was_allowed(device: EmulatedDevice) -> None:
    kernel, out = load(device)["mixed_memory"], device.empty(1, np.float32)
    device.launch(kernel, 1, 1, (out,), shared_memory=1024, shared_memory_allowed=1024 + 256)
    device.launch(kernel, 1, 1, (out,), shared_memory=device.shared_memory_per_block - 256)
    for size, allowed in ((1024, 1024 + 255), (device.shared_memory_per_block - 255, None)):
        with pytest.raises(EmulationError, match="static and dynamic shared memory together exceed"):
            device.launch(kernel, 1, 1, (out,), shared_memory=size, shared_memory_allowed=allowed)
