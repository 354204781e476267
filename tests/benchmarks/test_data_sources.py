"""The epochs from each place of the data, small and once; the table that documents get."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import data_sources

pytest.importorskip("pyarrow")


def test_every_place_is_measured_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_sources, "NETWORKS", (((4, 3), 40),))
    monkeypatch.setattr(data_sources, "BATCH_SIZES", (16,))
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- benchmarks.data_sources -->\nold\n<!-- end -->\nafter\n")
    assert data_sources.main([str(document)]) == 0
    text = document.read_text()
    assert text.startswith("before\n<!-- benchmarks.data_sources -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| data from | 4-3, 16 |"
    places = ["memory", "a mapped file, float32", "a mapped file, float64"]
    kinds = ["arrays", "Parquet in order", "Parquet shuffled"]
    assert [row.split(" | ")[0][2:] for row in rows[2:]] == places + [f"`batches=`, {kind}" for kind in kinds]
    assert rows[2].endswith(" s |")
