"""Batch norm and activation: the operations of ``batch_norm.cu``, by every algorithm and cluster size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpunet.activations import ACTIVATIONS, Activation, get_activation
from gpunet.backends.cuda.batch_norm import BatchNormPlan, DeviceLimits, plan_backward, plan_forward, plan_inference
from gpunet.backends.cuda.instantiation import storage_type
from gpunet.backends.devices.device import ClusterRefusedError
from gpunet.backends.switches import CLUSTERS
from gpunet.verification.activation import without_corners
from gpunet.verification.check import Check, NotDoneError, Unit, alignments, shape_text
from gpunet.verification.operation import Difference, Maker, Numbers, Operation, compare, makes
from gpunet.verification.storage import FLOAT32, Array, Storage, exact
from gpunet.verification.subject import Cuda, Subject

MOMENTUM, EPSILON = 0.1, 1e-5
# The matrices, whose alignment and rows decide on the width of accesses.
MATRICES = ("s", "dy", "out", "ds")
SHAPES = ((8, 1), (31, 33), (257, 36), (1025, 3))
ALIGNED_SHAPE = (129, 40)
# For a GPU: every multiprocessor is busy, stripes follow one another, clusters are large. Repeated, so that what
# depends on timing shows.
LARGE_SHAPES, LARGE_REPEATS = ((8192, 512), (65536, 64), (1000, 4096)), 10
FAR_MEAN = 1e4
Make = Maker[...]


@dataclass(frozen=True)
class Way:
    """An algorithm, and the blocks of its clusters; None where the plan chooses."""

    algorithm: str | None = None
    cluster: int | None = None

    def __str__(self) -> str:
        if self.algorithm is None:
            return ""
        return f", {self.algorithm}" + (f", cluster of {self.cluster}" if (self.cluster or 1) > 1 else "")


def _inputs(storage: Storage, shape: tuple[int, int], affine: bool, mean: float = 0.0) -> dict[str, Array]:
    rng = np.random.default_rng(shape)
    columns = shape[1]
    inputs = {"s": storage.store(2 * rng.standard_normal(shape) + rng.standard_normal(columns) + mean)}
    if affine:
        scale_shift = {"gamma": 1 + 0.5 * rng.standard_normal(columns), "beta": 0.5 * rng.standard_normal(columns)}
        inputs |= {name: values.astype(storage.arithmetic) for name, values in scale_shift.items()}
    return inputs


def _running(storage: Storage, columns: int) -> dict[str, Array]:
    rng = np.random.default_rng(columns)
    running = {"running_mean": rng.standard_normal(columns), "running_variance": rng.uniform(0.5, 2, columns)}
    return {name: values.astype(storage.arithmetic) for name, values in running.items()}


def _settings(activation: Activation, affine: bool) -> dict[str, Any]:
    return {"activation": activation} | ({} if affine else {"gamma": None, "beta": None})


@makes("batch_norm_activation_forward")
def forward(
    storage: Storage, shape: tuple[int, int], activation: Activation, *, affine: bool = True, mean: float = 0.0
) -> Operation:
    """Return ``batch_norm_activation_forward`` on random numbers of a mean."""
    rounding, unit, vector = storage.rounding, storage.unit, ((shape[1],), storage.arithmetic)

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        gamma = np.abs(arguments["gamma"]) if affine else 1.0
        inverse_std, running = expected["inverse_std"], expected["running_variance"]
        # A mean of so many standard deviations is rounded to that many units.
        ratio = 1 + np.abs(expected["mean"]) * inverse_std
        largest = np.abs(expected["out"]).max(axis=0) + gamma
        # The means of parts of the rows lie about 1 / sqrt(rows) apart, and are rounded to `ratio` units each.
        relative = (32 + 2 * ratio / np.sqrt(shape[0])) * unit
        return {
            "out": (rounding + 8 * unit * ratio) * largest,
            "mean": 4 * unit * ratio / inverse_std,
            "inverse_std": relative * inverse_std,
            "running_mean": 4 * unit * (ratio / inverse_std + 2),
            "running_variance": 2 * relative * (running + inverse_std**-2),
        }

    return Operation(
        "batch_norm_activation_forward",
        _inputs(storage, shape, affine, mean) | _running(storage, shape[1]),
        {"out": (shape, storage.dtype), "mean": vector, "inverse_std": vector},
        _settings(activation, affine) | {"momentum": MOMENTUM, "epsilon": EPSILON},
        tolerance,
        changed=("running_mean", "running_variance"),
    )


@makes("batch_norm_activation_backward")
def backward(
    storage: Storage,
    shape: tuple[int, int],
    activation: Activation,
    *,
    affine: bool = True,
    in_place: bool = False,
) -> Operation:
    """Return ``batch_norm_activation_backward`` on random numbers, and what forward kept of them."""
    rounding, unit, vector = storage.rounding, storage.unit, ((shape[1],), storage.arithmetic)
    given = _inputs(storage, shape, affine)
    s = exact(given["s"])
    statistics = {"mean": s.mean(axis=0), "inverse_std": 1 / np.sqrt(s.var(axis=0) + EPSILON)}
    given |= {name: values.astype(storage.arithmetic) for name, values in statistics.items()}

    def z_of(arguments: Numbers) -> tuple[Array, Array]:
        shat = (arguments["s"] - arguments["mean"]) * arguments["inverse_std"]
        return shat, arguments["gamma"] * shat + arguments["beta"] if affine else shat

    _, z = z_of({name: exact(array) for name, array in given.items()})
    given["y"] = storage.store(activation.forward(z))
    dy = np.random.default_rng(shape[0]).standard_normal(shape)
    given["dy"] = storage.store(without_corners(dy, z))

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        shat, z = z_of(arguments)
        dy, shat = np.abs(arguments["dy"]), np.abs(shat)
        kept = arguments["y"] if activation.derivative_of == "output" else z
        dz = dy * np.abs(activation.derivative(kept))
        scale = (np.abs(arguments["gamma"]) if affine else 1.0) * arguments["inverse_std"] * dy.max(axis=0)
        # Sums of two terms, where every partial sum is a few units off.
        return {
            "dbeta": 16 * unit * (dy.sum(axis=0) + 1),
            "dgamma": 16 * unit * ((dz * shat).sum(axis=0) + dy.sum(axis=0)),
            "ds": (rounding + 16 * unit) * scale * (2 + shat.max(axis=0)),
        }

    return Operation(
        "batch_norm_activation_backward",
        given,
        {"ds": (shape, storage.dtype)} | ({"dgamma": vector, "dbeta": vector} if affine else {}),
        _settings(activation, affine) | ({} if affine else {"dgamma": None, "dbeta": None}),
        tolerance,
        shared={"ds": "dy"} if in_place else {},
    )


@makes("batch_norm_activation_backward")
def sides(storage: Storage, shape: tuple[int, int], activation: Activation) -> Operation:
    """Return ``batch_norm_activation_backward`` for dy = 1, where dbeta counts the outputs on one side of 0.

    Half of the outputs are so small that some become 0 where they are stored in half precision.
    """
    operation = backward(storage, shape, activation)
    given = dict(operation.given)
    given["gamma"] = given["gamma"].copy()
    given["gamma"][: shape[1] // 2] *= storage.arithmetic.type(1e-7)
    given["beta"] = np.zeros_like(given["beta"])
    values = {name: exact(array) for name, array in given.items()}
    z = values["gamma"] * (values["s"] - values["mean"]) * values["inverse_std"]
    given |= {"y": storage.store(activation.forward(z)), "dy": storage.store(np.ones(shape))}

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        return {"dgamma": np.inf, "ds": np.inf}

    return replace(operation, given=given, tolerance=tolerance)


@makes("batch_norm_activation_inference")
def inference(
    storage: Storage,
    shape: tuple[int, int],
    activation: Activation,
    *,
    affine: bool = True,
    in_place: bool = False,
) -> Operation:
    """Return ``batch_norm_activation_inference`` on random numbers."""

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        centred = np.abs(arguments["s"] - arguments["running_mean"]).max()
        largest = np.abs(expected["out"]).max() + centred / np.sqrt(arguments["running_variance"].min())
        return {"out": (storage.rounding + 8 * storage.unit) * largest}

    return Operation(
        "batch_norm_activation_inference",
        _inputs(storage, shape, affine) | _running(storage, shape[1]),
        {"out": (shape, storage.dtype)},
        _settings(activation, affine) | {"epsilon": EPSILON},
        tolerance,
        shared={"out": "s"} if in_place else {},
    )


DIRECTIONS: tuple[Make, ...] = (forward, backward, inference)


def differences(
    subject: Subject, operation: Operation, way: Way, offsets: Mapping[str, int] | None = None, repeats: int = 2
) -> Iterator[Difference]:
    """Run an operation in one way, and yield how far it is from the specification."""
    if not isinstance(subject, Cuda):
        yield from compare(subject.operations(), operation, offsets, repeats)
        return
    if (way.cluster or 1) > subject.limits.max_cluster:  # at the launch of another check
        raise NotDoneError("the driver refuses clusters of blocks, and networks do without")
    with subject.batch_norm(way.algorithm, way.cluster) as backend:
        try:
            yield from compare(backend, operation, offsets, repeats)
        except ClusterRefusedError as error:
            raise NotDoneError(f"networks do without clusters: {error}") from error


def width_of(columns: int, itemsize: int, offsets: Mapping[str, int]) -> int:
    """Return how many neighbours of a matrix one access moves."""
    width = 16 // itemsize
    while columns % width or any(offsets.get(name, 0) % width for name in MATRICES):
        width //= 2
    return width


def plan(
    method: str, shape: tuple[int, int], itemsize: int, way: Way, offsets: Mapping[str, int], limits: DeviceLimits
) -> BatchNormPlan:
    """Return the launch that does an operation in one way."""
    rows, columns = shape
    width = width_of(columns, itemsize, offsets)
    if method.endswith("inference"):
        return plan_inference(rows, columns, itemsize, width, limits)
    make = plan_forward if method.endswith("forward") else plan_backward
    return make(rows, columns, itemsize, width, limits, way.algorithm, way.cluster)


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every direction, algorithm, cluster size and type, at every shape and alignment; and every activation."""
    limits, ways = None, [Way()]
    if isinstance(subject, Cuda):
        limits = subject.limits
        ways = [Way("striped"), *(Way("resident", cluster) for cluster in subject.clusters)]

    def check(
        make: Make,
        storage: Storage,
        shape: tuple[int, int],
        activation: Activation,
        way: Way,
        detail: str,
        offsets: Any = None,
        repeats: int = 2,
        **options: Any,
    ) -> Check:
        operation, direction = make.later(storage, shape, activation, **options), make.method.rpartition("_")[2]
        units: tuple[Unit, ...] = ()
        if limits is not None:
            planned = plan(make.method, shape, storage.dtype.itemsize, way, offsets or {}, limits)
            units = (Unit("batch_norm", (planned.expression(storage_type(storage.dtype), activation),), activation),)
        return Check(
            f"batch norm {direction}{'' if direction == 'inference' else way}",
            storage.name,
            detail,
            lambda: differences(subject, operation.make(), way, offsets, repeats),
            units,
            CLUSTERS.variable if (way.cluster or 1) > 1 else "",
        )

    relu, aligned = get_activation("relu"), shape_text(ALIGNED_SHAPE)
    for storage in subject.storages:
        past = {make: list(alignments(make(storage, ALIGNED_SHAPE, relu), storage)) for make in DIRECTIONS}
        for way in ways:
            for shape in SHAPES:
                for make in (forward, backward):
                    yield check(make, storage, shape, relu, way, shape_text(shape))
            for make in (forward, backward):
                for words, offsets in past[make]:
                    yield check(make, storage, ALIGNED_SHAPE, relu, way, f"{aligned}, {words}", offsets)
            for make in (forward, backward):
                plain = f"{aligned}, without scale and shift"
                yield check(make, storage, ALIGNED_SHAPE, relu, way, plain, affine=False)
            # Of a derivative that shows when it is applied twice.
            tanh = get_activation("tanh")
            yield check(backward, storage, ALIGNED_SHAPE, tanh, way, f"{aligned}, in place", in_place=True)
            yield check(sides, storage, (257, 72), relu, way, "257 x 72, sides of 0")
            if storage is FLOAT32:  # in float64 the specification is as far off
                far = f"257 x 36, a mean of {FAR_MEAN:g}"
                yield check(forward, storage, (257, 36), relu, way, far, mean=FAR_MEAN)
        for shape in (*SHAPES, (1, 1), (1, 40)):
            yield check(inference, storage, shape, relu, Way(), shape_text(shape))
        for words, offsets in past[inference]:
            yield check(inference, storage, ALIGNED_SHAPE, relu, Way(), f"{aligned}, {words}", offsets)
        for words, options in (("without scale and shift", {"affine": False}), ("in place", {"in_place": True})):
            yield check(inference, storage, ALIGNED_SHAPE, relu, Way(), f"{aligned}, {words}", **options)

    for activation in map(get_activation, ACTIVATIONS):
        for make in DIRECTIONS:
            for way in ways[:2] if make is not inference else [Way()]:
                yield check(make, FLOAT32, (130, 36), activation, way, f"{activation}, 130 x 36")
    if subject.is_large:
        repeats = 2 if limits is None else LARGE_REPEATS
        for shape in LARGE_SHAPES:
            for make in (forward, backward):
                for way in dict.fromkeys((Way(), ways[0])):
                    words = f"{shape_text(shape)}, {repeats} times"
                    yield check(make, FLOAT32, shape, relu, way, words, repeats=repeats)
