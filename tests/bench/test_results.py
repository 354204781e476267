"""Result files: what is written is what is read, and nothing damaged is taken for a result."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import numpy as np
import pytest

from gpunet.bench.results import Results, Row, Spread, read_results, spread
from gpunet.bench.rows import row_as_dict, row_from_dict
from gpunet.errors import FileFormatError, InvalidValueError, MissingFileError
from tests.helpers.bench import A, B, full_rows, results, row, without_time


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
        A, "torch-cuda-tuned", [1.0, 2.0, 4.0], gpunet_milliseconds=[1.0, 1.0, 1.0], floor=0.5, cached=True, reason="x"
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


@pytest.mark.parametrize(("name", "value"), [("error", 0.0), ("launches", 0), ("floor_percent", 0.0)])
def test_a_zero_is_no_absence(name, value):
    content = row_as_dict(row(A, "gpunet-cuda", 2.0, **{name: value}))
    assert getattr(row_from_dict("here", content), name) == value


def test_an_infinite_error_is_left_out_since_json_has_none(tmp_path):
    wrong = without_time(A, "sklearn", "wrong", "W1 is not finite")
    wrong.error = math.inf
    (after,) = read_results(saved(tmp_path, [wrong])).rows
    assert after.error is None


def test_fields_with_nothing_to_say_are_not_written():
    content = row_as_dict(without_time(A, "sklearn", "missing", "no scikit-learn"))
    assert set(content) == {"case", "key", "provider", "label", "status", "reason"}


def test_a_rerun_replaces_a_row_in_its_place():
    file = results([row(A, "gpunet-numpy", 1.0), row(A, "sklearn", 2.0), row(B, "sklearn", 3.0)])
    file.merge([row(A, "sklearn", 5.0), row(B, "gpunet-numpy", 6.0)])
    assert [(one.case["label"], one.provider, round(one.median)) for one in file.rows] == [
        ("a", "gpunet-numpy", 1),
        ("a", "sklearn", 5),
        ("b", "sklearn", 3),
        ("b", "gpunet-numpy", 6),
    ]
    assert file.find(A.key, "sklearn") is file.rows[1]
    assert file.find(A.key, "torch-eager") is None


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
        (lambda content: content.update(format_version=2), r"format version 2. Expected 1: measure again"),
        (lambda content: content.pop("machine"), "which machine and version"),
        (lambda content: content.update(machine={"name": 7}), "which machine and version"),
        (lambda content: content.update(rows={}), "it has no rows"),
        (lambda content: content.update(rows=[7]), "row 1 is damaged: it is not an object"),
        (lambda content: content["rows"].append(content["rows"][0]), "row 2 is damaged: row 1 has the same case"),
    ],
)
def test_damaged_files(tmp_path, change, message):
    with pytest.raises(FileFormatError, match=message):
        read_results(edited(tmp_path, change))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": None}, "key is None. Expected a text"),
        ({"speed": 3}, "'speed' is not known"),
        ({"status": "fine"}, "status 'fine'. Expected one of ok, missing, refused, wrong, failed"),
        ({"milliseconds": None}, "it is 'ok' and has no milliseconds"),
        ({"milliseconds": 3.0}, "milliseconds is 3.0. Expected median, p10 and p90 above 0"),
        ({"milliseconds": {"median": 1.0, "p10": 1.0}}, "Expected median, p10 and p90"),
        ({"milliseconds": {"median": 0.0, "p10": 0.0, "p90": 1.0}}, "Expected median, p10 and p90 above 0"),
        ({"milliseconds": {"median": math.nan, "p10": 1.0, "p90": 1.0}}, "Expected median, p10 and p90 above 0"),
        ({"rounds": [1.0, "2"]}, "rounds is .* Expected a list of numbers above 0"),
        ({"repeats": 1.5}, "repeats is 1.5. Expected a whole number"),
        ({"repeats": True}, "repeats is True. Expected a whole number"),
        ({"on_device": 1}, "on_device is 1. Expected true or false"),
        ({"launches": -1}, "launches is -1. Expected a whole number of at least 0"),
        ({"gigaflops": "fast"}, "gigaflops is 'fast'. Expected a number"),
        ({"ceilings": {"gigaflops": 0}}, "ceilings is .* Expected an object of numbers above 0"),
        ({"versions": {"numpy": 2}}, "versions is .* Expected an object of texts"),
        ({"case": []}, r"case is \[\]. Expected an object"),
        ({"case": {"operation": "network"}}, "its case has no 'mode'"),
    ],
)
def test_damaged_rows(tmp_path, changes, message):
    path = edited(tmp_path, lambda content: content["rows"][0].update(changes))
    with pytest.raises(FileFormatError, match=rf"row 1 is damaged: .*{message}"):
        read_results(path)


@pytest.mark.parametrize("missing", ["case", "key", "provider", "label", "status"])
def test_rows_without_what_they_need(tmp_path, missing):
    path = edited(tmp_path, lambda content: content["rows"][0].pop(missing))
    with pytest.raises(FileFormatError, match=f"it has no '{missing}'"):
        read_results(path)


@pytest.mark.parametrize("change", [{"rows": 0}, {"sizes": []}, {"sizes": [3, "4"]}, {"sizes": 3}, {"mode": 4}])
def test_damaged_cases(tmp_path, change):
    path = edited(tmp_path, lambda content: content["rows"][0]["case"].update(change))
    with pytest.raises(FileFormatError, match="Expected texts, and whole numbers above 0 as rows and sizes"):
        read_results(path)


def test_a_large_file_of_all_providers_is_read_as_it_was(tmp_path):
    rows = full_rows(["gpunet-numpy", "torch-eager", "gpunet-cuda"])
    after = read_results(saved(tmp_path, rows))
    assert [(one.key, one.provider) for one in after.rows] == [(one.key, one.provider) for one in rows]
