"""Two result files against each other: verdicts by hand, and on simulated runs of a machine that changes its state."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.report.compare import (
    FASTER,
    GONE,
    NEW,
    REPAIRED,
    SLOWER,
    STILL,
    UNCHANGED,
    UNJUDGED,
    compare,
    comparison_dict,
    comparison_text,
    judge,
    verdict,
)
from gpunet.errors import InvalidValueError
from tests.helpers.benchmark_results import (
    BATCHES,
    CASES,
    CPU_MACHINE,
    GEMM,
    GPU_MACHINE,
    PEAKS,
    A,
    B,
    results,
    row,
    without_time,
)

OURS, PEER = "gpunet-numpy", "torch-eager"


def judged(old, new, peer=OURS):
    return judge(row(A, peer, **old), row(A, peer, **new))["verdict"]


# --- the rule ---


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [(1.10, SLOWER), (1.06, SLOWER), (1.04, UNCHANGED), (1.0, UNCHANGED), (0.96, UNCHANGED), (0.94, FASTER)],
)
def test_five_percent_are_the_least_that_counts(milliseconds, expected):
    """Rounds that scatter by 1 % leave the threshold at its least."""
    change = judge(row(A, OURS, 1.0), row(A, OURS, milliseconds))
    assert change["verdict"] == expected
    assert change["threshold"] == pytest.approx(1.05)
    assert change["ratio"] == pytest.approx(milliseconds)


def test_scatter_raises_the_threshold():
    """p10 and p90 of nine equally spaced rounds from 0.8 to 1.2 are 0.84 and 1.16, so h = 0.16 in both runs."""
    wide = np.linspace(0.8, 1.2, 9)
    change = judge(row(A, OURS, wide), row(A, OURS, 1.4 * wide))
    assert change["threshold"] == pytest.approx(1 + 2 * math.sqrt(2) * 0.16)
    assert change["verdict"] == UNCHANGED
    assert judged({"milliseconds": wide}, {"milliseconds": 1.5 * wide}) == SLOWER


def test_overlapping_rounds_are_no_difference():
    """Medians far enough apart, but the old p90 of 1.2 is above the new p10 of 1.15."""
    change = judge(row(A, OURS, [1.0] * 7 + [1.2] * 2), row(A, OURS, [1.15] * 2 + [1.35] * 7))
    assert change["ratio"] > change["threshold"]
    assert change["verdict"] == UNCHANGED
    assert judge(row(A, OURS, [1.0] * 7 + [1.14] * 2), row(A, OURS, [1.15] * 2 + [1.35] * 7))["verdict"] == SLOWER


def test_few_rounds_are_not_judged():
    assert judged({"milliseconds": [1.0] * 4}, {"milliseconds": [9.0] * 9}) == UNJUDGED
    assert judged({"milliseconds": [1.0] * 9}, {"milliseconds": [9.0] * 4}) == UNJUDGED
    assert judged({"milliseconds": [1.0] * 5}, {"milliseconds": [9.0] * 5}) == SLOWER


@pytest.mark.parametrize(
    ("milliseconds", "state", "expected"),
    [
        (1.25, 1.0, SLOWER),  # the same state
        (1.25, 0.8, UNCHANGED),  # the machine was a fifth slower
        (1.25, 1.25, SLOWER),  # slower although the machine was faster
        (0.8, 1.0, FASTER),
        (0.8, 1.25, UNCHANGED),  # the machine was faster
        (1.0, 0.8, UNCHANGED),  # peers may have disturbed the peaks alone
        (1.0, 1.25, UNCHANGED),
    ],
)
def test_what_the_machines_state_explains_does_not_count(milliseconds, state, expected):
    peaks = {name: rate * state for name, rate in PEAKS.items()}
    change = judge(row(A, OURS, 1.0), row(A, OURS, milliseconds, peaks=peaks))
    assert change["verdict"] == expected
    assert change["scaled_ratio"] == pytest.approx(milliseconds * state)


def test_both_peaks_have_to_agree():
    slow = {**PEAKS, "gigaflops": PEAKS["gigaflops"] / 2}
    change = judge(row(A, OURS, 1.0), row(A, OURS, 1.5, peaks=slow))
    assert change["verdict"] == UNCHANGED  # 1.5 by memory, 0.75 by arithmetic
    assert change["scaled_ratio"] == pytest.approx(0.75)
    assert judge(row(A, OURS, 1.0), row(A, OURS, 1.5, peaks={}))["verdict"] == SLOWER


# --- runs of a machine whose state changes ---


def simulated(seed, *, slower=1.0):
    """Return a run of 200 cases: its cases find the machine up to 30 % apart, and rounds scatter by 3 %."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(200):
        case = GEMM.replace(label=f"case {number}")
        state = generator.uniform(0.85, 1.15)
        # Seven rounds of the peaks, whose median keeps some noise of its own.
        measured = state * np.median(1 + 0.03 * generator.standard_normal(7))
        rounds = slower / state * np.exp(0.03 * generator.standard_normal(7))
        peaks = {name: rate * measured for name, rate in PEAKS.items()}
        rows.append(row(case, OURS, rounds, peaks=peaks))
    return results(rows)


