"""docs/gpu-verification.md is what the reports beside it say; without any, that nothing has been seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import gpunet
from gpunet.errors import FileFormatError
from gpunet.verification import document
from gpunet.verification.document import filled, read_reports
from gpunet.verification.report import Failure, Report, Row
from tests.helpers.checkout import ROOT

PAGE = ROOT / "docs" / "gpu-verification.md"
DEVICE = {"kind": "cuda", "name": "cuda:0", "model": "NVIDIA Fake", "driver": "CUDA 13.0", "cupy": "14.2.0"}
SPEED = {
    "copy_gigabytes_per_second": 4000.0,
    "host_microseconds": {"kernel": 4.5, "product": 2.0},
    "kernels": [
        {
            "what": "SGD step",
            "kind": "float32",
            "shape": "960",
            "microseconds": 9.5,
            "gigabytes_per_second": 2000.0,
            "percent_of_copy": 50.0,
        }
    ],
    "steps": [
        {
            "configuration": "a",
            "network": "256 x 784 x 10",
            "precision": "tf32",
            "milliseconds": 0.1,
            "unrecorded_milliseconds": 0.4,
            "kernels": None,
        }
    ],
    "ending": "",
}


def a_report(date: str = "2026-12-01", wrong: int = 0, **changes: object) -> Report:
    rows = tuple(
        Row(what, 20, wrong if place == 0 else 0, ("float32", "float16"), 0.5)
        for place, what in enumerate(["matrix product", "rows of a batch", *document.OPEN[4][1]])
    )
    failure = Failure("matrix product, float32", "out[0] is 1. Expected 2", "nothing avoids it") if wrong else None
    whole = Report("0.1.0", date, DEVICE, not wrong, 80, 80, 41.5, rows, failure=failure, speed=SPEED)
    return replace(whole, **changes)


def test_the_page_is_what_the_reports_say() -> None:
    """`python -m gpunet.verification.document docs/gpu-verification.md` brings it up to date."""
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text, read_reports(PAGE.with_suffix(""))) == text


def test_without_a_report_nothing_has_been_seen() -> None:
    text = filled(PAGE.read_text(encoding="utf-8"), [])
    assert "**Nothing yet.** No part of gpunet has run on a CUDA device." in text
    assert "Settled" not in text
    assert text.count("\n- ") == len(document.OPEN)


def test_a_report_is_shown_and_settles_what_its_rows_show(tmp_path: Path) -> None:
    page, folder = tmp_path / "page.md", tmp_path / "page"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    folder.mkdir()
    a_report("2026-12-02", wrong=3).save(folder / "b.json")
    a_report().save(folder / "a.json")
    assert [report.date for report in read_reports(folder)] == ["2026-12-02", "2026-12-01"]
    document.main([str(page)])
    text = page.read_text(encoding="utf-8")
    assert "Nothing yet" not in text
    newer, older = text.index("### NVIDIA Fake, 2026-12-02: not as specified"), text.index("2026-12-01: as specified")
    assert newer < older
    assert "| matrix product | 20: float32, float16 | 0.5, 3 wrong |" in text
    assert "out[0] is 1. Expected 2" in text
    assert "gpunet 0.1.0, driver CUDA 13.0, cupy 14.2.0." in text
    assert "| SGD step | float32 | 960 | 9.5 | 2000.0 | 50.0 |" in text
    assert "| a | 256 x 784 x 10 | tf32 | 0.1 | 0.4 | - |" in text
    # The products were right in the older one only; clusters in both.
    assert "products. **Settled** by NVIDIA Fake, 2026-12-01." in " ".join(text.split())
    assert "grants. **Settled** by NVIDIA Fake, 2026-12-02." in " ".join(text.split())
    assert text.count("**Settled**") == 2
    document.main([str(page)])
    assert page.read_text(encoding="utf-8") == text


def test_a_report_of_no_gpu_is_refused(tmp_path: Path) -> None:
    for device, model in (({**DEVICE, "kind": "emulated"}, "NVIDIA Fake"), ({}, "None")):
        a_report(device=device).save(tmp_path / "a.json")
        with pytest.raises(FileFormatError, match=rf"a\.json: is of {model}\. Expected reports of a GPU"):
            read_reports(tmp_path)


@pytest.mark.parametrize("section", ["seen", "open"])
def test_a_page_without_its_sections_is_refused(section: str) -> None:
    text = PAGE.read_text(encoding="utf-8").replace(f"gpunet verify: {section}", "gpunet verify: other")
    with pytest.raises(gpunet.errors.FileFormatError, match="Expected each of"):
        filled(text, [])


def test_what_is_wrong_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    for text, said in ((None, "No such file"), (b"no section", "Expected each of"), (b"\xff", "can't decode")):
        if text is not None:
            page.write_bytes(text)
        with pytest.raises(SystemExit) as ended:
            document.main([str(page)])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err.splitlines()[-1]
