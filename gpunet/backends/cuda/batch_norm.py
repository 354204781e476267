"""Batch normalisation and activation: ``batch_norm.cu``.

Which of its kernels to launch for a matrix, on which grid, is decided by pure functions of the shape. Each operation is
one launch, and the arguments have the names of ``SIGNATURES``: what they stand for is said at the kernels.

Matrices ``s, y, dy, ds`` are of the storage type; ``rows, columns, stripe_tiles, chunks`` are int32; all else is of the
arithmetic type (double for double, float for the others). ``parameter`` is the activation's number. ``gamma`` and
``beta`` may be null pointers; ``dgamma`` and ``dbeta`` are scratch vectors where the layer has no scale and shift.

The choice between plans rests on a rough model of time: the bytes that one multiprocessor moves at its share of the
memory's speed. Its constants here are estimates for Hopper; those that a measurement can decide are in
:class:`~gpunet.backends.cuda.tuning.Tuning`. Speed depends on them, and the order of sums.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gpunet.activations import Activation
from gpunet.backends.arrays import Array
from gpunet.backends.cuda.activation import kernel_with
from gpunet.backends.cuda.grids import WARP_LANES, WIDEST_ACCESS, ceiling, is_aligned, power_of_two
from gpunet.backends.cuda.instantiation import ITEM_SIZES, Variants, arithmetic_type, storage_type
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.cuda.tuning import ESTIMATES, Tuning
from gpunet.backends.devices.device import Argument, ClusterRefusedError, Device
from gpunet.backends.notices import say_once
from gpunet.errors import InvalidValueError

# As in batch_norm.cu: what a GPU with clusters takes if it has so many free neighbours.
CLUSTER_SIZES = (1, 2, 4, 8)
COUNTERS_PER_TILE = 3
ROWS_IN_FLIGHT = 4

# Per block, CUDA's own, from compute capability 8.0 on. Before there is none, and the estimated cost of a tile that two
# blocks just have room for is too high.
RESERVED_SHARED_MEMORY = 1024

# A row of a tile is at most a line of the caches.
SEGMENT_BYTES = 128
# Threads of a resident block with a large tile: it has a multiprocessor to itself.
MOST_THREADS = 512
LARGE_TILE_BYTES = 64 * 1024
# Smaller chunks would cost more: each block adds up a partial sum of every chunk.
STRIPED_THREADS = 256
CHUNK_BYTES = 32 * 1024
# Blocks of inference for each multiprocessor.
INFERENCE_BLOCKS = 8

# Useful bytes of those that move, by the bytes of a row that lie together: caches move sectors of 32, memory 64.
SEGMENT_EFFICIENCY = {128: 1.0, 64: 0.95, 32: 0.85, 16: 0.5, 8: 0.25, 4: 0.125, 2: 0.0625}
# Reading an element from L2, where reading it from memory is 1.
L2_SWEEP = 0.6
# A block alone on its multiprocessor leaves the memory idle while it computes.
ALONE = 1.25

# Template arguments and arguments of each kernel.
SIGNATURES: dict[str, tuple[str, str]] = {
    "batch_norm_forward_resident": (
        "{storage}, {width}, {activation}, {cluster}",
        "s gamma beta y mean inverse_std running_mean running_variance rows columns momentum epsilon parameter",
    ),
    "batch_norm_forward_striped": (
        "{storage}, {width}, {activation}",
        "s gamma beta y mean inverse_std running_mean running_variance partial counters "
        "rows columns stripe_tiles chunks momentum epsilon parameter",
    ),
    "batch_norm_backward_resident": (
        "{storage}, {width}, {activation}, {cluster}",
        "dy s gamma beta mean inverse_std ds dgamma dbeta rows columns parameter",
    ),
    "batch_norm_backward_striped": (
        "{storage}, {width}, {activation}",
        "dy s gamma beta mean inverse_std ds dgamma dbeta partial counters rows columns stripe_tiles chunks parameter",
    ),
    "batch_norm_inference": (
        "{storage}, {width}, {activation}",
        "s gamma beta running_mean running_variance y rows columns epsilon parameter",
    ),
}


@dataclass(frozen=True)
class DeviceLimits:
    """What a plan asks about a device.

    Attributes
    ----------
    multiprocessors : int
    shared_memory_per_block, shared_memory_per_multiprocessor, l2_bytes : int
        In bytes.
    max_cluster : int
        Blocks in the largest cluster, 1 where there are no clusters.
    tuning : Tuning
    """

    multiprocessors: int
    shared_memory_per_block: int
    shared_memory_per_multiprocessor: int
    l2_bytes: int
    max_cluster: int
    tuning: Tuning = ESTIMATES

    @classmethod
    def of(cls, device: Device, max_cluster: int | None = None, tuning: Tuning = ESTIMATES) -> DeviceLimits:
        """Return the limits of a device, or those it has with clusters of at most so many blocks."""
        return cls(
            device.multiprocessor_count,
            device.shared_memory_per_block,
            device.shared_memory_per_multiprocessor,
            device.l2_bytes,
            device.max_cluster_size if max_cluster is None else max_cluster,
            tuning,
        )


@dataclass(frozen=True)
class BatchNormPlan:
    """The launch that computes one operation.

    Attributes
    ----------
    kernel : str
        Its name, in ``SIGNATURES``.
    width : int
        Neighbouring elements that one access moves.
    tile_columns : int
        Columns that a block works on.
    parts : int
        Into how many parts the rows are split: blocks of a cluster, or ``chunks``.
    grid, block : tuple of two ints
    shared_bytes : int
        Dynamic shared memory of a block.
    cluster : int
        Blocks of a cluster. The kernel is compiled for it; the emulated device needs to be told.
    stripe_tiles : int
        The argument of that name.
    partial_size, counter_count : int
        Elements of the arguments ``partial`` and ``counters``; 0 where there are none.
    """

    kernel: str
    width: int
    tile_columns: int
    parts: int
    grid: tuple[int, int]
    block: tuple[int, int]
    shared_bytes: int = 0
    cluster: int = 1
    stripe_tiles: int = 0
    partial_size: int = 0
    counter_count: int = 0

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the kernel's arguments, in order."""
        return tuple(SIGNATURES[self.kernel][1].split())

    def expression(self, storage: str, activation: Activation) -> str:
        """Return the C++ name of the kernel.

        Parameters
        ----------
        storage : str
            What the matrices are stored as: ``"float"``, ``"double"``, ``"__half"`` or ``"__nv_bfloat16"``.
        activation : Activation
        """
        return _expression(self.kernel, storage, self.width, activation, self.cluster)


