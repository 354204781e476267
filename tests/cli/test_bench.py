"""``gpunet bench``: what it prints and writes, and what it refuses before doing anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from gpunet.bench.report import files as installed

from benchmarks.report.files import read_results
from tests.helpers.benchmark_results import ALL_PEERS, GPU_MACHINE, A, B, full_rows, results, row, without_time
from tests.helpers.cli import refusal, shell

OURS = "gpunet-numpy"
MARKED = "# Title\n<!-- gpunet bench report: summary -->\n<!-- end -->\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results().save(Path("cpu.json"))
    results(full_rows(ALL_PEERS), machine=GPU_MACHINE).save(Path("gpu.json"))
    Path("README.md").write_text(MARKED)


def test_report_prints_markdown(capsys):
    status, output, errors = shell(capsys, "bench", "report", "cpu.json", "gpu.json")
    assert (status, errors) == (0, "")
    assert output.startswith("# abacus, gpunet 0.5.0\n\n## In short\n\n")
    assert "\n# loom, gpunet 0.5.0\n" in output


def test_report_without_files_shows_the_results_that_come_with_gpunet(capsys, monkeypatch):
    Path("installed").mkdir()
    monkeypatch.setattr(installed, "RESULTS_FOLDER", Path("installed"))
    assert "`make benchmark`" in refusal(capsys, "bench", "report")
    Path("gpu.json").rename("installed/loom.json")
    assert shell(capsys, "bench", "report").output.startswith("# loom")


def test_report_as_json_has_every_row(capsys):
    found = shell(capsys, "bench", "report", "cpu.json", "gpu.json", "--json").json
    assert [file["path"] for file in found["files"]] == ["cpu.json", "gpu.json"]
    assert [len(file["rows"]) for file in found["files"]] == [
        len(read_results(name).rows) for name in ("cpu.json", "gpu.json")
    ]
    assert found["files"][0]["rows"][0]["milliseconds"].keys() == {"median", "p10", "p90"}


def test_report_filters_rows(capsys):
    found = shell(
        capsys, "bench", "report", "gpu.json", "--peer", "sklearn,gpunet-numpy", "--configuration", "a",
        "--configuration", "b", "--mode", "step", "--json"
    ).json  # fmt: skip
    rows = found["files"][0]["rows"]
    assert {row["peer"] for row in rows} == {"sklearn", OURS}
    assert {row["case"]["label"] for row in rows} == {"a", "b"}
    assert {row["case"]["mode"] for row in rows} == {"step"}


def test_report_draws_plots(capsys):
    pytest.importorskip("matplotlib")
    result = shell(capsys, "bench", "report", "cpu.json", "--mode", "epoch", "--plots", "new/plots", "--json")
    assert (result.status, result.errors) == (0, "")
    plots = result.json["plots"]
    assert len(plots) == 2
    assert all(Path(path).stat().st_size > 1000 for path in plots)


def test_report_updates_documents(capsys):
    result = shell(capsys, "bench", "report", "cpu.json", "--update", "README.md")
    assert result == (0, "README.md: 1 sections, updated: summary\n", "")
    text = Path("README.md").read_text()
    assert "No GPU has run these benchmarks." in text
    again = shell(capsys, "bench", "report", "cpu.json", "--update", "README.md")
    assert again == (0, "README.md: 1 sections, updated: nothing\n", "")
    assert Path("README.md").read_text() == text


def test_one_bad_document_leaves_all_as_they_were(capsys):
    Path("other.md").write_text(MARKED.replace("<!-- end -->", ""))
    said = refusal(capsys, "bench", "report", "cpu.json", "--update", "README.md", "other.md")
    assert "other.md: line 2: the section 'summary' has no <!-- end -->" in said
    assert Path("README.md").read_text() == MARKED


REFUSED = {
    "a missing file": (("report", "none.json"), "none.json: there is no such file"),
    "no result file": (("report", "README.md"), "README.md: is damaged or no JSON"),
    "a folder": (("report", "."), "Is a directory"),
    "an unknown peer": (("report", "cpu.json", "--peer", "sklern"), "Did you mean 'sklearn'"),
    "an unknown configuration": (("report", "cpu.json", "--configuration", "batch 65"), "Did you mean 'batch 64'"),
    "an unknown mode": (("report", "cpu.json", "--mode", "steps"), "--mode: 'steps' is not known. Did you mean 'step'"),
    "nothing left": (("report", "cpu.json", "--mode", "epoch", "--configuration", "b"), "No row is left"),
    "plots in a file": (("report", "cpu.json", "--plots", "README.md"), "'README.md' is a file, expected a folder"),
    "plots below a file": (("report", "cpu.json", "--plots", "README.md/x"), "README.md/x: Not a directory"),
    "a document that is missing": (("report", "cpu.json", "--update", "none.md"), "none.md: there is no such file"),
    "a document without markers": (("report", "cpu.json", "--update", "gpu.json"), "gpu.json: has no marker"),
    "a document of some rows": (
        ("report", "cpu.json", "--mode", "step", "--update", "README.md"),
        "--update: documents",
    ),
    "one file to compare": (("compare", "cpu.json"), "the following arguments are required: NEW"),
    "a damaged file to compare": (("compare", "cpu.json", "README.md"), "README.md: is damaged"),
    "nothing in common": (("compare", "cpu.json", "peer.json"), "no case of the same peer in common"),
    "an unknown flag": (("report", "--plot"), "'--plot' is not known. Did you mean --plots?"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(capsys, arguments, message):
    results([row(A, "jax", 1.0)]).save(Path("peer.json"))
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert message in refusal(capsys, "bench", *arguments)
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_plots_without_matplotlib_are_refused_before_anything_is_written(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = refusal(capsys, "bench", "report", "cpu.json", "--plots", "plots", "--update", "README.md")
    assert "pip install 'gpunet[plot]'" in said
    assert not Path("plots").exists()
    assert Path("README.md").read_text() == MARKED


def test_a_command_without_a_subcommand_shows_its_help(capsys):
    status, output, _ = shell(capsys, "bench")
    assert status == 2
    assert "report" in output
    assert "compare" in output


# --- compare ---


@pytest.mark.parametrize(
    ("new", "status", "sentence"),
    [
        (row(A, OURS, 1.01), 0, "got no worse: 1 unchanged"),
        (row(A, OURS, 0.5), 0, "got no worse: 1 faster"),
        (row(A, OURS, 2.0), 1, "got worse: 1 slower"),
        (without_time(A, OURS, "wrong", "W1"), 1, "got worse: 1 now wrong"),
        (without_time(A, OURS, "missing", "no BLAS"), 0, "could not be judged: 1 now missing"),
    ],
)
def test_the_status_says_whether_gpunet_got_worse(capsys, new, status, sentence):
    results([row(A, OURS, 1.0), row(A, "sklearn", 1.0)], version="0.4.0").save(Path("old.json"))
    results([new, row(A, "sklearn", 9.0)]).save(Path("new.json"))
    found = shell(capsys, "bench", "compare", "old.json", "new.json")
    assert (found.status, found.errors) == (status, "")
    assert sentence in found.output.splitlines()[-1]
    as_json = shell(capsys, "bench", "compare", "old.json", "new.json", "--json")
    assert as_json.status == status
    assert as_json.json["worse"] is bool(status)
    peers_only = shell(capsys, "bench", "compare", "old.json", "new.json", "--peer", "sklearn")
    assert peers_only.status == 0


def test_compare_lists_all_rows_on_demand(capsys):
    quiet = shell(capsys, "bench", "compare", "cpu.json", "cpu.json")
    assert (quiet.status, "| unchanged " in quiet.output) == (0, False)
    everything = shell(capsys, "bench", "compare", "cpu.json", "cpu.json", "--all")
    assert everything.output.count("| unchanged ") == len(read_results("cpu.json").rows)


def test_compare_keeps_what_only_one_file_has(capsys):
    """A filter that leaves nothing of one file ends in the message of a comparison, not in a traceback."""
    results([row(A, OURS, 1.0)]).save(Path("old.json"))
    results([row(B, OURS, 1.0)]).save(Path("new.json"))
    assert "in common" in refusal(capsys, "bench", "compare", "old.json", "new.json", "--configuration", "a")


def test_compare_warns_of_another_machine(capsys):
    found = shell(capsys, "bench", "compare", "cpu.json", "gpu.json")
    assert "**Warning: this is no comparison of two versions of gpunet.**" in found.output
    assert "- machine's gpu: nothing and Loom X100" in found.output
    assert found.output.splitlines()[-1].endswith("But the two runs are not comparable.**")
