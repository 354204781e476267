"""``gpunet verify`` under mpiexec: exchanges, batch norm and steps of all ranks; and what it says of wrong ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpunet.backends.cuda import CudaBackend
from gpunet.distributed import Ranks
from gpunet.distributed.ordered_sum import OrderedSum
from gpunet.verification.operation import Difference
from gpunet.verification.ranks import SHARDS_EACH, all_checks
from gpunet.verification.run import Verification
from gpunet.verification.subject import Cpu, Cuda, Subject
from tests.emulation import EmulatedDevice
from tests.helpers.mpiexec import needs_mpi, run_under_mpi
from tests.helpers.threaded_ranks import run_ranks

VERIFY = ("-m", "gpunet", "verify", "--device", "cpu")


@needs_mpi
def test_every_check_of_two_ranks_passes_and_one_of_them_tells(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    status, output, errors = run_under_mpi(2, *VERIFY, "--json", "--out", str(tmp_path / "report.json"))
    assert status == 0, errors
    found = json.loads(output)
    assert found == json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert found["is_right"]
    assert ", 2 ranks by " in found["device"]["model"]
    names = [row["what"] for row in found["rows"]]
    assert names == ["all gather", "all to all", "all reduce", "batch norm of all ranks", "20 steps beside one rank's"]
    assert all(row["error"] == 0 for row in found["rows"] if row["what"] != "batch norm of all ranks")


@needs_mpi
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--speed",), "gpunet: --speed: "),
        (("--only", "gather,of nothing"), "gpunet: --only: no check has all of gather, of nothing in its name."),
    ],
)
def test_what_ranks_refuse(options: tuple[str, ...], told: str) -> None:
    pytest.importorskip("rich")
    status, output, errors = run_under_mpi(2, *VERIFY, *options)
    assert (status, output) == (2, "")
    (line,) = (line for line in errors.splitlines() if line.startswith("gpunet: "))
    assert line.startswith(told)


WAITS_FOR_EVER = """
import os, sys, time
import gpunet.cli.verify, gpunet.verification.ranks
from gpunet.cli.main import main

gpunet.cli.verify.LONGEST_CHECK = 1.0
if os.environ["PMI_RANK"] == "1":
    gpunet.verification.ranks.exchange = lambda *arguments: time.sleep(600)
sys.exit(main(["verify", "--device", "cpu", "--only", "gather,float32"]))
"""


@needs_mpi
def test_a_rank_that_does_not_come_back_ends_all() -> None:
    pytest.importorskip("rich")
    status, output, errors = run_under_mpi(3, "-c", WAITS_FOR_EVER)
    assert status != 0
    assert errors.count("gpunet: all gather, float32, 1 numbers: does not come back since 1 s") == 1
    assert errors.count("gpunet: ") == 1
    assert "0 of 5 checks passed" in output
    assert "all gather, float32, 1 numbers does not come back" in output


def emulated() -> Subject:
    return Cuda(lambda precision: CudaBackend(EmulatedDevice(multiprocessor_count=2), precision))


def verified(size: int, words: list[str], new_subject: Callable[[], Subject] = Cpu) -> list[Verification]:
    def run(ranks: Ranks) -> Verification:
        subject = new_subject()
        verification = Verification(subject, all_checks(ranks, subject, words))
        verification.run(lambda done, what: None)
        return verification

    return run_ranks(size, SHARDS_EACH * size, run)


@pytest.mark.parametrize("words", [["gather", "1025"], ["reduce", "float64"], ["all ranks", "97 rows"], ["quantiles"]])
def test_all_ranks_find_the_same(words: list[str]) -> None:
    found = verified(3, words)
    assert all(one.is_right and one.outcomes for one in found)
    assert len({tuple((outcome.check.name, outcome.error) for outcome in one.outcomes) for one in found}) == 1


@pytest.mark.parametrize("words", [["gather", "1025", "float32"], ["all ranks", "97 rows"], ["mixed, SGD", "float32"]])
def test_ranks_on_gpus(words: list[str]) -> None:
    for size in (1, 2):  # one compiles the kernels, whose time is no hang
        assert all(one.is_right and one.outcomes for one in verified(size, words, emulated))


def test_a_sum_that_is_wrong_on_one_rank_is_found_and_told_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a unit in the last place, in one number: which only a comparison of bits notices."""
    finish = OrderedSum.finish

    def wrong(self: OrderedSum) -> Any:
        total = finish(self)
        if self._wait is not None and self._size > 1:
            total[0] *= 1 + 2**-23
        return total

    monkeypatch.setattr(OrderedSum, "finish", wrong)
    for found in verified(2, ["20 steps", "mixed, SGD", "float32"]):
        assert not found.is_right
        assert found.outcomes[0].text.startswith("rank 0: ")


def test_an_error_in_a_check_is_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> list[Difference]:
        raise RuntimeError("of this kind")

    monkeypatch.setattr("gpunet.verification.ranks.exchange", fails)
    for found in verified(2, ["gather", "1025", "float32"]):
        assert [outcome.text for outcome in found.outcomes] == ["rank 0: RuntimeError: of this kind"]
