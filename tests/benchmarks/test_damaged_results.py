"""Result files that are damaged anywhere: read, or refused with the one error that the reader promises."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.report.files import read_results
from benchmarks.report.sections import report
from gpunet.errors import FileFormatError
from tests.helpers.benchmark_results import A, results, row
from tests.helpers.files import JSON, MUTANTS, places, replaced
from tests.helpers.mutation import mutants


def write(path: Path) -> bytes:
    results([row(A, "torch-eager", 2.0, gpunet_milliseconds=1.0), row(A, "gpunet-cuda", 1.0)]).save(path)
    return path.read_bytes()


def read(path: Path) -> None:
    """Read a file; if it could be read, show it and write it again."""
    try:
        found = read_results(path)
    except FileFormatError:
        return
    report([found])
    found.save(path)


def test_mutants(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for mutant in mutants(write(path), MUTANTS, 0, (b'"', b"{", b"1e999", b"9" * 400)):
        path.write_bytes(mutant)
        read(path)


def test_any_value_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    content = json.loads(write(path))

    @settings(max_examples=MUTANTS, deadline=None, database=None)
    @given(st.sampled_from(list(places(content))), JSON)
    def check(place: tuple[object, ...], value: object) -> None:
        path.write_text(json.dumps(replaced(content, place, value)))
        read(path)

    check()


def test_nesting_and_long_numbers(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for text in ("[" * 100_000, '{"a":' * 100_000, '{"rows": 1' + "0" * 5000 + "}", "\xff"):
        path.write_bytes(text.encode("latin-1"))
        read(path)
