"""L16: exp is expensive: what each activation costs, counted and timed."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.activations import Activation, get_activation
from gpunet.backends import Backend
from gpunet.bench.report.files import RESULTS_FOLDER, read_results
from gpunet.bench.report.results import Results
from gpunet.lecture.counting import CountingArray, Counts
from gpunet.lecture.experiment import Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, Figure, label, legend, panels
from gpunet.lecture.wording import listing
from gpunet.random import Purpose, host_generator

ACTIVATIONS = ("relu", "leaky_relu", "elu", "sigmoid", "tanh")
WITH_EXP = ("elu", "sigmoid", "tanh")
PASSES = ("forward", "backward")
TRANSCENDENTAL = ("exp", "expm1", "tanh")

DEARER = 1.5  # forward time over ReLU's


def measure(settings: Settings) -> dict[str, Any]:
    """Count NumPy's operations, read the benchmark's times where there are any, and take times now.

    What is under ``"measured"`` no seed repeats.
    """
    backend = settings.network([1, 2]).backend
    return {
        "operations": {name: _count_operations(get_activation(name)) for name in ACTIVATIONS},
        "benchmark": committed_costs(backend.device_name != "cpu", RESULTS_FOLDER),
        "measured": _time_all(settings, backend),
    }


def _count_operations(activation: Activation) -> dict[str, dict[str, int]]:
    """Return how often f and f' run each NumPy operation, once per element each time."""
    s = np.linspace(-2, 2, 9)
    passes = ((activation.forward, s), (activation.derivative, activation.forward(s)))
    counts = {}
    for name, (function, values) in zip(PASSES, passes, strict=True):
        found = Counts()
        function(CountingArray.wrap(values, found))
        counts[name] = dict(sorted(found.calls.items()))
    return counts


def _time_all(settings: Settings, backend: Backend) -> dict[str, Any]:
    """Return nanoseconds per element of the fused operations: medians of interleaved rounds on this machine."""
    rows, columns, rounds = (64, 64, 3) if settings.quick else (1024, 512, 25)
    # A GPU is asked for many launches at once: one alone would measure the way there.
    repeats = 1 if backend.synchronous else 50
    generator = host_generator(settings.seed, Purpose.NOISE)
    shapes = ((rows, columns), (rows, columns), (columns, columns))
    s, dy, weights = (backend.asarray(generator.standard_normal(shape).astype(np.float32)) for shape in shapes)
    y, ds = backend.empty(s.shape, np.float32), backend.empty(s.shape, np.float32)

    def forward(activation: Activation) -> None:
        backend.bias_activation_forward(s, None, activation, out=y)

    def backward(activation: Activation) -> None:
        backend.bias_activation_backward(dy, y, activation, ds, None)

    seconds: dict[str, dict[str, list[float]]] = {name: {way: [] for way in PASSES} for name in ACTIVATIONS}
    products = []
    for _ in range(rounds + 1):
        for name in ACTIVATIONS:
            for way, run in zip(PASSES, (forward, backward), strict=True):
                seconds[name][way].append(_seconds(backend, repeats, partial(run, get_activation(name))))
        products.append(_seconds(backend, repeats, lambda: backend.gemm(s, weights, y, transpose_b=True)))
    scale = 1e9 / (rows * columns)
    return {"device": backend.device_name, "rows": rows, "columns": columns, "rounds": rounds} | {
        "nanoseconds": {
            name: {way: statistics.median(times[1:]) * scale for way, times in ways.items()}
            for name, ways in seconds.items()
        },
        "linear_nanoseconds": statistics.median(products[1:]) * scale,
    }


def _seconds(backend: Backend, repeats: int, run: Callable[[], None]) -> float:
    backend.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    backend.synchronize()
    return (time.perf_counter() - started) / repeats


def committed_costs(on_device: bool, folder: Path) -> dict[str, Any] | None:
    """Return the times, of a GPU or not, of the first of a folder's result files that has every activation, or None.

    Raises
    ------
    FileFormatError
        A file is damaged.
    """
    found = (costs_of_results(read_results(path), on_device) for path in sorted(folder.glob("*.json")))
    return next((costs for costs in found if costs is not None), None)


