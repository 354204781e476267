"""The targets of the CPU step: which numbers count, when one is reached, and what is said of what is missed."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.report.results import BESIDE, Case
from benchmarks.report.sections import NOTHING_YET, section
from benchmarks.report.targets import Check
from tests.benchmarks.test_report import tables
from tests.helpers.benchmark_results import A, results, row

E = Case("network", "step", "e", 8192, (64, *[64] * 9, 10))
FLIGHTS = Case("network", "epoch", BESIDE, 512, (24, 128, 128, 2), examples=5120)
OURS = "gpunet-compiled"
MKL = "gpunet-compiled-mkl"


def operations(case: Case) -> float:
    """Return those of a step's products: three in each layer, but no gradient of the data."""
    pairs = list(zip(case.sizes, case.sizes[1:], strict=False))
    return case.rows * (6.0 * sum(one * other for one, other in pairs) - 2.0 * pairs[0][0] * pairs[0][1])


def found(*rows: Any) -> list[list[dict[str, str]]]:
    return tables(section("targets", [results(rows)]))


def test_without_the_compiled_backend_there_is_nothing_to_say() -> None:
    assert section("targets", [results([row(A, "gpunet-numpy", 2.0), row(A, "sklearn", 3.0)])]) == NOTHING_YET


def test_the_faster_of_tuned_and_compiled_counts() -> None:
    steps, *_, missed = found(row(A, OURS, 2.0), row(A, "torch-tuned", 2.1), row(A, "torch-compile", 2.5))
    by_claim = {line["against"]: line for line in steps}
    assert by_claim["PyTorch (tuned or compiled)"]["a"] == "1.05x (1.1, missed by 4.55 %)"
    assert by_claim["PyTorch (tuned or compiled)"]["b"] == "-"
    assert [line["what"] for line in missed] == ["PyTorch (tuned or compiled)"]


def test_mkl_has_targets_of_its_own() -> None:
    peers = row(A, "torch-tuned", 2.4), row(A, "torch-eager", 9.0)
    one, two = ({line["against"]: line["a"] for line in found(row(A, name, 2.0), *peers)[0]} for name in (OURS, MKL))
    assert one["PyTorch (tuned or compiled)"] == "1.20x (1.1)"
    assert two["PyTorch (tuned or compiled)"] == "1.20x (1.3, missed by 7.69 %)"
    assert one["PyTorch (eager)"] == two["PyTorch (eager)"] == "4.50x"
    assert "(" not in one["the floor"]
    assert "1.6" in two["the floor"]


def test_numpy_has_no_targets_and_stands_there() -> None:
    text = section("targets", [results([row(A, "gpunet-numpy", 4.0), row(A, OURS, 2.0), row(A, "jax", 3.0)])])
    assert {line["against"]: line["a"] for line in tables(text)[0]}["JAX"] == "0.75x"
    assert "misses" in text
    assert "gpunet misses" not in text


def test_scikit_learn_is_compared_without_batch_norm() -> None:
    plain = E.replace(batch_norm=False)
    steps, *_ = found(row(E, OURS, 2.0), row(plain, OURS, 1.0), row(plain, "sklearn", 4.5))
    by_claim = {line["against"]: line for line in steps}
    assert by_claim["scikit-learn, no batch norm"]["e"] == "4.50x (4)"


def test_the_floor_is_the_products_at_the_best_rate_and_the_rest_is_beside_them_at_the_own() -> None:
    peaks = {"gigaflops": 200.0, "gigabytes_per_second": 20.0}
    floor, own = operations(A) / 200e6, operations(A) / 100e6
    steps, bound = found(row(A, OURS, 5.0, peaks=peaks, product_gigaflops=100.0))
    assert {line["against"]: line["a"] for line in steps} == {"the floor": f"{5 / floor:.2f}x"}
    assert bound == [
        {
            "": "a",
            "products": "0.310 GFLOP",
            "best rate": "200 GFLOP/s",
            "floor": f"{floor:.2f} ms",
            "own rate": "100 GFLOP/s",
            "products at it": f"{own:.2f} ms",
            "step": "5.00 ms",
            "all but them": f"{5 - own:.2f} ms",
        }
    ]


def test_what_is_missed_says_what_products_alone_would_reach() -> None:
    own = operations(A) / 100e6
    *_, missed = found(row(A, OURS, 5.0, product_gigaflops=100.0), row(A, "torch-tuned", 4.0))
    (line,) = missed
    assert (line["what"], line["where"], line["reached"]) == ("PyTorch (tuned or compiled)", "a", "0.80x")
    assert line["with products alone"] == f"{4 / own:.2f}x"