def vector_width(columns: int, *matrices: Array) -> int:
    """Return how many neighbouring elements one access can move: up to 16 bytes, as far as all rows are aligned."""
    itemsize = int(matrices[0].itemsize)
    width = WIDEST_ACCESS // itemsize
    while columns % width or not is_aligned(width * itemsize, *matrices):
        width //= 2
    return width


def batch_norm_group(storage: str, itemsize: int, activation: Activation, max_cluster: int = 1) -> Group:
    """Return every kernel of ``batch_norm.cu`` for one storage type and activation, for checks of all of them.

    Parameters
    ----------
    max_cluster : int
        The largest cluster: 1 where there are none.
    """
    widths = [width for width in (1, 2, 4, 8) if width * itemsize <= WIDEST_ACCESS]
    clusters = [cluster for cluster in CLUSTER_SIZES if cluster <= max_cluster]
    expressions = (
        _expression(kernel, storage, width, activation, cluster)
        for kernel in SIGNATURES
        for width in widths
        for cluster in clusters
    )
    return tuple(dict.fromkeys(expressions))


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that a check compiles together."""
    return (
        batch_norm_group(storage, ITEM_SIZES[storage], activation, variants.max_cluster)
        for storage in variants.storages
        for activation in variants.activations
    )


@functools.lru_cache(maxsize=256)
def plan_forward(
    rows: int,
    columns: int,
    itemsize: int,
    width: int,
    limits: DeviceLimits,
    algorithm: str | None = None,
    cluster: int | None = None,
) -> BatchNormPlan:
    """Plan ``batch_norm_activation_forward``.

    Parameters
    ----------
    rows, columns : int
        Shape of the matrices; at least 2 rows.
    itemsize : int
        Bytes of an element as it is stored.
    width : int
        Of :func:`vector_width`.
    limits : DeviceLimits
    algorithm : {"resident", "striped"}, optional
        By default, the faster one by estimate.
    cluster : int, optional
        Blocks of a cluster of the resident algorithm; by default, the fastest by estimate.

    Raises
    ------
    InvalidValueError
        The device cannot run what is asked for.
    """
    return _plan("forward", _Matrix(rows, columns, itemsize, width, arrays=1), limits, algorithm, cluster)


@functools.lru_cache(maxsize=256)
def plan_backward(
    rows: int,
    columns: int,
    itemsize: int,
    width: int,
    limits: DeviceLimits,
    algorithm: str | None = None,
    cluster: int | None = None,
) -> BatchNormPlan:
    """Plan ``batch_norm_activation_backward``; parameters and errors as for :func:`plan_forward`."""
    return _plan("backward", _Matrix(rows, columns, itemsize, width, arrays=2), limits, algorithm, cluster)


@functools.lru_cache(maxsize=256)
def plan_inference(rows: int, columns: int, itemsize: int, width: int, limits: DeviceLimits) -> BatchNormPlan:
    """Plan ``batch_norm_activation_inference``; parameters as for :func:`plan_forward`, and one row will do."""
    matrix = _Matrix(rows, columns, itemsize, width, arrays=1)
    block = _striped_block(matrix)
    tiles = matrix.tiles(block[0])
    # A thread reads its columns' statistics once: it should have some rows to spend them on. Nothing waits for another
    # block, so that more of them than fit are no harm; the second dimension of a grid ends at 65,535 on every device.
    full = ceiling(INFERENCE_BLOCKS * limits.multiprocessors, tiles)
    parts = min(full, ceiling(rows, ROWS_IN_FLIGHT * block[1]))
    return BatchNormPlan("batch_norm_inference", width, block[0] * width, parts, (tiles, parts), block)


# --- the choice ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Matrix:
    """Shape and storage of an operation's matrices, of which ``arrays`` are read and one is written."""

    rows: int
    columns: int
    itemsize: int
    width: int
    arrays: int

    @property
    def pack_bytes(self) -> int:
        return self.width * self.itemsize

    @property
    def most_packs(self) -> int:
        """Packs in a row of the widest tile."""
        return min(SEGMENT_BYTES // self.pack_bytes, WARP_LANES, power_of_two(self.columns // self.width))

    def tiles(self, packs: int) -> int:
        return ceiling(self.columns, packs * self.width)

    def shared_bytes(self, arrays: int, part_rows: int, block: tuple[int, int]) -> int:
        """Return the size of a SharedLayout of batch_norm.cu."""
        packs, row_lanes = block
        threads = packs * row_lanes
        tile = arrays * ceiling(part_rows, row_lanes) * threads * self.pack_bytes
        columns = packs * self.width
        return tile + (2 * (threads // WARP_LANES) + 4) * columns * max(self.itemsize, 4)


def _expression(kernel: str, storage: str, width: int, activation: Activation, cluster: int) -> str:
    function = activation.cuda_name
    templates = SIGNATURES[kernel][0].format(storage=storage, width=width, activation=function, cluster=cluster)
    return f"{kernel}<{templates}>"


def _plan(
    direction: str, matrix: _Matrix, limits: DeviceLimits, algorithm: str | None, cluster: int | None
) -> BatchNormPlan:
    candidates: list[tuple[float, BatchNormPlan]] = []
    if algorithm != "striped":
        candidates.extend(_resident_plans(direction, matrix, limits, cluster))
    if algorithm != "resident":
        candidates.append(_striped_plan(direction, matrix, limits))
    if not candidates:
        raise InvalidValueError(
            f"algorithm: {matrix.rows} rows are too many for 'resident' on this device"
            f"{'' if cluster is None else f' with clusters of {cluster}'}. Expected 'striped'."
        )
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _resident_plans(
    direction: str, matrix: _Matrix, limits: DeviceLimits, cluster: int | None
) -> Iterator[tuple[float, BatchNormPlan]]:
    """Yield (estimated cost, plan) for every tile that fits: small clusters first, wide tiles first."""
    most_blocks = min(limits.max_cluster, matrix.rows)
    sizes = [size for size in CLUSTER_SIZES if size <= most_blocks and cluster in (None, size)]
    for size in sizes:
        part_rows = ceiling(matrix.rows, size)
        packs = matrix.most_packs
        while packs >= 1:
            block = _resident_block(matrix, packs, part_rows, limits.tuning.resident_threads)
            plan = BatchNormPlan(
                f"batch_norm_{direction}_resident",
                matrix.width,
                packs * matrix.width,
                size,
                (matrix.tiles(packs) * size, 1),
                block,
                matrix.shared_bytes(matrix.arrays, part_rows, block),
                size,
            )
            if plan.shared_bytes <= limits.shared_memory_per_block:
                yield _resident_cost(matrix, plan, part_rows, limits), plan
            packs //= 2


def _resident_block(matrix: _Matrix, packs: int, part_rows: int, usual_threads: int) -> tuple[int, int]:
    most = MOST_THREADS if part_rows * packs * matrix.pack_bytes > LARGE_TILE_BYTES else usual_threads
    threads = max(WARP_LANES, min(most, power_of_two(part_rows * packs)))
    return packs, threads // packs


def _resident_cost(matrix: _Matrix, plan: BatchNormPlan, part_rows: int, limits: DeviceLimits) -> float:
    segment = plan.block[0] * matrix.pack_bytes
    moved = (matrix.arrays + 1) * part_rows * segment / SEGMENT_EFFICIENCY[segment]
    cost = ceiling(plan.grid[0], limits.multiprocessors) * moved
    if 2 * (plan.shared_bytes + RESERVED_SHARED_MEMORY) > limits.shared_memory_per_multiprocessor:
        cost *= ALONE
    return cost + (limits.tuning.cluster_bytes if plan.cluster > 1 else 0)


def _striped_plan(direction: str, matrix: _Matrix, limits: DeviceLimits) -> tuple[float, BatchNormPlan]:
    """Return (estimated cost, plan) of the striped algorithm, which fits always."""
    block = _striped_block(matrix)
    packs, row_lanes = block
    tiles = matrix.tiles(packs)
    segment = packs * matrix.pack_bytes

    tile_bytes = matrix.arrays * matrix.rows * segment
    fitting = int(limits.tuning.l2_thirds / 3 * limits.l2_bytes / 3 / tile_bytes)
    stripe_tiles = ceiling(tiles, ceiling(tiles, max(1, fitting)))  # stripes of about equal width
    stripes = ceiling(tiles, stripe_tiles)

    full = limits.tuning.striped_blocks * limits.multiprocessors
    chunk_rows = min(max(ceiling(matrix.rows * tiles, full), row_lanes), CHUNK_BYTES // segment)
    chunks = ceiling(matrix.rows, chunk_rows)
    tile_arrays = 1 if direction == "forward" else 0  # on chip
    plan = BatchNormPlan(
        f"batch_norm_{direction}_striped",
        matrix.width,
        packs * matrix.width,
        chunks,
        (2 * stripes * stripe_tiles * chunks, 1),
        block,
        matrix.shared_bytes(tile_arrays, ceiling(matrix.rows, chunks), block),
        stripe_tiles=stripe_tiles,
        partial_size=2 * chunks * matrix.columns,
        counter_count=1 + COUNTERS_PER_TILE * tiles,
    )
    sweeps = matrix.arrays + 1 + (L2_SWEEP if fitting else 1.0) * matrix.arrays
    moved = sweeps * matrix.rows * matrix.columns * matrix.itemsize / SEGMENT_EFFICIENCY[segment]
    busy = min(limits.multiprocessors, tiles * chunks)
    return moved / busy + limits.tuning.wait_bytes, plan


def _striped_block(matrix: _Matrix) -> tuple[int, int]:
    return matrix.most_packs, STRIPED_THREADS // matrix.most_packs


# --- the launches ----------------------------------------------------------------------------------------------------


def batch_norm_activation_forward(
    cuda: Launcher,
    s: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    out: Array,
    mean: Array,
    inverse_std: Array,
    running_mean: Array,
    running_variance: Array,
    momentum: float,
    epsilon: float,
) -> None:
    """Launch :func:`gpunet.backends.reference.batch_norm.batch_norm_activation_forward`."""
    width = vector_width(s.shape[1], s, out)
    number = arithmetic_type(s.dtype)
    values: dict[str, Argument | None] = {
        "s": s,
        "gamma": gamma,
        "beta": beta,
        "y": out,
        "mean": mean,
        "inverse_std": inverse_std,
        "running_mean": running_mean,
        "running_variance": running_variance,
        "momentum": number(momentum),
        "epsilon": number(epsilon),
    }
    _launch(cuda, plan_forward, width, values, s, activation)


def batch_norm_activation_backward(
    cuda: Launcher,
    dy: Array,
    s: Array,
    y: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    mean: Array,
    inverse_std: Array,
    ds: Array,
    dgamma: Array | None,
    dbeta: Array | None,
) -> None:
    """Launch :func:`gpunet.backends.reference.batch_norm.batch_norm_activation_backward`."""
    columns = s.shape[1]
    width = vector_width(columns, dy, s, ds)
    number = arithmetic_type(s.dtype)
    values: dict[str, Argument | None] = {
        "dy": dy,
        "s": s,
        "gamma": gamma,
        "beta": beta,
        "mean": mean,
        "inverse_std": inverse_std,
        "ds": ds,
        "dgamma": cuda.scratch("dgamma", (columns,), number) if dgamma is None else dgamma,
        "dbeta": cuda.scratch("dbeta", (columns,), number) if dbeta is None else dbeta,
    }
    _launch(cuda, plan_backward, width, values, s, activation)


def batch_norm_activation_inference(
    cuda: Launcher,
    s: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    out: Array,
    running_mean: Array,
    running_variance: Array,
    epsilon: float,
) -> None:
    """Launch :func:`gpunet.backends.reference.batch_norm.batch_norm_activation_inference`."""
    width = vector_width(s.shape[1], s, out)
    values: dict[str, Argument | None] = {
        "s": s,
        "gamma": gamma,
        "beta": beta,
        "y": out,
        "running_mean": running_mean,
        "running_variance": running_variance,
        "epsilon": arithmetic_type(s.dtype)(epsilon),
    }
    _launch(cuda, plan_inference, width, values, s, activation)


def _launch(
    cuda: Launcher,
    make: Callable[..., BatchNormPlan],
    width: int,
    values: dict[str, Argument | None],
    s: Array,
    activation: Activation,
) -> None:
    """Plan and launch; ``values`` has the arguments that depend on the operation, by their names in ``SIGNATURES``.

    After a refusal there are clusters no more, not of any shape, so that results do not depend on which came first.
    """

    def plan() -> BatchNormPlan:
        limits = DeviceLimits.of(cuda.device, cuda.max_cluster_size, cuda.tuning)
        chosen = () if make is plan_inference else cuda.batch_norm_choice
        return make(*s.shape, s.itemsize, width, limits, *chosen)

    try:
        launch_plan(cuda, plan(), values, s, activation)
    except ClusterRefusedError as error:
        cuda.max_cluster_size = 1
        say_once(f"on {cuda.device.name}, batch norm does without clusters of blocks", error)
        # A recording cannot get the memory that another plan may need, and a check wants no other plan.
        if cuda.is_recording or cuda.batch_norm_choice[1] is not None:
            raise
        launch_plan(cuda, plan(), values, s, activation)


def launch_plan(
    cuda: Launcher, plan: BatchNormPlan, values: dict[str, Argument | None], s: Array, activation: Activation
) -> None:
    """Launch a plan for ``s``; ``values`` as above.

    Raises
    ------
    ClusterRefusedError
    """
    storage, number = storage_type(s.dtype), arithmetic_type(s.dtype)
    expression = plan.expression(storage, activation)
    kernel = kernel_with(cuda, activation, "batch_norm", expression, (expression,), s)
    values["rows"], values["columns"] = map(np.int32, s.shape)
    values["stripe_tiles"], values["chunks"] = np.int32(plan.stripe_tiles), np.int32(plan.parts)
    values["parameter"] = number(activation.parameter)
    if plan.partial_size:
        values["partial"] = cuda.scratch("partial", (plan.partial_size,), number)
    if plan.counter_count:
        values["counters"] = cuda.zeroed_counters(plan.counter_count)
    cuda.launch(
        kernel,
        plan.grid,
        plan.block,
        [values[name] for name in plan.arguments],
        shared_memory=plan.shared_bytes,
        cluster=plan.cluster,
    )
