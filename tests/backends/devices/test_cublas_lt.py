"""Products with an epilogue by cublasLt: what is declared, what is asked, what is refused; on the stand-in."""

from __future__ import annotations

import ctypes
import itertools
import json
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices import cublas, cublas_lt
from gpunet.backends.devices.cublas import Cublas
from gpunet.backends.devices.cublas_lt import CublasLt
from gpunet.verification.storage import BFLOAT16
from tests.backends.cuda.test_device import backend as backend  # fixtures
from tests.backends.cuda.test_device import cupy as cupy
from tests.helpers import fake_cublas_lt, fake_cupy
from tests.helpers.cublas_declarations import FOLDER

RNG = np.random.default_rng(0)
# What is given to ctypes for each type that is no pointer and no enumeration.
SIMPLE = {"int": ctypes.c_int, "size_t": ctypes.c_size_t, "uint64_t": ctypes.c_uint64, "int64_t": ctypes.c_int64}
SIMPLE |= {"float": ctypes.c_float}
POINTERS = re.compile(r".*\*|cublas(Lt)?Handle_t|cublasLt(MatmulDesc|MatrixLayout|MatmulPreference)_t|cudaStream_t")
ENUMERATIONS = re.compile(r"cublas(Operation|ComputeType|GemmAlgo|Status)_t|cublasLt\w+Attributes_t|cudaDataType(_t)?")


@pytest.fixture(params=sorted(FOLDER.glob("*.json")), ids=lambda path: f"CUDA {path.stem}")
def declarations(request: pytest.FixtureRequest) -> Any:
    """What the headers of one CUDA version declare."""
    return json.loads(request.param.read_text(encoding="utf-8"))


def in_ctypes(declared: str) -> Any:
    """Return the type that ctypes has for one of C."""
    if POINTERS.fullmatch(declared):
        return ctypes.c_void_p
    return ctypes.c_int if ENUMERATIONS.fullmatch(declared) else SIMPLE[declared]


@pytest.mark.parametrize("module", [cublas, cublas_lt])
def test_parameters_are_those_of_the_headers(declarations: Any, module: Any) -> None:
    for name, parameters in module.SIGNATURES.items():
        assert [in_ctypes(declared) for declared in declarations["functions"][name]] == list(parameters), name


def test_numbers_are_those_of_the_headers(declarations: Any) -> None:
    mine = {f"CUBLAS_{name}": value for name, value in vars(cublas).items() if name.startswith("COMPUTE_")}
    mine |= {
        f"CUBLASLT_MATMUL_{name}": value for name, value in vars(cublas_lt).items() if name[:5] in ("DESC_", "PREF_")
    }
    mine |= {f"CUBLASLT_{name}": value for name, value in vars(cublas_lt).items() if name.startswith("EPILOGUE_")}
    mine |= {f"CUBLAS_STATUS_{name}": getattr(cublas_lt, name) for name in ("ARCH_MISMATCH", "NOT_SUPPORTED")}
    assert len(mine) == 3 + 4 + 5 + 2 + 2
    assert mine.items() <= declarations["numbers"].items()


def test_structures_are_those_of_the_headers(declarations: Any) -> None:
    mine = {"cublasLtMatmulAlgo_t": cublas_lt.Algorithm, "cublasLtMatmulHeuristicResult_t": cublas_lt.HeuristicResult}
    for name, structure in mine.items():
        expected = []
        for member in declarations["structures"][name]:
            kind, field, count = re.fullmatch(r"(\w+) (\w+)(?:\[(\d+)\])?", member).groups()  # type: ignore[union-attr]
            one = mine.get(kind) or in_ctypes(kind)
            expected.append((field, one * int(count) if count else one))
        assert list(structure._fields_) == expected


# --- products ---------------------------------------------------------------------------------------------------------


