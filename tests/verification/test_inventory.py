"""That nothing is left out of what is verified, and that runs of networks are held against something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpunet.backends import Backend, NumpyBackend
from gpunet.backends.cuda import CudaBackend
from gpunet.verification import networks
from gpunet.verification.check import alignments
from gpunet.verification.operation import Difference, Later, Maker, Operation
from gpunet.verification.run import all_checks
from gpunet.verification.storage import FLOAT16, NETWORK_DTYPES, STORAGES
from gpunet.verification.subject import Cpu, Cuda
from tests.emulation import EmulatedDevice

IN_EVERY_TYPE = (
    "matrix product",
    "linear layer with activation",
    "bias and activation forward",
    "bias and activation backward",
    "batch norm forward, striped",
    "batch norm forward, resident",
    "batch norm forward, resident, cluster of 8",
    "batch norm backward, striped",
    "batch norm backward, resident",
    "batch norm backward, resident, cluster of 8",
    "batch norm inference",
    "batch norm statistics",
    "batch norm of a shard",
    "batch norm sums",
    "batch norm input gradient",
    "weight of a shard",
    "softmax cross entropy",
    "sigmoid cross entropy",
    "squared error",
    "dropout forward",
    "dropout backward",
    "binary samples",
)


def test_every_operation_is_verified_in_every_type() -> None:
    device = EmulatedDevice(multiprocessor_count=2)
    checks = all_checks(Cuda(lambda precision: CudaBackend(device, precision)))
    found = {(check.what, check.kind) for check in checks}
    expected = {(what, storage.name) for what in IN_EVERY_TYPE for storage in STORAGES}
    vectors = ("SGD step", "Adam step", "clipping factor", "batch norm merge", "sum over shards", "mean over shards")
    expected |= {(what, dtype) for what in vectors for dtype in NETWORK_DTYPES}
    expected |= {("rows of a batch", dtype) for dtype in ("float16", "float32", "float64", "int32")}
    together = "linear layer with activation, cublasLt"
    expected |= {(together, kind) for kind in ("float32", "tf32", "float64", "float16", "bfloat16")}
    half = ("rows rounded to half precision", "weights rounded to half precision", "20 training steps beside the CPU")
    expected |= {(what, dtype) for what in half for dtype in ("float16", "bfloat16")} | {("loss scale", "float32")}
    expected |= {("matrix product", "tf32"), ("two networks", "float32"), ("memory that runs out", "float32")}
    assert expected <= found


def test_a_check_makes_its_operation_when_it_runs_and_is_named_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made, later = [], dict[Callable[..., Operation], list[Later]]()
    make_now, plan = Operation.__init__, Maker.later

    def counted(operation: Operation, *arguments: Any, **options: Any) -> None:
        made.append(operation)
        make_now(operation, *arguments, **options)

    def noted(maker: Maker[...], *arguments: Any, **options: Any) -> Later:
        later.setdefault(maker, []).append(plan(maker, *arguments, **options))
        return later[maker][-1]

    monkeypatch.setattr(Operation, "__init__", counted)
    monkeypatch.setattr(Maker, "later", noted)
    device = EmulatedDevice(multiprocessor_count=2)
    checks = all_checks(Cuda(lambda precision: CudaBackend(device, precision)))
    assert sum(map(len, later.values())) > 3000
    assert len(made) < len(checks) / 20, "only those are made whose alignments are asked for"
    for operations in later.values():
        assert operations[0].make().method == operations[0].method


def test_each_array_is_past_alignment_alone_and_all_by_every_width() -> None:
    operation = Operation("", {"a": np.zeros(9), "loss": np.zeros(2)}, {"b": ((3, 3), np.float16)})
    offsets = [offsets for _, offsets in alignments(operation, FLOAT16)]
    assert offsets == [{}, {"a": 1}, {"b": 1}, *({"a": offset, "b": offset} for offset in (1, 2, 4))]


class Faster(NumpyBackend):
    """Takes steps that are too large by a thousandth."""

    def sgd_step(
        self, parameters: Any, gradients: Any, velocity: Any, count: int, scalars: Any, *more: Any, **rest: Any
    ) -> None:
        super().sgd_step(parameters, gradients, velocity, count, scalars * scalars.dtype.type(1.001), *more, **rest)


class OneIsWrong(Cpu):
    """Gives one of its networks the wrong backend."""

    def __init__(self, wrong: int) -> None:
        super().__init__()
        self.backends = wrong

    def for_network(self, precision: str = "float32") -> Backend:
        self.backends -= 1
        return Faster() if self.backends == -1 else NumpyBackend()


@pytest.mark.parametrize(
    ("run", "wrong"),
    [(run, wrong) for run in (networks.in_turn, networks.in_threads) for wrong in range(4)],
)
def test_a_network_that_is_wrong_is_told(run: Callable[[Any], list[Difference]], wrong: int) -> None:
    assert any(found.text for found in run(OneIsWrong(wrong)))
    assert not any(found.text for found in run(OneIsWrong(100)))


def test_networks_that_are_all_wrong_are_told_beside_the_specification() -> None:
    subject = Cpu()
    assert not any(found.text for found in networks.beside(subject, networks.TRAININGS[0]))
    subject.for_network = lambda precision="float32": Faster()  # type: ignore[method-assign]
    assert any(found.text for found in networks.beside(subject, networks.TRAININGS[0]))
