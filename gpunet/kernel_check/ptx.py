"""PTX, the code in which CUDA's memory model is written: which instruction may follow which, and what addresses are of.

The assembler keeps the order that PTX asks for; what a compiler took away, or a source never had, is missing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

State = TypeVar("State")

_ENTRY = re.compile(r"\.(?:entry|func)\s+(?:\([^)]*\)\s*)?(\w+)")
_LABEL = re.compile(r"^(\$?\w+):$")
_STATEMENT = re.compile(r"^(@!?%\w+\s+)?([a-z][\w.:]*)\s*(.*)$")
_REGISTER = re.compile(r"%\w+")
_PARAMETER = re.compile(r"_param_(\d+)")
# What an address is made by; the result of anything else is a number.
_ADDRESS_ARITHMETIC = ("add", "sub", "mov", "cvta", "selp", "mad", "or")
# What the memory model is about, and the ends of threads; other instructions are not kept.
_MEMORY = ("ld", "st", "atom", "red", "bar", "barrier", "membar", "fence", "cp", "ret", "exit")
# The provenance of an address in the shared memory of another block of the cluster.
REMOTE = -1


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes
    ----------
    opcode : str
        ``"ld.global.cg.f32"``.
    operands : str
        As they stand there.
    parameters : frozenset of int
        Positions of the kernel's pointers that the address may be of; :data:`REMOTE` for another block's memory.
    has_predicate : bool
        Whether some threads may pass it by.
    """

    opcode: str
    operands: str
    parameters: frozenset[int]
    has_predicate: bool

    def is_(self, *prefixes: str) -> bool:
        """Return whether the opcode is one of these, or has one of these for its first parts."""
        return any(self.opcode == prefix or self.opcode.startswith(f"{prefix}.") for prefix in prefixes)

    def has(self, *parts: str) -> bool:
        """Return whether one of these is among the parts of the opcode."""
        return not set(parts).isdisjoint(self.opcode.split("."))


@dataclass(frozen=True)
class _Block:
    """Instructions that run one after the other, and the blocks of which one follows."""

    instructions: tuple[Instruction, ...]
    successors: tuple[int, ...]


class Function:
    """A kernel as a graph of blocks of instructions that touch memory; it starts with the first block.

    Parameters
    ----------
    lines : sequence of str
        PTX from behind the kernel's name to the next one.
    """

    def __init__(self, lines: list[str]) -> None:
        statements = list(_statements(lines))
        pointers = _pointers(statements)
        starts = {0} | {at for at, (opcode, _, _) in enumerate(statements) if opcode == ":"}
        starts |= {at + 1 for at, (opcode, _, _) in enumerate(statements) if _ends_block(opcode)}
        bounds = sorted(start for start in starts if start < len(statements))
        labels = {operands: bounds.index(at) for at, (opcode, operands, _) in enumerate(statements) if opcode == ":"}
        self._blocks: list[_Block] = []
        for number, (start, stop) in enumerate(zip(bounds, [*bounds[1:], len(statements)], strict=True)):
            part = [statement for statement in statements[start:stop] if statement[0] != ":"]
            instructions = (
                Instruction(opcode, operands, _address(operands, pointers), has_predicate)
                for opcode, operands, has_predicate in part
                if opcode.partition(".")[0] in _MEMORY
            )
            self._blocks.append(_Block(tuple(instructions), _successors(part, number, len(bounds), labels)))
        self._predecessors: list[list[int]] = [[] for _ in self._blocks]
        for number, block in enumerate(self._blocks):
            for successor in block.successors:
                self._predecessors[successor].append(number)
        self._order = _order([block.successors for block in self._blocks])

    def instructions(self) -> Iterator[Instruction]:
        """Yield every instruction that touches memory, in the order of the text."""
        for block in self._blocks:
            yield from block.instructions

    def states(
        self, start: State, step: Callable[[Instruction, frozenset[State]], frozenset[State]]
    ) -> Iterator[tuple[Instruction, frozenset[State]]]:
        """Yield every instruction that touches memory with the states in which threads may come to it, on all paths.

        Parameters
        ----------
        start : object
            The state in which all threads start.
        step : callable
            Returns the states after an instruction. At a barrier they may depend on all states before it: a block comes
            up when all that lead to it have, but for the ends of loops.
        """
        before: dict[int, frozenset[State]] = {}
        after: dict[int, frozenset[State]] = {}
        todo = {0}
        while todo:
            number = min(todo, key=self._order.__getitem__)
            todo.remove(number)
            arriving = [after[other] for other in self._predecessors[number] if other in after]
            states = frozenset([start]).union(*arriving) if number == 0 else frozenset[State]().union(*arriving)
            if before.get(number) == states:
                continue
            before[number] = states
            for instruction in self._blocks[number].instructions:
                states = step(instruction, states) | (states if instruction.has_predicate else frozenset())
            if after.get(number) != states:
                after[number] = states
                todo.update(self._blocks[number].successors)
        for number, states in before.items():
            for instruction in self._blocks[number].instructions:
                yield instruction, states
                states = step(instruction, states) | (states if instruction.has_predicate else frozenset())


