"""Peers that go wrong in every way, for tests of the benchmarks: ``tests.helpers.benchmark_peers:NAME``."""

from __future__ import annotations

import os
import sys
import time
from typing import ClassVar

import numpy as np

from benchmarks.peers.peer import Outputs, Peer, Work, as_host
from benchmarks.problem import Problem
from benchmarks.report.results import Case


class ProductWork(Work):
    def __init__(self, problem: Problem) -> None:
        super().__init__(self.multiply)
        self.a, self.b = (problem.arrays[name] for name in "ab")

    def multiply(self) -> None:
        self.out = self.a @ self.b.T

    def outputs(self) -> Outputs:
        self.run(1)
        return {"out": as_host(self.out)}


class Honest(Peer):
    """Multiplies matrices, and says something on standard output, as libraries do."""

    name, label = "honest", "Honest"
    work: ClassVar[type[ProductWork]] = ProductWork

    def missing(self) -> str | None:
        return None

    def versions(self) -> dict[str, str]:
        print("hello from a library")
        return {"numpy": np.__version__}

    def refuses(self, case: Case) -> str | None:
        return None if case.operation == "gemm" else "it only multiplies"

    def prepare(self, case: Case, problem: Problem) -> Work:
        return self.work(problem)


class _WrongWork(ProductWork):
    def multiply(self) -> None:
        super().multiply()
        self.out[0, 0] += 1

    def time(self, repeats: int) -> tuple[float, float | None]:
        raise AssertionError("a wrong answer is never timed")


class Wrong(Honest):
    work = _WrongWork


class _DyingWork(ProductWork):
    def time(self, repeats: int) -> tuple[float, float | None]:
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(7)


class Dying(Honest):
    work = _DyingWork


class _RaisingWork(ProductWork):
    def multiply(self) -> None:
        raise ValueError("no such kernel")


class Raising(Honest):
    work = _RaisingWork


class _HangingWork(ProductWork):
    def time(self, repeats: int) -> tuple[float, float | None]:
        time.sleep(600)
        raise AssertionError("should have been stopped")


class Hanging(Honest):
    work = _HangingWork


class Missing(Honest):
    def missing(self) -> str | None:
        return "the package nowhere is not installed"


class _HalfAnAnswerWork(ProductWork):
    def time(self, repeats: int) -> tuple[float, float | None]:
        channel = sys.modules["__main__"].channel  # of benchmarks.worker
        os.write(channel.fileno(), (100).to_bytes(4, "big") + b"a hundred bytes were promised")
        os._exit(3)


class HalfAnAnswer(Honest):
    work = _HalfAnAnswerWork


class _UncountableWork(ProductWork):
    def launches(self) -> int | None:
        raise RuntimeError("this cannot be recorded")


class Uncountable(Honest):
    work = _UncountableWork


class _SlowWork(ProductWork):
    def outputs(self) -> Outputs:
        time.sleep(600)
        return {}


class Slow(Honest):
    work = _SlowWork
