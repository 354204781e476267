"""docs/gpu-verification.md from reports: ``python -m gpunet.verification.document FILE`` fills it in.

The reports are what ``gpunet verify --out`` writes, in the folder that is named like the document. A section is what
stands between two lines of the document::

    <!-- gpunet verify: seen -->
    <!-- end -->
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from gpunet.errors import FileFormatError, GpunetError
from gpunet.files import write_text
from gpunet.verification.report import COLUMNS, Report, read_report
from gpunet.verification.speed import tables

_SECTION = re.compile(r"^(<!-- gpunet verify: (\w+) -->)\n.*?^(<!-- end -->)$", re.MULTILINE | re.DOTALL)
_WIDTH = 120
NOTHING = (
    "**Nothing yet.** No part of gpunet has run on a CUDA device. Every figure and every result in this repository "
    "comes from a CPU."
)
# What only a GPU can settle, and the rows of a report that settle it; none where a report does not.
OPEN: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "That `CupyDevice` works at all: CuPy's launcher with our argument types, the cuBLAS handle loaded through "
        "ctypes, its workspace, TF32 and half-precision products.",
        ("matrix product", "rows of a batch"),
    ),
    (
        "That a whole training step can be recorded as one CUDA graph, and that its replays read new batches, "
        "learning rates and step counts.",
        ("recorded steps, two batch sizes, changing rate",),
    ),
    (
        "That asynchronous copies from the staging ring never read memory that the host has overwritten.",
        (),
    ),
    (
        "Memory ordering between blocks as it happens: the emulation runs one thread at a time. That the compiled "
        "kernels have the fences, barriers and loads that PTX's memory model asks for is checked "
        "(`make check-kernels`); no run has tried them.",
        ("batch norm forward, striped", "batch norm backward, striped"),
    ),
    (
        "Clusters, distributed shared memory and `mapa` on sm_90 and newer; the cluster sizes that a real device "
        "grants.",
        ("batch norm forward, resident, cluster of 8", "batch norm backward, resident, cluster of 8"),
    ),
    (
        "That cublasLt adds a bias and applies ReLU as it is asked to, and that its ReLU keeps NaN; whether it does so "
        "in the kernel of the product, and what that saves.",
        ("linear layer with activation, cublasLt",),
    ),
    (
        "That batches of data that stay on the host, which a second stream copies, arrive whole and in order.",
        ("data that stay on the host",),
    ),
    (
        "That NCCL moves arrays between GPUs, of one machine and of several, and how much of it the backward pass "
        "hides.",
        (),
    ),
    (
        "Cooperative launches, recorded ones too; whether the pass of a narrow network is faster in one launch "
        "(`GPUNET_NARROW_PASS=1`).",
        ("narrow network", "steps in one launch"),
    ),
    (
        "The benchmarks' peers for CUDA: gpunet's, the plain CuPy one, PyTorch's whole-step graph, JAX's; "
        "gpunet's launch counts.",
        (),
    ),
    (
        "Every speed: the plans (tile widths, blocks, resident or striped) rest on arithmetic, not on measurements.",
        (),
    ),
    ("CPU/GPU parity in float32 over 20 steps.", ("20 training steps beside the CPU", "two networks")),
    ("The same within the spread of rounding over 200.", ()),
)


def read_reports(folder: Path) -> list[Report]:
    """Return the reports in a folder, the newest first; none where there is no folder.

    Raises
    ------
    FileFormatError
        A file is none, or is not of a GPU: what an emulated device shows belongs in the tests.
    """
    reports = []
    for path in sorted(folder.glob("*.json")):
        report = read_report(path)
        if report.device.get("kind") != "cuda":
            raise FileFormatError(f"{path}: is of {report.device.get('model')}. Expected reports of a GPU.")
        reports.append(report)
    return sorted(reports, key=lambda report: report.date, reverse=True)


def filled(text: str, reports: Sequence[Report]) -> str:
    """Return the document with its sections as the reports say.

    Raises
    ------
    FileFormatError
        It lacks a section, or has one that is not known.
    """
    sections = {"seen": _seen(reports), "open": _open(reports)}
    found = [match[2] for match in _SECTION.finditer(text)]
    if sorted(found) != sorted(sections):
        raise FileFormatError(f"sections: the document has {found}. Expected each of {list(sections)} once.")
    return _SECTION.sub(lambda match: f"{match[1]}\n\n{sections[match[2]]}\n\n{match[3]}", text)


def _seen(reports: Sequence[Report]) -> str:
    return "\n\n".join(map(_report, reports)) if reports else _wrapped(NOTHING)


def _report(report: Report) -> str:
    device = report.device
    name = f"### {device['model']}, {report.date}: {'as specified' if report.is_right else 'not as specified'}"
    details = ", ".join(f"{key} {value}" for key, value in device.items() if key not in ("kind", "name", "model"))
    table = _table(COLUMNS, [row.cells for row in report.rows])
    said = "\n".join(_wrapped(line) for line in report.lines)
    speed = [f"{title}\n\n{_table(columns, rows)}" for title, columns, rows in tables(report.speed)]
    return "\n\n".join([name, _wrapped(f"gpunet {report.gpunet}, {details}."), table, said, *speed])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _open(reports: Sequence[Report]) -> str:
    lines = []
    for text, rows in OPEN:
        settled = next((report for report in reports if rows and _has(report, rows)), None)
        note = "" if settled is None else f" **Settled** by {settled.device['model']}, {settled.date}."
        lines.append(textwrap.fill(f"- {text}{note}", _WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(lines)


def _has(report: Report, rows: Sequence[str]) -> bool:
    right = {row.what for row in report.rows if row.checks and not row.wrong}
    return right.issuperset(rows)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_on_hyphens=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Fill in the document from the reports beside it."""
    parser = argparse.ArgumentParser(
        prog="python -m gpunet.verification.document", description="Fill in docs/gpu-verification.md."
    )
    parser.add_argument("document", type=Path)
    document: Path = parser.parse_args(argv).document
    try:
        text = document.read_text(encoding="utf-8")
        write_text(document, filled(text, read_reports(document.with_suffix(""))))
    except (GpunetError, OSError, UnicodeDecodeError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
