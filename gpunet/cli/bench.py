"""``gpunet bench report`` and ``gpunet bench compare``: what the benchmarks' result files say.

All of it is in ``benchmarks/report/``, which is :mod:`gpunet.bench.report` too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gpunet.bench.report.compare import compare, comparison_dict, comparison_text
from gpunet.bench.report.documents import read_document
from gpunet.bench.report.files import choose, committed_results, read_results
from gpunet.bench.report.results import Results
from gpunet.bench.report.sections import report
from gpunet.cli.arguments import Parser, add_command, set_command
from gpunet.cli.folders import check_folder
from gpunet.cli.output import print_json, print_lines, require
from gpunet.cli.readers import folder
from gpunet.errors import InvalidValueError, counted

EXIT_WORSE = 1


def declare(parser: Parser) -> None:
    """Declare the commands of ``gpunet bench`` and their arguments."""
    commands = parser.add_subparsers(metavar="COMMAND", dest="bench_command")
    report_parser = add_command(
        commands, "report", "print result files as Markdown: gpunet against each peer, and where it is slower"
    )
    set_command(report_parser, run_report, "gpunet bench report --plots figures")
    report_parser.add_argument(
        "files",
        type=Path,
        nargs="*",
        metavar="FILES",
        help="result files (default: the newest of each machine that come with gpunet)",
    )
    report_parser.add_argument("--plots", type=folder, metavar="DIR", help="draw figures there, as PNG and SVG")
    report_parser.add_argument(
        "--update",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE.md",
        help="write the tables between the markers of these files instead of printing them",
    )
    comparison = add_command(
        commands,
        "compare",
        "say what got slower, faster or wrong between two result files; status 1 if something of gpunet did",
    )
    set_command(comparison, run_compare, "gpunet bench compare old.json new.json")
    comparison.add_argument("old", type=Path, metavar="OLD", help="a result file")
    comparison.add_argument("new", type=Path, metavar="NEW", help="another one of the same machine")
    comparison.add_argument("--all", action="store_true", help="list the rows that did not change too")
    for command in (report_parser, comparison):
        for flags, example in (
            (("--peer", "--provider"), "torch-eager"),
            (("--configuration",), "a"),
            (("--mode",), "step"),
        ):
            command.add_argument(
                *flags, action="append", metavar="LIST", help=f"only rows of it, such as {example}; may be repeated"
            )


def run_report(arguments: argparse.Namespace) -> None:
    """Print the report, or all rows as JSON; draw figures and bring documents up to date where that was asked for.

    Raises
    ------
    GpunetError, OSError
    """
    if arguments.update and _is_filtered(arguments):
        raise InvalidValueError("--update: documents show all rows. Expected no --peer, --configuration or --mode.")
    if arguments.plots is not None:
        require("matplotlib", extra="plot", purpose="--plots")
        check_folder(arguments.plots, "--plots")
    files = [read_results(path) for path in arguments.files] or committed_results()
    chosen = _chosen(files, arguments)
    documents = [read_document(path, chosen) for path in arguments.update]

    plots: list[Path] = []
    if arguments.plots is not None:
        from gpunet.bench.report.plots import write_plots

        plots = write_plots(chosen, arguments.plots)
    for document in documents:
        document.save()

    if arguments.json:
        print_json(
            {
                "files": [{"path": str(results.path), **results.as_dict()} for results in chosen],
                "plots": [str(path) for path in plots],
                "documents": [
                    {"path": str(document.path), "sections": document.sections, "updated": document.outdated}
                    for document in documents
                ],
            }
        )
    elif documents:
        for document in documents:
            changed = ", ".join(document.outdated) or "nothing"
            print_lines(f"{document.path}: {len(document.sections)} sections, updated: {changed}")
    else:
        print_lines(*report(chosen).removesuffix("\n").split("\n"))
    if plots and not arguments.json:
        print_lines("", f"{counted(len(plots), 'file')} in {arguments.plots}")


def run_compare(arguments: argparse.Namespace) -> None:
    """Print what changed between two result files, and leave with status 1 if gpunet got slower or wrong.

    Raises
    ------
    GpunetError, OSError
    SystemExit
        Something of gpunet got slower, wrong, or is no longer done.
    """
    both = [read_results(arguments.old), read_results(arguments.new)]
    old, new = _chosen(both, arguments, keep_all=True)
    comparison = compare(old, new)
    if arguments.json:
        print_json(comparison_dict(comparison))
    else:
        print_lines(*comparison_text(comparison, with_all=arguments.all).removesuffix("\n").split("\n"))
    if comparison.is_worse:
        raise SystemExit(EXIT_WORSE)


def _chosen(files: Sequence[Results], arguments: argparse.Namespace, *, keep_all: bool = False) -> list[Results]:
    if not _is_filtered(arguments):
        return list(files)
    names = {"peer": arguments.peer, "configuration": arguments.configuration, "mode": arguments.mode}
    return list(choose(files, **names, keep_all=keep_all))


def _is_filtered(arguments: argparse.Namespace) -> bool:
    return any((arguments.peer, arguments.configuration, arguments.mode))