def test_sweeps_batch_norm_inference_and_memory_are_counted_and_the_worst_named() -> None:
    sweeps = [Case("network", "step", f"batch {rows}", rows, (784, 256, 10)) for rows in (64, 256)]
    norm = Case("batch_norm_activation", "forward", "8192 x 64", 8192, (64,))
    forward = A.replace(mode="forward")
    lines, _ = found(
        row(sweeps[0], OURS, 1.0),
        row(sweeps[0], "torch-eager", 2.0),
        row(sweeps[1], OURS, 1.0),
        row(sweeps[1], "torch-eager", 0.9),
        row(norm, OURS, 1.0),
        row(norm, "torch-eager", 3.0),
        row(norm, "torch-tuned", 2.5),
        row(forward, OURS, 1.0),
        row(forward, "gpunet-numpy", 0.5),
        row(forward, "jax", 1.25),
        row(E.replace(label="d"), "torch-tuned", 1.0, growth_bytes=100),
        row(E.replace(label="d"), OURS, 0.1, growth_bytes=90, peaks={}),
    )[-2:]
    by_claim = {line["what"]: [line[name] for name in ("cases", "reached", "worst", "where")] for line in lines}
    assert by_claim == {
        "step of a sweep, PyTorch (eager)": ["2", "1", "0.90x", "batch 256, training step"],
        "batch norm activation, forward, PyTorch": [
            "1",
            "1",
            "2.50x",
            "batch norm activation forward, 8192 x 64, relu",
        ],
        "inference, best peer": ["1", "1", "1.25x", "a, inference"],
        "memory of a step, PyTorch's": ["1", "1", "0.90x", "d, training step"],
    }


def test_its_own_choice_of_threads_is_held_against_the_best_number() -> None:
    busy = FLIGHTS.replace(busy=True)
    lines, missed = found(
        *(row(FLIGHTS, name, time) for name, time in ((OURS, 10.0), (f"{OURS}@1", 12.0), (f"{OURS}@2", 9.5))),
        *(row(busy, name, time) for name, time in ((OURS, 25.0), (f"{OURS}@1", 20.0), (f"{OURS}@2", 80.0))),
    )
    assert [(line["cases"], line["reached"], line["worst"]) for line in lines] == [("2", "1", "0.80x")]
    assert missed[0]["where"] == "flights, epoch from host data, beside a busy program"
    assert missed[0]["with products alone"] == "-"


def test_samples_with_each_number_of_threads_stand_alone_and_beside() -> None:
    rows = [
        row(FLIGHTS, OURS, 10.0, label="gpunet (compiled)"),
        row(FLIGHTS, "torch-tuned", 10.0),
        row(FLIGHTS, f"{OURS}@1", 20.0, label="gpunet (compiled), 1 thread", threads=1),
        row(FLIGHTS.replace(busy=True), f"{OURS}@1", 40.0, label="gpunet (compiled), 1 thread", threads=1),
    ]
    text = section("beside", [results(rows)])
    assert "512 x 24-128-128-2, 5120 examples" in text
    assert [tuple(line.values()) for line in tables(text)[0]] == [
        ("gpunet (compiled)", "chosen, at most 2", "512,000", "-"),
        ("gpunet (compiled)", "1", "256,000", "128,000"),
        ("torch-tuned", "2", "512,000", "-"),
    ]
    for name in ("networks", "peers", "memory", "summary"):
        assert BESIDE not in section(name, [results(rows)])


def test_machines_stand_side_by_side_each_with_what_was_measured_there() -> None:
    rows = [row(A, "gpunet-numpy", 9.0), row(A, OURS, 2.0), row(A, "torch-tuned", 2.1)]
    files = [results(rows), results(rows[:1]), results([*rows, row(E, MKL, 1.0), row(E, "torch-compile", 1.4)])]
    (lines,) = tables(section("machines", files))
    assert [tuple(line.values()) for line in lines] == [
        ("Abacus 9000, 2 cores", OURS, "1.05x (1.1, missed by 4.55 %)", "-", "-", "-", "-", "0123456789"),
        ("Abacus 9000, 2 cores", OURS, "1.05x (1.1, missed by 4.55 %)", "-", "-", "-", "-", "0123456789"),
        ("Abacus 9000, 2 cores", MKL, "-", "-", "-", "-", "1.40x (1.5, missed by 6.67 %)", "0123456789"),
    ]
    assert section("machines", files[1:2]) == NOTHING_YET


@pytest.mark.parametrize(
    ("reached", "at_most", "is_met"), [(1.0, False, True), (0.99, False, False), (1.0, True, True), (1.01, True, False)]
)
def test_a_target_is_reached_where_it_is_equalled(reached: float, at_most: bool, is_met: bool) -> None:
    assert Check("", "", reached, 1.0, at_most=at_most).is_met == is_met