class World:
    """A cuBLAS handle with cublasLt on a stream, in memory that the stand-in does not look after."""

    def __init__(self) -> None:
        self.stream = fake_cupy.Stream(non_blocking=True)
        self.library = fake_cupy.FakeCublas()
        self.blas = Cublas(self.library, self.stream, SimpleNamespace(ptr=0x1000), 4096)
        self.lt = CublasLt(self.library, self.blas)
        self.fake = self.library.lt

    def __call__(self, a: Any, b: Any, bias: Any, out: Any, *flags: bool, **more: Any) -> bool:
        done = self.lt.gemm_bias(*map(fake_cupy.ndarray, (a, b, bias, out)), *flags, **more)
        self.stream.synchronize()
        return done


@pytest.fixture
def world() -> World:
    return World()


def aligned(values: Any, offset: int = 0) -> Any:
    """Return a copy that starts ``offset`` elements after a multiple of 256 bytes."""
    memory = np.empty(values.nbytes + 512 + offset * values.itemsize, np.uint8)
    start = -memory.ctypes.data % 256 + offset * values.itemsize
    copy = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def numbers(shape: Any, dtype: str, offset: int = 0) -> Any:
    values = RNG.standard_normal(shape)
    return aligned(BFLOAT16.store(values) if dtype == "uint16" else values.astype(dtype), offset)


def multiply(
    world: World, dtype: str, out_dtype: str, ta: bool, tb: bool, relu: bool, precision: str = "float32"
) -> None:
    """Assert that a product is right: of no square matrices, where a wrong flag or factor would fit."""
    a, b = numbers((5, 3) if ta else (3, 5), dtype), numbers((7, 5) if tb else (5, 7), dtype)
    bias, out = numbers(7, out_dtype), aligned(np.full((3, 7), np.nan, out_dtype))
    assert world(a, b, bias, out, ta, tb, relu, precision=precision)
    a, b = (fake_cupy._numbers(matrix, np.float64) for matrix in (a, b))
    expected = (a.T if ta else a) @ (b.T if tb else b) + bias
    tolerance = 1e-13 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(out, np.maximum(expected, 0) if relu else expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("dtype", "out_dtype"),
    [("float32", "float32"), ("float64", "float64"), ("float16", "float32"), ("uint16", "float32")],
)
def test_products_of_every_layout(world: World, dtype: str, out_dtype: str, relu: bool) -> None:
    for ta, tb in itertools.product((False, True), repeat=2):
        multiply(world, dtype, out_dtype, ta, tb, relu)


def test_half_precision_with_a_half_bias(world: World) -> None:
    a, b, bias = (numbers(shape, "float16") for shape in ((4, 6), (6, 8), 8))
    out = aligned(np.zeros((4, 8), np.float16))
    assert world(a, b, bias, out)
    np.testing.assert_allclose(out, a.astype(float) @ b + bias, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("precision", "compute"), [("float32", 68), ("tf32", 77)])
def test_precision(world: World, precision: str, compute: int) -> None:
    multiply(world, "float32", "float32", False, True, False, precision)
    assert compute in {getattr(one, "compute", None) for one in world.fake.alive.values()}


def test_one_row_one_column_and_one_inner_element(world: World) -> None:
    for rows, inner, columns in ((1, 5, 4), (4, 5, 1), (4, 1, 3), (1, 1, 1)):
        a, b, bias = (numbers(shape, "float32") for shape in ((rows, inner), (columns, inner), columns))
        out = aligned(np.zeros((rows, columns), np.float32))
        assert world(a, b, bias, out, transpose_b=True)
        np.testing.assert_allclose(out, a @ b.T + bias, rtol=1e-5, atol=1e-5)


def test_each_bias_is_its_own(world: World) -> None:
    """The descriptors of a shape are kept, and with them the address of a bias."""
    a, b = numbers((3, 5), "float32"), numbers((5, 7), "float32")
    for _ in range(3):
        bias, out = numbers(7, "float32"), aligned(np.zeros((3, 7), np.float32))
        assert world(a, b, bias, out)
        np.testing.assert_allclose(out, a @ b + bias, rtol=1e-5, atol=1e-5)
    assert world.fake.asked == 1


# --- the algorithm ----------------------------------------------------------------------------------------------------


