"""The number of threads: what a machine's times lead to, what limits it, what becomes of other libraries' settings."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl

from gpunet import environment
from gpunet.backends.cpu import pool as pool_module
from gpunet.backends.cpu.blas import OneThread, _openblas
from gpunet.backends.cpu.pool import Pool
from gpunet.backends.cpu.threads import ThreadChoice

MILLISECOND = 1e-3
Machine = Callable[[int, np.random.Generator], float]


def alone(threads: int, rng: np.random.Generator) -> float:
    """Seconds of a step that two threads share well."""
    return {1: 2.0, 2: 1.2}[threads] * MILLISECOND * rng.uniform(0.97, 1.1)


def beside_a_neighbour(threads: int, rng: np.random.Generator) -> float:
    """Two threads wait for the one that has lost its core; one loses it now and then."""
    if threads == 1:
        return 2.0 * MILLISECOND * (1 + 4 * (rng.random() < 0.12))
    return 1.2 * MILLISECOND * (1 + 10 * (rng.random() < 0.6))


def small(threads: int, rng: np.random.Generator) -> float:
    """Hand-over costs more than the second thread brings."""
    return {1: 0.10, 2: 0.13}[threads] * MILLISECOND * rng.uniform(0.97, 1.1)


def large(threads: int, rng: np.random.Generator) -> float:
    return {1: 400, 2: 220}[threads] * MILLISECOND * rng.uniform(0.97, 1.1)


def steps_within(seconds: float, machine: Machine, choose: Callable[[], int], note: Callable[[float], Any]) -> int:
    rng, now, steps = np.random.default_rng(0), 0.0, 0
    while now < seconds:
        spent = machine(choose(), rng)
        note(spent)
        now, steps = now + spent, steps + 1
    return steps


@pytest.mark.parametrize("machine", [alone, beside_a_neighbour, small, large])
@pytest.mark.parametrize("before", [None, alone, beside_a_neighbour])
def test_as_many_steps_as_with_the_better_number(machine: Machine, before: Machine | None) -> None:
    seconds = 100.0 if machine is large else 10.0
    choice = ThreadChoice(2)
    if before is not None:
        steps_within(5.0, before, lambda: choice.threads, choice.note)
    found = steps_within(seconds, machine, lambda: choice.threads, choice.note)
    best = max(steps_within(seconds, machine, choose, lambda spent: None) for choose in (lambda: 1, lambda: 2))
    assert found >= 0.9 * best


def test_a_neighbour_that_begins_is_noticed_at_once() -> None:
    choices = [ThreadChoice(2) for _ in range(10)]
    found = []
    for number, choice in enumerate(choices):
        choose, note = partial(getattr, choice, "threads"), choice.note
        steps_within(5.0 + number / 4, alone, choose, note)
        found.append(steps_within(0.5, beside_a_neighbour, choose, note))
    best = steps_within(0.5, beside_a_neighbour, lambda: 1, lambda spent: None)
    assert np.mean(found) >= 0.85 * best


def test_the_number_that_was_worse_is_not_tried_again_at_once() -> None:
    choice, chosen, seconds = ThreadChoice(2), [], {1: 10 * MILLISECOND, 2: 20 * MILLISECOND}
    for _ in range(200):
        chosen.append(choice.threads)
        choice.note(seconds[choice.threads])
    first = chosen.index(1)
    assert chosen[first : first + 80] == [1] * 80  # a trial of four runs: twenty times as long, before another
    assert 2 in chosen[first:]


@pytest.mark.parametrize("best", [1, 3, 6, 12, 24, 48])
def test_of_many_threads_the_best_number_is_found(best: int) -> None:
    choice, rng = ThreadChoice(48), np.random.default_rng(0)
    chosen = []
    for _ in range(4000):
        threads = choice.threads
        chosen.append(threads)
        choice.note(MILLISECOND * (1 + abs(np.log2(threads / best))) * rng.uniform(0.99, 1.01))
    assert np.mean(np.array(chosen[1000:]) == best) > 0.9


def test_a_pool_of_one_has_no_choice() -> None:
    choice = ThreadChoice(1)
    for _ in range(100):
        choice.note(1.0)
    assert choice.threads == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, [2]),
        ({"proc/self/cgroup": "0::/a/b c\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, [1]),
        (
            {
                "proc/self/cgroup": "5:cpuset:/x\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/\n0::/\n",
                "sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            [3],
        ),
    ],
)
def test_the_quota_of_a_control_group(files: dict[str, str], expected: list[int], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert environment._group_quotas(str(tmp_path)) == expected


@pytest.mark.parametrize(
    ("variable", "cores", "threads"),
    [("", 4, 4), ("3", 4, 3), ("8", 4, 4), ("2,4", 4, 2), ("0", 4, 4), ("many", 4, 4), ("2", 1, 1)],
)
def test_the_pool_has_what_the_process_may_use(
    variable: str, cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    monkeypatch.setattr(pool_module, "usable_cores", lambda: cores)
    monkeypatch.setattr(pool_module, "_shared", [])
    assert pool_module.shared_pool().threads == threads
    assert not pool_module.shared_pool()._workers  # before there is work


def blas_threads() -> set[int]:
    return {one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"}


@pytest.fixture
def guard() -> OneThread:
    return OneThread(_openblas())


def test_overlapping_users_leave_what_was_there_before_the_first(guard: OneThread) -> None:
    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        guard.__enter__()
        assert (1 in blas_threads(), guard.limit) == (True, 3)
        guard.__enter__()
        guard.__exit__()
        assert (1 in blas_threads(), guard.limit) == (True, 3)
        guard.__exit__()
        assert (blas_threads(), guard.limit) == ({3}, 3)


def test_what_a_user_sets_meanwhile_stays(guard: OneThread) -> None:
    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        with guard:
            limits = threadpoolctl.threadpool_limits(2, user_api="blas")
        assert blas_threads() == {2}
        limits.restore_original_limits()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_gets_the_threads_back_that_others_kept_from_its_parent() -> None:
    """Of the thread that computes while another one forks, the child has nothing."""
    from gpunet.backends.cpu.blas import one_thread

    shared = one_thread(_openblas())
    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        with shared:
            pid = os.fork()
            if pid == 0:
                os._exit(0 if blas_threads() == {3} else 1)
        assert os.waitpid(pid, 0)[1] == 0


def test_the_users_limit_is_the_pools() -> None:
    from gpunet.backends.cpu.pool import address
    from tests.backends.cpu.test_pool import count

    pool, counts = Pool(4, _openblas()), np.zeros(50, np.int64)
    steps = np.array([(count.address, address(counts), 50)], np.int64)
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        pool.run(steps)
        assert not pool._workers
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        pool.run(steps)
        assert len(pool._workers) == 3
    assert (counts == 2).all()
    pool.stop()


def test_the_same_work_goes_on_with_the_number_that_was_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run begins where the last one of the same work ended; other work begins with all threads."""
    from gpunet.backends.cpu.program import NumpyCall, Phase, Recording, Replay
    from tests.backends.cpu.test_pool import count

    pool, seconds = Pool(2, None), {1: 0.01, 2: 0.02}
    now = [0.0]

    def replay(stripes: int, times: int) -> None:
        recording = Recording(pool)
        recording.add_phases([Phase(count, [0] * stripes, stripes)])  # which counts in its arguments
        recording.add_call(NumpyCall(lambda: now.__setitem__(0, now[0] + seconds[pool.chosen]), (), {}))
        again = Replay(pool, recording.calls)
        for _ in range(times):
            again()

    monkeypatch.setattr("gpunet.backends.cpu.program.time.perf_counter", lambda: now[0])
    replay(5, 1)
    assert pool.chosen == 2
    replay(5, 100)
    assert pool.chosen == 1
    replay(6, 1)
    assert pool.chosen == 2
    replay(5, 1)
    assert pool.chosen == 1
    pool.stop()


def test_of_much_different_work_the_oldest_is_forgotten() -> None:
    pool = Pool(2, None)
    first = pool.choice(0)
    assert pool.choice(0) is first
    for work in range(1, pool_module._MOST_CHOICES + 1):
        pool.choice(work)
    assert len(pool._choices) == pool_module._MOST_CHOICES
    assert pool.choice(0) is not first


def test_a_caller_who_finds_the_pool_taken_works_alone_and_is_counted() -> None:
    from gpunet.backends.cpu.pool import address
    from tests.backends.cpu.test_pool import count

    pool, counts = Pool(2, None), np.zeros(5, np.int64)
    steps = np.array([(count.address, address(counts), 5)], np.int64)
    with pool._lock:
        thread = threading.Thread(target=pool.run, args=(steps,))
        thread.start()
        thread.join()
    assert (pool.times_refused, counts.tolist()) == (1, [1] * 5)