def _order(successors: Sequence[tuple[int, ...]]) -> dict[int, int]:
    """Return the places of the blocks in an order in which those that lead to a block stand before it."""
    finished: list[int] = []
    seen = {0}
    path = [(0, iter(successors[0]))]
    while path:
        number, following = path[-1]
        for successor in following:
            if successor not in seen:
                seen.add(successor)
                path.append((successor, iter(successors[successor])))
                break
        else:
            finished.append(number)
            path.pop()
    return {number: place for place, number in enumerate(reversed(finished))}


def functions(ptx: str) -> dict[str, Function]:
    """Return the kernels by their symbols."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in ptx.splitlines():
        if match := _ENTRY.search(line):
            lines = parts[match[1]] = []
        else:
            lines.append(line)
    return {name: Function(lines) for name, lines in parts.items() if lines}


Statement = tuple[str, str, bool]  # opcode (":" for a label), operands, whether it has a predicate


def _statements(lines: list[str]) -> Iterator[Statement]:
    for line in lines:
        text = line.partition("//")[0].strip()
        if match := _LABEL.match(text):
            yield ":", match[1], False
            continue
        for piece in text.split(";"):
            if match := _STATEMENT.match(piece.strip().removeprefix("{").strip()):
                yield match[2], match[3], match[1] is not None


def _ends_block(opcode: str) -> bool:
    return opcode.partition(".")[0] in ("bra", "brx", "ret", "exit", "trap")


def _successors(part: list[Statement], number: int, count: int, labels: dict[str, int]) -> tuple[int, ...]:
    following = (number + 1,) if number + 1 < count else ()
    if not part or not _ends_block(part[-1][0]):
        return following
    opcode, operands, has_predicate = part[-1]
    targets: tuple[int, ...] = ()
    if opcode.startswith("bra"):
        targets = (labels[operands.split()[-1]],)
    elif opcode.startswith("brx"):
        targets = tuple(labels.values())
    return (targets + following) if has_predicate else targets


def _pointers(statements: list[Statement]) -> dict[str, frozenset[int]]:
    """Return which parameters the registers may point into the memory of, whatever the path."""
    found: dict[str, frozenset[int]] = {}
    moves = []
    for opcode, operands, _ in statements:
        kind = opcode.partition(".")[0]
        first, *others = _REGISTER.findall(operands) or [""]
        if opcode in ("ld.param.u64", "ld.param.b64") and (match := _PARAMETER.search(operands)):
            found[first] = found.get(first, frozenset()) | {int(match[1])}
        elif kind == "mapa":
            found[first] = frozenset([REMOTE])
        elif kind in _ADDRESS_ARITHMETIC and first.startswith("%rd"):
            moves.append((first, others))
    changed = True
    while changed:
        changed = False
        for first, others in moves:
            before = found.get(first, frozenset())
            after = before.union(*(found.get(other, frozenset()) for other in others))
            if after != before:
                found[first], changed = after, True
    return found


def _address(operands: str, pointers: dict[str, frozenset[int]]) -> frozenset[int]:
    inside = operands.partition("[")[2].partition("]")[0]
    match = _REGISTER.search(inside)
    return pointers.get(match[0], frozenset()) if match else frozenset()
