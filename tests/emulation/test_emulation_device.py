"""The device seam: arguments, compilation, memory, products, capture and the sanitizers."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from gpunet.verification.storage import BFLOAT16
from tests.helpers.checkout import ROOT

from . import EmulatedDevice, EmulationError, Kernel, sanitizer_environment

SOURCE = """
template <typename T>
__global__ void scale(const T* x, T* out, T by, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = x[i] * by;
}
__global__ void writes(float* out, int i) { out[i] = 1.0f; }
"""


def load(device: EmulatedDevice, name: str, source: str = SOURCE) -> Kernel:
    kernels = ("scale<float>", "writes") if source is SOURCE else (name,)
    return device.load(source, (), kernels, "test.cu")[name]


def test_arguments_are_checked_against_the_signature(device: EmulatedDevice) -> None:
    kernel = load(device, "scale<float>")
    x, out, by, n = device.zeros(256, np.float32), device.empty(256, np.float32), np.float32(2), np.int32(256)
    assert [str(parameter) for parameter in kernel.parameters] == [
        "a pointer to const floating of 4 bytes",
        "a pointer to floating of 4 bytes",
        "floating of 4 bytes",
        "integer of 4 bytes",
    ]
    wrong_arguments = [
        ((x, out, by), "takes 4 arguments, but 3 were given"),
        ((x, out, by, n, n), "takes 4 arguments, but 5 were given"),
        ((x, out, by, 256), "argument 3 is a plain Python int"),
        ((x, out, by, True), "argument 3 is a plain Python bool"),
        ((x, out, 2.0, n), "argument 2 is a plain Python float"),
        ((x, out, np.float64(2), n), "argument 2 is a float64 scalar, but the kernel takes floating of 4 bytes"),
        ((x, out, by, np.int64(256)), "argument 3 is a int64 scalar, but the kernel takes integer of 4 bytes"),
        ((x, out, n, by), "argument 2 is a int32 scalar, but the kernel takes floating of 4 bytes"),
        ((x, by, out, n), "argument 1 is a float32 scalar, but the kernel takes a pointer"),
        ((x, out, by, x), "argument 3 is an array"),
        ((x, device.empty(1, np.float64), by, n), "argument 1 is an array of float64"),
        ((x, None, by, n), "argument 1 is a NoneType"),
        ((np.zeros(256, np.float32), out, by, n), "argument 0 is not in the memory of the device"),
    ]
    for arguments, message in wrong_arguments:
        with pytest.raises(TypeError, match=message):
            device.launch(kernel, 1, 256, arguments)
    constant = device.zeros(256, np.float32)
    constant.flags.writeable = False
    device.launch(kernel, 1, 256, (constant, out, by, n))
    with pytest.raises(TypeError, match="read-only"):
        device.launch(kernel, 1, 256, (x, constant, by, n))


@pytest.mark.parametrize(
    ("grid", "block", "shared_memory"),
    [
        (0, 32, 0),
        ((1, 65536), 32, 0),
        ((1, 1, 65536), 32, 0),
        (1, 0, 0),
        (1, 1025, 0),
        (1, (32, 33), 0),
        (1, (1, 1, 65), 0),
        (1, 32, 227 * 1024 + 1),
        ((1, 1, 1, 1), 1, 0),
    ],
)
def test_launch_limits(
    device: EmulatedDevice, grid: int | tuple[int, ...], block: int | tuple[int, ...], shared_memory: int
) -> None:
    with pytest.raises(EmulationError, match="invalid launch configuration"):
        device.launch(
            load(device, "writes"), grid, block, (device.empty(1, np.float32), np.int32(0)), shared_memory=shared_memory
        )


def test_compile_error_shows_the_line(device: EmulatedDevice) -> None:
    with pytest.raises(EmulationError, match=r"test\.cu does not compile:\n(.*\n)*test\.cu:2:.*nonsense"):
        load(device, "kernel", "__global__ void kernel() {\n    nonsense();\n}")
    with pytest.raises(EmulationError, match="absent"):
        load(device, "absent", "__global__ void kernel() {}")
    large = "volatile float local[20000]; for (int i = 0; i < 20000; ++i) local[i] = i; x[0] = local[9];"
    with pytest.raises(EmulationError, match="frame size"):
        load(device, "kernel", "__global__ void kernel(float* x) { " + large + " }")
    with pytest.raises(EmulationError, match="atomics on integers only"):
        load(device, "kernel", "__global__ void kernel(float* x) { atomicAdd(x, 1.0f); }")


def test_options_and_cache(device: EmulatedDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUNET_EMULATION_CACHE", str(tmp_path))
    source = "__global__ void constant(int* out) { out[0] = VALUE + __CUDA_ARCH__; }"
    out = device.empty(1, np.int32)
    for value in (1, 2, 1):
        options = (f"-DVALUE={value}", "-std=c++17", "--use_fast_math")
        kernels = device.load(source, options, ("constant",), "constant.cu")
        device.launch(kernels["constant"], 1, 1, (out,))
        assert device.to_numpy(out)[0] == 900 + value
    assert len(list(tmp_path.glob("constant_cu-*.so"))) == 2


def test_new_memory_is_poisoned_and_aligned(device: EmulatedDevice) -> None:
    array = device.empty((3, 5), np.float32)
    assert array.shape == (3, 5)
    assert array.ctypes.data % 256 == 0
    assert np.isnan(device.to_numpy(array)).all()
    assert (device.to_numpy(device.empty(4, np.int64)) == -1).all()
    assert device.to_numpy(device.zeros((), np.float64)) == 0
    assert device.empty((0, 4), np.float32).shape == (0, 4)


def test_transfers(device: EmulatedDevice) -> None:
    host = np.arange(6.0).reshape(2, 3)
    array = device.asarray(host.T, dtype=np.float32)
    assert array.shape == (3, 2)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert device.asarray(array) is array
    assert device.asarray([1, 2]).tolist() == [1, 2]
    back = device.to_numpy(array)
    back += 1
    np.testing.assert_array_equal(device.to_numpy(array), host.T)
    target = device.empty((3, 2), np.float32)
    device.copy(target, array)
    np.testing.assert_array_equal(device.to_numpy(target), host.T)
    device.copy(target[1:], np.zeros((2, 2), np.float32))
    assert device.to_numpy(target).tolist() == [[0, 3], [0, 0], [0, 0]]
    with pytest.raises(ValueError, match="copy of"):
        device.copy(target, array[1:])
    with pytest.raises(TypeError, match="not in the memory of the device"):
        device.copy(back, array)
    with pytest.raises(TypeError, match="not in the memory of the device"):
        device.to_numpy(host)


@pytest.mark.parametrize(("index", "offset"), [(10, 40), (-1, -4)])
def test_write_next_to_a_buffer_is_found(device: EmulatedDevice, index: int, offset: int) -> None:
    array = device.empty((2, 5), np.float32)
    device.launch(load(device, "writes"), 1, 1, (array, np.int32(9)))
    device.check_guards()
    message = rf"array of shape \(2, 5\), float32, 40 bytes, was overrun at byte offset {offset}"
    with pytest.raises(EmulationError, match=f"writes: write outside a buffer: {message}"):
        device.launch(load(device, "writes"), 1, 1, (array, np.int32(index)))
    with pytest.raises(EmulationError, match=message):
        device.check_guards()


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_gemm(
    device: EmulatedDevice, random: np.random.Generator, transpose_a: bool, transpose_b: bool, dtype: type
) -> None:
    a: np.ndarray = random.integers(-4, 4, size=(3, 5)).astype(dtype)
    b: np.ndarray = random.integers(-4, 4, size=(5, 2)).astype(dtype)
    device_a = device.asarray(a.T if transpose_a else a)
    device_b = device.asarray(b.T if transpose_b else b)
    out = device.zeros((3, 2), np.float32 if dtype == np.float16 else dtype)
    for times in (1, 2):
        device.gemm(device_a, device_b, out, transpose_a, transpose_b, accumulate=True)
        np.testing.assert_array_equal(device.to_numpy(out), times * (a @ b))
    device.gemm(device_a, device_b, out, transpose_a, transpose_b)
    np.testing.assert_array_equal(device.to_numpy(out), a @ b)


def test_gemm_of_bfloat16(device: EmulatedDevice) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    a, b = device.asarray(np.full((1, 2), 129), bfloat16), device.asarray(np.ones((2, 1)), bfloat16)
    single, half = device.empty((1, 1), np.float32), device.zeros((1, 1), bfloat16)
    device.gemm(a, b, single)
    device.gemm(a, b, half, accumulate=True)
    assert device.to_numpy(single)[0, 0] == 258
    assert device.to_numpy(half).astype(np.float32)[0, 0] == 258


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("dtype", "out_dtype"), [("float32", "float32"), ("float64", "float64"), ("uint16", "float32")]
)
def test_gemm_with_a_bias(device: EmulatedDevice, dtype: str, out_dtype: str, relu: bool) -> None:
    rng = np.random.default_rng(0)
    host_a, host_b = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((3, 5), (7, 5)))
    host_a[1, 1] = np.nan
    bias = device.asarray(rng.integers(-4, 5, 7).astype(out_dtype))
    store = BFLOAT16.store if dtype == "uint16" else lambda values: values.astype(dtype)
    out = device.empty((3, 7), out_dtype)
    a, b = device.asarray(store(host_a)), device.asarray(store(host_b))
    assert device.gemm_bias(a, b, bias, out, transpose_b=True, relu=relu)
    expected = host_a @ host_b.T + bias
    np.testing.assert_array_equal(out, np.maximum(expected, 0) if relu else expected)


def test_gemm_takes_no_bias_that_cublaslt_would_not(device: EmulatedDevice) -> None:
    a, b, out = (device.zeros(shape, np.float32) for shape in ((3, 5), (5, 4), (3, 4)))
    for bias in (device.zeros(4, np.float64), device.zeros(5, np.float32)[1:]):
        assert not device.gemm_bias(a, b, bias, out)
    for bias in (device.zeros(3, np.float32), device.zeros(8, np.float32)[::2]):
        with pytest.raises(ValueError, match="with a bias of shape"):
            device.gemm_bias(a, b, bias, out)
    with pytest.raises(TypeError, match="gemm_bias: bias"):
        device.gemm_bias(a, b, np.zeros(4, np.float32), out)


def test_gemm_precision_and_errors(device: EmulatedDevice) -> None:
    a = device.asarray(np.full((1, 1), 1 + 2**-11, np.float32))
    one, out = device.asarray(np.ones((1, 1), np.float32)), device.empty((1, 1), np.float32)
    device.gemm(a, one, out)
    assert device.to_numpy(out)[0, 0] == np.float32(1 + 2**-11)
    device.gemm(a, one, out, precision="tf32")
    assert device.to_numpy(out)[0, 0] == np.float32(1 + 2**-10)
    wide = device.zeros((4, 6), np.float32)
    device.gemm(wide[:, 1:3], wide[:2, :3], device.empty((4, 3), np.float32))
    for arguments, message in (
        ((a, wide, out), "after transposition"),
        ((a, one, device.empty((1, 1), np.float64)), "into float64"),
        ((a, one, a), "one of its factors"),
        ((wide[:, ::2], wide[:3], device.empty((4, 6), np.float32)), "rows are contiguous"),
    ):
        with pytest.raises(ValueError, match=message):
            device.gemm(*arguments)
    with pytest.raises(ValueError, match="precision"):
        device.gemm(a, one, out, precision="float8")


def test_capture_records_and_replays_with_the_values_of_the_capture(device: EmulatedDevice) -> None:
    scale = load(device, "scale<float>")
    x, y = device.asarray(np.ones((2, 2), np.float32)), device.zeros((2, 2), np.float32)
    saved = device.zeros((2, 2), np.float32)
    rate = 3.0

    def step() -> None:
        device.launch(scale, 1, 32, (x, x, np.float32(rate), np.int32(x.size)))
        device.gemm(x, x, y)
        device.copy(saved[1:], y[:1])

    replay = device.capture(step)
    assert replay.names == ("scale<float>", "gemm", "copy")
    assert device.to_numpy(x).tolist() == [[1, 1], [1, 1]], "a capture does not run anything"
    rate = 100.0
    replay.launch()
    replay.launch()
    assert (device.to_numpy(x) == 9).all(), "the host value of the capture is in the graph"
    assert (device.to_numpy(y) == 162).all()
    assert device.to_numpy(saved).tolist() == [[0, 0], [162, 162]]


def test_replay_with_a_freed_buffer_fails(device: EmulatedDevice) -> None:
    scale = load(device, "scale<float>")
    buffers = [device.zeros(8, np.float32)]
    replay = device.capture(
        lambda: device.launch(scale, 1, 8, (buffers[0][2:], buffers[0][2:], np.float32(2), np.int32(6)))
    )
    replay.launch()
    buffers[0] = device.zeros(8, np.float32)
    gc.collect()
    buffers.append(device.zeros(8, np.float32))  # may take the freed address
    with pytest.raises(EmulationError, match=r"replay of scale<float>: its buffer of shape \(8,\), float32, was freed"):
        replay.launch()


def test_capture_refuses_what_a_graph_cannot_hold(device: EmulatedDevice) -> None:
    x, host = device.zeros(4, np.float32), np.zeros(4, np.float32)
    replay = device.capture(lambda: device.asarray(x))
    assert replay.names == ()
    for name, step in {
        "empty": lambda: device.empty(4, np.float32),
        "zeros": lambda: device.zeros(4, np.float32),
        "asarray": lambda: device.asarray(host),
        "to_numpy": lambda: device.to_numpy(x),
        "copy from the host": lambda: device.copy(x, host),
        "synchronize": device.synchronize,
        "record_event": device.record_event,
        "Replay.launch": replay.launch,
        "capture": lambda: device.capture(lambda: None),
    }.items():
        with pytest.raises(EmulationError, match="not permitted during a capture"):
            device.capture(step)
        assert device.empty(1, np.float32).shape == (1,), f"the capture of {name} has ended"


def test_clock(device: EmulatedDevice) -> None:
    start = device.record_event()
    device.synchronize()
    assert device.elapsed(start, device.record_event()) >= 0


SANITIZED = """
import sys
import numpy as np
from tests.emulation import EmulatedDevice

