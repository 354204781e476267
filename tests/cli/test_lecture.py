"""``gpunet lecture``: the list, one experiment and its files, all of them and the page, and what is refused."""

from __future__ import annotations

import base64
import errno
import html.parser
import json
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import gpunet
from gpunet.cli import folders
from gpunet.errors import InvalidValueError
from gpunet.lecture import building, catalogue, page, report
from gpunet.lecture.building import Outcome
from gpunet.lecture.corrections import CORRECTIONS
from gpunet.lecture.experiment import Experiment, Settings
from tests.cli.test_process import on_terminal
from tests.helpers.cli import COMMAND, environment, refusal, shell

Capture = pytest.CaptureFixture[str]

ACTIVATIONS = catalogue.find_experiment("activations")
# Quick even at full size.
FAST = tuple(catalogue.find_experiment(row) for row in ("L6", "L7"))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def experiment(row: str, name: str, title: str = "A title") -> Experiment:
    return Experiment(row, name, title, "Shows.", "A figure", (), ())


def only(monkeypatch: pytest.MonkeyPatch, *wanted: Experiment) -> None:
    """Let these be all experiments that there are."""
    monkeypatch.setattr(catalogue, "EXPERIMENTS", wanted)


def measured_by(monkeypatch: pytest.MonkeyPatch, measure: Callable[[Settings], dict[str, Any]]) -> Experiment:
    """Return an experiment whose numbers come from a function."""
    steps = types.SimpleNamespace(measure=measure)
    monkeypatch.setitem(sys.modules, "gpunet.lecture.experiments.wrong", steps)
    return experiment("L1", "wrong")


# --- list -------------------------------------------------------------------------------------------------------------


def test_the_list_has_every_row_with_its_command(capsys: Capture) -> None:
    result = shell(capsys, "lecture", "list")
    assert (result.status, result.errors) == (0, "")
    lines = result.output.splitlines()
    for line, known in zip(lines, catalogue.EXPERIMENTS, strict=True):
        assert line.startswith(f"{known.row} ")
        assert f" gpunet lecture {known.name} " in line
        assert line.endswith(known.shows)
    content = shell(capsys, "lecture", "list", "--json").json["experiments"]
    assert [entry["row"] for entry in content] == [known.row for known in catalogue.EXPERIMENTS]
    assert set(content[0]) == {"row", "name", "title", "command", "shows"}


# --- one --------------------------------------------------------------------------------------------------------------


