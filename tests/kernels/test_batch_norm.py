"""The batch norm kernels on the emulated device, against NumPy in float64; and the plans that launch them."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from gpunet.activations import ReLU, get_activation
from gpunet.backends import Backend
from gpunet.backends.cuda.batch_norm import (
    SIGNATURES,
    BatchNormPlan,
    DeviceLimits,
    batch_norm_group,
    plan_backward,
    plan_forward,
    plan_inference,
    vector_width,
)
from gpunet.backends.cuda.sources import source_for
from gpunet.backends.cuda.tuning import CANDIDATES, ESTIMATES
from gpunet.errors import InvalidValueError
from gpunet.verification import batch_norm
from gpunet.verification.storage import NETWORK_DTYPES, STORAGES
from tests.emulation import EmulatedDevice, Kernel
from tests.helpers.gpu_models import GPU_MODELS
from tests.helpers.verification import confirm

Values = dict[str, Any]

NULL = np.uint64(0)
MOMENTUM, EPSILON = 0.1, 1e-5


@dataclass(frozen=True)
class Storage:
    """How a kernel's matrices are stored, and as what NumPy sees them."""

    name: str
    dtype: Any
    epsilon: float

    @property
    def arithmetic(self) -> Any:
        return np.float64 if self.name == "double" else np.float32

    def store(self, values: np.ndarray) -> np.ndarray:
        if self.name != "__nv_bfloat16":
            return values.astype(self.dtype)
        bits = values.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)

    def load(self, stored: np.ndarray) -> np.ndarray:
        if self.name != "__nv_bfloat16":
            return stored.astype(np.float64)
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


FLOAT = Storage("float", np.float32, 2.0**-24)
DOUBLE = Storage("double", np.float64, 2.0**-53)
HALF = Storage("__half", np.float16, 2.0**-11)
BFLOAT16 = Storage("__nv_bfloat16", np.uint16, 2.0**-8)  # its bits

HOPPER = DeviceLimits(132, 227 * 1024, 228 * 1024, 50 * 2**20, 8)
# A cache so small that one or two tiles are a stripe.
SMALL_CACHE = replace(HOPPER, l2_bytes=400 * 2**10)


@dataclass(frozen=True)
class Case:
    storage: Storage
    activation: str
    rows: int
    columns: int
    algorithm: str | None = None
    cluster: int | None = None
    offset: int = 0  # elements by which the matrices start past an aligned address
    limits: DeviceLimits = HOPPER

    def __str__(self) -> str:
        how = f"{self.algorithm or 'auto'}{self.cluster or ''}"
        return f"{self.storage.name}-{self.activation}-{self.rows}x{self.columns}-{how}-offset{self.offset}"

    @property
    def width(self) -> int:
        return vector_width(self.columns, self.matrix(EmulatedDevice()))

    def matrix(self, device: EmulatedDevice, values: np.ndarray | None = None) -> np.ndarray:
        """Return a device matrix at the case's offset: of these values, or uninitialised."""
        size = self.rows * self.columns
        matrix = device.empty(size + self.offset, self.storage.dtype)[self.offset :].reshape(self.rows, self.columns)
        if values is not None:
            matrix[...] = self.storage.store(values)
        return matrix

    def plan(self, direction: str) -> BatchNormPlan:
        itemsize = np.dtype(self.storage.dtype).itemsize
        if direction == "inference":
            return plan_inference(self.rows, self.columns, itemsize, self.width, self.limits)
        make = plan_forward if direction == "forward" else plan_backward
        return make(self.rows, self.columns, itemsize, self.width, self.limits, self.algorithm, self.cluster)

    def expression(self, direction: str) -> str:
        return self.plan(direction).expression(self.storage.name, get_activation(self.activation))