def shares(old, new):
    found = compare(old, new)
    return {name: found.counts(ours=True)[name] / 200 for name in (SLOWER, FASTER, UNCHANGED)}


def test_two_runs_of_the_same_code_hardly_differ():
    """Without the peaks, the machine's state alone would make many cases slower or faster."""
    old, new = simulated(1), simulated(2)
    found = shares(old, new)
    assert found[SLOWER] <= 0.01
    assert found[FASTER] <= 0.01
    assert found[UNCHANGED] >= 0.98
    for file in (old, new):
        for one in file.rows:
            one.peaks = {}
    raw = shares(old, new)
    assert raw[SLOWER] + raw[FASTER] >= 0.3


def test_code_that_takes_half_as_long_again_is_found():
    found = shares(simulated(3), simulated(4, slower=1.5))
    assert found[SLOWER] >= 0.85
    assert found[FASTER] == 0
    assert shares(simulated(3, slower=1.5), simulated(4))[FASTER] >= 0.85


# --- rows without times, and rows of one file ---


@pytest.mark.parametrize(
    ("old", "new", "expected", "worse"),
    [
        ("ok", "wrong", "now wrong", True),
        ("ok", "failed", "now failed", True),
        ("ok", "refused", "now refused", True),
        ("ok", "missing", "now missing", False),
        ("missing", "wrong", "now wrong", True),
        ("wrong", "failed", "now failed", True),
        ("wrong", "wrong", STILL, False),
        ("missing", "missing", STILL, False),
        ("failed", "ok", REPAIRED, False),
        ("missing", "ok", REPAIRED, False),
        (None, "ok", NEW, False),
        (None, "refused", NEW, False),
        (None, "wrong", "now wrong", True),
        ("ok", None, GONE, False),
        ("wrong", None, GONE, False),
    ],
)
def test_what_becomes_of_a_status(old, new, expected, worse):
    def made(status, peer):
        if status is None:
            return None
        return row(A, peer, 1.0) if status == "ok" else without_time(A, peer, status, "reason")

    change = judge(made(old, OURS), made(new, OURS))
    assert (change["verdict"], change["worse"]) == (expected, worse)
    assert not judge(made(old, PEER), made(new, PEER))["worse"]


def test_a_slower_peer_is_no_regression():
    both = [row(A, OURS, 1.0), row(A, PEER, 1.0)], [row(A, OURS, 1.0), row(A, PEER, 2.0)]
    found = compare(results(both[0]), results(both[1]))
    assert not found.is_worse
    assert found.counts(ours=False)[SLOWER] == 1


def test_rows_are_matched_by_case_and_peer():
    old = results([row(A, OURS, 1.0), row(B, OURS, 5.0), row(A, PEER, 1.0)])
    new = results([row(A, PEER, 1.0), row(BATCHES[0], OURS, 1.0), row(A, OURS, 2.0)])
    found = compare(old, new)
    assert [(change["key"], change["peer"], change["verdict"]) for change in found.changes] == [
        (A.key, OURS, SLOWER),
        (B.key, OURS, GONE),
        (BATCHES[0].key, OURS, NEW),
        (A.key, PEER, UNCHANGED),
    ]


def test_the_worst_comes_first():
    cases = CASES[:3]
    old = results([row(case, OURS, 1.0) for case in cases])
    new = results([row(case, OURS, time) for case, time in zip(cases, (1.2, 3.0, 0.2), strict=True)])
    assert [round(change["ratio"], 1) for change in compare(old, new).changes] == [3.0, 1.2, 0.2]


def test_another_precision_is_another_case():
    old, new = results([row(A, OURS, 1.0)]), results([row(A.replace(precision="tf32"), OURS, 1.0)])
    with pytest.raises(InvalidValueError, match="no case of the same peer in common"):
        compare(old, new)
    new.rows.append(row(A, OURS, 1.0))
    assert compare(old, new).warnings == ["machine's precision: float32 and TF32, float32"]


# --- what keeps two runs from being comparable ---


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"threads": 1}, "threads of gpunet: 2 and 1"),
        ({"blas": "mkl 2025 x2"}, "BLAS of gpunet: openblas 0.3.30 x2 and mkl 2025 x2"),
        (
            {"versions": {"gpunet": "2.0", "numpy": "2.5.0"}},
            "versions of gpunet: numpy 2.4.0 and numpy 2.5.0",
        ),
    ],
)
def test_warnings_of_rows(changes, warning):
    old = results([row(A, OURS, 1.0), row(B, OURS, 1.0)])
    new = results([row(A, OURS, 1.0, **changes), row(B, OURS, 1.0, **changes)])
    assert compare(old, new).warnings == [warning]
    assert compare(old, results([row(A, OURS, 1.0), row(B, OURS, 1.0)])).warnings == []