def test_one_experiment_writes_four_files_and_prints_its_paragraph(capsys: Capture) -> None:
    result = shell(capsys, "lecture", "activations", "--out", "new/deep", "--seed", 7, "--quick")
    assert (result.status, result.errors) == (0, "")
    folder = Path("new/deep")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"activations.{ending}" for ending in report.SUFFIXES
    )
    content = json.loads((folder / "activations.json").read_text())
    assert content["row"] == "L3"
    assert (content["seed"], content["device"], content["quick"]) == (7, "cpu", True)
    assert content["gpunet"] == gpunet.__version__
    assert content["paragraph"] == ACTIVATIONS.describe(content["numbers"])
    assert set(content["claims"]["formulas_agree"]) == {"sentence", "holds", "numbers"}
    assert content["paragraph"] in (folder / "activations.md").read_text()
    assert " ".join(content["paragraph"].split()[:8]) in result.output
    assert "new/deep/activations.png" in result.output
    assert (folder / "activations.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "activations.svg").read_text()


def test_a_row_names_its_experiment_and_json_is_one_object(capsys: Capture) -> None:
    content = shell(capsys, "lecture", "l3", "--out", "out", "--quick", "--json").json
    assert (content["row"], content["name"], content["seed"]) == ("L3", "activations", 0)
    assert content["paragraph"]
    assert all(Path(path).is_file() for path in content["files"].values())


@pytest.mark.parametrize("name", ["activations", "single-example", "batch-gradient"])
def test_the_same_seed_gives_the_same_bytes(name: str, capsys: Capture) -> None:
    for folder in ("one", "two"):
        assert shell(capsys, "lecture", name, "--out", folder, "--quick").status == 0
    for ending in report.SUFFIXES:
        first, second = (Path(folder, f"{name}.{ending}").read_bytes() for folder in ("one", "two"))
        assert first == second, ending


def test_no_file_holds_a_date(capsys: Capture) -> None:
    shell(capsys, "lecture", "L3", "--out", "out", "--quick")
    assert "dc:date" not in Path("out/activations.svg").read_text()
    assert b"tIME" not in Path("out/activations.png").read_bytes()
    assert time.strftime("%Y-%m-%d") not in Path("out/activations.json").read_text()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_numbers_that_json_lacks_are_refused(value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = measured_by(monkeypatch, lambda settings: {"value": value})
    with pytest.raises(InvalidValueError, match="wrong: its numbers cannot be written as JSON"):
        report.write_report(wrong, Settings(), "cpu", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_of_an_earlier_run_do_not_stay_beside_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Settings) -> dict[str, Any]:
        raise InvalidValueError("no")

    for ending in report.SUFFIXES:
        (tmp_path / f"wrong.{ending}").write_text("old")
    with pytest.raises(InvalidValueError, match="no"):
        report.write_report(measured_by(monkeypatch, fail), Settings(), "cpu", tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("initialisation",), "NAME: 'initialisation' is not known. Did you mean 'initialization'?"),
        (("linear",), "Did you mean 'linear-scores'?"),
        (("lst",), "Did you mean 'list'?"),
        (("alll",), "Did you mean 'all'?"),
        (("L26",), "'L26' is no row of the lecture. Expected L1 to L25, or a name."),
        (("0",), "'0' is no row"),
        ((), "the following arguments are required: NAME"),
        (("L3", "--jobs", "2"), "--jobs: one experiment is one process. Expected it with 'all', not 'L3'."),
        (("all", "--jobs", "0"), "'0' is not an integer of at least 1"),
        (("L3", "--seed", "-1"), "'-1' is not an integer from 0"),
        (("L3", "--device", "gpu"), "device: 'gpu' is not known"),
        (("all", "--device", "cuda:99"), "cuda:99"),
        (("L3", "--out", "file"), "'file' is a file, expected a folder"),
        (("all", "--out", "file/below"), "file/below: Not a directory"),
        (("L3", "--sed", "1"), "Did you mean --seed?"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(
    arguments: tuple[str, ...], message: str, capsys: Capture
) -> None:
    Path("file").write_text("")
    assert message in refusal(capsys, "lecture", *arguments)
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_to_is_named(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", f"{options['dir']}/tmp0123")

    monkeypatch.setattr(folders.tempfile, "TemporaryFile", refuse)
    for name in ("L3", "all"):
        told = refusal(capsys, "lecture", name, "--out", Path("below").absolute())
        assert f"{Path().absolute()}: files cannot be written there (Permission denied)" in told
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        (
            "matplotlib",
            ("L3",),
            "drawing figures needs the package 'matplotlib', which is not installed: pip install 'gpunet[plot]'",
        ),
        ("sklearn", ("L1",), "the data set 'digits' of L1 needs the package 'scikit-learn'"),
        ("sklearn", ("all",), "pip install 'gpunet[cli]'"),
        ("rich", ("all",), "pip install 'gpunet[cli]'"),
    ],
)
def test_a_missing_package_is_told_before_anything_runs(
    package: str, arguments: tuple[str, ...], message: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    assert message in refusal(capsys, "lecture", *arguments)
    assert list(Path().iterdir()) == []


def test_help_and_list_need_no_optional_package() -> None:
    code = (
        "import sys; from gpunet.cli.main import main; status = main(['lecture', 'list']); "
        "optional = ('matplotlib', 'sklearn', 'mlxtend', 'rich', 'pandas'); "
        "sys.exit(status or any(name in sys.modules for name in optional))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(), timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_the_experiments_are_imported_when_they_are_needed() -> None:
    code = (
        "import sys, gpunet.cli.main; gpunet.cli.main.build_parser(); "
        "sys.exit(any(name.startswith('gpunet.lecture') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment(), timeout=60, check=False).returncode == 0


# --- all --------------------------------------------------------------------------------------------------------------


class Checker(html.parser.HTMLParser):
    """Collects what a page refers to, and finds elements that are not closed in order."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.problems: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if given.get("id"):
            self.ids.append(given["id"] or "")
        if tag == "a":
            self.links.append(given["href"] or "")
        elif "href" in given or "src" in given:
            self.sources.append(given.get("href") or given.get("src") or "")
        if tag == "img" and not given.get("alt"):
            self.problems.append("an image without a description")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def check_page(path: Path) -> Checker:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert (checker.problems, checker.open) == ([], [])
    assert len(checker.ids) == len(set(checker.ids))
    assert all(source.startswith("data:") for source in checker.sources)
    assert all(link.startswith(("#", "data:")) for link in checker.links)
    assert {link[1:] for link in checker.links if link.startswith("#")} <= set(checker.ids)
    # Nothing in the style sheet or in an attribute loads anything either.
    assert not re.search(r"url\(|@import|src=\"http|href=\"http", text)
    return checker


def test_all_writes_every_file_and_one_page(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, *FAST)
    result = shell(capsys, "lecture", "all", "--out", "book", "--jobs", 2, "--quick", "--json")
    assert result.errors == ""
    assert result.status == 0
    content = result.json
    assert (content["failed"], content["jobs"], content["quick"], content["device"]) == (0, 2, True, "cpu")
    assert [entry["row"] for entry in content["experiments"]] == ["L6", "L7"]
    assert all(entry["error"] is None for entry in content["experiments"])
    checker = check_page(Path(content["page"]))
    assert checker.ids == ["single-example", "batch-gradient", "corrections"]
    text = " ".join("".join(checker.text).split())
    for correction in CORRECTIONS:
        assert " ".join(correction.text.split()) in text
    for name in ("single-example", "batch-gradient"):
        written = json.loads(Path(f"book/{name}.json").read_text())
        assert " ".join(written["paragraph"].split()) in text
        # The numbers are in the page, byte by byte.
        embedded = next(
            link for link in checker.links if link == page._data_uri(Path(f"book/{name}.json"), "application/json")
        )
        assert json.loads(base64.b64decode(embedded.partition(",")[2])) == written
    assert "quick" in text


def test_another_process_writes_the_same_bytes(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    known = catalogue.find_experiment("L6")
    only(monkeypatch, known)
    assert shell(capsys, "lecture", "all", "--out", "book").status == 0
    shell(capsys, "lecture", "L6", "--out", "one")
    for ending in report.SUFFIXES:
        assert Path(f"one/single-example.{ending}").read_bytes() == Path(f"book/single-example.{ending}").read_bytes()
    again = page.write_page([Outcome(known, 1.5, "")], Settings(), "cpu", Path("one"))
    assert again.read_bytes() == Path("book/index.html").read_bytes()


def test_an_experiment_that_fails_stops_no_other(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = experiment("L2", "no-such", title="Broken <title> & more")
    known = catalogue.find_experiment("L6")
    only(monkeypatch, broken, known)
    result = shell(capsys, "lecture", "all", "--out", "book", "--quick")
    assert (result.status, result.errors) == (1, "")
    assert "L2 no-such failed: NAME: 'no-such' is not known." in result.output
    assert "1 of 2 experiments" in result.output
    checker = check_page(Path("book/index.html"))
    text = "".join(checker.text)
    assert "1 of 2 experiments failed." in text
    assert "This experiment failed: NAME: 'no-such' is not known." in text
    assert "Broken <title> & more" in text
    assert len(checker.sources) == 1


def test_json_names_the_error(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, experiment("L2", "no-such"))
    failed = shell(capsys, "lecture", "all", "--out", "book", "--json")
    assert failed.status == 1
    assert failed.json["failed"] == 1
    assert "'no-such' is not known" in failed.json["experiments"][0]["error"]


def test_a_figure_of_many_points_goes_in_as_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report.write_report(ACTIVATIONS, Settings(quick=True), "cpu", tmp_path)
    outcome = Outcome(ACTIVATIONS, 0.0, "")
    as_vectors = check_page(page.write_page([outcome], Settings(), "cpu", tmp_path)).sources
    monkeypatch.setattr(page, "LARGEST_SVG", 10)
    as_pixels = check_page(page.write_page([outcome], Settings(), "cpu", tmp_path)).sources
    assert [source.partition(";")[0] for source in as_vectors + as_pixels] == ["data:image/svg+xml", "data:image/png"]


ONLY_L6 = """
import sys
from gpunet.cli.main import main
from gpunet.lecture import catalogue
catalogue.EXPERIMENTS = (catalogue.find_experiment("L6"),)
sys.exit(main(sys.argv[1:]))
"""


def test_a_terminal_gets_a_bar_that_goes_when_all_is_done() -> None:
    status, output, seen = on_terminal([sys.executable, "-c", ONLY_L6, "lecture", "all", "--out", "book"])
    assert status == 0, seen
    assert "\x1b" not in output
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert re.search(r"0/1 .*L6 single-example", plain)
    assert "1/1" in plain
    assert seen.rindex("\x1b[2K") > seen.rindex("1/1")


def test_an_interrupt_ends_the_command_and_its_processes() -> None:
    child = subprocess.Popen(
        [*COMMAND, "lecture", "all", "--out", "book", "--jobs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    deadline = time.monotonic() + 30
    while not Path("book").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=30)
    assert (child.returncode, output, errors) == (130, "", "gpunet: interrupted\n")
    assert not Path("book/index.html").exists()


# --- processes --------------------------------------------------------------------------------------------------------


def build_with(code: str, names: Sequence[str], jobs: int = 2, **options: Any) -> list[Outcome]:
    """Build experiments whose process runs ``code`` with the name as its argument."""
    wanted = [experiment(f"L{number}", name) for number, name in enumerate(names, start=1)]
    return building.build(wanted, lambda one: [sys.executable, "-c", code, one.name], jobs, **options)


def test_processes_have_one_blas_thread_and_end_in_order() -> None:
    code = "import os, sys; sys.exit('threads: ' + os.environ['OPENBLAS_NUM_THREADS'] + ' of ' + sys.argv[1])"
    outcomes = build_with(code, ["c", "a", "b"])
    assert [outcome.error for outcome in outcomes] == [f"threads: 1 of {name}" for name in "cab"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("pass", ""),
        ("raise ValueError('no good')", "ValueError: no good"),
        ("import sys; print('gpunet: device: not there', file=sys.stderr); sys.exit(2)", "device: not there"),
        ("import sys; sys.exit(3)", "ended with status 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by signal SIGKILL."),
        # More than a pipe holds: nobody reads it while the process runs.
        ("import sys; print('x' * 300_000, file=sys.stderr); print('last', file=sys.stderr); sys.exit(1)", "last"),
    ],
)
def test_how_a_process_ends(code: str, error: str) -> None:
    assert [outcome.error for outcome in build_with(code, ["a"])] == [error]


def test_no_more_run_at_a_time_than_was_asked_for() -> None:
    seen: list[tuple[int, int]] = []
    build_with(
        "import time; time.sleep(0.1)", list("abcde"), on_change=lambda done, running: seen.append((done, len(running)))
    )
    assert max(running for _, running in seen) == 2
    assert seen[-1] == (5, 0)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_an_interrupt_ends_what_runs(tmp_path: Path) -> None:
    def interrupt(done: int, running: Sequence[Experiment]) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build_with("import time; time.sleep(60)", ["a", "b"], on_change=interrupt)
    assert time.monotonic() - started < 30