RESIDENT, STRIPED = "resident", "striped"
# A tile so large that its block has the most threads.
LARGE_TILE = Case(FLOAT, "relu", 1025, 32, RESIDENT, 1, limits=replace(HOPPER, multiprocessors=2))
CASES = [
    LARGE_TILE,
    # several tiles and chunks; what `gpunet verify` tries besides is in test_as_specified
    Case(FLOAT, "relu", 1025, 100, STRIPED),
    Case(FLOAT, "relu", 1025, 100, RESIDENT, 8),
    Case(FLOAT, "relu", 3, 1000, RESIDENT, 1),
    Case(FLOAT, "relu", 64, 64),
    Case(FLOAT, "relu", 500, 132, STRIPED, limits=SMALL_CACHE),  # five tiles, of which two make a stripe
    Case(FLOAT, "relu", 1500, 70, STRIPED, limits=SMALL_CACHE),  # one tile makes a stripe
    Case(HALF, "relu", 257, 20, RESIDENT, 1),  # rows aligned to 8 bytes
    Case(BFLOAT16, "relu", 257, 72, RESIDENT, 8),
]

MANY_ROWS = Case(FLOAT, "relu", 65536, 3, STRIPED)


@functools.cache
def compiled(storage: Storage) -> dict[str, Kernel]:
    """Compile what the tests need for one storage type as one module."""
    pairs = [(case, direction) for case in (*CASES, MANY_ROWS) for direction in ("forward", "backward")]
    expressions = dict.fromkeys(case.expression(direction) for case, direction in pairs if case.storage == storage)
    return dict(EmulatedDevice().load(source_for("batch_norm", expressions), (), tuple(expressions), "batch_norm.cu"))


def run(case: Case, direction: str, device: EmulatedDevice, values: Values) -> Values:
    """Launch one operation; its scratch memory is reused by the next launch with these values."""
    plan, number = case.plan(direction), case.storage.arithmetic
    values.setdefault("counters", device.zeros(1000, np.uint32))
    values["partial"] = device.empty(plan.partial_size, number)
    values |= {"rows": np.int32(case.rows), "columns": np.int32(case.columns)}
    values |= {"stripe_tiles": np.int32(plan.stripe_tiles), "chunks": np.int32(plan.parts)}
    values |= {"momentum": number(MOMENTUM), "epsilon": number(EPSILON)}
    values["parameter"] = number(get_activation(case.activation).parameter)
    device.launch(
        compiled(case.storage)[case.expression(direction)],
        plan.grid,
        plan.block,
        [values[name] for name in plan.arguments],
        plan.shared_bytes,
        plan.cluster,
    )
    assert not values["counters"].any(), "the counters are to be zero again"
    device.check_guards()
    return values


def inputs(case: Case, device: EmulatedDevice, s: np.ndarray | None = None, affine: bool = True) -> Values:
    """Return random inputs and poisoned outputs."""
    generator = np.random.default_rng(case.rows * 1000 + case.columns)
    columns, number = case.columns, case.storage.arithmetic

    def vector(values: np.ndarray) -> np.ndarray:
        return device.asarray(values.astype(number))

    if s is None:
        s = generator.standard_normal((case.rows, columns)) * 2 + generator.standard_normal(columns)
    return {
        "s": case.matrix(device, s),
        "dy": case.matrix(device, generator.standard_normal((case.rows, columns))),
        "gamma": vector(1 + 0.5 * generator.standard_normal(columns)) if affine else NULL,
        "beta": vector(0.5 * generator.standard_normal(columns)) if affine else NULL,
        "running_mean": vector(generator.standard_normal(columns)),
        "running_variance": vector(generator.uniform(0.5, 2, columns)),
        "y": case.matrix(device),
        "ds": case.matrix(device),
        **{name: device.empty(columns, number) for name in ("mean", "inverse_std", "dgamma", "dbeta")},
    }


def doubles(case: Case, values: Values, *names: str) -> list[Any]:
    """Return copies in float64; None for null pointers."""
    result = []
    for name in names:
        array = values[name]
        if isinstance(array, np.ndarray):
            result.append(case.storage.load(array) if array.ndim == 2 else array.astype(np.float64))
        else:
            result.append(None)
    return result


def reference_forward(case: Case, values: Values) -> Values:
    """Run the specification on the inputs of a launch, before the launch."""
    s, gamma, beta, running_mean, running_variance = doubles(
        case, values, "s", "gamma", "beta", "running_mean", "running_variance"
    )
    result = {"out": np.empty_like(s), "mean": np.empty(case.columns), "inverse_std": np.empty(case.columns)}
    result |= {"running_mean": running_mean, "running_variance": running_variance}
    activation = get_activation(case.activation)
    Backend().batch_norm_activation_forward(s, gamma, beta, activation, momentum=MOMENTUM, epsilon=EPSILON, **result)
    return result


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: np.ndarray | float, what: str) -> None:
    error = np.abs(actual - expected)
    assert (error <= tolerance).all(), f"{what}: {np.max(error / tolerance):.3g} times the tolerance"


