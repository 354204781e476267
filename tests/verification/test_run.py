"""The runner: what an error, a limit of time, an interrupt and a dead device leave behind; and what it advises."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

import gpunet
from gpunet.activations import ReLU
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.switches import CLUSTERS, CUDA_GRAPH, Switch
from gpunet.verification import run
from gpunet.verification.check import NotDoneError, Unit
from gpunet.verification.operation import Difference
from gpunet.verification.report import report
from gpunet.verification.run import Verification, all_checks, merged
from gpunet.verification.subject import Cpu, Cuda
from tests.helpers.verification import SmallDevice, check

WRONG = Difference("x", 3.0, "x is wrong")


def right() -> list[Difference]:
    return [Difference("x", 0.25)]


def wrong() -> list[Difference]:
    return [Difference("x", 0.5), Difference("y", 2.0, "y is wrong"), WRONG, Difference("z", 1.5, "z is wrong")]


def broken() -> list[Difference]:
    raise gpunet.DeviceError("the launch\n  failed")


class Subject(Cpu):
    """Counts what is compiled; dies where it should."""

    switches = (CUDA_GRAPH, CLUSTERS)

    def __init__(self, is_alive: bool = True) -> None:
        super().__init__()
        self.is_alive = is_alive
        self.compiled: list[Unit] = []
        self.off: list[Switch] = []

    def compile(self, unit: Unit) -> None:
        self.compiled.append(unit)

    @contextmanager
    def turned_off(self, switch: Switch) -> Iterator[None]:
        self.off.append(switch)
        yield
        self.off.remove(switch)

    def prove_alive(self) -> None:
        if not self.is_alive:
            raise gpunet.DeviceError("an illegal address")


def done(*checks: Any, subject: Any = None, seconds: float = math.inf) -> Verification:
    verification = Verification(subject or Subject(), list(checks))
    verification.run(lambda number, what: None, seconds)
    return verification


def test_the_worst_of_a_check_is_what_it_found() -> None:
    verification = done(check("a", right), check("b", wrong), check("a", right))
    assert [outcome.error for outcome in verification.outcomes] == [0.25, 3.0, 0.25]
    assert verification.first_failure is verification.outcomes[1]
    assert not verification.is_right
    found = report(verification)
    assert [(row.what, row.checks, row.wrong, row.error) for row in found.rows] == [("a", 2, 0, 0.25), ("b", 1, 1, 3.0)]
    assert found.failure is not None
    assert (found.failure.check, found.failure.text) == ("b, float32", "x is wrong")
    assert done(check("a", right)).is_right


def test_an_error_is_a_finding_and_the_rest_goes_on() -> None:
    verification = done(check("a", broken), check("b", right))
    assert [outcome.is_right for outcome in verification.outcomes] == [False, True]
    assert verification.outcomes[0].text == "DeviceError: the launch failed"
    assert report(verification).rows[0].error is None
    assert verification.ending == ""


def test_a_device_that_does_not_work_any_more_ends_it() -> None:
    verification = done(check("a", broken), check("b", right), subject=Subject(is_alive=False))
    assert (len(verification.outcomes), verification.ending) == (1, "the device does not work any more")
    assert report(verification).lines[-2:] == [
        f"0 of 2 checks passed in 0 s on {verification.subject.description['model']}",
        "not done: 1, the device does not work any more",
    ]
    assert verification.advice(verification.outcomes[0]) == (
        'device="cpu" (--device cpu in the shell) avoids it; whether GPUNET_CUDA_GRAPH=0 or GPUNET_CLUSTERS=0 does, '
        "`gpunet verify` says where that is set"
    )


def test_after_the_limit_no_check_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(run.time, "perf_counter", lambda: float(next(clock)))
    verification = done(*(check("a", right) for _ in range(5)), seconds=2.5)
    assert (len(verification.outcomes), verification.ending) == (2, "the limit of 2.5 s was reached")
    assert not verification.is_right


def test_an_interrupt_keeps_what_is_done() -> None:
    def interrupted() -> list[Difference]:
        raise KeyboardInterrupt

    verification = Verification(Subject(), [check("a", right), check("b", interrupted), check("c", right)])
    with pytest.raises(KeyboardInterrupt):
        verification.run(lambda number, what: None)
    assert [outcome.check.what for outcome in verification.outcomes] == ["a"]
    assert verification.ending == "interrupted"
    assert verification.seconds > 0


def test_what_a_device_is_not_asked_for_is_a_note() -> None:
    def refused() -> list[Difference]:
        raise NotDoneError("clusters are refused")

    verification = done(check("a", refused), check("a", right), check("b", refused))
    assert verification.is_right
    found = report(verification)
    assert found.notes == ("clusters are refused",)
    assert [(row.what, row.checks) for row in found.rows] == [("a", 1)]
    assert found.lines[0] == "Clusters are refused"


def test_the_switch_that_avoids_a_failure_is_found_by_trying() -> None:
    subject = Subject()
    verification = done(check("a", lambda: right() if CLUSTERS in subject.off else wrong()), subject=subject)
    assert verification.advice(verification.outcomes[0]) == "GPUNET_CLUSTERS=0 avoids it: the same check passes with it"
    verification = done(check("a", wrong))
    assert verification.advice(verification.outcomes[0]) == 'device="cpu" (--device cpu in the shell) avoids it'
    verification = done(check("a", wrong, switch="GPUNET_X"))
    assert verification.advice(verification.outcomes[0]).startswith("GPUNET_X=0 avoids it")


def test_a_replay_that_is_wrong_is_avoided_without_recordings() -> None:
    class Twice(SmallDevice):
        def capture(self, step: Any) -> Any:
            replay = super().capture(step)

            def launch() -> None:
                replay.launch()
                replay.launch()

            return SimpleNamespace(launch=launch)

    subject = Cuda(lambda precision: CudaBackend(Twice(), precision))
    for words in (["recorded", "float64"], ["20 training", "AdamW"]):
        (check,) = all_checks(subject, words)
        verification = Verification(subject, [check])
        verification.run(lambda number, what: None)
        assert not verification.is_right
        assert verification.advice(verification.outcomes[0]).startswith("GPUNET_CUDA_GRAPH=0 avoids it")


def test_recordings_are_not_blamed_for_what_fails_without_them() -> None:
    class WithoutSteps(CudaBackend):
        def sgd_step(self, *args: Any, **kwargs: Any) -> None:
            raise gpunet.DeviceError("no step")

    subject = Cuda(lambda precision: WithoutSteps(SmallDevice(), precision))
    verification = Verification(subject, [one for one in all_checks(subject, ["recorded"]) if "SGD" in one.name][:1])
    verification.run(lambda number, what: None)
    assert verification.advice(verification.outcomes[0]) == 'device="cpu" (--device cpu in the shell) avoids it'


def test_kernels_are_compiled_before_and_together() -> None:
    subject, relu, other = Subject(), ReLU(), Unit("dropout", ("a<float>", "b<float>"))
    names = [f"k<float, {number}>" for number in range(9)]
    units = [Unit("batch_norm", (name,), relu) for name in names]
    seen: list[tuple[int, str]] = []
    verification = Verification(
        subject, [check("a", right, units=tuple(units)), check("b", right, units=(other, units[0]))]
    )
    verification.run(lambda number, what: seen.append((number, what)))
    assert sorted(subject.compiled, key=lambda unit: unit.group) == [
        other,
        Unit("batch_norm", tuple(names[:8]), relu),
        Unit("batch_norm", (names[8],), relu),
    ]
    assert verification.steps == 5
    assert seen[-1] == (4, "b, float32")
    assert [number for number, _ in seen] == sorted(number for number, _ in seen)
    mixed = merged([Unit("m", ("k<float>",)), Unit("m", ("k<double>",)), Unit("n", ("k<float>",))])
    assert [unit.group for unit in mixed] == [("k<float>",), ("k<double>",), ("k<float>",)]


def test_numpy_is_as_specified() -> None:
    verification = done(*all_checks(Cpu()), subject=Cpu())
    assert [outcome.check.name for outcome in verification.outcomes if not outcome.is_right] == []
    assert len(verification.outcomes) > 500


def test_what_networks_do_without_is_a_note_and_not_checked() -> None:
    device = SmallDevice()
    subject = Cuda(lambda precision: CudaBackend(device, precision, records=False, has_clusters=False))
    assert [note.split(":")[0] for note in subject.notes] == [
        "networks do without recorded steps",
        "networks do without clusters",
    ]
    assert not [check for check in all_checks(subject) if "recorded" in check.name or "cluster of" in check.name]
    assert Cuda(lambda precision: CudaBackend(device, precision)).notes == ()
