"""What the report writes elsewhere: tables in Markdown files, and figures."""

from __future__ import annotations

import pytest

from benchmarks.report.documents import read_document
from benchmarks.report.files import committed_results
from gpunet.errors import FileFormatError, InvalidValueError, MissingFileError
from tests.helpers.benchmark_results import (
    ALL_PEERS,
    BATCHES,
    CPU_MACHINE,
    CPU_PEERS,
    GPU_MACHINE,
    A,
    full_rows,
    results,
    row,
    without_time,
)
from tests.helpers.checkout import ROOT

DOCUMENTS = [path for path in (ROOT / "README.md", ROOT / "docs" / "performance.md") if path.is_file()]


TEXT = "# Title\n\n<!-- gpunet bench report: summary -->\nold\n<!-- end -->\n\nBetween.\n"


def document(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    return path


def test_a_document_gets_its_tables_and_keeps_the_rest(tmp_path):
    path = document(tmp_path, TEXT + "<!-- gpunet bench report: roofline -->\n<!-- end -->\nLast line")
    first = read_document(path, [results()])
    assert (first.sections, first.outdated) == (["summary", "roofline"], ["summary", "roofline"])
    assert path.read_text() == first.text  # nothing is written before save
    first.save()
    text = path.read_text()
    assert text.startswith("# Title\n\n<!-- gpunet bench report: summary -->\n\nTraining step on the CPU")
    assert "No GPU has run these benchmarks.\n\n<!-- end -->\n\nBetween.\n<!-- gpunet bench" in text
    assert text.endswith("\n\n<!-- end -->\nLast line")
    assert "old" not in text
    again = read_document(path, [results()])
    assert again.outdated == []
    changed = read_document(path, [results([row(A, "gpunet-numpy", 3.0, peaks={"gigaflops": 7.0})])])
    assert changed.outdated == ["summary", "roofline"]
    assert [found.name for found in tmp_path.iterdir()] == ["README.md"]


def test_a_document_shows_the_newest_machine_of_a_kind_and_all_of_them_where_it_says_so(tmp_path):
    path = document(tmp_path, TEXT + TEXT.replace("summary", "machines"))
    lines = [("gpunet-compiled", 2.0), ("torch-tuned", 3.0)]
    old, new, gpu = (
        results([row(A, name, time * factor, date=date) for name, time in lines], machine={**machine, "cpu": cpu})
        for cpu, machine, factor, date in (
            ("Quill 2", CPU_MACHINE, 1, "2026-05-04T11:00:00+00:00"),
            ("Abacus 9000", CPU_MACHINE, 2, "2026-05-04T12:00:00+00:00"),
            ("Abacus 9000", GPU_MACHINE, 3, "2026-05-03"),
        )
    )
    for files in ([new, old, gpu], [gpu, old, new]):
        summary, machines = read_document(path, files).updated.split("Between.\n")[:2]
        assert "Quill" not in summary
        assert "4.00 ms" in summary
        assert "6.00 ms" in summary
        assert machines.count("1.50x (1.1)") == 3
        assert "Quill 2, 2 cores" in machines


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("# Title\n", FileFormatError, "README.md: has no marker. Expected a line such as"),
        (TEXT.replace("<!-- end -->", ""), FileFormatError, "README.md: line 3: the section 'summary' has no <!-- end"),
        (TEXT.replace("<!-- end -->\n", "") + TEXT, FileFormatError, "README.md: line 3: the section 'summary' has no"),
        (TEXT.replace("summary", "sumary"), InvalidValueError, "line 3: section: 'sumary' .* Did you mean 'summary'"),
        (TEXT + TEXT.replace("summary", "sumary"), InvalidValueError, "line 10: section: 'sumary'"),
        (TEXT.replace("summary", ""), InvalidValueError, "line 3: section: '' is not known"),
    ],
)
def test_documents_that_cannot_be_updated(tmp_path, text, error, message):
    path = document(tmp_path, text)
    with pytest.raises(error, match=message):
        read_document(path, [results()])
    assert path.read_text() == text


def test_documents_that_are_none(tmp_path):
    with pytest.raises(MissingFileError, match="no such file"):
        read_document(tmp_path / "none.md", [results()])
    (tmp_path / "binary.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="no Markdown file in UTF-8"):
        read_document(tmp_path / "binary.md", [results()])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_hold_what_the_committed_results_say(path):
    """`gpunet bench report --update README.md docs/performance.md` brings them up to date."""
    assert read_document(path, committed_results()).outdated == []


# --- figures ---


def test_every_figure_is_drawn_as_png_and_svg(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.report.plots import write_plots

    drawn = [A.replace(precision="tf32"), A.replace(mode="epoch", examples=5000), *BATCHES]
    rows = [one for one in full_rows(ALL_PEERS) if one.key in {case.key for case in drawn}]
    rows.append(without_time(A.replace(mode="epoch", examples=5000, batch_norm=False), "sklearn", "wrong", "x"))
    written = write_plots([results(rows, machine=GPU_MACHINE)], tmp_path / "new")
    names = {path.name.removeprefix("loom-0.5.0-") for path in written}
    for name in (
        "ratio-gpu-float32-epoch",
        "ratio-gpu-tf32-step",
        "growth-gpu-float32-step",
    ):
        assert {f"{name}.png", f"{name}.svg"} <= names
    assert all(path.stat().st_size > 5_000 for path in written)
    svg = (tmp_path / "new" / "loom-0.5.0-growth-gpu-float32-step.svg").read_text()
    for text in ("batch [rows]", "time of one unit of work [ms]", "Loom X100, gpunet 0.5.0"):
        assert f"<!-- {text} -->" in svg


def test_the_same_rows_give_the_same_figures(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.report.plots import write_plots

    rows = [row(A, name, 1.0, gpunet_milliseconds=1.0) for name in CPU_PEERS]
    for name in ("one", "two"):
        write_plots([results(rows)], tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_ratios_are_those_of_the_rows():
    pytest.importorskip("matplotlib")
    from benchmarks.report.plots import figures

    rows = [row(A, name, time, gpunet_milliseconds=1.0) for name, time in (("gpunet-numpy", 1.0), ("sklearn", 3.0))]
    panel = dict(figures(results(rows)))["ratio-cpu-float32-step"].axes[0]
    (container,) = panel.containers
    assert container.get_label() == "scikit-learn"
    assert list(container[0].get_xdata()) == [pytest.approx(3)]
    assert panel.get_xlabel().startswith("time / gpunet's time")


def test_growth_is_drawn_over_what_is_varied():
    pytest.importorskip("matplotlib")
    from benchmarks.report.plots import figures

    rows = [row(case, "gpunet-numpy", case.rows / 16) for case in BATCHES]
    panel = dict(figures(results(rows)))["growth-cpu-float32-step"].axes[0]
    (line,) = panel.lines
    assert list(line.get_xdata()) == [16, 64, 256, 1024]
    assert list(line.get_ydata()) == pytest.approx([1, 4, 16, 64])
    assert line.get_label() == "gpunet ^1.00"
