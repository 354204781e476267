"""Cases that peers do beside each other: who is timed, who is not, and why; what the numbers in the rows are."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import case_runner as module
from benchmarks.case_runner import CaseRunner, OutOfTimeError, Plan
from benchmarks.peers import PEERS, find_peer
from benchmarks.process import PeerFailedError, WorkerProcess
from benchmarks.report.results import Case
from gpunet.errors import InvalidValueError
from tests.helpers.checkout import ROOT

GEMM = Case("gemm", "forward", "7 x 5 x 3", 7, (5, 3))


@pytest.fixture
def runner(monkeypatch):
    """Return a runner whose workers find the peers of benchmark_peers.py."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    runner = CaseRunner(Plan(rounds=3, round_seconds=0.005))
    monkeypatch.setattr(runner, "_measure_peaks", lambda *arguments: None)
    yield runner
    runner.close()


def rows(runner: CaseRunner, *peers: str, case: Case = GEMM):
    names = [name if name.partition("@")[0] in PEERS else f"tests.helpers.benchmark_peers:{name}" for name in peers]
    return runner.run(case, names)


# --- who is timed ---


def test_an_honest_peer_is_timed_beside_gpunet(runner):
    ours, theirs = rows(runner, "gpunet-numpy", "Honest")
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


def test_steps_are_measured_in_fresh_processes_for_what_they_add_to_memory(runner):
    """Of a batch of 4,000 rows that is at least the activations; a network without a target has no number."""
    case = Case("network", "step", "b", 4000, (50, 60, 10))
    (row,) = rows(runner, "gpunet-numpy", case=case)
    assert row.status == "ok", row.reason
    assert row.growth_bytes > 4 * 4000 * (50 + 2 * 60)
    (other,) = rows(runner, "gpunet-numpy", case=case.replace(label="e"))
    assert other.growth_bytes is None


def test_beside_a_busy_program_as_many_processes_work_as_there_are_threads_and_end_with_the_case(runner, monkeypatch):
    seen = []
    calibrate = runner._calibrate

    def look(entries):
        ends = time.monotonic() + 30
        while busy_children() < runner.plan.threads and time.monotonic() < ends:
            time.sleep(0.01)  # one that has just been started has no command line for a moment
        seen.append(busy_children())
        calibrate(entries)

    monkeypatch.setattr(runner, "_calibrate", look)
    case = Case("network", "epoch", "flights", 5, (3, 4, 2), examples=10, busy=True)
    (row,) = rows(runner, "gpunet-numpy", case=case)
    assert row.status == "ok", row.reason
    assert row.peaks == {}
    assert seen == [runner.plan.threads]
    assert busy_children() == 0