def costs_of_results(results: Results, on_device: bool) -> dict[str, Any] | None:
    """Return nanoseconds per element of bias and activation, of the largest float32 case that all of them ran in.

    They are under ``nanoseconds``, by activation and pass, beside the case's ``machine``, ``rows`` and ``columns``;
    None where one is missing.
    """
    by_shape: dict[tuple[int, int], dict[str, dict[str, float]]] = {}
    for row in results.rows:
        case = row.case
        is_cost = row.status == "ok" and row.is_ours and (case.operation, case.dtype) == ("bias_activation", "float32")
        if is_cost and row.on_device == on_device:
            assert row.milliseconds is not None  # a row that is "ok" has times
            shape = case.rows, case.sizes[0]
            times = by_shape.setdefault(shape, {}).setdefault(case.activation.split("(")[0], {})
            times[case.mode] = row.milliseconds.median * 1e6 / math.prod(shape)
    complete = [
        shape
        for shape, times in by_shape.items()
        if all(times.get(name, {}).keys() == {*PASSES} for name in ACTIVATIONS)
    ]
    if not complete:
        return None
    rows, columns = largest = max(complete, key=math.prod)
    source = {"machine": results.machine["name"], "version": results.version, "rows": rows, "columns": columns}
    return source | {"nanoseconds": {name: by_shape[largest][name] for name in ACTIVATIONS}}


def costs(numbers: Numbers) -> Mapping[str, Any]:
    """Return the times that figure and paragraph use: the committed benchmark's, or those taken now."""
    return numbers["benchmark"] or numbers["measured"]


def about(numbers: Numbers) -> str:
    found, measured = costs(numbers), numbers["measured"]
    if numbers["benchmark"]:
        source = f"the committed benchmark of gpunet {found['version']} on {found['machine']}"
    else:
        source = f"measured now on this machine, {found['device']}, medians of {found['rounds']} interleaved rounds"
    return (
        "The left panel counts the operations of NumPy that gpunet's reference code runs on each element, the right "
        f"one has times, on {found['rows']} x {found['columns']} scores in single precision ({source}). The linear "
        f"layer of {measured['columns']} inputs before it took {measured['linear_nanoseconds']:.1f} ns per element in "
        "this run."
    )


def claims(numbers: Numbers) -> Claims:
    operations, measured = numbers["operations"], numbers["measured"]
    forward = {name: times["forward"] for name, times in costs(numbers)["nanoseconds"].items()}
    ratios = ", ".join(f"{name} {forward[name] / forward['relu']:.1f}" for name in ACTIVATIONS if name != "relu")
    needed, backward = (
        [name for name in ACTIVATIONS if any(operations[name][way].get(one) for one in TRANSCENDENTAL)]
        for way in PASSES
    )
    dearest = max(times["forward"] for times in measured["nanoseconds"].values()) / measured["linear_nanoseconds"]
    return {
        "only_these_need_exp": Claim(
            "Sigmoid, tanh and ELU need an exponential (exp, expm1 or tanh) for every score, ReLU and leaky ReLU none",
            set(needed) == set(WITH_EXP),
            f"counted in {listing(needed)}",
        ),
        "no_exp_backward": Claim(
            "No derivative needs one, since it is computed from f(s)",
            not backward,
            f"counted in {listing(backward) or 'none'}",
        ),
        "exp_is_dear": Claim(
            f"Forward, each of the three takes {DEARER:g} times ReLU's time, as the lecture says",
            all(forward[name] >= DEARER * forward["relu"] for name in WITH_EXP),
            f"relative to ReLU's {forward['relu']:.2f} ns per element {ratios}",
        ),
        "linear_is_dearer": Claim.below(
            "The linear layer is dearer: of its time the dearest activation takes", dearest, 1.0
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, ((left, right),) = panels(1, 2, width=1.3)
    places, width = np.arange(len(ACTIVATIONS)), 0.38
    for offset, way, colour in ((-width / 2, "forward", COLOURS[0]), (width / 2, "backward", COLOURS[4])):
        counts = [numbers["operations"][name][way] for name in ACTIVATIONS]
        exponentials = [sum(count.get(name, 0) for name in TRANSCENDENTAL) for count in counts]
        others = [sum(count.values()) - dear for count, dear in zip(counts, exponentials, strict=True)]
        left.bar(places + offset, others, width, color=colour, label=f"{way}: arithmetic, comparisons")
        if way == "forward":
            stripes = {"color": COLOURS[1], "hatch": "//", "bottom": others, "label": "exponential"}
            left.bar(places + offset, exponentials, width, **stripes)
        times = [costs(numbers)["nanoseconds"][name][way] for name in ACTIVATIONS]
        bars = right.bar(places + offset, times, width, color=colour, label=way)
        right.bar_label(bars, fmt="%.2g", fontsize=7)
    left.set_ylim(0, 7.5)
    source = "committed benchmark" if numbers["benchmark"] else "measured in this run"
    label(left, "activation", "operations per element", "counted in the reference code")
    label(right, "activation", "nanoseconds per element", f"{source}, {costs(numbers)['rows']} rows")
    for panel in (left, right):
        panel.set_xticks(places, ACTIVATIONS)
        legend(panel, "upper left")
    return figure