def assert_forward_matches(case: Case, values: Values, expected: Values) -> None:
    unit, rounding = float(np.finfo(case.storage.arithmetic).eps), case.storage.epsilon
    y, mean, inverse_std, running_mean, running_variance = doubles(
        case, values, "y", "mean", "inverse_std", "running_mean", "running_variance"
    )
    gamma = 1.0 if values["gamma"] is NULL else np.abs(values["gamma"].astype(np.float64))
    # A mean of so many standard deviations is rounded to that many units.
    ratio = 1 + np.abs(expected["mean"]) * expected["inverse_std"]
    largest = np.abs(expected["out"]).max(axis=0) + gamma
    assert_close(y, expected["out"], rounding * largest + 8 * unit * ratio * largest, "y")
    assert_close(mean, expected["mean"], 4 * unit * ratio / expected["inverse_std"], "mean")
    relative = 32 * unit + (unit * ratio) ** 2
    assert_close(inverse_std, expected["inverse_std"], relative * expected["inverse_std"], "inverse_std")
    assert_close(
        running_mean, expected["running_mean"], 4 * unit * (ratio / expected["inverse_std"] + 2), "running_mean"
    )
    running = expected["running_variance"]
    assert_close(running_variance, running, 64 * unit * (running + expected["inverse_std"] ** -2), "running_variance")


def assert_backward_matches(case: Case, values: Values, dy: np.ndarray) -> None:
    """Compare with the specification for the y that the kernels stored, so that the same side of 0 counts."""
    unit, rounding = float(np.finfo(case.storage.arithmetic).eps), case.storage.epsilon
    s, y, gamma, beta, mean, inverse_std = doubles(case, values, "s", "y", "gamma", "beta", "mean", "inverse_std")
    ds, dgamma, dbeta = np.empty_like(s), np.empty(case.columns), np.empty(case.columns)
    activation = get_activation(case.activation)
    Backend().batch_norm_activation_backward(dy, s, y, gamma, beta, activation, mean, inverse_std, ds, dgamma, dbeta)
    shat = np.abs(s - mean) * inverse_std
    z = (s - mean) * inverse_std * (1.0 if gamma is None else gamma) + (0.0 if beta is None else beta)
    dz = np.abs(dy * activation.derivative(y if activation.derivative_of == "output" else z))
    scale = np.abs(1.0 if gamma is None else gamma) * inverse_std * np.abs(dy).max(axis=0)
    # Sums of two terms, where every partial sum is a few units off.
    assert_close(values["dbeta"], dbeta, 16 * unit * (np.abs(dy).sum(axis=0) + 1), "dbeta")
    assert_close(values["dgamma"], dgamma, 16 * unit * ((dz * shat).sum(axis=0) + np.abs(dy).sum(axis=0)), "dgamma")
    tolerance = (rounding + 16 * unit) * scale * (2 + shat.max(axis=0))
    assert_close(case.storage.load(values["ds"]), ds, tolerance, "ds")


# In half precision the same kernels store what they compute in float32.
@pytest.mark.parametrize(
    "storage",
    [pytest.param(storage, marks=[] if storage.name in NETWORK_DTYPES else [pytest.mark.slow]) for storage in STORAGES],
    ids=str,
)
def test_as_specified(device, storage):
    confirm(device, batch_norm, storage.name)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_backward(case):
    check(case, EmulatedDevice(seed=case.rows))


def check(case: Case, device: EmulatedDevice) -> None:
    values = inputs(case, device, affine=case.columns != 33)
    expected = reference_forward(case, values)
    run(case, "forward", device, values)
    assert_forward_matches(case, values, expected)

    dy = case.storage.load(values["dy"])
    run(case, "backward", device, values)
    assert_backward_matches(case, values, dy)

    separate = values["ds"].copy()
    values["ds"] = values["dy"]  # in place
    run(case, "backward", device, values)
    np.testing.assert_array_equal(values["ds"], separate)


