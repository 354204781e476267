"""Contests of the benchmark suite: who is timed, who is not, and why; what the numbers in the rows are."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import contest as contests
from benchmarks.cases import Case
from benchmarks.contender import Contender, ContenderFailedError
from benchmarks.contest import Contest, OutOfTimeError, Plan
from benchmarks.floor import Demand, demands, floor_seconds, parameter_count, working_set
from benchmarks.problem import make_problem
from benchmarks.providers import PROVIDERS, find_provider
from benchmarks.suite import layer_sizes
from benchmarks.tolerances import largest_error, tolerance
from gpunet.errors import InvalidValueError
from tests.helpers.checkout import ROOT

GEMM = Case("gemm", "forward", "7 x 5 x 3", 7, (5, 3))


@pytest.fixture
def contest(monkeypatch):
    """Return a contest whose workers find the peers of benchmark_peers.py."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    contest = Contest(Plan(rounds=3, round_seconds=0.005))
    monkeypatch.setattr(contest, "_measure_ceilings", lambda case, samples: None)
    yield contest
    contest.close()


def rows(contest: Contest, *peers: str, case: Case = GEMM):
    names = [name if name in PROVIDERS else f"tests.helpers.benchmark_peers:{name}" for name in peers]
    return contest.run(case, names)


# --- who is timed ---


def test_an_honest_provider_is_timed_beside_gpunet(contest):
    ours, theirs = rows(contest, "gpunet-numpy", "Honest")
    for row in (ours, theirs):
        assert row.status == "ok"
        assert len(row.rounds) == 3
        assert row.milliseconds is not None
        assert row.milliseconds.p10 <= row.milliseconds.median <= row.milliseconds.p90
        assert row.samples_per_second == pytest.approx(7 / row.milliseconds.median * 1e3)
        assert row.gigaflops == pytest.approx(2 * 7 * 5 * 3 / row.milliseconds.median / 1e6)
        assert row.error is not None
        assert row.error <= row.tolerance
        assert row.import_seconds is not None
        assert row.first_seconds is not None
        assert row.peak_bytes is not None
        assert row.versions["numpy"] == np.__version__
    assert theirs.ratio_to == "gpunet-numpy"
    assert theirs.ratio is not None
    ratios = np.array(theirs.rounds) / np.array(ours.rounds)
    assert theirs.ratio.median == pytest.approx(np.median(ratios))
    assert ours.ratio is not None
    assert ours.ratio.median == 1


def test_a_wrong_answer_is_never_timed_and_the_run_goes_on(contest):
    wrong, honest = rows(contest, "Wrong", "Honest")
    assert wrong.status == "wrong"
    assert wrong.reason.startswith("out: relative error")
    assert wrong.milliseconds is None
    assert honest.status == "ok"


@pytest.mark.parametrize(
    ("peer", "reason"), [("Dying", r"ended with status 7: .*out of luck"), ("Raising", "ValueError: no such kernel")]
)
def test_a_peer_that_crashes_has_a_row_that_says_so(contest, peer, reason):
    crashed, honest = rows(contest, peer, "Honest")
    assert crashed.status == "failed"
    assert re.search(reason, crashed.reason)
    assert crashed.milliseconds is None
    assert honest.status == "ok"
    (again,) = rows(contest, "Honest")  # and the next case is run as if nothing had happened
    assert again.status == "ok"


def test_a_peer_that_hangs_is_stopped(contest, monkeypatch):
    monkeypatch.setattr(contests, "_TIME_TIMEOUT", 0.5)
    hanging, honest = rows(contest, "Hanging", "Honest")
    assert hanging.status == "failed"
    assert "did not answer" in hanging.reason
    assert honest.status == "ok"


def test_a_peer_that_dies_within_its_answer_has_crashed(contest):
    half, honest = rows(contest, "HalfAnAnswer", "Honest")
    assert half.status == "failed"
    assert "ended with status 3" in half.reason
    assert honest.status == "ok"


def test_what_fails_after_the_rounds_costs_no_times_and_is_not_asked_again(contest, monkeypatch):
    (row,) = rows(contest, "Uncountable")
    assert row.status == "ok"
    assert row.milliseconds is not None
    assert row.peak_bytes is not None
    assert row.launches is None
    asked = []
    ask = Contender.ask
    monkeypatch.setattr(Contender, "ask", lambda self, timeout, **c: asked.append(c) or ask(self, timeout, **c))
    (row,) = rows(contest, "Uncountable")
    assert row.status == "ok"
    commands = [command["command"] for command in asked]
    assert "peak" in commands
    assert "launches" not in commands


