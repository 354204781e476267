"""``gpunet kernels check``: every CUDA kernel compiled for every architecture, and held against its budgets."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from gpunet.cli.arguments import Parser, add_command, set_command
from gpunet.cli.output import print_json, print_table, require_rich
from gpunet.cli.readers import names
from gpunet.errors import InvalidValueError, counted
from gpunet.kernel_check import budgets as budget_files
from gpunet.kernel_check.budgets import Budgets
from gpunet.kernel_check.check import (
    DEMANDING_ACTIVATIONS,
    CheckedKernel,
    Result,
    Unit,
    architectures,
    compile_all,
    modules,
    units,
)
from gpunet.kernel_check.nvrtc import Nvrtc, nvrtc
from gpunet.kernel_check.sass import AccessCount, count_accesses, find_disassembler

EXIT_PROBLEMS = 1


def declare(parser: Parser) -> None:
    """Declare the commands of ``gpunet kernels`` and their arguments."""
    check = add_command(
        parser.add_subparsers(metavar="COMMAND", dest="kernels_command"),
        "check",
        "compile every kernel for every architecture; status 1 where one fails, spills or needs too many registers",
    )
    set_command(check, run, "gpunet kernels check --arch 80,90 --module batch_norm")
    check.add_argument("--arch", type=names, metavar="LIST", help="compute capabilities such as 80,90 (default: all)")
    check.add_argument("--module", type=names, metavar="LIST", help="files such as batch_norm,dropout (default: all)")
    chosen = check.add_mutually_exclusive_group()
    chosen.add_argument(
        "--activation",
        type=names,
        metavar="LIST",
        help="activations such as relu,gelu (default: all in activation.cu, three in the other files)",
    )
    chosen.add_argument(
        "--quick",
        dest="activation",
        action="store_const",
        const=DEMANDING_ACTIVATIONS,
        help=f"--activation {','.join(DEMANDING_ACTIVATIONS)}, which need the most registers: half of the time",
    )
    check.add_argument("--all", action="store_true", help="a line for every kernel")
    check.add_argument("--sass", action="store_true", help="also count the wide memory accesses of the machine code")
    check.add_argument("--update-budgets", action="store_true", help="set the budgets to what is found")
    check.add_argument("--budgets", type=Path, metavar="FILE", help="default: budgets.json beside the kernels")


def run(arguments: argparse.Namespace) -> None:
    """Compile, print, and leave with status 1 if something is wrong.

    Raises
    ------
    GpunetError, OSError
    SystemExit
        A kernel does not compile, spills, or goes beyond its budget.
    """
    chosen_architectures = architectures(arguments.arch)
    chosen_modules = modules(arguments.module)
    if arguments.update_budgets and (arguments.arch is not None or arguments.activation is not None):
        raise InvalidValueError(
            "--update-budgets: a budget holds for all kernels. Expected none of --arch, --activation, --quick."
        )
    if not arguments.json:
        require_rich()
    compiler = nvrtc()
    _require(compiler, chosen_architectures)
    disassembler = find_disassembler() if arguments.sass else None
    path = arguments.budgets or budget_files.default_path()
    budgets = budget_files.read_budgets(path)

    results = _compile(compiler, units(chosen_modules, chosen_architectures, arguments.activation), budgets)
    checked = _distinct(results)
    problems = _errors(results)
    compiles = not problems
    if arguments.update_budgets and compiles:
        budgets = budget_files.tightened(budgets, checked)
        budget_files.write_budgets(path, budgets)
    problems += budget_files.violations(budgets, checked)
    accesses: list[AccessCount] = []
    if disassembler is not None and compiles:
        accesses = count_accesses(disassembler, results, budgets.vectorized, os.cpu_count() or 1)
        problems += [count.problem for count in accesses if count.problem]

    _print(arguments, compiler, results, checked, accesses, problems)
    if problems:
        raise SystemExit(EXIT_PROBLEMS)


def _require(compiler: Nvrtc, wanted: Sequence[int]) -> None:
    missing = [f"sm_{number}" for number in wanted if number not in compiler.architectures]
    if missing:
        raise InvalidValueError(
            f"NVRTC {compiler.version} does not compile for {', '.join(missing)}. "
            "Expected a newer one: pip install 'gpunet[kernels]'"
        )


def _compile(compiler: Nvrtc, todo: Sequence[Unit], budgets: Budgets) -> list[Result]:
    done = itertools.count(1)

    def show() -> None:
        if sys.stderr.isatty():
            number = next(done)
            end = "\n" if number == len(todo) else "\r"
            print(f"compiled {number} of {len(todo)}", end=end, file=sys.stderr, flush=True)

    return compile_all(compiler, todo, budgets.exchanged, os.cpu_count() or 1, show)


def _errors(results: Sequence[Result]) -> list[str]:
    """Return every compile error once, with where it occurs: one mistake shows in all groups on all architectures."""
    places: dict[tuple[str, str], list[int]] = {}
    for result in results:
        if result.error:
            places.setdefault((result.unit.module, result.error), []).append(result.unit.architecture)
    return [
        f"{module}, {', '.join(f'sm_{number}' for number in sorted(set(numbers)))}: {error}"
        for (module, error), numbers in places.items()
    ]


def _distinct(results: Sequence[Result]) -> list[CheckedKernel]:
    """Return every kernel once: groups of one file may share some."""
    kernels = (kernel for result in results for kernel in result.kernels)
    return list({(kernel.module, kernel.architecture, kernel.expression): kernel for kernel in kernels}.values())


# --- what is printed -------------------------------------------------------------------------------------------------


def _print(
    arguments: argparse.Namespace,
    compiler: Nvrtc,
    results: Sequence[Result],
    checked: Sequence[CheckedKernel],
    accesses: Sequence[AccessCount],
    problems: Sequence[str],
) -> None:
    summary = _summary(results, checked)
    if arguments.json:
        print_json(
            {"nvrtc": compiler.version, "modules": summary, "problems": list(problems)}
            | ({"kernels": [asdict(kernel) for kernel in checked]} if arguments.all else {})
            | ({"accesses": [asdict(count) for count in accesses]} if arguments.sass else {})
        )
        return
    if arguments.all:
        columns = ["kernel", "arch", "registers", "shared", "stack", "spill stores", "spill loads"]
        print_table(columns, [_row(kernel) for kernel in checked], f"NVRTC {compiler.version}; bytes")
    else:
        columns = ["module", "arch", "kernels", "most registers", "most shared", "spills", "seconds"]
        rows = [
            [f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()] for row in summary
        ]
        print_table(columns, rows, f"NVRTC {compiler.version}; bytes")
    if accesses:
        columns = ["kernel", "arch", "bytes", "loads", "stores"]
        print_table(columns, [_access_row(count) for count in accesses], "accesses of so many bytes or more")
    for problem in problems:
        print(problem)
    print(f"{counted(len(checked), 'kernel')}, {counted(len(problems), 'problem')}")


def _summary(results: Sequence[Result], checked: Sequence[CheckedKernel]) -> list[dict[str, Any]]:
    """Return a row for each module and architecture."""
    rows = []
    for place in sorted({(result.unit.module, result.unit.architecture) for result in results}):
        ours = [kernel.resources for kernel in checked if (kernel.module, kernel.architecture) == place]
        units = [result for result in results if (result.unit.module, result.unit.architecture) == place]
        rows.append(
            {
                "module": place[0],
                "architecture": place[1],
                "kernels": len(ours),
                "registers": max((resources.registers for resources in ours), default=0),
                "shared_bytes": max((resources.shared_bytes for resources in ours), default=0),
                "spill_bytes": sum(resources.spill_store_bytes + resources.spill_load_bytes for resources in ours),
                "seconds": sum(result.seconds for result in units),
            }
        )
    return rows


def _row(kernel: CheckedKernel) -> list[str]:
    return [kernel.expression, str(kernel.architecture), *map(str, astuple(kernel.resources))]


def _access_row(count: AccessCount) -> list[str]:
    return [count.expression, *map(str, (count.architecture, count.wanted.bytes, count.loads, count.stores))]
