"""The suite under pytest: which cases and providers take part, and where the rows go.

Every test is one provider in one case. The first test of a case runs the contest of all the providers that were
selected for it, each in its own process, interleaved; each test then hands the rounds of its provider to
pytest-benchmark, so that its tables, its files and its comparisons show times that were measured in those processes.
"""

from __future__ import annotations

import fcntl
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import suite
from benchmarks.cases import Case
from benchmarks.contest import Contest, OutOfTimeError, Plan
from benchmarks.providers import find_provider
from gpunet import __version__
from gpunet.backends.devices.probe import probe_gpu
from gpunet.bench.results import Results, Row, read_results
from gpunet.environment import usable_cores
from gpunet.errors import GpunetError, InvalidValueError

# Of the minutes, after which no case is begun: one that is not done at their end is left to the next part.
_BEGIN_SHARE = 0.85
_FAILED = pytest.ExitCode.TESTS_FAILED


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gpunet", "gpunet's benchmarks")
    group.addoption("--device", choices=("cpu", "cuda"), default="cpu", help="which cases and providers (default: cpu)")
    group.addoption("--providers", metavar="LIST", help="only these, such as gpunet-numpy,torch-eager")
    group.addoption("--configurations", metavar="LIST", help="of the networks only these, such as a,e")
    group.addoption("--rounds", type=int, metavar="N", help="turns of each provider in a case (default: 5, on cuda 9)")
    group.addoption("--threads", type=int, metavar="N", help="of each provider (default: the cores there are)")
    group.addoption("--results", metavar="DIR", help="add the rows to this machine's and version's file in DIR")
    group.addoption("--resume", action="store_true", help="leave out what that file has of this commit")
    group.addoption("--minutes", type=float, metavar="M", help="end after M minutes; --resume goes on there")
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
    _check_numbers(config)
    if config.getoption("--device") == "cuda" and not config.getoption("--smoke") and (reason := probe_gpu().problem):
        raise pytest.UsageError(f"--device cuda: {reason}.")


def _check_numbers(config: pytest.Config) -> None:
    for option in ("--rounds", "--threads"):
        number = config.getoption(option)
        if number is not None and number < 1:
            raise pytest.UsageError(f"{option}: got {number}. Expected at least 1.")
    threads = config.getoption("--threads") or 1
    if threads > usable_cores():  # libraries that count cores would take fewer than the others
        raise pytest.UsageError(f"--threads: got {threads}. Expected at most {usable_cores()}, the cores there are.")
    minutes = config.getoption("--minutes")
    if minutes is not None and not 0 < minutes < math.inf:
        raise pytest.UsageError(f"--minutes: got {minutes}. Expected a number above 0.")
    if config.getoption("--resume") and config.getoption("--results") is None:
        raise pytest.UsageError("--resume: goes on with a result file. Expected --results too.")


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
        smoke, device = config.getoption("--smoke"), config.getoption("--device")
        minutes = config.getoption("--minutes")
        seconds = math.inf if minutes is None else 60 * minutes
        started = time.monotonic()
        self.begins_until, self.ends_at = started + _BEGIN_SHARE * seconds, started + seconds
        self.selected = config.stash[_SELECTED]
        self.contest = Contest(
            Plan(
                device=device,
                rounds=1 if smoke else config.getoption("--rounds") or (9 if device == "cuda" else 5),
                threads=config.getoption("--threads") or usable_cores(),
                smoke=smoke,
                seconds=seconds,
            )
        )
        self.rows: dict[tuple[str, str], Row] = {}
        folder = None if smoke else config.getoption("--results")
        self.file = None if folder is None else ResultFile(Path(folder), self.contest.machine)
        self.resume = config.getoption("--resume")
        self.ran_cases = False

    def row(self, case: Case, provider: str) -> Row:
        """Return the row of a provider in a case; the first one asked for runs the case."""
        if (case.key, provider) not in self.rows:
            self._keep(case, self._known(case) or self._run(case))
        return self.rows[case.key, provider]

    def close(self) -> None:
        """End the contest, and let others write to the file."""
        self.contest.close()
        if self.file is not None:
            self.file.close()

    def _keep(self, case: Case, rows: list[Row]) -> None:
        self.rows |= {(case.key, row.provider): row for row in rows}

    def _known(self, case: Case) -> list[Row]:
        """Return a case's rows if the file has all of this commit, and nothing otherwise."""
        if not self.resume or self.file is None:
            return []
        rows = [self.file.results.find(case.key, name) for name in self.selected[case.key]]
        known = [row for row in rows if row is not None and row.commit == self.contest.commit]
        return known if len(known) == len(rows) else []

    def _run(self, case: Case) -> list[Row]:
        over = "the minutes are over; the same command with --resume goes on here"
        if time.monotonic() > self.begins_until:
            pytest.skip(over)
        is_first, self.ran_cases = not self.ran_cases, True
        try:
            rows = self.contest.run(case, self.selected[case.key], self.ends_at)
        except OutOfTimeError:
            self.begins_until = -math.inf
            if not is_first:
                pytest.skip(over)
            # It had all the time there was, and would have no more in the next part.
            rows = self.contest.give_up(case, self.selected[case.key], "the case took longer than --minutes allows")
        if self.file is not None:
            try:
                self.file.add(rows)
            except OSError as error:
                pytest.exit(f"--results: {error}; what was saved before is whole", returncode=_FAILED)
        return rows


class ResultFile:
    """This machine's and version's result file in a folder, which no other run writes to meanwhile.

    Raises
    ------
    GpunetError, OSError
        The file is damaged, or another run's; the folder cannot be written to.
    """

    def __init__(self, folder: Path, machine: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # now, and not after the first minutes of measuring
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise InvalidValueError(
                f"{folder}: another run writes there. Two at once would measure each other; wait for it."
            ) from None
        self.results = Results(machine, __version__)
        self.path = folder / self.results.file_name
        if self.path.exists():
            self.results = read_results(self.path)
            self.results.machine = machine

    def add(self, rows: Sequence[Row]) -> None:
        """Add a case's rows and save."""
        self.results.merge(rows)
        self.results.save(self.path)

    def close(self) -> None:
        """Let others write."""
        os.close(self._lock)


@pytest.fixture(scope="session")
def referee(request: pytest.FixtureRequest) -> Iterator[Referee]:
    try:
        referee = Referee(request.config)
    except (GpunetError, OSError) as error:
        pytest.exit(f"--results: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
    yield referee
    referee.close()


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