def product(
    world: World, rows: int = 3, relu: bool = False, misaligned: str = "a", offset: int = 0, **more: Any
) -> bool:
    """Ask for a product of (rows, 8) by (8, 4), one of whose arrays starts ``offset`` elements past alignment."""
    offsets = dict.fromkeys(["a", "b", "bias", "out"], 0) | {misaligned: offset}
    a, b, bias = (
        numbers(shape, "float32", offsets[name]) for name, shape in (("a", (rows, 8)), ("b", (8, 4)), ("bias", 4))
    )
    return world(a, b, bias, aligned(np.zeros((rows, 4), np.float32), offsets["out"]), relu=relu, **more)


def test_an_algorithm_is_asked_for_once_for_whatever_may_decide_it(world: World) -> None:
    for asked, arguments in enumerate(({}, {"rows": 4}, {"relu": True}, {"precision": "tf32"}, {"offset": 4}), start=1):
        for _ in range(2):
            assert product(world, **arguments)  # type: ignore[arg-type]
        assert world.fake.asked == asked, arguments


@pytest.mark.parametrize("misaligned", ["a", "b", "bias", "out"])
def test_an_algorithm_fits_the_alignment(world: World, misaligned: str) -> None:
    """One that was chosen for aligned arrays would fail on others of the same shape."""
    assert product(world)
    for offset in (4, 16) if misaligned == "bias" else (1, 2, 4, 16):
        assert product(world, misaligned=misaligned, offset=offset)


def test_no_more_is_kept_than_a_few_networks_need(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cublas_lt, "PLANS_KEPT", 2)
    for rows in (1, 2, 3, 1):
        assert product(world, rows)
        assert len(world.fake.alive) <= 2 * 5  # a product, three matrices, preferences
    assert world.fake.asked == 4
    world.lt.close()
    assert not world.fake.alive
    assert product(world)


@pytest.mark.parametrize("where", ["nothing is returned", "cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmul"])
def test_a_product_that_cublaslt_does_not_have_is_not_done(world: World, where: str) -> None:
    if where.startswith("cublasLt"):
        world.fake.fails[where] = fake_cublas_lt.NOT_SUPPORTED
    else:
        world.fake.has_algorithm = lambda epilogue, shape: epilogue == fake_cublas_lt.BIAS
    assert not product(world, relu=True)
    assert not world.fake.alive
    world.fake.fails.clear()
    assert not product(world, relu=True)  # it is not asked for again
    assert product(world)
    assert [epilogue for epilogue, _ in world.fake.done] == [fake_cublas_lt.BIAS]


def test_a_bias_that_cublaslt_would_misread_is_not_given_to_it(world: World) -> None:
    a, b, out = numbers((3, 8), "float32"), numbers((8, 4), "float32"), aligned(np.zeros((3, 4), np.float32))
    for bias in (numbers(4, "float64"), numbers(4, "float32", offset=1)):
        assert not world(a, b, bias, out)
    assert not world.fake.asked
    assert not out.any()


def test_what_does_not_fit_is_refused(world: World) -> None:
    a, b, out = numbers((3, 8), "float32"), numbers((8, 4), "float32"), aligned(np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match=r"into \(3, 4\) with a bias of shape \(3,\)"):
        world(a, b, numbers(3, "float32"), out)
    with pytest.raises(ValueError, match="after transposition"):
        world(a, b, numbers(4, "float32"), out, transpose_b=True)
    with pytest.raises(ValueError, match="precision"):
        world(a, b, numbers(4, "float32"), out, precision="fp8")


@pytest.mark.parametrize("function", cublas_lt.SIGNATURES)
def test_the_status_of_every_call_is_looked_at(function: str) -> None:
    world = World()
    world.fake.fails[function] = fake_cublas_lt.INVALID_VALUE

    def all_calls() -> None:
        product(world)
        world.lt.close()

    with pytest.raises(gpunet.DeviceError, match=f"{function} failed with status 7: invalid value"):
        all_calls()