def test_warnings_of_machines():
    new = results(machine={**GPU_MACHINE, "python": "3.12"}, rows=[row(A, OURS, 1.0)])
    warnings = compare(results([row(A, OURS, 1.0)], machine=CPU_MACHINE), new).warnings
    assert [warning.split(":")[0] for warning in warnings] == [
        f"machine's {name}" for name in ("name", "gpu", "driver", "clocks", "python")
    ]
    assert "machine's gpu: nothing and Loom X100" in warnings


def test_a_newer_version_of_gpunet_is_what_one_compares():
    old = results([row(A, OURS, 1.0, commit="a")], version="0.4.0")
    new = results([row(A, OURS, 1.0, commit="b")], version="0.5.0")
    found = compare(old, new)
    assert (found.warnings, found.notes) == ([], [])
    same = compare(old, old)
    assert same.notes == [
        "Both are of the same version and commit of gpunet: what differs is the machine or the noise."
    ]


def test_peers_tell_how_the_machine_was():
    old = results([row(case, PEER, 1.0) for case in BATCHES], version="0.4.0")
    new = results([row(case, PEER, 1.5) for case in BATCHES])
    (note,) = compare(old, new).notes
    assert note == "Peers that did not change take 1.50 times as long as before (median of 4)."
    newer = results([row(case, PEER, 1.5, versions={"torch": "2.0"}) for case in BATCHES])
    assert compare(old, newer).notes == ["A peer changed: versions of PyTorch: numpy 2.4.0, torch 1.0 and torch 2.0."]


# --- what is said ---


def test_the_text_lists_what_changed_and_ends_with_the_verdict():
    old = results([row(A, OURS, 1.0), row(B, OURS, 1.0), row(GEMM, OURS, 1.0), row(A, PEER, 1.0)], version="0.4.0")
    new = results(
        [
            row(A, OURS, 2.0),
            row(B, OURS, 1.0),
            without_time(GEMM, OURS, "wrong", "out: relative error 0.1"),
            row(A, PEER, 1.0),
        ]
    )
    text = comparison_text(compare(old, new))
    lines = text.splitlines()
    assert lines[0] == "# abacus, gpunet 0.4.0 against abacus, gpunet 0.5.0"
    assert lines[-1] == "**gpunet 0.5.0 got worse: 1 now wrong, 1 slower, 1 unchanged.**"
    assert "1 now wrong, 1 slower, 1 unchanged." in lines
    (slower,) = (line for line in lines if "| slower " in line)
    cells = [cell.strip() for cell in slower.split("|")][1:-1]
    assert cells == [
        "a, training step (CPU, float32)",
        OURS,
        "slower",
        "1.00 ms",
        "2.00 ms",
        "2.00x",
        "2.00x",
        "1.05x",
        "",
    ]
    assert "out: relative error 0.1" in text
    assert "b, training step" not in text
    assert "b, training step" in comparison_text(compare(old, new), with_all=True)
    assert text.isascii()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ([1.0], [0.5], "gpunet 0.5.0 got no worse: 1 faster."),
        ([1.0], [1.0], "gpunet 0.5.0 got no worse: 1 unchanged."),
        ([1.0, 1.0], [2.0, 0.5], "gpunet 0.5.0 got worse: 1 slower, 1 faster."),
    ],
)
def test_verdicts(old, new, sentence):
    files = [
        results([row(case, OURS, time) for case, time in zip((A, B), times, strict=False)]) for times in (old, new)
    ]
    assert verdict(compare(*files)) == sentence
    other = results(files[1].rows, machine=GPU_MACHINE)
    assert verdict(compare(files[0], other)) == f"{sentence} But the two runs are not comparable."


def test_the_verdict_on_nothing():
    files = [results([row(A, OURS, [time] * 3)]) for time in (1.0, 2.0)]
    assert verdict(compare(*files)) == "gpunet 0.5.0 could not be judged: 1 too few rounds."


def test_the_json_has_every_row():
    found = comparison_dict(compare(results([row(A, OURS, 1.0)]), results([row(A, OURS, 2.0), row(B, PEER, 1.0)])))
    assert found["worse"] is True
    assert [(change["key"], change["verdict"], change["worse"]) for change in found["changes"]] == [
        (A.key, SLOWER, True),
        (B.key, NEW, False),
    ]
    assert found["changes"][0]["ratio"] == pytest.approx(2.0)
    assert found["changes"][1]["old_milliseconds"] is None
