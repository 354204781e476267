"""Threads of a block: barriers, shared memory, warps, and the order in which they run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from . import EmulatedDevice, Kernel

THREADS = """
template <typename T, int N>
__global__ void __launch_bounds__(N) block_sum(const T* __restrict__ x, T* __restrict__ out, int n) {
    SHARED(T, partial, [N]);
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    partial[threadIdx.x] = i < n ? x[i] : T(0);
    __syncthreads();
    #pragma unroll
    for (int half = N / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
        BARRIER();
    }
    if (threadIdx.x == 0) out[blockIdx.x] = partial[0];
}

extern "C" __global__ void plain_shared_sum(const float* x, float* out) {
    __shared__ float partial[128];
    partial[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0.0f;
        for (int i = 0; i < 128; ++i) sum += partial[i];
        out[0] = sum;
    }
}

__global__ void dynamic_shared_sum(const float* x, float* out) {
    DYNAMIC_SHARED(float, partial);
    partial[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0.0f;
        for (int i = 0; i < blockDim.x; ++i) sum += partial[i];
        out[0] = sum;
    }
}

__global__ void arrivals(int* order, int* count) {
    order[atomicAdd(count, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
}

__global__ void where(int* out) {
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1;
}

__global__ void counts(int* out) {
    const int odd = threadIdx.x & 1;
    const int found[6] = {__syncthreads_count(odd), __syncthreads_or(odd), __syncthreads_or(0),
                          __syncthreads_and(odd), __syncthreads_and(1), __syncthreads_count(threadIdx.x < 5)};
    for (int i = 0; i < 6; ++i) out[threadIdx.x * 6 + i] = found[i];
}

__global__ void sum_of_blocks(float* partial, unsigned int* arrived, float* out) {
    SHARED(bool, last);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = blockIdx.x + 1.0f;
        __threadfence();
        last = atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last || threadIdx.x != 0) return;
    float sum = 0.0f;
    for (int i = 0; i < gridDim.x; ++i) sum += partial[i];
    out[0] = sum;
}
"""
THREAD_KERNELS = (
    "block_sum<float, 256>",
    "block_sum<double, 64>",
    "plain_shared_sum",
    "dynamic_shared_sum",
    "arrivals",
    "where",
    "counts",
    "sum_of_blocks",
)

WARPS = """
template <typename T>
__global__ void warp_sums(const T* x, T* by_xor, T* by_down) {
    T sum = x[threadIdx.x];
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    by_xor[threadIdx.x] = sum;
    sum = x[threadIdx.x];
    for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(0xffffffffu, sum, step);
    if (threadIdx.x % 32 == 0) by_down[threadIdx.x / 32] = sum;
}

// Every function and width; the answers come from the definitions in the CUDA programming guide.
__global__ void shuffles(int* out, int argument, int width) {
    const int lane = threadIdx.x;
    out[lane] = __shfl_sync(0xffffffffu, lane, argument, width);
    out[lane + 32] = __shfl_up_sync(0xffffffffu, lane, argument, width);
    out[lane + 64] = __shfl_down_sync(0xffffffffu, lane, argument, width);
    out[lane + 96] = __shfl_xor_sync(0xffffffffu, lane, argument, width);
}

__global__ void votes(unsigned int* out) {
    const unsigned int even = __ballot_sync(0xffffffffu, threadIdx.x % 2 == 0);
    const int any = __any_sync(0xffffffffu, threadIdx.x == 7), none = __any_sync(0xffffffffu, 0);
    const int all = __all_sync(0xffffffffu, 1), most = __all_sync(0xffffffffu, threadIdx.x != 7);
    unsigned int half = 0;
    if (threadIdx.x < 16) half = __ballot_sync(0x0000ffffu, 1);
    else half = __ballot_sync(0xffff0000u, threadIdx.x >= 24);
    __syncwarp();
    unsigned int* mine = out + threadIdx.x * 3;
    mine[0] = even, mine[1] = any | none << 1 | all << 2 | most << 3, mine[2] = half;
}
"""
WARP_KERNELS = (
    "warp_sums<float>",
    "warp_sums<double>",
    "warp_sums<unsigned>",
    "warp_sums<long long>",
    "shuffles",
    "votes",
)


def load_threads(device: EmulatedDevice, barrier: str = "__syncthreads()", *options: str) -> Mapping[str, Kernel]:
    return device.load(THREADS, (f"-DBARRIER()={barrier}", *options), THREAD_KERNELS, "threads.cu")


def load_warps(device: EmulatedDevice) -> Mapping[str, Kernel]:
    return device.load(WARPS, (), WARP_KERNELS, "warps.cu")


@pytest.mark.parametrize("options", [(), ("-DGPUNET_EMULATION_UCONTEXT",)], ids=["assembly", "ucontext"])
def test_sum_of_a_block_in_shared_memory(
    device: EmulatedDevice, random: np.random.Generator, options: tuple[str, ...]
) -> None:
    kernels = load_threads(device, "__syncthreads()", *options)
    for name, dtype, threads in (
        ("block_sum<float, 256>", np.float32, 256),
        ("block_sum<double, 64>", np.float64, 64),
    ):
        x: np.ndarray = random.integers(-9, 9, size=5 * threads).astype(dtype)
        out = device.empty(5, dtype)
        device.launch(kernels[name], 5, threads, (device.asarray(x), out, np.int32(x.size)))
        np.testing.assert_array_equal(device.to_numpy(out), x.reshape(5, threads).sum(axis=1))
    out = device.empty(1, np.float32)
    for name, threads, shared_memory in (("plain_shared_sum", 128, 0), ("dynamic_shared_sum", 300, 300 * 4)):
        values = random.integers(-9, 9, size=threads).astype(np.float32)
        arguments = (device.asarray(values), out)
        device.launch(kernels[name], (1,), (threads, 1, 1), arguments, shared_memory=shared_memory)
        assert device.to_numpy(out)[0] == values.sum()


def test_missing_barrier_gives_a_wrong_sum_for_some_seed() -> None:
    x = np.arange(256, dtype=np.float32)
    sums = []
    for seed in range(8):
        device = EmulatedDevice(seed=seed)
        kernel = load_threads(device, barrier="")["block_sum<float, 256>"]
        out = device.empty(1, np.float32)
        device.launch(kernel, 1, 256, (device.asarray(x), out, np.int32(256)))
        sums.append(float(device.to_numpy(out)[0]))
    assert any(total != x.sum() for total in sums)


def test_order_of_threads_follows_the_seed() -> None:

    def orders(seed: int) -> list[list[int]]:
        device = EmulatedDevice(seed=seed)
        kernel = load_threads(device)["arrivals"]
        found = []
        for _ in range(2):
            order, count = device.empty(128, np.int32), device.zeros(1, np.int32)
            device.launch(kernel, 4, 32, (order, count))
            found.append(device.to_numpy(order).tolist())
        return found

    first, second = orders(seed=1)
    assert sorted(first) == list(range(128))
    assert first != second
    assert orders(seed=1) == [first, second]
    assert orders(seed=2) != [first, second]


def test_indices_and_dimensions(device: EmulatedDevice) -> None:
    kernel = load_threads(device)["where"]
    out = device.zeros(2 * 3 * 4 * 5 * 6 * 7, np.int32)
    device.launch(kernel, (2, 3, 4), (5, 6, 7), (out,))
    assert (device.to_numpy(out) == 1).all()


def test_barriers_that_count(device: EmulatedDevice) -> None:
    kernel = load_threads(device)["counts"]
    out = device.empty((96, 6), np.int32)
    device.launch(kernel, 1, 96, (out,))
    np.testing.assert_array_equal(device.to_numpy(out), [[48, 1, 0, 0, 1, 5]] * 96)


def test_last_block_finishes_the_work(device: EmulatedDevice) -> None:
    kernel = load_threads(device)["sum_of_blocks"]
    partial, arrived, out = device.empty(10, np.float32), device.zeros(1, np.uint32), device.empty(1, np.float32)
    for _ in range(2):
        device.launch(kernel, 10, 32, (partial, arrived, out))
        assert device.to_numpy(out)[0] == 55
        assert device.to_numpy(arrived)[0] == 0


@pytest.mark.parametrize(
    ("type_name", "dtype"),
    [("float", np.float32), ("double", np.float64), ("unsigned", np.uint32), ("long long", np.int64)],
)
def test_warp_sums(device: EmulatedDevice, type_name: str, dtype: type) -> None:
    kernel = load_warps(device)[f"warp_sums<{type_name}>"]
    x: np.ndarray = np.arange(96).astype(dtype)
    by_xor, by_down = device.empty(96, dtype), device.empty(3, dtype)
    device.launch(kernel, 1, 96, (device.asarray(x), by_xor, by_down))
    expected = x.reshape(3, 32).sum(axis=1)
    np.testing.assert_array_equal(device.to_numpy(by_xor), np.repeat(expected, 32))
    np.testing.assert_array_equal(device.to_numpy(by_down), expected)


@pytest.mark.parametrize("width", [32, 8, 2])
@pytest.mark.parametrize("argument", [0, 1, 5, 31])
def test_shuffles_with_a_width(device: EmulatedDevice, argument: int, width: int) -> None:
    kernel = load_warps(device)["shuffles"]
    out = device.empty((4, 32), np.int32)
    device.launch(kernel, 1, 32, (out, np.int32(argument), np.int32(width)))
    expected = np.empty((4, 32), dtype=int)
    for lane in range(32):
        first = lane // width * width
        last = first + width - 1
        crossed = lane ^ argument
        expected[0, lane] = first + argument % width
        expected[1, lane] = lane - argument if lane - argument >= first else lane
        expected[2, lane] = lane + argument if lane + argument <= last else lane
        expected[3, lane] = crossed if crossed <= last else lane
    np.testing.assert_array_equal(device.to_numpy(out), expected)


def test_votes(device: EmulatedDevice) -> None:
    kernel = load_warps(device)["votes"]
    out = device.empty((32, 3), np.uint32)
    device.launch(kernel, 1, 32, (out,))
    found = device.to_numpy(out)
    assert (found[:, 0] == 0x55555555).all()
    assert (found[:, 1] == 0b0101).all()
    assert (found[:16, 2] == 0x0000FFFF).all()
    assert (found[16:, 2] == 0xFF000000).all()
