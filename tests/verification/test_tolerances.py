"""What the checks let pass: no more than a few roundings, beside the largest number of each result."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.activations import ReLU
from gpunet.verification import (
    activation,
    batch_norm,
    batch_norm_shards,
    losses,
    networks,
    optimizer,
    products,
    random_bits,
    shards,
)
from gpunet.verification.operation import Operation
from gpunet.verification.storage import FLOAT16, FLOAT32

SHAPE = (31, 33)
RELU = ReLU()
# Of each output of float32: how many roundings, of half a unit in the last place, its tolerance may have.
ROUNDINGS: list[tuple[Operation, dict[str, float]]] = [
    (products.gemm(FLOAT32, (33, 65, 17), False, True, False), {"out": 140}),
    (products.linear_activation(FLOAT32, (33, 65, 17), RELU), {"out": 145}),
    (activation.forward(FLOAT32, SHAPE, RELU), {"out": 70}),
    (activation.backward(FLOAT32, SHAPE, RELU), {"ds": 75, "dbias": 220}),
    (
        batch_norm.forward(FLOAT32, SHAPE, RELU),
        {"out": 45, "mean": 16, "inverse_std": 70, "running_mean": 40, "running_variance": 500},
    ),
    (batch_norm.backward(FLOAT32, SHAPE, RELU), {"ds": 160, "dgamma": 140, "dbeta": 110}),
    (batch_norm.inference(FLOAT32, SHAPE, RELU), {"out": 40}),
    (batch_norm_shards.statistics(FLOAT32, SHAPE), {"statistics": 140}),
    (
        batch_norm_shards.merge(FLOAT32, 33, (20, 11)),
        {"mean": 16, "inverse_std": 80, "running_mean": 40, "running_variance": 500},
    ),
    (batch_norm_shards.apply(FLOAT32, SHAPE, RELU), {"out": 45}),
    (batch_norm_shards.sums(FLOAT32, SHAPE, RELU), {"dgamma": 140, "dbeta": 110}),
    (batch_norm_shards.input_gradient(FLOAT32, SHAPE, RELU), {"ds": 160}),
    (shards.weigh_shard(FLOAT32, SHAPE), {"doutputs": 5, "sums": 4.1, "dbias": 4.1}),
    (shards.sum_shards(FLOAT32, 1023, (0, 0, 0)), {"out": 12}),
    (shards.divide_sums(FLOAT32, 1023, 7.5), {"gradients": 8.1, "loss": 8.1}),
    (losses.softmax_cross_entropy(FLOAT32, SHAPE, losses.GIVEN), {"doutputs": 100, "loss": 50}),
    (losses.sigmoid_cross_entropy(FLOAT32, SHAPE), {"doutputs": 100, "loss": 50}),
    (losses.squared_error(FLOAT32, SHAPE), {"doutputs": 100, "loss": 50}),
    (random_bits.dropout_forward(FLOAT32, SHAPE), {"out": 5}),
    (random_bits.dropout_backward(FLOAT32, SHAPE), {"dx": 5}),
    (random_bits.sample_bernoulli(FLOAT32, SHAPE), {}),
    (optimizer.sgd_step(FLOAT32, 1023, 500), {"parameters": 70, "velocity": 70}),
    (optimizer.adam_step(FLOAT32, 1023, 500), {"parameters": 70, "first_moment": 70, "second_moment": 70}),
    (optimizer.clip_factor(FLOAT32, 1023, 500), {"out": 16}),
    # What is stored in half precision is rounded once, and what is not is as exact as float32.
    (products.gemm(FLOAT16, (33, 65, 17), False, True, False), {"out": 1.1}),
    (products.linear_activation(FLOAT16, (33, 65, 17), RELU), {"out": 2.1}),
    (activation.forward(FLOAT16, SHAPE, RELU), {"out": 1.5}),
    (batch_norm.forward(FLOAT16, SHAPE, RELU), {"out": 1.5} | dict.fromkeys(("mean", "inverse_std"), 0.01)),
    (losses.softmax_cross_entropy(FLOAT16, SHAPE), {"doutputs": 2.1, "loss": 0.01}),
]


@pytest.mark.parametrize(("operation", "roundings"), ROUNDINGS, ids=lambda value: getattr(value, "method", ""))
def test_a_tolerance_is_a_few_roundings(operation: Operation, roundings: dict[str, float]) -> None:
    arguments, expected = operation.expected()
    storage = FLOAT16 if any(array.dtype == np.float16 for array in operation.given.values()) else FLOAT32
    for name, allowed in operation.tolerance(arguments, expected).items():
        largest = np.abs(expected[name]).max()
        assert np.max(allowed) <= roundings.get(name, 0.06) * storage.rounding * largest, name


def test_products_in_tf32_may_lose_what_two_factors_of_10_bits_do() -> None:
    operation = products.gemm(FLOAT32, (33, 65, 17), False, True, False, "tf32")
    arguments, expected = operation.expected()
    size = np.abs(arguments["a"]) @ np.abs(arguments["b"]).T
    assert np.all(operation.tolerance(arguments, expected)["out"] <= 2.1 * 2.0**-10 * size)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_runs_of_20_steps_agree_to_a_few_hundred_units(dtype: str) -> None:
    unit = float(np.finfo(dtype).eps)
    for name, units in (("losses", 130), ("W1", 1300)):
        for scale in (0.1, 1.0, 50.0):
            expected = {name: np.array([0.0, scale])}
            off = units * unit * max(1.0, scale)
            for error in (np.array([off, 0.0]), np.array([0.0, off])):
                (found,) = networks.agreement({name: expected[name] + error}, expected, 128 * unit)
                assert 1 < found.error < 1.2
