"""What docs/lecture.md takes from the catalogue and the corrections: ``python -m gpunet.lecture.document`` writes it.

A section is what stands between two lines of the document::

    <!-- gpunet lecture: table -->
    <!-- end -->
"""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from gpunet.errors import FileFormatError
from gpunet.files import write_text
from gpunet.lecture.catalogue import EXPERIMENTS
from gpunet.lecture.corrections import CORRECTIONS
from gpunet.lecture.experiment import Experiment

_SECTION = re.compile(r"^(<!-- gpunet lecture: (\w+) -->)\n.*?^(<!-- end -->)$", re.MULTILINE | re.DOTALL)
_WIDTH = 120


def filled(text: str) -> str:
    """Return a document with its sections as they should be.

    Raises
    ------
    FileFormatError
        It lacks one, or has one that is not known.
    """
    sections = {"table": _table(), "figures": _figures(), "corrections": _corrections()}
    found = [match[2] for match in _SECTION.finditer(text)]
    if sorted(found) != sorted(sections):
        raise FileFormatError(f"sections: the document has {found}. Expected each of {list(sections)} once.")
    return _SECTION.sub(lambda match: f"{match[1]}\n{sections[match[2]]}\n{match[3]}", text)


def _table() -> str:
    return "\n".join(["| row | what | code | test | command |", "|---|---|---|---|---|", *map(_table_row, EXPERIMENTS)])


def _table_row(one: Experiment) -> str:
    code = [*one.code, f"lecture/experiments/{one.module}.py"]
    paths = [", ".join(f"`{path}`" for path in part) for part in (code, one.tests)]
    figure = f", [figure](#{_anchor(_heading(one))})" if one.is_documented else ""
    return f"| {one.row} | {one.title} | {' | '.join(paths)} | `{one.command}`{figure} |"


def _heading(one: Experiment) -> str:
    return f"{one.row}. {one.title}"


def _anchor(heading: str) -> str:
    """Return what GitHub and MyST link a heading by."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _figures() -> str:
    return "\n\n".join(
        f"### {_heading(one)}\n\n{one.shows}\n\n![{one.figure}](figures/{one.name}.svg)"
        for one in EXPERIMENTS
        if one.is_documented
    )


def _corrections() -> str:
    return "\n".join(
        textwrap.fill(f"- {one.rows}: {one.text}", _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for one in CORRECTIONS
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Fill in the document and, where a folder with figures is given, copy those that it shows beside it."""
    parser = argparse.ArgumentParser(description="Fill in docs/lecture.md.")
    parser.add_argument("document", type=Path)
    parser.add_argument("--figures", type=Path, metavar="DIR", help="what `gpunet lecture all` wrote")
    arguments = parser.parse_args(argv)
    text = arguments.document.read_text(encoding="utf-8")
    write_text(arguments.document, filled(text))
    if arguments.figures is not None:
        for experiment in EXPERIMENTS:
            if experiment.is_documented:
                shutil.copy(arguments.figures / f"{experiment.name}.svg", arguments.document.parent / "figures")


if __name__ == "__main__":
    main()