def test_a_library_that_lacks_a_function() -> None:
    library = fake_cupy.FakeCublas()
    del library.lt.cublasLtMatmul
    blas = Cublas(library, fake_cupy.Stream(non_blocking=True), SimpleNamespace(ptr=0x1000), 4096)
    with pytest.raises(gpunet.DeviceError, match="cuBLAS lacks the function cublasLtMatmul"):
        CublasLt(library, blas)


# --- on a device ------------------------------------------------------------------------------------------------------


def fake_of(backend: CudaBackend) -> fake_cublas_lt.FakeCublasLt:
    """Return the cublasLt of a backend's device."""
    resources: Any = backend.device._resources  # type: ignore[attr-defined]
    return resources.blas._library.lt  # type: ignore[no-any-return]


def test_a_recording_has_the_product_and_allocates_nothing(backend: CudaBackend) -> None:
    x, weight, bias = (backend.asarray(RNG.standard_normal(shape)) for shape in ((4, 6), (3, 6), 3))
    out = backend.zeros((4, 3), np.float64)

    def step() -> None:
        backend.linear_activation_forward(x, weight, bias, gpunet.ReLU(), out)

    step()
    allocations = len(backend.device._cupy.allocations)  # type: ignore[attr-defined]
    replay = backend.capture(step)
    assert replay is not step
    values = RNG.standard_normal((4, 6))
    backend.copy(values, x)
    replay()
    expected = np.maximum(values @ backend.to_numpy(weight).T + backend.to_numpy(bias), 0)
    np.testing.assert_allclose(backend.to_numpy(out), expected, rtol=1e-13, atol=1e-13)
    assert len(backend.device._cupy.allocations) == allocations  # type: ignore[attr-defined]
    assert fake_of(backend).asked == 1


def test_a_recording_keeps_what_the_product_reads(backend: CudaBackend) -> None:
    out = backend.zeros((4, 3), np.float64)

    def recorded() -> Any:
        x, weight, bias = (backend.asarray(np.ones(shape)) for shape in ((4, 6), (3, 6), 3))
        return backend.capture(lambda: backend.linear_activation_forward(x, weight, bias, gpunet.ReLU(), out))

    replay = recorded()
    backend.synchronize()
    replay()
    np.testing.assert_array_equal(backend.to_numpy(out), 7)


def test_a_network_without_batch_norm_has_one_operation_for_each_layer(backend: CudaBackend) -> None:
    X, y = RNG.standard_normal((12, 5)), RNG.integers(0, 3, 12)
    network = gpunet.Network([5, 8, 6, 3], batch_norm=False, seed=0, device=backend)
    network.predict(X)
    relu, bias = fake_cublas_lt.RELU_BIAS, fake_cublas_lt.BIAS
    assert fake_of(backend).done[-3:] == [(relu, (8, 12, 5)), (relu, (6, 12, 8)), (bias, (3, 12, 6))]
    gpunet.fit(network, X, y, epochs=2, batch_size=6)
    twin = gpunet.Network([5, 8, 6, 3], batch_norm=False, seed=0, device="cpu")
    gpunet.fit(twin, X, y, epochs=2, batch_size=6)
    for name, values in twin.get_parameters().items():
        np.testing.assert_allclose(network.get_parameters()[name], values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "leaky_relu(0.1)"])
def test_other_activations_are_no_part_of_the_product(backend: CudaBackend, activation: str) -> None:
    network = gpunet.Network([5, 8, 3], batch_norm=False, activation=activation, seed=0, device=backend)
    network.predict(np.ones((4, 5)))
    assert [epilogue for epilogue, _ in fake_of(backend).done] == [fake_cublas_lt.BIAS]


@pytest.mark.parametrize("with_algorithm", [True, False])
def test_the_same_numbers_without_cublaslt(
    backend: CudaBackend, monkeypatch: pytest.MonkeyPatch, with_algorithm: bool
) -> None:
    X = RNG.standard_normal((9, 5))
    expected = gpunet.Network([5, 8, 3], batch_norm=False, seed=0, device="cpu").logits(X)
    if with_algorithm:
        monkeypatch.setenv("GPUNET_CUBLASLT", "0")
    else:
        fake_of(backend).has_algorithm = lambda epilogue, shape: False
    network = gpunet.Network([5, 8, 3], batch_norm=False, seed=0, device=CudaBackend(backend.device))
    np.testing.assert_allclose(network.logits(X), expected, rtol=1e-5, atol=1e-5)
    assert not fake_of(backend).done


