"""The optimisers' steps: the operations of ``optimizer.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from gpunet.backends.cuda.instantiation import PARAMETER_TYPES, storage_type
from gpunet.backends.cuda.optimizer import optimizer_group
from gpunet.verification.check import Check, Unit, alignments, operation_check
from gpunet.verification.operation import Numbers, Operation, makes
from gpunet.verification.storage import Array, Storage
from gpunet.verification.subject import Subject

# (parameters, weights among them): nothing left over from vectors of 16 bytes, something, weights ending inside one.
SIZES = ((1, 0), (1, 1), (3, 2), (32, 32), (64, 32), (1023, 500), (1025, 1025), (4096, 4001), (40_000, 17))
L2 = 1e-2
ADAM = {"l2": L2, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}


@makes("sgd_step")
def sgd_step(
    storage: Storage, size: int, weights: int, momentum: float = 0.9, nesterov: bool = False, loss: float = 1.0
) -> Operation:
    """Return the operation on random numbers, with a gradient clipped to half."""
    names = ("parameters", "gradients", "velocity") if momentum else ("parameters", "gradients")
    given = _vectors(storage, size, names) | _numbers(storage, scalars=[0.05], clip=[0.5], loss=[loss, 2.0])
    settings = {"weight_count": weights, "l2": L2, "momentum": momentum, "nesterov": nesterov}
    changed = ("parameters", "velocity") if momentum else ("parameters",)
    return _step("sgd_step", storage, given, settings | ({} if momentum else {"velocity": None}), changed)


@makes("adam_step")
def adam_step(storage: Storage, size: int, weights: int, weight_decay: float = 0.1, loss: float = 1.0) -> Operation:
    """Return the operation on random numbers, of the second step."""
    moments = ("first_moment", "second_moment")
    given = _vectors(storage, size, ("parameters", "gradients", *moments))
    given["second_moment"] = np.abs(given["second_moment"])
    given |= _numbers(storage, scalars=[0.05, 1 / (1 - 0.9**2), 1 / (1 - 0.999**2)], loss=[loss, 2.0])
    settings = ADAM | {"weight_count": weights, "weight_decay": weight_decay, "clip": None}
    return _step("adam_step", storage, given, settings, ("parameters", *moments))


def _step(
    method: str, storage: Storage, given: dict[str, Array], settings: dict[str, Any], changed: tuple[str, ...]
) -> Operation:
    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        if not np.isfinite(arguments["loss"][0]):
            return {}  # nothing changes
        return {name: storage.relative * (1 + np.abs(values)) for name, values in expected.items()}

    return Operation(method, given, {}, settings, tolerance, changed)


@makes("clip_factor")
def clip_factor(storage: Storage, size: int, weights: int, norm: float = 0.1, scale: float = 1.0) -> Operation:
    """Return the operation on random numbers times ``scale``."""
    given = _vectors(storage, size, ("parameters", "gradients"))
    given["gradients"] *= storage.dtype.type(scale)

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        return {"out": 8 * storage.unit * expected["out"]}

    settings = {"weight_count": weights, "l2": L2, "maximum_norm": norm}
    return Operation("clip_factor", given, {"out": ((1,), storage.dtype)}, settings, tolerance)


def _vectors(storage: Storage, size: int, names: tuple[str, ...]) -> dict[str, Array]:
    rng = np.random.default_rng(size)
    return {name: storage.store(rng.standard_normal(size)) for name in names}


def _numbers(storage: Storage, **values: list[float]) -> dict[str, Array]:
    return {name: np.array(numbers, storage.dtype) for name, numbers in values.items()}


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every optimiser in float32 and float64, at every size and alignment, and where the loss is not finite."""
    backend = subject.operations()
    for storage in subject.storages:
        name = storage_type(storage.dtype)
        if name not in PARAMETER_TYPES:
            continue
        units = (Unit("optimizer", optimizer_group(name)),)
        check = partial(operation_check, backend, storage.name, units)
        for size, weights in SIZES:
            detail = f"{size} parameters, {weights} weights"
            for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
                words = f"{detail}, momentum {momentum}{', Nesterov' if nesterov else ''}"
                yield check(sgd_step.later(storage, size, weights, momentum, nesterov), words)
            for decay in (0.0, 0.1):
                yield check(adam_step.later(storage, size, weights, decay), f"{detail}, weight decay {decay}")
            yield check(clip_factor.later(storage, size, weights), detail)
        for make in (sgd_step, adam_step, clip_factor):
            operation = make.later(storage, 1025, 600)
            for words, offsets in alignments(operation.make(), storage):
                yield check(operation, f"1025 parameters, {words}", offsets)
        for loss in (np.nan, np.inf, -np.inf):
            yield check(sgd_step.later(storage, 100, 50, loss=loss), f"100 parameters, loss {loss}")
            yield check(adam_step.later(storage, 100, 50, loss=loss), f"100 parameters, loss {loss}")
        yield check(clip_factor.later(storage, 300, 100, norm=1e6), "300 parameters, below the norm")
        yield check(clip_factor.later(storage, 300, 0, norm=1.0, scale=1e30), "300 parameters, gradients of 1e30")
        yield check(clip_factor.later(storage, 300, 0, norm=1.0, scale=np.nan), "300 parameters, gradients of NaN")
