"""Arithmetic: half precision, bfloat16, fused multiply-add and integer functions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import EmulatedDevice, Kernel

NUMBERS = """
__global__ void to_half(const float* x, __half* out, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = __float2half_rn(x[i]);
}
__global__ void from_half(const __half* x, float* out, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = __half2float(x[i]);
}
__global__ void to_bfloat16(const float* x, __nv_bfloat16* out, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = __float2bfloat16_rn(x[i]);
}
__global__ void from_bfloat16(const __nv_bfloat16* x, float* out, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = __bfloat162float(x[i]);
}
__global__ void contraction(float a, float b, float c, float* out) {
    out[0] = a * b + c;
    out[1] = fmaf(a, b, c);
    out[2] = rsqrtf(a);
    out[3] = max(NAN, c);
    out[4] = min(c, 7);
}
__global__ void integers(unsigned int* out) {
    out[0] = __umulhi(0xD2511F53u, 0x12345678u);
    out[1] = __popc(0xff00u) + 100 * __clz(1) + 10000 * __ffs(8);
    out[2] = __float_as_uint(1.0f);
    out[3] = max(3, 5u) + min(-1, 2);
    out[4] = atomicCAS(out + 2, 0x3f800000u, 6u);
    out[5] = atomicMax(out + 2, 9u);
    out[6] = sizeof(float4) + alignof(double2);
}
"""
NUMBER_KERNELS = ("to_half", "from_half", "to_bfloat16", "from_bfloat16", "contraction", "integers")


def load_numbers(device: EmulatedDevice) -> Mapping[str, Kernel]:
    return device.load(NUMBERS, (), NUMBER_KERNELS, "numbers.cu")


def awkward_floats(random: np.random.Generator) -> np.ndarray:
    """Every exponent and sign, ties, the borders of half precision, infinities and NaN."""
    bits = random.integers(0, 2**32, size=20_000, dtype=np.uint32)
    ties = (bits & np.uint32(0xFFFFE000)) | np.uint32(0x1000)
    coarse_ties = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    half_range = random.normal(size=20_000).astype(np.float32) * np.float32(2.0) ** random.integers(-28, 18, 20_000)
    borders = np.array(
        [0, -0.0, 65504, 65519.996, 65520, -65520, 2**-14, 2**-24, 2**-25, 3 * 2**-26, 2**-26, np.inf, -np.inf, np.nan],
        dtype=np.float32,
    )
    parts = [bits.view(np.float32), ties.view(np.float32), coarse_ties.view(np.float32), half_range, borders]
    return np.concatenate([part.astype(np.float32) for part in parts])


def test_half_precision_rounds_like_numpy(device: EmulatedDevice, random: np.random.Generator) -> None:
    kernels = load_numbers(device)
    x = awkward_floats(random)
    halves, back = device.empty(x.size, np.float16), device.empty(x.size, np.float32)
    device.launch(kernels["to_half"], 1, 32, (device.asarray(x), halves, np.int32(x.size)))
    device.launch(kernels["from_half"], 1, 32, (halves, back, np.int32(x.size)))
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    np.testing.assert_array_equal(device.to_numpy(halves), expected)
    np.testing.assert_array_equal(np.signbit(expected[~np.isnan(x)]), np.signbit(device.to_numpy(halves)[~np.isnan(x)]))
    np.testing.assert_array_equal(device.to_numpy(back), expected.astype(np.float32))


def test_bfloat16_rounds_to_nearest_even(device: EmulatedDevice, random: np.random.Generator) -> None:
    kernels = load_numbers(device)
    x = awkward_floats(random)
    stored, back = device.empty(x.size, np.uint16), device.empty(x.size, np.float32)
    device.launch(kernels["to_bfloat16"], 1, 32, (device.asarray(x), stored, np.int32(x.size)))
    device.launch(kernels["from_bfloat16"], 1, 32, (stored, back, np.int32(x.size)))
    found = device.to_numpy(back)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x))
    # The two neighbours of x among the bfloat16 numbers: the nearer one is right, the even one in a tie.
    number = ~np.isnan(x)
    bits = x[number].view(np.uint32)
    below = bits & np.uint32(0xFFFF0000)
    remainder = bits & np.uint32(0xFFFF)
    up = (remainder > 0x8000) | ((remainder == 0x8000) & (bits >> np.uint32(16) & np.uint32(1) == 1))
    expected = np.where(up, below + np.uint32(0x10000), below).view(np.float32)
    np.testing.assert_array_equal(found[number], expected)


def test_arithmetic(device: EmulatedDevice) -> None:
    kernels = load_numbers(device)
    out = device.empty(5, np.float32)
    a = np.float32(1 + 2**-12)
    device.launch(kernels["contraction"], 1, 1, (a, a, np.float32(-1), out))
    twice, fused, root, largest, smallest = device.to_numpy(out)
    assert twice == a * a - 1
    assert fused == np.float32(float(a) * float(a) - 1)
    assert twice != fused
    assert root == np.float32(1 / np.sqrt(float(a)))
    assert (largest, smallest) == (-1, -1)
    integers = device.empty(7, np.uint32)
    device.launch(kernels["integers"], 1, 1, (integers,))
    assert device.to_numpy(integers).tolist() == [
        0xD2511F53 * 0x12345678 >> 32,
        8 + 100 * 31 + 10000 * 4,
        9,
        4,
        0x3F800000,
        6,
        32,
    ]
