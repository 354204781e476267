"""The benchmark of ranks: its processes, its table, and the document that has it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import ranks
from gpunet.verification.configurations import CONFIGURATIONS

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"


def test_the_document_has_what_was_measured(tmp_path: Path) -> None:
    copy = tmp_path / "performance.md"
    shutil.copy(DOCUMENT, copy)
    assert ranks.main([str(copy), "--configurations", ""]) == 0
    assert copy.read_text(encoding="utf-8") == DOCUMENT.read_text(encoding="utf-8")
    text = copy.read_text(encoding="utf-8")
    for label in CONFIGURATIONS:
        for backend in ranks.BACKENDS:
            assert f"\n| {label}, {backend} " in text


def test_the_gain_is_that_of_medians() -> None:
    rounds = {contender: [3.0, 1.0, 2.0] for contender in ranks.CONTENDERS} | {"two ranks, 2 shards": [0.5, 1.0, 9.0]}
    text = ranks.summary({"machine": "a machine", "seconds": {"a, NumPy": rounds}})
    line = next(line for line in text.splitlines() if line.startswith("| a, NumPy"))
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["2,000", "2,000", "1,000", "2,000", "2.00"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let a configuration be small, and results be kept elsewhere."""
    monkeypatch.setattr(ranks, "RESULTS", tmp_path / "ranks.json")
    monkeypatch.setitem(CONFIGURATIONS, "a", (32, 8, 3, 8))
    monkeypatch.setitem(ranks.STEPS, "a", 2)
    return tmp_path / "ranks.json"


@pytest.mark.parametrize("backend", ["NumPy", "compiled"])
@pytest.mark.parametrize("shards", ["no ranks", "2"])
def test_a_process_measures_a_step(small: Path, backend: str, shards: str) -> None:
    if shards != "no ranks":
        pytest.importorskip("mpi4py.MPI", exc_type=ImportError)
    seconds = ranks.train("a", backend, shards)
    assert seconds is not None
    assert 0 < seconds < 60


def test_what_has_been_measured_before_stays(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str, str]] = []

    def run(*case: str) -> float:
        calls.append(case)  # type: ignore[arg-type]
        return 0.25

    monkeypatch.setattr(ranks, "run", run)
    small.write_text(json.dumps({"seconds": {"e, NumPy": {key: [1.0] for key in ranks.CONTENDERS}}}), encoding="utf-8")
    assert ranks.main(["--configurations", "a", "--rounds", "2"]) == 0
    found = json.loads(small.read_text(encoding="utf-8"))
    assert found["seconds"]["e, NumPy"]["one process"] == [1.0]
    assert found["seconds"]["a, compiled"] == {key: [0.25, 0.25] for key in ranks.CONTENDERS}
    assert calls[: len(ranks.CONTENDERS)] == [("a", "NumPy", contender) for contender in ranks.CONTENDERS]


def test_processes_are_started_by_the_launcher_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    class Done:
        stdout = "a line of somebody's\n0.125\n"

    def start(command: list[str], **_: object) -> Done:
        commands.append(command)
        return Done()

    monkeypatch.setattr(ranks.subprocess, "run", start)
    assert ranks.run("e", "NumPy", "one process") == 0.125
    assert ranks.run("e", "compiled", "two ranks, plain sums") == 0.125
    alone, together = commands
    assert alone == [sys.executable, "-m", "benchmarks.ranks", "--one", "e", "NumPy", "no ranks"]
    assert together[1:3] == ["-n", "2"]
    assert together[3:] == [sys.executable, "-m", "benchmarks.ranks", "--one", "e", "compiled", "None"]