# --- the stand-in -----------------------------------------------------------------------------------------------------

MASK = {11: (8, 0x1000), 12: (8, 128)}
# (epilogue, transpose_a, transpose_b, inner, attributes as {number: (bytes, value)}, the status)
RULES: dict[str, tuple[int, bool, bool, int, dict[int, tuple[int, int]], int]] = {
    "a product alone": (1, False, False, 5, {}, 0),
    "a bias": (4, True, False, 5, {8: (8, 0x1000)}, 0),
    "no address of the bias": (4, False, False, 5, {}, 7),
    "a bias of another type": (4, False, False, 5, {8: (8, 0x1000), 26: (4, 1)}, 15),
    "an epilogue that there is not": (3, False, False, 5, {}, 7),
    "a mask": (134, False, False, 5, {8: (8, 0x1000)} | MASK, 0),
    "no mask": (134, False, False, 5, {8: (8, 0x1000)}, 7),
    "a mask that is not aligned": (134, False, False, 5, {8: (8, 0x1000), 11: (8, 0x1008), 12: (8, 128)}, 7),
    "rows of the mask that are not aligned": (134, False, False, 5, {8: (8, 0x1000), 11: (8, 0x1000), 12: (8, 64)}, 7),
    "one inner element below a mask": (152, False, False, 1, {8: (8, 0x1000)} | MASK, 15),
    "the sums of A": (256, False, False, 5, {8: (8, 0x1000)}, 0),
    "the sums of A transposed": (256, True, False, 5, {8: (8, 0x1000)}, 15),
    "the sums of B transposed": (512, False, True, 5, {8: (8, 0x1000)}, 0),
    "the sums of B": (512, False, False, 5, {8: (8, 0x1000)}, 15),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_stand_in_knows_the_rules(rule: str) -> None:
    epilogue, transpose_a, transpose_b, inner, attributes, expected = RULES[rule]
    world = World()
    cublas.declare(world.library, cublas_lt.SIGNATURES)

    def new(kind: str, *arguments: int) -> int:
        handle = ctypes.c_void_p()
        assert getattr(world.library, f"cublasLt{kind}Create")(ctypes.addressof(handle), *arguments) == 0
        return int(handle.value or 0)

    desc, preference = new("MatmulDesc", 68, 0), new("MatmulPreference")
    numbers_ = {3: (4, int(transpose_a)), 4: (4, int(transpose_b)), 7: (4, epilogue)} | attributes
    for attribute, (size, value) in numbers_.items():
        held = (ctypes.c_uint64 if size == 8 else ctypes.c_uint32)(value)
        assert world.library.cublasLtMatmulDescSetAttribute(desc, attribute, ctypes.addressof(held), size) == 0
        assert world.library.cublasLtMatmulDescSetAttribute(desc, attribute, ctypes.addressof(held), 12 - size) == 7
    a = new("MatrixLayout", 0, *((inner, 3, inner) if transpose_a else (3, inner, 3)))
    b = new("MatrixLayout", 0, *((7, inner, 7) if transpose_b else (inner, 7, inner)))
    d = new("MatrixLayout", 0, 3, 7, 3)
    result, count = cublas_lt.HeuristicResult(), ctypes.c_int(0)
    pointers = ctypes.addressof(result), ctypes.addressof(count)
    query = world.library.cublasLtMatmulAlgoGetHeuristic
    assert query(world.blas.handle, desc, a, b, d, d, preference, 1, *pointers) == expected
    short = new("MatrixLayout", 0, 3, 7, 2)  # columns that overlap
    assert query(world.blas.handle, desc, a, b, short, short, preference, 1, *pointers) == 7
    assert query(0x77, desc, a, b, d, d, preference, 1, *pointers) == 1