BIG_CASES = [case for case in CASES if case.rows in (500, 1025, 257) and case.activation == "relu"]


@pytest.mark.parametrize("case", [case for case in BIG_CASES if case.storage is FLOAT], ids=str)
@pytest.mark.parametrize("ratio", [0.0, 1e2, 1e4])
def test_variance_far_from_zero(case, ratio):
    """float32 variance within 1e-4 of float64 for a mean of up to 1e4 standard deviations, and never NaN."""
    generator = np.random.default_rng(0)
    s = generator.standard_normal((case.rows, case.columns)) + ratio
    s[:, 0] = 123456.78  # no variance at all
    s[0, 1] = 1e6  # a value that the rounding of all sums follows
    device = EmulatedDevice()
    values = inputs(case, device, s)
    stored = case.storage.load(values["s"])
    mean, variance = stored.mean(axis=0), stored.var(axis=0)
    before = values["running_variance"].astype(np.float64)
    run(case, "forward", device, values)
    unbiased = variance * case.rows / (case.rows - 1)
    found = (values["running_variance"] - (1 - MOMENTUM) * before) / MOMENTUM
    np.testing.assert_allclose(found, unbiased, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values["inverse_std"].astype(np.float64) ** -2, variance + EPSILON, rtol=1e-4)
    np.testing.assert_allclose(np.delete(values["mean"], 1), np.delete(mean, 1), rtol=1.5e-7, atol=2e-7)
    assert np.isfinite(values["y"]).all()


def test_sums_over_65536_rows():
    case = MANY_ROWS
    device = EmulatedDevice()
    values = inputs(case, device, np.random.default_rng(0).uniform(0.5, 1.5, (case.rows, case.columns)))
    expected = reference_forward(case, values)
    run(case, "forward", device, values)
    np.testing.assert_allclose(values["mean"], expected["mean"], rtol=2e-7)
    np.testing.assert_allclose(values["inverse_std"], expected["inverse_std"], rtol=1e-6)
    dy = case.storage.load(values["dy"])
    run(case, "backward", device, values)
    assert_backward_matches(case, values, dy)


# --- plans -----------------------------------------------------------------------------------------------------------

DEVICES = {
    name: DeviceLimits(
        model["multiProcessorCount"],
        model["sharedMemPerBlockOptin"],
        model["sharedMemPerMultiprocessor"],
        model["l2CacheSize"],
        8 if model["major"] >= 9 else 1,
    )
    for name, model in GPU_MODELS.items()
}
SHAPES = [
    *((64, 64), (128, 100), (256, 256), (1024, 1024), (2048, 512), (8192, 2048), (8192, 64), (4096, 16384)),
    *((65536, 500), (65536, 4096), (65536, 1), (2, 1), (2, 4096), (3, 7), (1_000_000, 8), (100, 100_000)),
]


def width_of(columns: int, itemsize: int) -> int:
    return next(width for width in (8, 4, 2, 1) if width * itemsize <= 16 and columns % width == 0)


@pytest.mark.parametrize("limits", DEVICES.values(), ids=DEVICES.keys())
@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("make", [plan_forward, plan_backward, plan_inference])
def test_plans_fit_the_device_and_cover_the_matrix(make, rows, columns, itemsize, limits):
    plan = make(rows, columns, itemsize, width_of(columns, itemsize), limits)
    packs, row_lanes = plan.block
    threads = packs * row_lanes
    tiles = -(-columns // plan.tile_columns)
    assert threads % 32 == 0
    assert 32 <= threads <= 512
    assert 32 % packs == 0
    assert plan.tile_columns == packs * plan.width
    assert plan.tile_columns * itemsize <= 128
    assert 1 <= plan.parts <= rows
    assert plan.shared_bytes <= limits.shared_memory_per_block
    assert plan.cluster in (1, 2, 4, 8)
    assert plan.cluster <= limits.max_cluster
    assert plan.grid[0] <= 2**31 - 1
    assert plan.grid[1] <= 65535
    if plan.kernel.endswith("resident"):
        assert plan.grid == (tiles * plan.parts, 1)
        assert plan.parts == plan.cluster
    elif plan.kernel.endswith("striped"):
        group = plan.stripe_tiles * plan.parts
        assert plan.grid[0] % (2 * group) == 0
        stripes = plan.grid[0] // (2 * group)
        assert (stripes - 1) * plan.stripe_tiles < tiles <= stripes * plan.stripe_tiles
        assert plan.partial_size == 2 * plan.parts * columns
        assert plan.counter_count == 1 + 3 * tiles
    else:
        assert plan.grid == (tiles, plan.parts)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in CANDIDATES.items() for value in values])
