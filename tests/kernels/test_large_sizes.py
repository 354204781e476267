"""More than 2^32 elements: the last block of each kernel reads and writes where 32-bit offsets do not lead."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpunet.activations import ReLU
from gpunet.backends import Backend
from gpunet.backends.cuda.activation import column_tiles
from gpunet.backends.cuda.batch_norm import (
    BatchNormPlan,
    DeviceLimits,
    plan_backward,
    plan_forward,
    plan_inference,
)
from gpunet.backends.cuda.gather import row_copy
from gpunet.backends.cuda.grids import THREADS
from gpunet.backends.cuda.training import step_count
from gpunet.backends.devices.device import NULL
from gpunet.random import Stream, dropout_threshold, random_words
from tests.helpers.far_blocks import FarDevice
from tests.helpers.planting import one_fast

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory without room is Linux's")

Array = Any
Check = Callable[[FarDevice], None]

RNG = np.random.default_rng(0)
REFERENCE = Backend()
# Rows and columns of most matrices here, and elements of vectors that end within an access of 16 bytes.
ROWS, COLUMNS = 70_000, 65_536
COUNT = 2**32 + 1027
# The element that a mask begins with, where it is that of some rows.
FIRST = 2**33
LIMITS = DeviceLimits(132, 227 * 1024, 228 * 1024, 50 * 1024 * 1024, 1)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def matrix(device: FarDevice, part: tuple[Any, ...], shape: tuple[int, int] = (ROWS, COLUMNS)) -> Array:
    """Return a matrix that is zero but for random numbers in a part of it."""
    values = device.empty(shape, np.float32)
    values[part] = normal(*values[part].shape)
    return values


def close(found: Array, expected: Array) -> None:
    assert np.any(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# --- one check for each kernel ----------------------------------------------------------------------------------------


def gather(device: FarDevice) -> None:
    shape = ROWS, COLUMNS - 1  # no wider words than an element's
    source, out, index = device.empty(shape, np.uint16), device.empty(shape, np.uint16), device.empty(ROWS, np.int32)
    source[-2], index[-1] = RNG.integers(1, 2**16, shape[1]), ROWS - 2
    plan = row_copy(source, out)
    features = (source, out, *map(np.int32, (plan.word_bytes, plan.words, plan.lanes, plan.blocks)))
    nothing = (NULL, NULL, *map(np.int32, (0, 0, 1, 0)))
    arguments = (index, NULL, np.int32(ROWS), *features, *nothing, *nothing)
    device.run_block("gather", "gather_batch", plan.blocks - 1, plan.blocks, THREADS, arguments)
    np.testing.assert_array_equal(out[-1], source[-2])


def activation_forward(device: FarDevice) -> None:
    part = slice(-2, None), slice(-128, None)
    s, out, bias = matrix(device, part), device.empty((ROWS, COLUMNS), np.float32), device.empty(COLUMNS, np.float32)
    bias[-128:] = normal(128)
    grid = COLUMNS // 128, ROWS // 2  # the parts of the rows times the rows are more than 2^31 too
    arguments = (s, bias, out, np.int32(ROWS), np.int32(COLUMNS), np.float32(0))
    expression = "bias_activation_forward<float, relu_activation, 4>"
    device.run_block("activation", expression, (grid[0] - 1, grid[1] - 1), grid, (32, 8), arguments)
    close(out[part], np.maximum(s[part] + bias[-128:], 0))


def activation_backward(device: FarDevice) -> None:
    rows, columns, parts = 4200, 2**20, 2100  # of which the sums are more than 2^31 too
    part = slice(-2, None), slice(-128, None)
    dy, kept = matrix(device, part, (rows, columns)), matrix(device, part, (rows, columns))
    ds, dbias = device.empty((rows, columns), np.float32), device.empty(columns, np.float32)
    partial, tickets = device.empty((parts, columns), np.float32), device.empty(columns // 128, np.uint32)
    partial[-3, -128:] = normal(128)
    tickets[-1] = parts - 1
    sizes = np.int32(rows), np.int32(columns), np.float32(0)
    arguments = (dy, kept, None, ds, dbias, partial, tickets, *sizes)
    expression, grid = "bias_activation_backward<float, relu_activation, 4>", (columns // 128, parts)
    device.run_block("activation", expression, (grid[0] - 1, parts - 1), grid, (32, 8), arguments)
    close(ds[part], dy[part] * (kept[part] > 0))
    close(partial[-1, -128:], ds[part].sum(axis=0))
    close(dbias[-128:], partial[[-3, -1], -128:].sum(axis=0))


def dropout(device: FarDevice) -> None:
    words = random_words(Stream.DROPOUT, FIRST + COUNT - COUNT % 1024, COUNT % 1024, 5, 1, 3)
    x, out, dx = (device.empty(COUNT, np.float32) for _ in range(3))
    mask, step = device.empty(COUNT, np.uint8), device.empty(1, np.int64)
    x[-words.size :], step[0] = normal(words.size), 3
    blocks = -(-COUNT // 1024)
    sizes = np.int64(COUNT), np.int32(1024), np.int32(1024)
    numbers = np.uint32(dropout_threshold(0.5)), np.float32(2), np.uint32(5), np.uint32(0)
    arguments = (x, out, mask, *sizes, *numbers, np.uint32(1), step, np.int64(FIRST // 4))
    device.run_block("dropout", "dropout_forward<float, true>", blocks - 1, blocks, 256, arguments)
    kept = words >= dropout_threshold(0.5)
    np.testing.assert_array_equal(mask[-words.size :], kept)
    close(out[-words.size :], 2 * x[-words.size :] * kept)
    backward = (x, mask, dx, *sizes, np.float32(2))
    device.run_block("dropout", "dropout_backward<float, true>", blocks - 1, blocks, 256, backward)
    close(dx[-words.size :], out[-words.size :])


def bernoulli(device: FarDevice) -> None:
    words = random_words(Stream.SAMPLING, COUNT - COUNT % 1024, COUNT % 1024, 5, 1, 3)
    probabilities, out, step = (
        device.empty(COUNT, np.float32),
        device.empty(COUNT, np.float32),
        device.empty(1, np.int64),
    )
    probabilities[-words.size :], step[0] = 0.75, 3
    blocks = -(-COUNT // 1024)
    arguments = (probabilities, out, np.int64(COUNT), np.uint32(5), np.uint32(0), np.uint32(1), step)
    device.run_block("bernoulli", "sample_bernoulli<float, true>", blocks - 1, blocks, 256, arguments)
    close(out[-words.size :], words < 0.75 * 2**32)


def optimizer(device: FarDevice, name: str, more: str, vectors: int, scalars: Array, numbers: tuple[Any, ...]) -> None:
    """Run the last block and the first, which does what is left over at the end; the weights end before the last 10."""
    flat = [device.empty(COUNT, np.float32) for _ in range(vectors)]
    for vector in flat:
        vector[-1027:] = np.abs(normal(1027))
    before = [vector[-1027:].copy() for vector in flat]
    given, loss = device.empty(scalars.size, np.float32), device.empty(2, np.float32)
    given[:] = scalars
    blocks = -(-(COUNT // 4) // 256)
    sizes = np.int64(COUNT), np.int64(COUNT - 10)
    arguments = (*flat, *sizes, given, None, loss, np.float32(0.02), *numbers)
    for block in (blocks - 1, 0):
        device.run_block("optimizer", f"{name}<float, 4{more}>", block, blocks, 256, arguments)
    step = {"l2": 0.01, **OPTIMIZERS[name]}
    getattr(REFERENCE, name)(*before, 1017, scalars, None, np.zeros(2, np.float32), **step)
    for found, expected in zip(flat, before, strict=True):
        close(found[-1027 + 3 :], expected[3:])


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd_step": {"momentum": 0.5, "nesterov": False},
    "adam_step": {"beta_1": 0.5, "beta_2": 0.75, "epsilon": 1e-8, "weight_decay": 0.25},
}


def sgd(device: FarDevice) -> None:
    rate = np.array([0.125], np.float32)
    optimizer(device, "sgd_step", ", true", 3, rate, (np.float32(0.5), np.int32(0)))


def adam(device: FarDevice) -> None:
    scalars = np.array([0.125, 2, 4], np.float32)
    numbers = tuple(map(np.float32, (0.5, 0.75, 0.5, 0.25, 1e-8, 0.25)))
    optimizer(device, "adam_step", "", 4, scalars, numbers)


def clip(device: FarDevice) -> None:
    parameters, gradients = device.empty(COUNT, np.float32), device.empty(COUNT, np.float32)
    gradients[-1027:] = normal(1027)
    blocks = -(-(COUNT // 4) // 256)
    out, partial, ticket = device.empty(1, np.float32), device.empty(blocks, np.float64), device.empty(1, np.uint32)
    numbers = np.int64(COUNT), np.int64(0), np.float32(0), np.float64(1)
    arguments = (parameters, gradients, *numbers, out, partial, ticket)
    for block in (blocks - 1, 0):
        device.run_block("optimizer", "clip_factor<float, 4>", block, blocks, 256, arguments)
    whole = COUNT // 4 * 4
    close(partial[0], np.square(gradients[whole:].astype(float)).sum())
    close(partial[-1], np.square(gradients[(blocks - 1) * 1024 : whole].astype(float)).sum())


def elementwise(device: FarDevice, name: str) -> None:
    part = slice(-1, None), slice(-256, None)
    outputs, targets = matrix(device, part), matrix(device, part)
    weights, gradient = device.empty(ROWS, np.float32), device.empty((ROWS, COLUMNS), np.float32)
    weights[-1] = 3
    blocks = ROWS * COLUMNS // 256
    loss, partial, ticket = device.empty(2, np.float32), device.empty(blocks, np.float32), device.empty(1, np.uint32)
    loss[1] = 6
    sizes = np.int32(ROWS), np.int32(COLUMNS)
    arguments = (outputs, None, targets, weights, gradient, None, loss, partial, ticket, *sizes, *step_count(None))
    device.run_block(name, f"{name}<float>", blocks - 1, blocks, 256, arguments)
    expected, value = np.empty((1, 256)), np.empty(2)
    getattr(REFERENCE, name)(outputs[part].astype(float), targets[part].astype(float), None, expected, value)
    close(gradient[part], expected * 3 / 6)
    close(partial[-1], value[0] * 3)


def squared_error(device: FarDevice) -> None:
    elementwise(device, "squared_error")


def sigmoid(device: FarDevice) -> None:
    elementwise(device, "sigmoid_cross_entropy")


def softmax(
    device: FarDevice, kernel: str, rows: int, columns: int, threads: int, rows_of_block: int, shared_memory: int = 0
) -> None:
    logits = matrix(device, (slice(-rows_of_block, None),), (rows, columns))
    gradient, labels = device.empty((rows, columns), np.float32), device.empty(rows, np.int32)
    labels[-rows_of_block:] = columns - 1
    blocks = rows // rows_of_block
    loss, partial, ticket = device.empty(2, np.float32), device.empty(blocks, np.float32), device.empty(1, np.uint32)
    sizes = np.int32(rows), np.int32(columns)
    arguments = (logits, None, labels, None, gradient, None, loss, partial, ticket, *sizes, *step_count(None))
    device.run_block("softmax_cross_entropy", kernel, blocks - 1, blocks, threads, arguments, shared_memory)
    expected, value = np.empty((rows_of_block, columns)), np.empty(2)
    last = logits[-rows_of_block:].astype(float)
    REFERENCE.softmax_cross_entropy(last, labels[-rows_of_block:], None, expected, value)
    np.testing.assert_allclose(gradient[-rows_of_block:] * rows, expected * rows_of_block, rtol=1e-4, atol=1e-6)
    close(partial[-1], value[0] * rows_of_block)


def softmax_lanes(device: FarDevice) -> None:
    softmax(device, "softmax_cross_entropy_lanes<float, 32, 32>", 4_400_000, 1000, 128, 4)


def softmax_block(device: FarDevice) -> None:
    softmax(device, "softmax_cross_entropy_block<float, false>", ROWS, COLUMNS, 512, 1)


def softmax_staged(device: FarDevice) -> None:
    softmax(device, "softmax_cross_entropy_block<float, true>", 2 * ROWS, COLUMNS // 2, 512, 1, 2 * COLUMNS)


def batch_norm(
    device: FarDevice, plan: BatchNormPlan, place: int | tuple[int, int], grid: Any, shape: tuple[int, int], **more: Any
) -> dict[str, Array]:
    """Run a block of a plan and return its arguments; those that are not given are zeros."""
    rows, columns = shape
    matrices, vectors = ("s", "dy", "y", "ds"), ("mean", "inverse_std", "running_mean", "running_variance")
    values = {"rows": np.int32(rows), "columns": np.int32(columns), "parameter": np.float32(0), "gamma": None}
    values |= {"momentum": np.float32(0.25), "epsilon": np.float32(0.01), "beta": None, **more}
    for name in plan.arguments:
        if name in matrices and name not in values:
            values[name] = device.empty(shape, np.float32)
        elif name in (*vectors, "dgamma", "dbeta") and name not in values:
            values[name] = device.empty(columns, np.float32)
    expression = plan.expression("float", ReLU())
    arguments = [values[name] for name in plan.arguments]
    device.run_block("batch_norm", expression, place, grid, plan.block, arguments, plan.shared_bytes)
    return values


def inference(device: FarDevice) -> None:
    plan = plan_inference(ROWS, COLUMNS, 4, 4, replace(LIMITS, multiprocessors=100_000))
    part = slice(-(ROWS // plan.grid[1]), None), slice(-plan.tile_columns, None)
    s = matrix(device, part)
    variance = device.empty(COLUMNS, np.float32)
    variance[:] = 0.99
    place = plan.grid[0] - 1, plan.grid[1] - 1
    found = batch_norm(device, plan, place, plan.grid, (ROWS, COLUMNS), s=s, running_variance=variance)
    close(found["y"][part], np.maximum(s[part], 0))


def resident(device: FarDevice) -> None:
    shape = rows, columns = 64, 2**27
    plan = plan_forward(rows, columns, 4, 4, LIMITS, algorithm="resident")
    part = slice(None), slice(-plan.tile_columns, None)
    s, dy = matrix(device, part, shape), matrix(device, part, shape)
    last = plan.grid[0] - 1
    found = batch_norm(device, plan, last, plan.grid, shape, s=s)
    expected = normalised(s[part])
    close(found["y"][part], np.maximum(expected, 0))
    plan = plan_backward(rows, columns, 4, 4, LIMITS, algorithm="resident")
    statistics = {name: found[name] for name in ("mean", "inverse_std")}
    columns_of_block = slice(-plan.tile_columns, None)
    given = found["y"][:, columns_of_block], s[:, columns_of_block], dy[:, columns_of_block]
    found = batch_norm(device, plan, plan.grid[0] - 1, plan.grid, shape, s=s, dy=dy, **statistics)
    close(found["ds"][:, columns_of_block], backward(*given)[0])


def inverse_std_of(s: Array, more: float) -> Array:
    return 1 / np.sqrt(s.var(axis=0, dtype=float) + more / len(s) + 0.01)


def normalised(s: Array, more: float = 0) -> Array:
    """Return normalised columns, with ``more`` in the sum of their squared deviations."""
    return (s - s.mean(axis=0, dtype=float)) * inverse_std_of(s, more)


def backward(y: Array, s: Array, dy: Array, more: float = 0) -> tuple[Array, Array, Array]:
    """Return ds, dgamma and dbeta by the formulas at the top of batch_norm.cu."""
    dz = dy.astype(float) * (y > 0)
    shat, inverse_std = normalised(s, more), inverse_std_of(s, more)
    dbeta, dgamma = dz.sum(axis=0), (dz * shat).sum(axis=0)
    return inverse_std * (dz - (dbeta + shat * dgamma) / len(s)), dgamma, dbeta


def striped(device: FarDevice) -> None:
    """A chunk for each row, so that the partial sums are more than 2^31 too; all rows but two are zero."""
    shape = rows, columns = 2100, 2**20
    tile, tiles = 32, columns // 32
    grid = 2 * tiles * rows
    part = [-40, -1], slice(-tile, None)
    sizes = {"stripe_tiles": np.int32(tiles), "chunks": np.int32(rows)}

    def plan(direction: str) -> BatchNormPlan:
        shared = (0 if direction == "backward" else 4096) + (2 * 8 + 4) * tile * 4
        return BatchNormPlan(f"batch_norm_{direction}_striped", 4, tile, rows, (grid, 1), (8, 32), shared)

    def counters(ticket: int, arrived: int, ready: int) -> Array:
        words = device.empty(1 + 3 * tiles, np.uint32)
        words[0], words[-3:-1] = ticket, (arrived, ready)
        return words

    def sweeps(direction: str, partial: Array, **given: Array) -> dict[str, Array]:
        first, second = counters(grid // 2 - 1, rows - 1, 0), counters(grid - 1, 0, 1)
        launch = device, plan(direction), 0, (grid, 1), shape
        found = batch_norm(*launch, counters=first, partial=partial, **sizes, **given)
        return batch_norm(*launch, **found | {"counters": second})

    s, dy = device.empty(shape, np.float32), device.empty(shape, np.float32)
    s[part], dy[part] = normal(2, tile), normal(2, tile)
    partial = device.empty((2, rows, columns), np.float32)
    partial[0, -40, -tile:], partial[1, -40, -tile:] = s[-40, -tile:], 50  # the other chunk's mean, and squares
    found = sweeps("forward", partial, s=s)
    used = s[:, -tile:]
    close(partial[0, -1, -tile:], s[-1, -tile:])
    close(found["mean"][-tile:], used.mean(axis=0))
    y = np.maximum(normalised(used, 50), 0)
    close(found["y"][-1, -tile:], y[-1])

    ds, dgamma, dbeta = backward(y, used, dy[:, -tile:], 50)
    partial = device.empty((2, rows, columns), np.float32)
    dz = dy[-40, -tile:] * (y[-40] > 0)
    partial[:, -40, -tile:] = dz, dz * (s[-40, -tile:] - found["mean"][-tile:])
    statistics = {name: found[name] for name in ("mean", "inverse_std")}
    found = sweeps("backward", partial, s=s, dy=dy, **statistics)
    close(found["dbeta"][-tile:], dbeta)
    close(found["dgamma"][-tile:], dgamma)
    close(found["ds"][-1, -tile:], ds[-1])


def weigh_shard(device: FarDevice) -> None:
    doutputs, loss, sums = (device.empty(size, np.float32) for size in (COUNT, 2, 2))
    doutputs[-1027:], loss[:] = normal(1027), (0.5, 3)
    before, blocks = doutputs[-1027:].copy(), -(-(COUNT // 4) // 256)
    arguments = (doutputs, np.int64(COUNT), None, np.int32(0), loss, sums, np.int32(12))
    for block in (blocks - 1, 0):
        device.run_block("shards", "weigh_shard<float, 4>", block, blocks, 256, arguments)
    close(doutputs[-1027 + 3 :], before[3:] / 4)
    close(sums, np.array([1.5, 3]))


def sum_shards(device: FarDevice) -> None:
    size, levels = COUNT + 1, device.empty(3, np.int32)
    parts, out = device.empty((3, size), np.float32), device.empty(size, np.float32)
    parts[:, -1024:] = normal(3, 1024)
    blocks = size // 4 // 256
    arguments = (parts, levels, out, np.int32(3), np.int64(size))
    device.run_block("shards", "sum_shards<float, 4>", blocks, blocks + 1, 256, arguments)
    close(out[-4:], parts[:, -4:].sum(axis=0))


def divide_sums(device: FarDevice) -> None:
    gradients, sums, loss = (device.empty(size, np.float32) for size in (COUNT, 2, 2))
    gradients[-1027:], sums[:] = normal(1027), (6, 3)
    before, blocks = gradients[-1027:].copy(), -(-(COUNT // 4) // 256)
    arguments = (gradients, np.int64(COUNT), sums, loss, np.int32(12))
    for block in (blocks - 1, 0):
        device.run_block("shards", "divide_sums<float, 4>", block, blocks, 256, arguments)
    close(gradients[-1027 + 3 :], 4 * before[3:])
    close(loss, np.array([2, 3]))


def last_chunk(device: FarDevice, plan: BatchNormPlan, kernel: str, matrices: int, vectors: tuple[Any, ...]) -> Any:
    """Run the last block of a tile on matrices that are zero above it; return its parts of them and the sums."""
    tiles, chunks = COLUMNS // plan.tile_columns, plan.parts
    part = slice(ROWS * (chunks - 1) // chunks, None), slice(-plan.tile_columns, None)
    given = [matrix(device, part) for _ in range(matrices)]
    partial, counters = device.empty((2, chunks, COLUMNS), np.float32), device.empty(tiles, np.uint32)
    counters[-1] = chunks - 1
    sizes = np.int32(ROWS), np.int32(COLUMNS), np.int32(chunks)
    more = () if matrices == 1 else (np.float32(0),)
    arguments = (*given, *vectors, partial, counters, *sizes, *more)
    blocks = tiles * chunks
    device.run_block("batch_norm_shards", kernel, blocks - 1, blocks, plan.block, arguments, plan.shared_bytes)
    assert not counters[-1]
    return [values[part].astype(float) for values in given]


def shard_statistics(device: FarDevice) -> None:
    plan = plan_forward(ROWS, COLUMNS, 4, 4, LIMITS, "striped")
    out = device.empty((2, COLUMNS), np.float32)
    (s,) = last_chunk(device, plan, "batch_norm_statistics<float, 4>", 1, (out,))
    mean, squares = out[:, -plan.tile_columns :]
    np.testing.assert_allclose(mean * ROWS, s.sum(axis=0), rtol=1e-4, atol=1e-4)
    close(squares, (s**2).sum(axis=0) - s.sum(axis=0) ** 2 / ROWS)


def shard_sums(device: FarDevice) -> None:
    plan = plan_backward(ROWS, COLUMNS, 4, 4, LIMITS, "striped")
    mean, inverse_std, dgamma, dbeta = (device.empty(COLUMNS, np.float32) for _ in range(4))
    inverse_std[:] = 2
    vectors = (None, None, mean, inverse_std, dgamma, dbeta)
    dy, s = last_chunk(device, plan, "batch_norm_sums<float, 4, relu_activation>", 2, vectors)
    dz = dy * (s > 0)
    np.testing.assert_allclose(dbeta[-plan.tile_columns :], dz.sum(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dgamma[-plan.tile_columns :], 2 * (dz * s).sum(axis=0), rtol=1e-5, atol=1e-5)


def shard_apply(device: FarDevice) -> None:
    plan = plan_inference(ROWS, COLUMNS, 4, 4, replace(LIMITS, multiprocessors=100_000))
    part = slice(-(ROWS // plan.grid[1]), None), slice(-plan.tile_columns, None)
    place = plan.grid[0] - 1, plan.grid[1] - 1
    s, dy, y, ds = (
        matrix(device, part),
        matrix(device, part),
        *(device.empty((ROWS, COLUMNS), np.float32) for _ in "yd"),
    )
    mean, ones = device.empty(COLUMNS, np.float32), device.empty(COLUMNS, np.float32)
    ones[:] = 1
    numbers = np.int32(ROWS), np.int32(COLUMNS)
    kernel, launch = "batch_norm_apply<float, 4, relu_activation>", (place, plan.grid, plan.block)
    device.run_block("batch_norm_shards", kernel, *launch, (s, None, None, mean, ones, y, *numbers, np.float32(0)))
    close(y[part], np.maximum(s[part], 0))
    kernel, more = "batch_norm_input_gradient<float, 4, relu_activation>", (np.int32(4), np.float32(0))
    arguments = (dy, s, None, None, mean, ones, ones, ones, ds, *numbers, *more)
    device.run_block("batch_norm_shards", kernel, *launch, arguments)
    close(ds[part], dy[part] * (s[part] > 0) - 0.25 - s[part] / 4)


def merge(device: FarDevice) -> None:
    """Statistics of so many shards and columns that they are more than 2^31 numbers; of two shards there are rows."""
    shards, columns = 2**13, 2**18
    statistics, counts = device.empty((shards, 2, columns), np.float32), device.empty(shards, np.int32)
    counts[[0, -1]] = 1, 3
    statistics[-1, :, -256:] = [[2], [5]]
    mean, inverse_std, running_mean, running_variance = (device.empty(columns, np.float32) for _ in range(4))
    vectors = (statistics, counts, mean, inverse_std, running_mean, running_variance)
    numbers = np.int32(shards), np.int32(columns), np.float32(1), np.float32(0)
    blocks = columns // 256
    device.run_block("batch_norm_shards", "batch_norm_merge<float>", blocks - 1, blocks, 256, (*vectors, *numbers))
    close(running_mean[-256:], np.full(256, 1.5))
    close(running_variance[-256:], np.full(256, (5 + 1.5**2 + 3 * 0.5**2) / 3))


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        gather, activation_forward, activation_backward, dropout, bernoulli, sgd, adam, clip, squared_error, sigmoid,
        softmax_lanes, softmax_block, softmax_staged, inference, resident, striped,
        weigh_shard, sum_shards, divide_sums, shard_statistics, shard_sums, shard_apply, merge,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_the_last_block(name: str) -> None:
    CHECKS[name](FarDevice())


# --- 32-bit offsets ---------------------------------------------------------------------------------------------------

OFFSET = "return (long long)row * columns + column;", "return row * columns + column;"
COUNT_OF_ELEMENTS = "count = (long long)rows * columns", "count = rows * columns"
ROW_OF_ELEMENT = "weights[i / columns]", "weights[(int)i / columns]"

BUGS: list[tuple[str, str, str]] = [
    ("gather", *OFFSET),
    ("gather", "element_offset(index[row], 0, array.words)", "index[row] * array.words"),
    ("gather", "element_offset((int)row, 0, array.words)", "(int)row * array.words"),
    ("activation_forward", *OFFSET),
    ("activation_forward", "return (int)((long long)rows * part / parts);", "return rows * part / parts;"),
    ("activation_backward", *OFFSET),
    (
        "activation_backward",
        "partial[element_offset(blockIdx.y, column + i, columns)]",
        "partial[(int)blockIdx.y * columns + column + i]",
    ),
    ("activation_backward", "element_offset(part, column + i, columns)", "part * columns + column + i"),
    ("dropout", "first = 4 * quad;\n        const Words", "first = (int)(4 * quad);\n        const Words"),
    ("dropout", "first = 4 * quad;\n        if (ALIGNED", "first = (int)(4 * quad);\n        if (ALIGNED"),
    ("bernoulli", "first = 4 * quad;", "first = (int)(4 * quad);"),
    ("sgd", "step(i * N, Width<N>());", "step((int)(i * N), Width<N>());"),
    ("sgd", "step(whole * N + thread, ", "step((int)(whole * N + thread), "),
    ("sgd", "first + i < weight_count &&", "(int)first + i < weight_count &&"),
    ("adam", "first + i < cost.weight_count ?", "(int)first + i < cost.weight_count ?"),
    ("clip", "step(i * N, Width<N>());", "step((int)(i * N), Width<N>());"),
    ("squared_error", *COUNT_OF_ELEMENTS),
    ("squared_error", *ROW_OF_ELEMENT),
    ("sigmoid", *COUNT_OF_ELEMENTS),
    ("sigmoid", *ROW_OF_ELEMENT),
    ("softmax_lanes", *OFFSET),
    ("softmax_block", *OFFSET),
    ("softmax_staged", *OFFSET),
    ("inference", *OFFSET),
    ("resident", *OFFSET),
    ("striped", *OFFSET),
    (
        "striped",
        "partial_squares = partial + element_offset(chunks, 0, columns)",
        "partial_squares = partial + chunks * columns",
    ),
    (
        "striped",
        "partial_shat = partial + element_offset(chunks, 0, columns)",
        "partial_shat = partial + chunks * columns",
    ),
    (
        "striped",
        "partial[element_offset(q * chunks + chunk, column, columns)]",
        "partial[(q * chunks + chunk) * columns + column]",
    ),
    ("weigh_shard", "step(i * N, Width<N>());", "step((int)(i * N), Width<N>());"),
    ("sum_shards", "next = load_pack<M>(parts + part * size", "next = load_pack<M>(parts + part * (int)size"),
    ("divide_sums", "step(whole * N + thread, ", "step((int)(whole * N + thread), "),
    *((name, *OFFSET) for name in ("shard_statistics", "shard_sums", "shard_apply")),
    ("merge", "element_offset(2 * shard + 1, column, columns)", "(2 * shard + 1) * columns + column"),
]


@pytest.mark.parametrize("bug", one_fast(BUGS), ids=[f"{name}-{number}" for number, (name, *_) in enumerate(BUGS)])
def test_a_32_bit_offset_is_found(bug: tuple[str, str, str]) -> None:
    name, old, new = bug
    with pytest.raises(AssertionError, match=r"Not equal to tolerance|Arrays are not equal"):
        CHECKS[name](FarDevice((old, new)))


# --- launches ---------------------------------------------------------------------------------------------------------

SIZES = [
    (rows, columns)
    for rows in (2, 33, 65_537, 2**24, 2**31 - 1)
    for columns in (1, 4, 1000, 65_537, 2**24, 2**31 - 8)
    if rows * columns * 2 <= 2**38  # what no GPU has
]


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_grids_of_what_fits_on_a_gpu(rows: int, columns: int) -> None:
    """No extent is beyond what a launch may have."""
    width = 1 if columns % 8 else 8
    plans = [plan(rows, columns, 2, width, LIMITS) for plan in (plan_forward, plan_backward, plan_inference)]
    grids = [*(plan.grid for plan in plans), column_tiles(rows, columns, width, 132 * 8).grid]
    assert all(extent <= most for grid in grids for extent, most in zip(grid, (2**31 - 1, 65_535), strict=True))
