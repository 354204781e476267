"""Whole narrow networks in one launch: the operation of ``narrow_pass.cu``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gpunet.activations import Activation, Identity, get_activation
from gpunet.backends import NumpyBackend
from gpunet.backends.cuda.narrow_pass import narrow_pass_group
from gpunet.narrow import narrow_stack
from gpunet.network import Network
from gpunet.verification.check import Check, NotDoneError, Unit, alignments, shape_text
from gpunet.verification.operation import Difference, Numbers, Operation, compare
from gpunet.verification.storage import FLOAT32, LOST_UNITS
from gpunet.verification.subject import Cuda, Subject

# Widths around a quad, a warp and a tile; no hidden layer, one, several. Rows around a tile, in one block and in two.
SIZES = ((5, 3), (1, 1, 2), (7, 4, 64), (64, 64, 10), (3, 33, 2), (13, 50, 31, 5), (64, 64, 63, 64, 10))
ROWS = (5, 63, 64, 65, 128)
# Of the input, of the output, with a number: their functions are verified one by one with those of activation.cu.
ACTIVATIONS = ("gelu", "tanh", "leaky_relu(0.1)")
ALIGNED = (8, 16, 16, 4)
# Of a GPU whose every multiprocessor has a block: the deepest that fits, configuration e of the benchmarks.
DEEPEST = (64,) * 10 + (10,)
FAR_MEAN = 1000.0


def narrow_pass(
    sizes: tuple[int, ...], rows: int, batch_norm: bool, activation: Activation, mean: float = 0.0
) -> Operation:
    """Return the operation on random numbers, of inputs about a mean."""
    rng = np.random.default_rng((rows, *sizes))
    network = Network(sizes, batch_norm=batch_norm, activation=activation, seed=rows, device=NumpyBackend())
    for name, values in network.parameters.items():
        if name[0] != "W":
            values[...] = rng.uniform(0.5, 1.5, values.shape)
    stack = narrow_stack(network.layers, network.loss_layer, network.layout, network.state_layout)

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        # What a layer rounds the layers behind it see, and the batch norm of each divides by.
        relative = LOST_UNITS * len(sizes) * FLOAT32.unit * (1 + mean)
        return {name: relative * max(1.0, float(np.abs(values).max(initial=0))) for name, values in expected.items()}

    return Operation(
        "narrow_pass",
        {
            "x": FLOAT32.store(mean + rng.standard_normal((rows, sizes[0]))),
            "labels": rng.integers(0, sizes[-1], rows, np.int32),
            "parameters": network.flat_parameters,
            "state": FLOAT32.store(rng.uniform(0.5, 1.5, network.flat_state.shape)),
        },
        {"gradients": (network.flat_gradients.shape, np.float32), "loss": ((2,), np.float32)},
        {"stack": stack},
        tolerance,
        ("state",),
    )


def differences(
    subject: Subject, operation: Operation, offsets: Mapping[str, int] | None = None
) -> Iterator[Difference]:
    """Yield how far the operation is from the specification.

    Raises
    ------
    NotDoneError
        The network does not fit on the device.
    """
    backend, stack = subject.operations(), operation.settings["stack"]
    if isinstance(subject, Cuda) and not backend.fits_narrow_pass(stack, len(operation.given["x"])):
        raise NotDoneError("the network does not fit on the device's multiprocessors")
    return compare(backend, operation, offsets)


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every width and depth, with batch norm and without; every activation; every alignment."""

    def check(
        sizes: tuple[int, ...],
        rows: int,
        batch_norm: bool,
        activation: Activation,
        detail: str = "",
        offsets: Mapping[str, int] | None = None,
        mean: float = 0.0,
    ) -> Check:
        # Only hidden layers have either.
        function, normalizes = (activation, batch_norm) if len(sizes) > 2 else (Identity(), False)
        unit = Unit("narrow_pass", narrow_pass_group(function, normalizes), function)
        words = f"{'batch norm' if normalizes else 'bias'}, {function}, {rows} rows, {shape_text(sizes)}{detail}"

        def run() -> Iterator[Difference]:
            return differences(subject, narrow_pass(sizes, rows, batch_norm, activation, mean), offsets)

        return Check("narrow network", "float32", words, run, (unit,))

    relu, tanh = map(get_activation, ("relu", "tanh"))
    for batch_norm in (True, False):
        for sizes in SIZES:
            for rows in ROWS:
                yield check(sizes, rows, batch_norm, relu)
        for activation in map(get_activation, ACTIVATIONS if batch_norm else ACTIVATIONS[:1]):
            yield check(ALIGNED, 65, batch_norm, activation)
        for words, offsets in alignments(narrow_pass(ALIGNED, 65, batch_norm, relu), FLOAT32):
            yield check(ALIGNED, 65, batch_norm, relu, f", {words}", offsets)
    yield check((5, 9, 3), 100, True, tanh, f", a mean of {FAR_MEAN:g}", mean=FAR_MEAN)
    yield check((64, 64, 10), 2, True, relu)
    if isinstance(subject, Cuda) and subject.is_large:
        rows = 64 * subject.device.multiprocessor_count
        yield check(DEEPEST, rows, True, tanh)