def test_plans_of_every_candidate_fit(name, value):
    for limits in DEVICES.values():
        tuned = replace(limits, tuning=replace(ESTIMATES, **{name: value}))
        for (rows, columns), make in itertools.product(SHAPES, (plan_forward, plan_backward)):
            test_plans_fit_the_device_and_cover_the_matrix(make, rows, columns, 4, tuned)


@pytest.mark.parametrize("limits", DEVICES.values(), ids=DEVICES.keys())
@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("make", [plan_forward, plan_backward])
def test_no_multiprocessor_has_much_more_than_its_share(make, rows, columns, itemsize, limits):
    """The busiest multiprocessor has at most 2.5 times an even share, or what it moves in a microsecond."""
    plan = make(rows, columns, itemsize, width_of(columns, itemsize), limits)
    tiles = -(-columns // plan.tile_columns)
    block_bytes = plan.tile_columns * -(-rows // plan.parts) * itemsize
    busiest = -(-tiles * plan.parts // limits.multiprocessors) * block_bytes
    even = rows * columns * itemsize / limits.multiprocessors
    assert busiest <= max(2.5 * even, 16 * 1024)


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (128, 512), (256, 256), (1024, 1024), (1792, 2048)])
def test_more_blocks_than_columns_over_32(rows, columns):
    """Where PyTorch has one block per 32 columns, and multiprocessors with nothing to do."""
    assert plan_forward(rows, columns, 4, 4, HOPPER).grid[0] > columns / 32


def test_the_tile_stays_on_chip_where_it_fits():
    forward = plan_forward(8192, 2048, 4, 4, HOPPER)
    assert forward.kernel == "batch_norm_forward_resident"
    assert forward.cluster > 1
    assert plan_backward(8192, 2048, 4, 4, HOPPER).kernel == "batch_norm_backward_resident"
    assert plan_forward(65536, 500, 4, 4, HOPPER).kernel == "batch_norm_forward_striped"
    assert plan_forward(8192, 2048, 4, 4, DEVICES["A100"]).kernel == "batch_norm_forward_striped"
    with pytest.raises(InvalidValueError, match="65536 rows"):
        plan_backward(65536, 500, 4, 4, HOPPER, "resident")


def test_stripes_leave_room_in_the_cache():
    plan = plan_forward(65536, 4096, 4, 4, HOPPER)
    assert 3 * plan.stripe_tiles * plan.tile_columns * 65536 * 4 <= HOPPER.l2_bytes * 2 / 3


def test_limits_of_a_device():
    assert DeviceLimits.of(EmulatedDevice()) == HOPPER
    assert DeviceLimits.of(EmulatedDevice(compute_capability=(8, 0))).max_cluster == 1


def test_vector_width():
    device = EmulatedDevice()
    whole = device.empty((4, 12), np.float16)
    assert vector_width(12, whole) == 4
    assert vector_width(16, whole) == 8
    assert vector_width(16, whole, whole.reshape(-1)[2:]) == 2
    assert vector_width(15, whole) == 1
    assert vector_width(16, device.empty(4, np.float64)) == 2


def test_the_group_has_every_kernel():
    group = batch_norm_group("float", 4, ReLU(), max_cluster=8)
    assert {name.split("<")[0] for name in group} == set(SIGNATURES)
    assert "batch_norm_forward_resident<float, 4, relu_activation, 8>" in group
    assert not any(", 8, 3" in name for name in group)  # no 32-byte accesses
    assert len(group) == 3 * (2 * 4 + 3)
    assert len(batch_norm_group("__half", 2, ReLU())) == 4 * 5