def test_a_case_that_is_not_done_in_time_is_abandoned(contest):
    started = time.monotonic()
    rows(contest, "Honest")  # starts the processes
    with pytest.raises(OutOfTimeError):
        contest.run(GEMM, ["gpunet-numpy", "tests.helpers.benchmark_peers:Slow"], ends_at=time.monotonic() + 2)
    assert time.monotonic() - started < 60
    (row,) = contest.give_up(GEMM, ["gpunet-numpy"], "too long")
    assert (row.status, row.reason, row.key) == ("failed", "too long", GEMM.key)


def test_where_time_is_short_a_provider_has_a_third_of_it_to_prepare(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    contest = Contest(Plan(rounds=1, smoke=True, seconds=6))
    slow, honest = rows(contest, "Slow", "Honest")
    contest.close()
    assert (slow.status, slow.reason) == ("failed", "did not answer within 2 s")
    assert honest.status == "ok"


def test_without_ceilings_there_is_no_floor_and_everything_else(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(
        "benchmarks.ceilings.CEILINGS",
        {"cpu": ("tests.helpers.benchmark_peers:Raising", "tests.helpers.benchmark_peers:Missing")},
    )
    contest = Contest(Plan(rounds=2, round_seconds=0.005))
    (row,) = rows(contest, "Honest")
    contest.close()
    assert row.status == "ok"
    assert row.milliseconds is not None
    assert row.floor_percent is None


def test_repeats_of_a_turn(contest):
    entry = contest._entry(GEMM, "gpunet-numpy")
    contest.plan = Plan(round_seconds=0.1)
    epoch = SMALL.replace(mode="epoch", rows=5, examples=100)
    for on_device, case, once, rounds, expected in [
        (False, GEMM, 0.01, 5, 10),
        (False, GEMM, 0.3, 5, 1),  # once is enough
        (True, GEMM, 1e-4, 9, 1000),  # as long as on a CPU
        (True, GEMM, 1e-3, 9, 200),  # 200 steps
        (True, GEMM, 0.02, 9, 25),  # or half a second
        (True, GEMM, 0.1, 9, 23),  # and 200 in all turns together
        (True, epoch, 0.1, 9, 5),  # of 20 steps each
        (True, epoch, 1.0, 9, 2),
    ]:
        entry.row.on_device, entry.once = on_device, once
        assert contest._repeats(case, entry, rounds) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers end when they next answer")
def test_workers_do_not_outlive_a_run_that_was_killed():
    code = (
        "from benchmarks.contender import Contender\n"
        "contender = Contender('gpunet-numpy', 1)\n"
        "contender.start(60)\n"
        "print(contender._process.pid, flush=True)\n"
        "import time; time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    worker = Path("/proc") / parent.stdout.readline().strip()
    assert worker.exists()
    os.kill(int(worker.name), signal.SIGSTOP)  # busy: it would not see that its input has ended
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while worker.exists() and "\nState:\tZ" not in (worker / "status").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_missing_and_refusing_providers_say_why(contest):
    missing, refused = rows(contest, "Missing", "Honest", case=Case("sgd_step", "forward", "9", 1, (9,)))
    assert (missing.status, missing.reason) == ("missing", "the package nowhere is not installed")
    assert (refused.status, refused.reason) == ("refused", "it only multiplies")


def test_without_a_reference_nobody_is_timed(contest, monkeypatch):
    monkeypatch.setattr(contests, "REFERENCE", "tests.helpers.benchmark_peers:Raising")
    (row,) = rows(contest, "Honest")
    assert row.status == "failed"
    assert "no reference to compare with: ValueError: no such kernel" in row.reason


def test_unknown_providers_are_named_with_the_nearest():
    with pytest.raises(InvalidValueError, match="Did you mean 'torch-eager'"):
        find_provider("torch-eagre")
    with pytest.raises(InvalidValueError, match="cannot be loaded"):
        find_provider("tests.helpers.benchmark_peers:Nobody")


def test_a_contender_that_cannot_start_says_so(monkeypatch):
    contender = Contender("tests.helpers.benchmark_peers:Nobody", 1)
    with pytest.raises(ContenderFailedError, match="cannot be loaded"):
        contender.start(60)


# --- the floor ---

# Two hidden units, three inputs, five rows, ten classes.
SMALL = Case("network", "step", "small", 5, (3, 2, 10), optimizer="adam")


def test_demands_of_a_network_are_those_of_its_operations():
    forward = [
        Demand(2 * 5 * 3 * 2, 4 * (5 * 3 + 3 * 2 + 5 * 2)),
        Demand(0, 4 * 2 * 5 * 2),  # batch norm: s in, y out
        Demand(2 * 5 * 2 * 10, 4 * (5 * 2 + 2 * 10 + 5 * 10)),
        Demand(0, 4 * 2 * 5 * 10),  # the last bias
    ]
    assert demands(SMALL.replace(mode="forward")) == forward
    backward = [
        Demand(0, 4 * 2 * 5 * 10),  # logits in, gradient out
        Demand(2 * 10 * 5 * 2, 4 * (10 * 5 + 5 * 2 + 10 * 2)),  # dW2
        Demand(2 * 5 * 10 * 2, 4 * (5 * 10 + 10 * 2 + 5 * 2)),  # dX
        Demand(0, 4 * 3 * 5 * 2),  # batch norm: dy, s in, ds out
        Demand(2 * 2 * 5 * 3, 4 * (2 * 5 + 5 * 3 + 2 * 3)),  # dW1, and no gradient of the input
    ]
    assert demands(SMALL.replace(mode="forward_backward")) == forward + backward
    parameters = 3 * 2 + 2 + 2 + 2 * 10 + 10
    assert parameter_count(SMALL) == parameters
    assert demands(SMALL) == [*forward, *backward, Demand(0, 4 * 7 * parameters)]
    assert demands(SMALL.replace(optimizer="sgd"))[-1] == Demand(0, 4 * 5 * parameters)


def test_an_epoch_is_its_steps_and_its_batches():
    epoch = SMALL.replace(mode="epoch", examples=12)
    step, short = demands(SMALL), demands(SMALL.replace(rows=2))
    gather, gather_short = Demand(0, 4 * 2 * 5 * 3), Demand(0, 4 * 2 * 2 * 3)
    assert demands(epoch) == [gather, *step, gather, *step, gather_short, *short]


def test_the_floor_is_the_larger_of_arithmetic_and_bytes_in_each_operation():
    case = SMALL.replace(mode="forward")
    expected = sum(max(d.operations / 1e3, d.bytes / 1e2) for d in demands(case))
    assert floor_seconds(case, 1e3, 1e2) == pytest.approx(expected)
    assert floor_seconds(case, math.inf, 1e2) < expected or all(
        d.bytes / 1e2 >= d.operations / 1e3 for d in demands(case)
    )


def test_flops_of_the_lectures_network():
    """Configuration d: 856 GFLOP in a step, as counted by hand from 2 n a b three times, less the first dX."""
    case = Case("network", "step", "d", 65536, layer_sizes(512, 10, 500))
    inner = 512 * 500 + 8 * 500 * 500 + 500 * 10
    expected = 2 * 65536 * (3 * inner - 512 * 500)
    assert sum(demand.operations for demand in demands(case)) == expected
    assert expected == pytest.approx(856e9, rel=0.01)


def test_working_sets():
    assert working_set(Case("bias_activation", "forward", "x", 8, (4,))) == 4 * 2 * 8 * 4
    step = working_set(SMALL)
    assert step == 4 * (4 * parameter_count(SMALL) + 5 * (3 + 2 * 12))
    assert working_set(SMALL.replace(dtype="float64")) == 2 * step


# --- what is compared ---


def test_problems_are_the_same_in_every_process_and_dtype():
    single, double = make_problem(SMALL), make_problem(SMALL.replace(dtype="float64"))
    for (one, labels), (other, same_labels) in zip(single.batches, double.batches, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(labels, same_labels)
    for name, value in single.parameters.items():
        np.testing.assert_array_equal(value, double.parameters[name])
        assert value.dtype == np.float32
        assert double.parameters[name].dtype == np.float64
    assert not np.array_equal(single.batches[0][0], single.batches[1][0])


def test_tolerances_follow_the_precision():
    forward = SMALL.replace(mode="forward")
    assert tolerance(forward) == 64 * 2.0**-24
    assert tolerance(forward.replace(precision="tf32")) == 8 * 2.0**-11
    assert tolerance(forward.replace(dtype="float64")) == 64 * 2.0**-53
    assert tolerance(SMALL.replace(mode="forward_backward")) == pytest.approx(1.1**2 * math.sqrt(tolerance(forward)))
    assert tolerance(SMALL) == 0.05
    deep = SMALL.replace(sizes=(3, *[2] * 40, 10), precision="tf32")
    assert tolerance(deep) == 0.5  # whatever rounding explains: half of a step is wrong


def test_a_kink_in_batch_norm_and_none_in_a_bias():
    backward = Case("batch_norm_activation", "backward", "x", 8, (4,))
    assert tolerance(backward) == math.sqrt(32 * 2.0**-24)
    assert tolerance(backward.replace(mode="forward")) == 32 * 2.0**-24
    assert tolerance(backward.replace(operation="bias_activation")) == 32 * 2.0**-24


def test_errors_are_those_of_the_changes_and_find_what_is_missing():
    before = {"W1": np.full(4, 1000.0)}
    reference = {"W1": np.full(4, 1001.0)}
    assert largest_error({"W1": np.full(4, 1002.0)}, reference, before) == (1.0, "W1")
    assert largest_error(before, reference, before) == (1.0, "W1")
    assert largest_error({}, reference, before) == (math.inf, "W1")
    assert largest_error({"W1": np.full(4, math.nan)}, reference, before) == (math.inf, "W1")
    assert largest_error({"W1": np.zeros(3)}, reference, before) == (math.inf, "W1")
    assert largest_error(reference, reference, before)[0] == 0
    doubled = {"W1": 2 * reference["W1"]}
    assert largest_error(doubled, reference, {}) == (1.0, "W1")


def test_a_small_parameter_that_was_left_out_does_not_hide_behind_a_large_one():
    """gamma and beta of a wide network have a thousandth of the elements of W."""
    before = {"W1": np.zeros((2048, 2048)), "gamma1": np.zeros(2048)}
    reference = {name: array + 1e-4 for name, array in before.items()}
    frozen = reference | {"gamma1": before["gamma1"]}
    assert largest_error(frozen, reference, before) == (pytest.approx(1.0), "gamma1")
    gradients = {"W1": np.full((2048, 2048), 1e-4), "gamma1": np.full(2048, 1e-4)}
    assert largest_error(gradients | {"gamma1": np.zeros(2048)}, gradients, {}) == (pytest.approx(1.0), "gamma1")


def test_steps_along_gradients_that_are_rounding_alone_have_any_sign():
    before, step = {"W1": np.zeros(100)}, np.full(100, 1e-4)
    reference = {"W1": step}
    some = step * np.where(np.arange(100) < 10, -1, 1)
    many = step * np.where(np.arange(100) < 30, -1, 1)
    assert largest_error({"W1": some}, reference, before)[0] == 0
    assert largest_error({"W1": many}, reference, before)[0] == pytest.approx(2)


@pytest.mark.parametrize(("label", "layers"), [("depth 16", 16), ("depth 32", 32)])
def test_deep_networks_are_compared_after_one_step(label, layers):
    """After three, rounding has grown beyond the step itself."""
    case = Case("network", "step", label, 64, layer_sizes(20, layers, 32))
    assert make_problem(case).checked_steps == 1
    single, double = (
        find_provider("gpunet-numpy").prepare(c, make_problem(c)).outputs()
        for c in (case, case.replace(dtype="float64"))
    )
    before = {name: value.astype(np.float64) for name, value in make_problem(case).parameters.items()}
    assert largest_error(single, double, before)[0] < tolerance(case)


def test_a_parameter_that_hardly_changes_is_judged_beside_the_others():
    reference = {"W1": np.array([1.0]), "b1": np.array([1e-9])}
    assert largest_error({"W1": np.array([1.0]), "b1": np.array([2e-9])}, reference, {})[0] < 1e-8
    assert largest_error({"W1": np.array([1.0]), "b1": np.array([1.0])}, reference, {})[0] > 0.5


@pytest.mark.parametrize("name", list(PROVIDERS))
def test_every_provider_of_the_suite_can_be_loaded_without_its_library(name):
    provider = find_provider(name)
    assert provider.name == name
    assert provider.label
    assert provider.on_device == ("cuda" in name)


def test_units_of_more_than_a_second_are_timed_three_times_the_calibration_included(contest, monkeypatch):
    monkeypatch.setattr(contests, "_VERY_LONG_SECONDS", 0.0)
    asked = []
    ask_time = contest._ask_time
    monkeypatch.setattr(contest, "_ask_time", lambda entry, repeats: asked.append(entry) or ask_time(entry, repeats))
    monkeypatch.setattr(contests, "_LONG_SECONDS", 0.0)
    monkeypatch.setattr(contests, "_ROUNDS_OF_THE_VERY_LONG", 2)
    ours, theirs = rows(contest, "gpunet-numpy", "Honest")
    assert len(ours.rounds) == len(theirs.rounds) == 2
    assert len(asked) == 4
    assert theirs.ratio is not None