def busy_children() -> int:
    """Return how many processes of this one's keep a core busy."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # others end meanwhile
            count += f"parent = {os.getpid()}" in path.read_text(errors="replace")
    return count


def test_a_peer_with_a_number_of_threads_of_its_own_is_told_it(runner):
    (row,) = rows(runner, "gpunet-numpy@1")
    assert (row.status, row.threads, row.label) == ("ok", 1, "gpunet (NumPy), 1 thread")
    assert "x1" in row.blas


def test_a_wrong_answer_is_never_timed_and_the_run_goes_on(runner):
    wrong, honest = rows(runner, "Wrong", "Honest")
    assert wrong.status == "wrong"
    assert wrong.reason.startswith("out: relative error")
    assert wrong.milliseconds is None
    assert honest.status == "ok"


@pytest.mark.parametrize(
    ("peer", "reason"), [("Dying", r"ended with status 7: .*out of luck"), ("Raising", "ValueError: no such kernel")]
)
def test_a_peer_that_crashes_has_a_row_that_says_so(runner, peer, reason):
    crashed, honest = rows(runner, peer, "Honest")
    assert crashed.status == "failed"
    assert re.search(reason, crashed.reason)
    assert crashed.milliseconds is None
    assert honest.status == "ok"
    (again,) = rows(runner, "Honest")  # and the next case is run as if nothing had happened
    assert again.status == "ok"


def test_a_peer_that_hangs_is_stopped(runner, monkeypatch):
    monkeypatch.setattr(module, "_TIME_TIMEOUT", 0.5)
    hanging, honest = rows(runner, "Hanging", "Honest")
    assert hanging.status == "failed"
    assert "did not answer" in hanging.reason
    assert honest.status == "ok"


def test_a_peer_that_dies_within_its_answer_has_crashed(runner):
    half, honest = rows(runner, "HalfAnAnswer", "Honest")
    assert half.status == "failed"
    assert "ended with status 3" in half.reason
    assert honest.status == "ok"


def test_what_fails_after_the_rounds_costs_no_times(runner):
    (row,) = rows(runner, "Uncountable")
    assert row.status == "ok"
    assert row.milliseconds is not None
    assert row.launches is None
    (again,) = rows(runner, "Uncountable")  # in another process
    assert again.status == "ok"


def test_a_case_that_is_not_done_in_time_is_abandoned(runner):
    started = time.monotonic()
    rows(runner, "Honest")  # starts the processes
    with pytest.raises(OutOfTimeError):
        runner.run(GEMM, ["gpunet-numpy", "tests.helpers.benchmark_peers:Slow"], ends_at=time.monotonic() + 2)
    assert time.monotonic() - started < 60
    (row,) = runner.give_up(GEMM, ["gpunet-numpy"], "too long")
    assert (row.status, row.reason, row.key) == ("failed", "too long", GEMM.key)


def test_where_time_is_short_a_peer_has_a_third_of_it_to_prepare(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    runner = CaseRunner(Plan(rounds=1, smoke=True, seconds=6))
    slow, honest = rows(runner, "Slow", "Honest")
    runner.close()
    assert (slow.status, slow.reason) == ("failed", "did not answer within 2 s")
    assert honest.status == "ok"


def test_without_peaks_there_is_no_roofline_and_everything_else(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(
        "benchmarks.peaks.CANDIDATES",
        {"cpu": ("tests.helpers.benchmark_peers:Raising", "tests.helpers.benchmark_peers:Missing")},
    )
    runner = CaseRunner(Plan(rounds=2, round_seconds=0.005))
    (row,) = rows(runner, "Honest")
    runner.close()
    assert row.status == "ok"
    assert row.milliseconds is not None
    assert row.roofline_percent is None


def test_repeats_in_a_round(runner):
    entry = module.Entry(WorkerProcess("gpunet-numpy", 1), runner._new_row(GEMM, "gpunet-numpy"))
    runner.plan = Plan(round_seconds=0.1)
    epoch = Case("network", "epoch", "small", 5, (3, 2, 10), examples=100)
    for on_device, case, once, rounds, expected in [
        (False, GEMM, 0.01, 5, 10),
        (False, GEMM, 0.3, 5, 1),  # once is enough
        (False, epoch.replace(busy=True), 0.1, 5, 10),  # ten times as long beside a busy program
        (True, GEMM, 1e-4, 9, 1000),  # as long as on a CPU
        (True, GEMM, 1e-3, 9, 200),  # 200 steps
        (True, GEMM, 0.02, 9, 25),  # or half a second
        (True, GEMM, 0.1, 9, 23),  # and 200 in all rounds together
        (True, epoch, 0.1, 9, 5),  # of 20 steps each
        (True, epoch, 1.0, 9, 2),
    ]:
        entry.row.on_device, entry.once = on_device, once
        assert runner._repeats(case, entry, rounds) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers end when they next answer")
def test_workers_do_not_outlive_a_run_that_was_killed():
    code = (
        "from benchmarks.process import WorkerProcess\n"
        "worker = WorkerProcess('gpunet-numpy', 1)\n"
        "worker.start(60)\n"
        "print(worker._process.pid, flush=True)\n"
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


def test_missing_and_refusing_peers_say_why(runner):
    missing, refused = rows(runner, "Missing", "Honest", case=Case("sgd_step", "forward", "9", 1, (9,)))
    assert (missing.status, missing.reason) == ("missing", "the package nowhere is not installed")
    assert (refused.status, refused.reason) == ("refused", "it only multiplies")


def test_without_a_reference_nobody_is_timed(runner, monkeypatch):
    monkeypatch.setattr(module, "REFERENCE", "tests.helpers.benchmark_peers:Raising")
    (row,) = rows(runner, "Honest")
    assert row.status == "failed"
    assert "no reference to compare with: ValueError: no such kernel" in row.reason


def test_unknown_peers_are_named_with_the_nearest():
    with pytest.raises(InvalidValueError, match="Did you mean 'torch-eager'"):
        find_peer("torch-eagre")
    with pytest.raises(InvalidValueError, match="cannot be loaded"):
        find_peer("tests.helpers.benchmark_peers:Nobody")


def test_a_worker_that_cannot_start_says_so(monkeypatch):
    worker = WorkerProcess("tests.helpers.benchmark_peers:Nobody", 1)
    with pytest.raises(PeerFailedError, match="cannot be loaded"):
        worker.start(60)


def test_units_of_more_than_a_second_are_timed_in_fewer_rounds(runner, monkeypatch):
    monkeypatch.setattr(module, "_VERY_LONG_SECONDS", 0.0)
    monkeypatch.setattr(module, "_ROUNDS_OF_THE_VERY_LONG", 2)
    ours, theirs = rows(runner, "gpunet-numpy", "Honest")
    assert len(ours.rounds) == len(theirs.rounds) == 2