device = EmulatedDevice(sanitize=True)
source = '''
__global__ void shift(const float* x, float* out, int by) {
    SHARED(float, tile, [64]);
    tile[threadIdx.x] = x[threadIdx.x + by];
    __syncthreads();
    float value = tile[63 - threadIdx.x];
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    out[threadIdx.x] = value;
}
__global__ void diverges() { if (threadIdx.x < 5) __syncthreads(); }
'''
kernels = device.load(source, (), ("shift", "diverges"), "sanitized.cu")
x, out = device.asarray(np.ones(64, np.float32)), device.empty(64, np.float32)
for _ in range(3):
    device.launch(kernels["shift"], 4, 64, (x, out, np.int32(0)))
    assert (device.to_numpy(out) == 32).all()
    try:
        device.launch(kernels["diverges"], 1, 64, ())
    except RuntimeError as error:
        assert "diverged" in str(error), error
    else:
        raise AssertionError("divergence was not found")
print("clean", flush=True)
device.launch(kernels["shift"], 1, 64, (x, out, np.int32(1)))
print("not found", flush=True)
"""


def test_address_sanitizer_finds_a_read_past_a_buffer() -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SANITIZED)],
        cwd=ROOT,
        env={**os.environ, **sanitizer_environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "clean\n", result.stdout + result.stderr
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr
    assert "sanitized.cu:4" in result.stderr


def test_sanitizer_must_be_loaded_at_the_start_of_the_process() -> None:
    with pytest.raises(EmulationError, match="sanitizer_environment"):
        EmulatedDevice(sanitize=True)
