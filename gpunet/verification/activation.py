"""Bias and activation: the operations of ``activation.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from gpunet.activations import ACTIVATIONS, Activation, Identity, get_activation
from gpunet.backends.cuda.activation import activation_group
from gpunet.backends.cuda.instantiation import storage_type
from gpunet.verification.check import Check, Unit, alignments, operation_check, shape_text
from gpunet.verification.operation import Numbers, Operation, makes
from gpunet.verification.storage import FLOAT16, FLOAT32, NETWORK_DTYPES, Array, Storage, exact
from gpunet.verification.subject import Subject

# Inputs at which some activation's derivative jumps, and how near to them rounding may choose the side.
CORNERS, NEAR = (-3, -1, 0, 1, 3), 1e-2
# One row, one column, around a warp, around a block, rows that are and are not whole vectors of 16 bytes.
SHAPES = ((1, 1), (1, 33), (33, 1), (2, 31), (31, 32), (32, 33), (64, 64), (257, 10), (5, 1023), (3, 1025), (1025, 4))
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 88.8)


def without_corners(gradient: Array, inputs: Array) -> Array:
    """Return dy with zeros where rounding decides on which side of a corner of f an input lies."""
    near = np.min([np.abs(inputs - corner) for corner in CORNERS], axis=0) < NEAR
    return np.where(near, 0.0, gradient)


@makes("bias_activation_forward")
def forward(
    storage: Storage, shape: tuple[int, int], activation: Activation, *, has_bias: bool = True, in_place: bool = False
) -> Operation:
    """Return ``bias_activation_forward`` on random numbers."""
    rng = np.random.default_rng(shape)
    s = storage.store(rng.standard_normal(shape))
    bias = rng.standard_normal(shape[1]).astype(storage.arithmetic)
    return _forward(storage, s, activation, {"bias": bias} if has_bias else {}, in_place)


@makes("bias_activation_forward")
def special(storage: Storage, activation: Activation) -> Operation:
    """Return ``bias_activation_forward`` on NaN, infinities, zeros and large numbers."""
    return _forward(storage, storage.store(np.array([SPECIAL])), activation, {}, False)


def _forward(storage: Storage, s: Array, activation: Activation, bias: dict[str, Array], in_place: bool) -> Operation:
    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        return {"out": storage.relative * (1 + np.abs(expected["out"]))}

    return Operation(
        "bias_activation_forward",
        {"s": s, **bias},
        {"out": (s.shape, storage.dtype)},
        {"activation": activation} | ({} if bias else {"bias": None}),
        tolerance,
        shared={"out": "s"} if in_place else {},
    )


@makes("bias_activation_backward")
def backward(
    storage: Storage, shape: tuple[int, int], activation: Activation, *, has_bias: bool = True, in_place: bool = False
) -> Operation:
    """Return ``bias_activation_backward`` on random numbers, and what forward kept of them."""
    rng = np.random.default_rng(shape)
    s, dy = storage.store(rng.standard_normal(shape)), rng.standard_normal(shape)
    bias = rng.standard_normal(shape[1]).astype(storage.arithmetic)
    z = exact(s) + exact(bias) if has_bias else exact(s)
    keeps_input = activation.derivative_of == "input"
    kept = s if keeps_input else storage.store(activation.forward(z))

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        ds = np.abs(expected["ds"])
        sums = storage.relative * ds.sum(axis=0).max() + 1e-30
        return {"ds": storage.relative * (1 + ds), "dbias": sums}

    return Operation(
        "bias_activation_backward",
        {"dy": storage.store(without_corners(dy, z)), "kept": kept} | ({"bias": bias} if has_bias else {}),
        {"ds": (shape, storage.dtype)} | ({"dbias": ((shape[1],), storage.arithmetic)} if has_bias else {}),
        {"activation": activation} | ({} if has_bias else {"bias": None, "dbias": None}),
        tolerance,
        shared={"ds": "dy"} if in_place else {},
    )


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every activation in the types that networks have, some in the others; shapes and alignments for ReLU."""
    backend = subject.operations()
    relu = get_activation("relu")
    for storage in subject.storages:
        names = ACTIVATIONS if storage.name in NETWORK_DTYPES else ("relu", "gelu")
        for activation in map(get_activation, names):
            units = (Unit("activation", activation_group(storage_type(storage.dtype), activation), activation),)
            check = partial(operation_check, backend, storage.name, units)
            shapes = SHAPES if activation == relu else ((33, 7), (16, 36))
            for shape in shapes:
                for make in (forward, backward):
                    yield check(make.later(storage, shape, activation), f"{activation}, {shape_text(shape)}")
            if storage is not FLOAT16:  # 1e30 would be infinity
                yield check(special.later(storage, activation), f"{activation}, NaN, infinities and large numbers")
            if activation != relu:
                continue
            for make in (forward, backward):
                operation = make.later(storage, (37, 64), activation)
                for words, offsets in alignments(operation.make(), storage):
                    yield check(operation, f"37 x 64, {words}", offsets)
                yield check(
                    make.later(storage, (45, 12), activation, has_bias=False, in_place=True), "45 x 12, in place"
                )
            if storage is FLOAT32:
                copied = forward.later(storage, (9, 7), Identity(), has_bias=False)
                identity = Unit("activation", activation_group(storage_type(storage.dtype), Identity()), Identity())
                yield operation_check(backend, storage.name, (identity,), copied, "9 x 7, without bias")
