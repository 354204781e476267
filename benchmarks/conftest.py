"""The suite under pytest: which cases and providers take part, and where the rows go.

Every test is one provider in one case. The first test of a case runs the contest of all the providers that were
selected for it, each in its own process, interleaved; each test then hands the rounds of its provider to
pytest-benchmark, so that its tables, its files and its comparisons show times that were measured in those processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import suite
from benchmarks.cases import Case
from benchmarks.contest import Contest, Plan
from benchmarks.machine import usable_cores
from benchmarks.providers import find_provider
from gpunet import __version__
from gpunet.backends.devices.probe import probe_gpu
from gpunet.bench.results import Results, Row, read_results
from gpunet.errors import GpunetError, InvalidValueError


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gpunet", "gpunet's benchmarks")
    group.addoption("--device", choices=("cpu", "cuda"), default="cpu", help="which cases and providers (default: cpu)")
    group.addoption("--providers", metavar="LIST", help="only these, such as gpunet-numpy,torch-eager")
    group.addoption("--configurations", metavar="LIST", help="of the networks only these, such as a,e")
    group.addoption("--rounds", type=int, metavar="N", help="turns of each provider in a case (default: 5, on cuda 9)")
    group.addoption("--threads", type=int, metavar="N", help="of each provider (default: the cores there are)")
    group.addoption("--results", metavar="DIR", help="add the rows to this machine's and version's file in DIR")
    group.addoption("--resume", action="store_true", help="leave out what that file has of this commit")
    group.addoption("--minutes", type=float, metavar="M", help="begin no case after M minutes; --resume goes on")
    group.addoption("--smoke", action="store_true", help="every case once, small: shows that it runs")


def pytest_configure(config: pytest.Config) -> None:
    """Check the options, before anything is collected."""
    try:
        for name in _names(config, "--providers"):
            find_provider(name)
        for name in _names(config, "--configurations"):
            suite.check_configuration(name)
    except InvalidValueError as error:
        raise pytest.UsageError(str(error)) from None
    if config.getoption("--device") == "cuda" and not config.getoption("--smoke") and (reason := probe_gpu().problem):
        raise pytest.UsageError(f"--device cuda: {reason}.")
    rounds = config.getoption("--rounds")
    if rounds is not None and rounds < 1:
        raise pytest.UsageError(f"--rounds: got {rounds}. Expected at least 1.")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of every case and provider; a module's function ``cases`` returns its cases."""
    config = metafunc.config
    device = config.getoption("--device")
    providers = _names(config, "--providers") or suite.providers(device)
    configurations = _names(config, "--configurations")
    cases: list[Case] = metafunc.module.cases(device)
    if configurations:
        cases = [case for case in cases if case.label in configurations or case.label not in suite.CONFIGURATIONS]
    if config.getoption("--smoke"):
        cases = suite.smoke(cases)
    parameters = [
        pytest.param(case, name, id=f"{_identifier(case)}-{name}")
        for case in cases
        for name in providers
        if suite.takes_part(name, case)
    ]
    metafunc.parametrize(("case", "provider"), parameters)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which providers of each case were selected, once ``-k`` has had its say."""
    selected: dict[str, list[str]] = {}
    for item in session.items:
        if isinstance(item, pytest.Function) and "provider" in getattr(item, "fixturenames", ()):
            values = item.callspec.params
            selected.setdefault(values["case"].key, []).append(values["provider"])
    session.config.stash[_SELECTED] = selected


_SELECTED = pytest.StashKey[dict[str, list[str]]]()


class Replay:
    """A clock that runs while :meth:`__call__`'s caller is told to: the time of rounds that were measured elsewhere."""

    def __init__(self) -> None:
        self.now = 0.0
        self._rounds: list[float] = []

    def load(self, rounds: Sequence[float]) -> None:
        """Take the seconds of the rounds to come."""
        self._rounds = list(rounds)

    def next_round(self) -> None:
        """Let the next round pass."""
        self.now += self._rounds.pop(0)

    def __call__(self) -> float:
        return self.now


