"""Clusters, cooperative grids and waiting loops: blocks that run together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from . import EmulatedDevice, EmulationError, Kernel

GROUPS = """
__global__ void cluster_sum(const float* x, float* out) {
    SHARED(float, mine, [32]);
    mine[threadIdx.x] = x[blockIdx.x * 32 + threadIdx.x];
    cluster_sync();
    float sum = 0.0f;
    for (int rank = 0; rank < cluster_size(); ++rank) sum += *map_shared_rank(mine + threadIdx.x, rank);
#ifndef FORGET_LAST_SYNC
    cluster_sync();
#endif
    out[blockIdx.x * 32 + threadIdx.x] = sum + 1000.0f * cluster_rank();
}

__global__ void dynamic_cluster(float* out) {
    DYNAMIC_SHARED(float, values);
    cluster_sync();
    const unsigned next = (cluster_rank() + 1) % cluster_size();
    if (threadIdx.x == 0) *map_shared_rank(values, next) = blockIdx.x;
    cluster_sync();
    if (threadIdx.x == 0) out[blockIdx.x] = values[0];
}

__global__ void without_first_sync(float* out) {
    SHARED(float, mine, [1]);
    out[blockIdx.x] = *map_shared_rank(mine, 1 - cluster_rank());
}

__global__ void plain_in_cluster(float* out) { __shared__ float mine[1]; mine[0] = 1.0f; out[blockIdx.x] = mine[0]; }

// Each step replaces every element by its right neighbour's.
__global__ void rotate(float* a, float* b, int n, int steps, unsigned int* barrier) {
    SHARED(float, own, [1]);
    own[0] = blockIdx.x;
    for (int step = 0; step < steps; ++step) {
        for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) b[i] = a[(i + 1) % n];
        grid_sync(barrier);
        float* other = a; a = b; b = other;
    }
    if (own[0] != blockIdx.x) a[0] = NAN;
}

__global__ void waits(unsigned int* flag, int nap) {
    if (blockIdx.x == 0) { while (atomicAdd(flag, 0) == 0) __nanosleep(nap); atomicAdd(flag, 1); }
    else atomicExch(flag, 41);
}
"""
GROUP_KERNELS = ("cluster_sum", "dynamic_cluster", "without_first_sync", "plain_in_cluster", "rotate", "waits")


def load_groups(device: EmulatedDevice, *options: str) -> Mapping[str, Kernel]:
    return device.load(GROUPS, options, GROUP_KERNELS, "groups.cu")


@pytest.mark.parametrize("seed", range(3))
def test_cluster_reads_the_shared_memory_of_its_blocks(seed: int, random: np.random.Generator) -> None:
    device = EmulatedDevice(seed=seed)
    kernels = load_groups(device)
    x = random.integers(-9, 9, size=(3, 4, 32)).astype(np.float32)
    out = device.empty(x.shape, np.float32)
    device.launch(kernels["cluster_sum"], 12, 32, (device.asarray(x), out), cluster=4)
    expected = x.sum(axis=1, keepdims=True) + 1000 * np.arange(4)[None, :, None]
    np.testing.assert_array_equal(device.to_numpy(out), expected)
    out = device.empty(6, np.float32)
    device.launch(kernels["dynamic_cluster"], 6, 32, (out,), shared_memory=4, cluster=(2, 1, 1))
    np.testing.assert_array_equal(device.to_numpy(out), [1, 0, 3, 2, 5, 4])
    device.launch(kernels["dynamic_cluster"], 6, 32, (out,), shared_memory=4)
    np.testing.assert_array_equal(device.to_numpy(out), range(6))


def test_block_that_leaves_its_cluster_too_early_is_found() -> None:
    def launch_with_each_seed() -> None:
        for seed in range(8):
            device = EmulatedDevice(seed=seed)
            kernels = load_groups(device, "-DFORGET_LAST_SYNC")
            x, out = device.zeros(256, np.float32), device.empty(256, np.float32)
            device.launch(kernels["cluster_sum"], 8, 32, (x, out), cluster=8)

    with pytest.raises(EmulationError, match=r"cluster_sync\(\) last"):
        launch_with_each_seed()


def test_cluster_errors(device: EmulatedDevice) -> None:
    kernels = load_groups(device)
    out = device.empty(32, np.float32)
    with pytest.raises(EmulationError, match=r"has not started: cluster_sync\(\) first|cluster_sync\(\) last"):
        device.launch(kernels["without_first_sync"], 2, 1, (out,), cluster=2)
    with pytest.raises(EmulationError, match=r"__shared__ in a grid of several blocks.* SHARED\("):
        device.launch(kernels["plain_in_cluster"], 2, 1, (out,), cluster=2)
    with pytest.raises(EmulationError, match="not a multiple of cluster"):
        device.launch(kernels["plain_in_cluster"], 3, 1, (out,), cluster=2)
    with pytest.raises(EmulationError, match="cluster"):
        device.launch(kernels["plain_in_cluster"], 32, 1, (out,), cluster=16)
    older = EmulatedDevice(compute_capability=(8, 0))
    with pytest.raises(EmulationError, match=r"compute capability 9\.0"):
        older.launch(kernels["plain_in_cluster"], 2, 1, (older.empty(2, np.float32),), cluster=2)


def test_grid_synchronisation(device: EmulatedDevice) -> None:
    kernels = load_groups(device)
    barrier = device.zeros(1, np.uint32)
    x = np.arange(500, dtype=np.float32)
    for steps in (2, 3):
        a, b = device.asarray(x), device.empty(500, np.float32)
        args = (a, b, np.int32(500), np.int32(steps), barrier)
        device.launch(kernels["rotate"], 6, 64, args, cooperative=True)
        result = a if steps % 2 == 0 else b
        np.testing.assert_array_equal(device.to_numpy(result), np.roll(x, -steps))
    assert device.to_numpy(barrier)[0] == 0x80000000
    with pytest.raises(EmulationError, match="needs a cooperative launch"):
        device.launch(kernels["rotate"], 6, 64, args)
    with pytest.raises(EmulationError, match="not zero before the launch"):
        device.launch(kernels["rotate"], 6, 64, (*args[:4], device.empty(1, np.uint32)), cooperative=True)
    with pytest.raises(EmulationError, match="264 fit on the device"):
        device.launch(kernels["rotate"], 265, 1024, args, cooperative=True)
    with pytest.raises(EmulationError, match="65536 can be emulated"):
        device.launch(kernels["rotate"], 65, 1024, args, cooperative=True)


def test_waiting_loop_lets_the_others_run(device: EmulatedDevice) -> None:
    kernels = load_groups(device)
    flag = device.zeros(1, np.uint32)
    device.launch(kernels["waits"], 2, 1, (flag, np.int32(100)), cooperative=True)
    assert device.to_numpy(flag)[0] == 42
