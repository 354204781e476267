"""Errors of a kernel: each is reported with its cause and its place, and leaves the device usable."""

from __future__ import annotations

import numpy as np
import pytest

from . import EmulatedDevice, EmulationError, Kernel

WRONG = """
__global__ void early_exit() { if (threadIdx.x >= 40) return; __syncthreads(); }
__global__ void two_barriers() { if (threadIdx.x < 24) { __syncthreads(); } else { __syncthreads_or(1); } }
__global__ void missing_lanes(float* out) {
    if (threadIdx.x < 30) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}
__global__ void mask_without_caller(float* out) { out[0] = __shfl_sync(0x2u, 1.0f, 1); }
__global__ void active_mask(unsigned* out) { out[0] = __activemask(); }
__global__ void shared_index(float* out, int i) { SHARED(float, tile, [32]); tile[i] = 1.0f; out[0] = tile[i]; }
__global__ void shared_overrun(int i) {
    DYNAMIC_SHARED(float, tile);
    tile[i] = 1.0f;
}
__global__ void misaligned(const float* x, float4* out) { out[0] = *reinterpret_cast<const float4*>(x + 1); }
__global__ void through_null(float4* out) { out->x = 1.0f; }
__global__ void divides(int* out, int by) { out[0] = 7 % by; }
__global__ void much_shared(float* out) { SHARED(float, tile, [13000]); out[0] = tile[0]; }
__global__ void traps() { __trap(); }
__global__ void writes(float* out, int i) { out[i] = 1.0f; }
"""
WRONG_KERNELS = (
    "early_exit",
    "two_barriers",
    "missing_lanes",
    "mask_without_caller",
    "active_mask",
    "shared_index",
    "shared_overrun",
    "misaligned",
    "through_null",
    "divides",
    "much_shared",
    "traps",
    "writes",
)


def load_wrong(device: EmulatedDevice, name: str) -> Kernel:
    return device.load(WRONG, (), WRONG_KERNELS, "wrong.cu")[name]


def test_threads_that_exit_before_a_barrier_are_counted(device: EmulatedDevice) -> None:
    message = r"early_exit, block \(\d, 0, 0\).* 40 threads wait at __syncthreads \(wrong.cu:2\), 24 have finished"
    with pytest.raises(EmulationError, match=message):
        device.launch(load_wrong(device, "early_exit"), 3, 64, ())


def test_threads_at_different_barriers_are_counted(device: EmulatedDevice) -> None:
    with pytest.raises(EmulationError, match="diverged") as caught:
        device.launch(load_wrong(device, "two_barriers"), 1, 64, ())
    assert "24 threads wait at __syncthreads (wrong.cu:3)" in str(caught.value)
    assert "40 threads wait at __syncthreads_or (wrong.cu:3)" in str(caught.value)


def test_shuffle_with_lanes_missing(device: EmulatedDevice) -> None:
    out = device.empty(32, np.float32)
    message = r"30 threads wait at __shfl_xor_sync \(wrong.cu:5, mask 0xffffffff\), 2 have finished"
    with pytest.raises(EmulationError, match=message):
        device.launch(load_wrong(device, "missing_lanes"), 1, 32, (out,))
    with pytest.raises(EmulationError, match="mask 0x00000002 leaves out the calling lane"):
        device.launch(load_wrong(device, "mask_without_caller"), 1, 1, (out,))


def test_shuffle_in_a_partial_warp_takes_the_lanes_that_exist(device: EmulatedDevice) -> None:
    out = device.empty(30, np.float32)
    device.launch(load_wrong(device, "missing_lanes"), 1, 30, (out,))
    assert (device.to_numpy(out) == 1).all()


@pytest.mark.parametrize(
    ("name", "scalars", "message"),
    [
        ("active_mask", (), "__activemask"),
        ("shared_index", (np.int32(32),), r"wrong.cu:9: index 32 is outside the array"),
        ("divides", (np.int32(0),), "integer division by zero"),
        ("much_shared", (), "static shared memory of 52000 bytes exceeds 48 KiB"),
    ],
)
def test_errors_name_their_cause(
    device: EmulatedDevice, name: str, scalars: tuple[np.int32, ...], message: str
) -> None:
    dtype = {"active_mask": np.uint32, "divides": np.int32}.get(name, np.float32)
    with pytest.raises(EmulationError, match=rf"{name}, block .*thread .*{message}"):
        device.launch(load_wrong(device, name), 1, 1, (device.empty(1, dtype), *scalars))


def test_bad_pointers(device: EmulatedDevice) -> None:
    x, out = device.zeros(8, np.float32), device.empty(4, np.float32)
    with pytest.raises(EmulationError, match="misaligned address"):
        device.launch(load_wrong(device, "misaligned"), 1, 1, (x, out))
    device.launch(load_wrong(device, "misaligned"), 1, 1, (x[3:], out))
    with pytest.raises(EmulationError, match="null address"):
        device.launch(load_wrong(device, "through_null"), 1, 1, (np.uint64(0),))


def test_write_past_dynamic_shared_memory(device: EmulatedDevice) -> None:
    kernel = load_wrong(device, "shared_overrun")
    device.launch(kernel, 1, 1, (np.int32(31),), shared_memory=128)
    for index in (32, -1):
        with pytest.raises(EmulationError, match="outside shared array 'dynamic shared memory' of 128 bytes"):
            device.launch(kernel, 1, 1, (np.int32(index),), shared_memory=128)


def test_device_works_after_a_failed_launch(device: EmulatedDevice) -> None:
    for _ in range(3):
        with pytest.raises(EmulationError, match="__trap"):
            device.launch(load_wrong(device, "traps"), 2, 64, ())
        with pytest.raises(EmulationError, match="diverged"):
            device.launch(load_wrong(device, "early_exit"), 2, 1024, ())
        out = device.empty(1, np.float32)
        device.launch(load_wrong(device, "writes"), 1, 1, (out, np.int32(0)))
        assert device.to_numpy(out)[0] == 1
