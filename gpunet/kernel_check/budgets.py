"""``kernels/budgets.json``: the registers that kernels may use, how wide they must move memory, what blocks exchange.

More registers mean fewer warps that hide the memory's latency; a spill means traffic that no formula asked for. Both
come silently, with an innocent change of the source or a new compiler, and the numbers stay right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gpunet.backends.cuda.sources import folder
from gpunet.errors import FileFormatError
from gpunet.files import write_text
from gpunet.kernel_check.check import CheckedKernel
from gpunet.validation import check_integer

# A multiprocessor gives a thread registers by the eight: within them, more cost nothing.
REGISTER_STEP = 8
MOST_REGISTERS = 255

_FAMILY = re.compile(r"(\w+)<([^,>]+)")


@dataclass(frozen=True)
class VectorAccess:
    """The least number of instructions of so many bytes, or more, in a kernel's machine code."""

    bytes: int
    loads: int
    stores: int


@dataclass(frozen=True)
class Budgets:
    """What the file says.

    Attributes
    ----------
    registers : dict
        By module, then by family (:func:`family`).
    vectorized : dict
        By module, then by kernel with all its template arguments: what a person has read from the source.
    exchanged : dict
        By module, then by kernel: the parameters through which the blocks of one launch tell each other something.
    """

    registers: dict[str, dict[str, int]]
    vectorized: dict[str, dict[str, VectorAccess]]
    exchanged: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)


def family(expression: str) -> str:
    """Return what shares a budget: a kernel and its first template argument, the type, of all widths and activations.

    Examples
    --------
    >>> family("dropout_forward<__half, true>")
    'dropout_forward<__half>'
    """
    match = _FAMILY.match(expression)
    return f"{match[1]}<{match[2]}>" if match else expression


def default_path() -> Path:
    """Return the file that lies beside the kernels."""
    return Path(str(folder() / "budgets.json"))


def read_budgets(path: Path) -> Budgets:
    """Read the file.

    Raises
    ------
    FileFormatError
        It is not one of ours.
    OSError
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        vectorized = {
            module: {name: VectorAccess(**_counts(access)) for name, access in entries.items()}
            for module, entries in content["vectorized"].items()
        }
        registers = {module: _counts(families) for module, families in content["registers"].items()}
        exchanged = {
            module: {name: tuple(map(_name, parameters)) for name, parameters in entries.items()}
            for module, entries in content["exchanged"].items()
        }
        return Budgets(registers, vectorized, exchanged)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{path}: not a file of kernel budgets ({error!r})") from error


def _counts(numbers: dict[str, int]) -> dict[str, int]:
    return {name: check_integer(name, number, 0) for name, number in numbers.items()}


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no name")
    return value


def write_budgets(path: Path, budgets: Budgets) -> None:
    """Write the file, whole or not at all, in an order that keeps its differences small."""
    content = {"registers": budgets.registers, "vectorized": budgets.vectorized, "exchanged": budgets.exchanged}
    text = json.dumps(content, indent=2, sort_keys=True, default=asdict)
    write_text(path, text + "\n")


def tightened(budgets: Budgets, checked: Iterable[CheckedKernel]) -> Budgets:
    """Return budgets that fit what was measured, for the modules of which anything was.

    Whatever the architecture: a family has one budget, the most that any of them needs, rounded up to what a thread is
    given.
    """
    measured: dict[str, dict[str, int]] = {}
    for kernel in checked:
        families = measured.setdefault(kernel.module, {})
        needed = -(-kernel.resources.registers // REGISTER_STEP) * REGISTER_STEP
        name = family(kernel.expression)
        families[name] = max(families.get(name, 0), min(needed, MOST_REGISTERS))
    return Budgets(budgets.registers | measured, budgets.vectorized, budgets.exchanged)


def violations(budgets: Budgets, checked: Sequence[CheckedKernel]) -> list[str]:
    """Return a line for every kernel that spills, goes beyond its budget or has none, or breaks the order of memory."""
    lines: list[str] = []
    for kernel in checked:
        what = f"{kernel.module}, sm_{kernel.architecture}: {kernel.expression}"
        lines.extend(f"{what} {problem}" for problem in kernel.order)
        resources = kernel.resources
        if resources.spill_store_bytes or resources.spill_load_bytes:
            lines.append(
                f"{what} spills {resources.spill_store_bytes} bytes and loads {resources.spill_load_bytes} again"
            )
        budget = budgets.registers.get(kernel.module, {}).get(family(kernel.expression))
        if budget is None:
            lines.append(f"{what} has no budget; --update-budgets writes one")
        elif resources.registers > budget:
            lines.append(f"{what} needs {resources.registers} registers of a budget of {budget}")
    return lines
