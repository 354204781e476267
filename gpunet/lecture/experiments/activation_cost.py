"""L16: exp is expensive: what each activation costs, counted and timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation, get_activation
from gpunet.backends import Backend
from gpunet.bench.results import Results, Row, read_results
from gpunet.bench.selection import results_folder
from gpunet.lecture.counting import CountingArray, Counts
from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plotting import COLOURS, label, panels
from gpunet.random import Purpose, host_generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

ACTIVATIONS = ("relu", "leaky_relu", "elu", "sigmoid", "tanh")
WITH_EXP = ("elu", "sigmoid", "tanh")
PASSES = ("forward", "backward")
TRANSCENDENTAL = ("exp", "expm1", "tanh")

# Threshold of the claim: forward time over ReLU's.
DEARER = 1.5


def measure(settings: Settings) -> dict[str, Any]:
    """Count NumPy's operations, read the benchmark's times where there are any, and take times now.

    What is under ``"measured"`` no seed repeats.
    """
    backend = settings.network([1, 2]).backend
    return {
        "operations": {name: _count_operations(get_activation(name)) for name in ACTIVATIONS},
        "benchmark": committed_costs(backend.device_name != "cpu", results_folder()),
        "measured": _time_all(settings, backend),
    }


def _count_operations(activation: Activation) -> dict[str, dict[str, int]]:
    """Return how often f and f' run each NumPy operation, once per element each time."""
    counts = {}
    s = np.linspace(-2, 2, 9)
    for name, function, values in (
        ("forward", activation.forward, s),
        ("backward", activation.derivative, activation.forward(s)),
    ):
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
    s, dy = (
        backend.asarray(generator.standard_normal((rows, columns)).astype(np.float32)) for _ in ("scores", "gradient")
    )
    weights = backend.asarray(generator.standard_normal((columns, columns)).astype(np.float32))
    y, ds = backend.empty(s.shape, np.float32), backend.empty(s.shape, np.float32)

    def forward(activation: Activation) -> None:
        backend.bias_activation_forward(s, None, activation, out=y)

    def backward(activation: Activation) -> None:
        backend.bias_activation_backward(dy, y, activation, ds, None)

    seconds: dict[str, dict[str, list[float]]] = {name: {way: [] for way in PASSES} for name in ACTIVATIONS}
    products = []
    for _ in range(rounds + 1):
        for name in ACTIVATIONS:
            activation = get_activation(name)
            seconds[name]["forward"].append(_seconds(backend, repeats, partial(forward, activation)))
            seconds[name]["backward"].append(_seconds(backend, repeats, partial(backward, activation)))
        products.append(_seconds(backend, repeats, lambda: backend.gemm(s, weights, y, transpose_b=True)))
    scale = 1e9 / (rows * columns)
    return {
        "device": backend.device_name,
        "rows": rows,
        "columns": columns,
        "rounds": rounds,
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
    """Return the times of the first result file in a folder that has every activation, or None.

    Parameters
    ----------
    on_device : bool
        Whether to look for times of a GPU.
    folder : Path
        With the benchmark suite's ``*.json``.

    Raises
    ------
    FileFormatError
        A file is damaged.
    """
    found = (costs_of_results(read_results(path), on_device) for path in sorted(folder.glob("*.json")))
    return next((costs for costs in found if costs is not None), None)


def costs_of_results(results: Results, on_device: bool) -> dict[str, Any] | None:
    """Return nanoseconds per element of bias and activation, of the largest float32 case that all of them ran in.

    Returns
    -------
    dict or None
        ``machine``, ``rows``, ``columns``, and ``nanoseconds`` by activation and pass; None where one is missing.
    """
    rows = [row for row in results.rows if _is_cost(row, on_device)]
    shapes = sorted({_shape(row) for row in rows}, key=lambda shape: shape[0] * shape[1], reverse=True)
    for shape in shapes:
        times = _by_activation(row for row in rows if _shape(row) == shape)
        if all(set(times.get(name, ())) == set(PASSES) for name in ACTIVATIONS):
            return {
                "machine": results.machine["name"],
                "version": results.version,
                "rows": shape[0],
                "columns": shape[1],
                "nanoseconds": {name: times[name] for name in ACTIVATIONS},
            }
    return None


def _is_cost(row: Row, on_device: bool) -> bool:
    return (
        row.status == "ok"
        and row.provider.startswith("gpunet")
        and row.on_device == on_device
        and row.case["operation"] == "bias_activation"
        and row.case["dtype"] == "float32"
    )


def _shape(row: Row) -> tuple[int, int]:
    return int(row.case["rows"]), int(row.case["sizes"][0])


def _by_activation(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    times: dict[str, dict[str, float]] = {}
    for row in rows:
        assert row.milliseconds is not None  # a row that is "ok" has times
        elements = _shape(row)[0] * _shape(row)[1]
        name = row.case["activation"].split("(")[0]
        times.setdefault(name, {})[row.case["mode"]] = row.milliseconds.median * 1e6 / elements
    return times


def costs(numbers: Numbers) -> Mapping[str, Any]:
    """Return the times that figure and paragraph use: the committed benchmark's, or those taken now."""
    return numbers["benchmark"] or numbers["measured"]


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show.

    ``only_these_need_exp``: sigmoid, tanh and ELU call an exponential for each score, ReLU and leaky ReLU none.
    ``no_exp_backward``: no derivative needs one, since it is written in terms of f(s). ``exp_is_dear``: forward, each
    of the three takes at least 1.5 times ReLU's time. ``linear_is_dearer``: where times were taken now, the linear
    layer of that width takes longer than any of them.
    """
    operations, nanoseconds = numbers["operations"], costs(numbers)["nanoseconds"]
    measured = numbers["measured"]
    return {
        "only_these_need_exp": all(
            any(name in TRANSCENDENTAL for name in operations[activation]["forward"]) == (activation in WITH_EXP)
            for activation in ACTIVATIONS
        ),
        "no_exp_backward": not any(
            name in TRANSCENDENTAL for activation in ACTIVATIONS for name in operations[activation]["backward"]
        ),
        "exp_is_dear": all(
            nanoseconds[name]["forward"] >= DEARER * nanoseconds["relu"]["forward"] for name in WITH_EXP
        ),
        "linear_is_dearer": measured["linear_nanoseconds"]
        > max(times["forward"] for times in measured["nanoseconds"].values()),
    }


def describe(numbers: Numbers) -> str:
    """Say what to look at and what this run showed."""
    shown, found, measured = claims(numbers), costs(numbers), numbers["measured"]
    forward = {name: times["forward"] for name, times in found["nanoseconds"].items()}
    ratios = ", ".join(f"{name} {forward[name] / forward['relu']:.1f}" for name in ACTIVATIONS if name != "relu")
    if numbers["benchmark"]:
        source = f"the committed benchmark of gpunet {found['version']} on {found['machine']}"
    else:
        source = f"measured now on this machine, {found['device']}, medians of {found['rounds']} interleaved rounds"
    counted = (
        "Sigmoid, tanh and ELU each need one exponential (exp, expm1 or tanh) for every score and ReLU and leaky ReLU "
        "none"
        if shown["only_these_need_exp"]
        else "The exponentials are not where the lecture has them"
    )
    backward = (
        "no derivative needs one, since it is computed from f(s)"
        if shown["no_exp_backward"]
        else "some derivative needs one too"
    )
    dear = [name for name in WITH_EXP if forward[name] >= DEARER * forward["relu"]]
    if shown["exp_is_dear"]:
        verdict = "all three with an exponential cost clearly more than ReLU, as the lecture says"
    else:
        verdict = (
            f"of the three with an exponential {' and '.join(dear) or 'none'} cost{'s' * (len(dear) < 2)} clearly "
        )
        verdict += "more than ReLU; a vectorised exponential is cheap where memory and not arithmetic takes the time"
    if forward["leaky_relu"] > min(forward["sigmoid"], forward["tanh"]):
        verdict += ", and leaky ReLU, without any, takes longer than one with: its product and its comparison cost too"
    linear = measured["linear_nanoseconds"]
    share = max(times["forward"] for times in measured["nanoseconds"].values()) / linear
    scale = "which is still less than" if shown["linear_is_dearer"] else "which is not even less than"
    return (
        "The left panel counts the operations of NumPy that gpunet's reference code runs on each element, the right "
        f"one has times. {counted}; {backward}. Forward, on {found['rows']} x {found['columns']} scores in single "
        f"precision, ReLU takes {forward['relu']:.2f} ns per element, and relative to it the others take {ratios} "
        f"({source}): {verdict}. To put it in proportion: the linear layer of {measured['columns']} inputs before it "
        f"took {linear:.1f} ns per element in this run, and the dearest activation {share:.0%} of that, {scale} the "
        "matrix product, and less the wider the layer is."
    )


def draw(numbers: Numbers) -> Figure:
    """Draw operations and nanoseconds per element, forward and backward."""
    figure, axes = panels(1, 2, width=1.3)
    left, right = axes[0]
    places, width = np.arange(len(ACTIVATIONS)), 0.38
    for offset, way, colour in ((-width / 2, "forward", COLOURS[0]), (width / 2, "backward", COLOURS[4])):
        counts = [numbers["operations"][name][way] for name in ACTIVATIONS]
        exponentials = [sum(count.get(name, 0) for name in TRANSCENDENTAL) for count in counts]
        others = [sum(count.values()) - dear for count, dear in zip(counts, exponentials, strict=True)]
        left.bar(places + offset, others, width, color=colour, label=f"{way}: arithmetic, comparisons")
        if way == "forward":
            left.bar(
                places + offset, exponentials, width, bottom=others, color=COLOURS[1], hatch="//", label="exponential"
            )
        times = [costs(numbers)["nanoseconds"][name][way] for name in ACTIVATIONS]
        bars = right.bar(places + offset, times, width, color=colour, label=way)
        right.bar_label(bars, fmt="%.2g", fontsize=7)
    left.set_ylim(0, 7.5)
    source = "committed benchmark" if numbers["benchmark"] else "measured in this run"
    label(left, x="activation", y="operations per element", title="counted in the reference code")
    label(right, x="activation", y="nanoseconds per element", title=f"{source}, {costs(numbers)['rows']} rows")
    for panel in (left, right):
        panel.set_xticks(places, ACTIVATIONS)
        panel.legend(fontsize=8, loc="upper left")
    return figure
