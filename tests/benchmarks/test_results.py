"""Result files: what is written is what is read, and nothing damaged is taken for a result."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields

import numpy as np
import pytest

from benchmarks.report.files import read_results
from benchmarks.report.results import Results, Row, Spread, spread
from gpunet.errors import FileFormatError, InvalidValueError, MissingFileError
from tests.helpers.benchmark_results import A, B, full_rows, results, row, without_time


def saved(tmp_path, rows):
    path = tmp_path / "new" / "file.json"
    results(rows).save(path)
    return path


def edited(tmp_path, change):
    """Write a file of one row, change what it holds, and return its path."""
    path = saved(tmp_path, [row(A, "gpunet-numpy", 2.0)])
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def test_a_file_holds_every_field_of_every_row(tmp_path):
    before = row(
        A,
        "torch-cuda-tuned",
        [1.0, 2.0, 4.0],
        gpunet_milliseconds=[1.0, 1.0, 1.0],
        roofline=0.5,
        cached=True,
        reason="x",
    )
    empty = [item.name for item in fields(Row) if getattr(before, item.name) in (None, "", [], {}, 0, False)]
    assert empty == []  # the row says something in every field, or the next line proves little
    path = saved(tmp_path, [before])
    after = read_results(path)
    assert after.rows == [before]
    assert (after.version, after.machine, after.path) == ("0.5.0", results().machine, path)


def test_numbers_keep_five_digits(tmp_path):
    (after,) = read_results(saved(tmp_path, [row(A, "sklearn", [1.0, 2.0, 3.0], error=1.23456789e-7)])).rows
    assert after.error == 1.2346e-7


@pytest.mark.parametrize(("name", "value"), [("error", 0.0), ("launches", 0), ("roofline_percent", 0.0)])
def test_a_zero_is_no_absence(tmp_path, name, value):
    (after,) = read_results(saved(tmp_path, [row(A, "gpunet-cuda", 2.0, **{name: value})])).rows
    assert getattr(after, name) == value


def test_an_infinite_error_is_left_out_since_json_has_none(tmp_path):
    wrong = without_time(A, "sklearn", "wrong", "W1 is not finite")
    wrong.error = math.inf
    (after,) = read_results(saved(tmp_path, [wrong])).rows
    assert after.error is None


def test_fields_with_nothing_to_say_are_not_written():
    content = without_time(A, "sklearn", "missing", "no scikit-learn").as_dict()
    assert set(content) == {"case", "peer", "label", "status", "reason"}


def test_a_rerun_replaces_a_row_in_its_place():
    file = results([row(A, "gpunet-numpy", 1.0), row(A, "sklearn", 2.0), row(B, "sklearn", 3.0)])
    file.merge([row(A, "sklearn", 5.0), row(B, "gpunet-numpy", 6.0)])
    assert [(one.case.label, one.peer, round(one.median)) for one in file.rows] == [
        ("a", "gpunet-numpy", 1),
        ("a", "sklearn", 5),
        ("b", "sklearn", 3),
        ("b", "gpunet-numpy", 6),
    ]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = saved(tmp_path, [row(A, "sklearn", 2.0)])
    with pytest.raises(ValueError, match="JSON"):
        results([row(A, "sklearn", 2.0, gigaflops=math.nan)]).save(path)
    assert len(read_results(path).rows) == 1
    assert [found.name for found in path.parent.iterdir()] == ["file.json"]


def test_names_of_files_and_dates():
    file = results([row(A, "sklearn", 2.0, date="2026-01-02"), row(B, "sklearn", 2.0, date="2026-01-10")])
    assert file.file_name == "abacus-0.5.0.json"
    assert file.date == "2026-01-10"
    assert Results({"name": "x"}, "1").date == ""


def test_spread_is_numpys_percentiles():
    values = np.random.default_rng(0).lognormal(size=31)
    found = spread(iter(values))
    assert found == Spread(np.median(values), *np.percentile(values, [10, 90]))


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_spread_wants_finite_numbers(values):
    with pytest.raises(InvalidValueError, match="at least one, all finite"):
        spread(values)


# --- what is not read ---


def test_a_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"none.json: there is no such file"):
        read_results(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged or no JSON"),
        (b'{"format": "gpunet.benchmark", "rows": [', "is damaged or no JSON"),
        (b"\xff\xfe\x00", "is damaged or no JSON"),
        (b"[" * 100_000, "is damaged or no JSON"),
        (b"[]", "is not a result file"),
        (b'{"format": "pytest-benchmark"}', "is not a result file"),
    ],
)
def test_other_files(tmp_path, content, message):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_results(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(format_version=1), r"format version 1. Expected 2: measure again"),
        (lambda content: content.pop("machine"), "is damaged: machine: got None, expected dict"),
        (lambda content: content.update(machine={"name": 7}), "is damaged: machine: name: got 7, expected str"),
        (lambda content: content.update(rows={}), "is damaged: rows: got {}, expected list"),
        (lambda content: content.update(rows=[7]), "row 1: got 7, expected dict"),
        (lambda content: content["rows"].append(content["rows"][0]), "two rows have the same case and peer"),
        (lambda content: content["rows"][0].update(error=math.nan), "the number NaN is out of range"),
        (lambda content: content["machine"].update(cores=math.inf), "the number Infinity is out of range"),
        (lambda content: content["rows"][0].pop("label"), "row 1: .* 'label'"),
        (lambda content: content["rows"][0]["case"].pop("mode"), "row 1: case: .* 'mode'"),
    ],
)
def test_damaged_files(tmp_path, change, message):
    with pytest.raises(FileFormatError, match=message):
        read_results(edited(tmp_path, change))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": None}, "label: got None, expected str"),
        ({"speed": 3}, ".* 'speed'"),
        ({"status": "fine"}, "status: got 'fine', expected one of ok, missing, refused, wrong, failed"),
        ({"milliseconds": None}, "it is 'ok' and has no milliseconds"),
        ({"milliseconds": 3.0}, "milliseconds: got 3.0, expected dict"),
        ({"milliseconds": {"median": 1.0, "p10": 1.0}}, "milliseconds: .* 'p90'"),
        ({"milliseconds": {"median": 0.0, "p10": 0.0, "p90": 1.0}}, "milliseconds: .* Expected numbers above 0"),
        ({"rounds": [1.0, "2"]}, "rounds: got '2', expected float"),
        ({"rounds": [1.0, 0]}, "rounds and peaks have to be above 0"),
        ({"repeats": 1.5}, "repeats: got 1.5, expected int"),
        ({"repeats": True}, "repeats: got True, expected int"),
        ({"on_device": 1}, "on_device: got 1, expected bool"),
        ({"launches": -1}, "launches: got -1, expected a number of at least 0"),
        ({"peaks": {"gigaflops": 0}}, "rounds and peaks have to be above 0"),
        ({"versions": {"numpy": 2}}, "versions: got 2, expected str"),
        ({"case": {**asdict(A), "sizes": []}}, "case: .* Expected all above 0"),
        ({"case": {**asdict(A), "sizes": [3, "4"]}}, "case: sizes: got '4', expected int"),
    ],
)
def test_damaged_rows(tmp_path, changes, message):
    path = edited(tmp_path, lambda content: content["rows"][0].update(changes))
    with pytest.raises(FileFormatError, match=f"is damaged: row 1: {message}"):
        read_results(path)


def test_a_large_file_of_all_peers_is_read_as_it_was(tmp_path):
    rows = full_rows(["gpunet-numpy", "torch-eager", "gpunet-cuda"])
    after = read_results(saved(tmp_path, rows))
    assert [(one.key, one.peer) for one in after.rows] == [(one.key, one.peer) for one in rows]