REPLAY = Replay()


class Referee:
    """Runs each case's contest once, keeps its rows, and writes them to the result file."""

    def __init__(self, config: pytest.Config) -> None:
        threads = config.getoption("--threads") or usable_cores()
        smoke, device = config.getoption("--smoke"), config.getoption("--device")
        self.selected = config.stash[_SELECTED]
        self.contest = Contest(
            Plan(
                device=device,
                rounds=1 if smoke else config.getoption("--rounds") or (9 if device == "cuda" else 5),
                threads=threads,
                smoke=smoke,
            )
        )
        self.rows: dict[tuple[str, str], Row] = {}
        self.results, self.path = self._open(config)
        self.resume = config.getoption("--resume") and self.results is not None
        minutes = config.getoption("--minutes")
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes

    def row(self, case: Case, provider: str) -> Row:
        """Return the row of a provider in a case; the first one asked for runs the case."""
        if (case.key, provider) not in self.rows:
            self._run(case)
        return self.rows[case.key, provider]

    def _open(self, config: pytest.Config) -> tuple[Results | None, Path]:
        folder = config.getoption("--results")
        if folder is None or config.getoption("--smoke"):
            return None, Path()
        machine = self.contest.machine
        results = Results(machine, __version__)
        path = Path(folder) / results.file_name
        if path.exists():
            results = read_results(path)
            results.machine = machine
        return results, path

    def _run(self, case: Case) -> None:
        providers = self.selected[case.key]
        if self.resume and self.results is not None:
            known = [self.results.find(case.key, name) for name in providers]
            if all(row is not None and row.commit == self.contest.commit for row in known):
                self.rows |= {(case.key, row.provider): row for row in known if row is not None}
                return
        if self.deadline is not None and time.monotonic() > self.deadline:
            pytest.skip("the minutes are over; the same command with --resume goes on here")
        rows = self.contest.run(case, providers)
        self.rows |= {(case.key, row.provider): row for row in rows}
        if self.results is not None:
            self.results.merge(rows)
            self.results.save(self.path)


@pytest.fixture(scope="session")
def referee(request: pytest.FixtureRequest) -> Iterator[Referee]:
    try:
        referee = Referee(request.config)
    except GpunetError as error:
        pytest.exit(f"--results: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
    yield referee
    referee.contest.close()


@pytest.fixture
def measure(request: pytest.FixtureRequest, referee: Referee, benchmark: Any) -> Callable[[Case, str], None]:
    """Return a function that runs a case's contest and reports one provider of it."""

    def run(case: Case, provider: str) -> None:
        row = referee.row(case, provider)
        what = f"{provider}: {row.reason}"
        if row.status in ("missing", "refused"):
            pytest.skip(what)
        if row.status != "ok":
            if provider.startswith("gpunet") or request.config.getoption("--smoke"):
                pytest.fail(what, pytrace=False)
            pytest.xfail(what)  # a peer's failure stands in its row, and is not gpunet's
        benchmark.group = case.key
        benchmark.extra_info.update(
            provider=provider,
            samples_per_second=row.samples_per_second,
            floor_percent=row.floor_percent,
            ratio=None if row.ratio is None else row.ratio.median,
        )
        REPLAY.load([milliseconds / 1e3 for milliseconds in row.rounds])
        benchmark.pedantic(REPLAY.next_round, rounds=len(row.rounds))

    return run


def _names(config: pytest.Config, option: str) -> list[str]:
    return [name for name in (config.getoption(option) or "").split(",") if name]


def _identifier(case: Case) -> str:
    """Return a case's name in a test's: without ``-`` and spaces, so that ``-k`` finds its parts."""
    parts = [case.mode, case.label.replace(" ", "_").replace(",", "")]
    if case.operation == "bias_activation":
        parts.append(case.activation.partition("(")[0])
    if case.operation == "network" and not case.batch_norm:
        parts.append("plain")
    if case.precision != "float32":
        parts.append(case.precision)
    return "-".join(parts)
