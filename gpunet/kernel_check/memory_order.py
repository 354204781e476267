"""Whether a compiled kernel keeps what its threads tell one another in order; a run on a CPU cannot show it.

What the blocks of one launch exchange is declared in ``kernels/budgets.json``: the names of a kernel's parameters. Of
these, and of asynchronous copies and clusters, the rules are:

1. What blocks exchange is named, and counters and marks change by atomic operations that other blocks see.
2. Past the L1 cache: what other blocks wrote is read by a load that asks the L2 cache.
3. Giving: between a store and the atomic operation that announces it lie, on every path, a fence and then a barrier.
4. Taking: a thread that has seen an announcement, by an atomic operation behind a barrier or by reading a mark, passes
   a fence before it, or its block behind a further barrier, reads what was announced.
5. Copies: between an asynchronous copy and what reads shared memory, or a barrier, lies a wait for all of them.
6. Clusters: another block's memory is read after an arrival that releases and a wait that acquires; and a block that
   has read so arrives and waits once more before it ends.

Source: PTX ISA, "Memory Consistency Model"; Lustig, Sahasrabuddhe, Giroux 2019, "A formal analysis of the NVIDIA PTX
memory consistency model".
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from gpunet.errors import InvalidValueError
from gpunet.kernel_check.ptx import REMOTE, Function, Instruction

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_FENCES = ("membar.gl", "membar.sys", "fence.acq_rel.gpu", "fence.acq_rel.sys", "fence.sc.gpu", "fence.sc.sys")
_BARRIERS = ("bar.sync", "bar.red", "barrier.sync", "barrier.red")


def parameter_names(source: str, kernel: str) -> tuple[str, ...]:
    """Return the names of a kernel's parameters, in order.

    Examples
    --------
    >>> parameter_names("__global__ void copy(const T* from /* [count] */, T* to, int count) {", "copy")
    ('from', 'to', 'count')
    """
    text = _COMMENT.sub("", source)
    match = re.search(rf"\b{kernel}\(([^)]*)\)\s*{{", text)
    if match is None:
        raise InvalidValueError(f"exchanged: the kernel {kernel!r} is not in the source.")
    return tuple(parameter.split()[-1].lstrip("*") for parameter in match[1].split(","))


def problems(function: Function, parameters: tuple[str, ...], exchanged: Collection[str]) -> list[str]:
    """Return what is wrong with one kernel, a line for each rule that it breaks.

    Parameters
    ----------
    function : Function
    parameters : tuple of str
        Their names, in order.
    exchanged : collection of str
        Those of arrays through which the blocks of one launch tell each other something.

    Raises
    ------
    InvalidValueError
        The kernel has no parameter of such a name.
    """
    unknown = sorted(set(exchanged) - set(parameters))
    if unknown:
        known = ", ".join(parameters)
        raise InvalidValueError(f"exchanged: {unknown[0]!r} is no parameter. Expected some of: {known}.")
    positions = {position for position, name in enumerate(parameters) if name in exchanged}
    check = _Check(function, parameters, positions)
    check.exchange()
    check.giving()
    check.taking()
    check.copies()
    check.clusters()
    return list(check.found)


class _Taken(NamedTuple):
    """What a thread knows: "nothing", "seen" (an announcement) or "fenced" (after that); and what it passed last."""

    knows: str
    behind_barrier: bool


class _Cluster(NamedTuple):
    """Whether other blocks' memory is "closed", "open" or has been "read"; and whether this block has arrived since."""

    memory: str
    arrived: bool


class _Check:
    """The rules, applied to one kernel; ``found`` has the problems for its keys."""

    def __init__(self, function: Function, parameters: tuple[str, ...], exchanged: set[int]) -> None:
        self._function = function
        self._parameters = parameters
        self._exchanged = exchanged
        self.found: dict[str, None] = {}

    def _report(self, problem: str, one: Instruction) -> None:
        names = ", ".join(self._parameters[position] for position in sorted(one.parameters - {REMOTE}))
        self.found[problem.format(names=names)] = None

    def _is_exchanged(self, one: Instruction, *opcodes: str) -> bool:
        return one.is_(*opcodes) and not self._exchanged.isdisjoint(one.parameters)

    def exchange(self) -> None:
        """Check rules 1 and 2."""
        counters: set[int] = set()
        for one in self._function.instructions():
            if one.is_("atom", "red") and not one.has("shared"):
                if not self._is_exchanged(one, "atom", "red"):
                    self._report("an atomic operation on {names}, which is not declared as exchanged", one)
                if one.has("cta"):
                    self._report("an atomic operation on {names} that is none to other blocks", one)
                counters |= one.parameters
            if self._is_exchanged(one, "ld") and not (one.has("cg", "cv") or _is_strong(one)):
                self._report("reads {names}, which other blocks write, through the L1 cache", one)
        for one in self._function.instructions():
            if one.is_("st") and not counters.isdisjoint(one.parameters):
                self._report("writes {names} without an atomic operation", one)

    def giving(self) -> None:
        """Check rule 3; of what it has stored, a thread is in the state "clean", "stored" or "fenced"."""

        def step(one: Instruction, states: frozenset[str]) -> frozenset[str]:
            if self._is_exchanged(one, "st"):
                return frozenset(["stored"])
            if one.is_(*_FENCES):
                return frozenset("fenced" if state == "stored" else state for state in states)
            if one.is_(*_BARRIERS):
                return frozenset("clean" if state == "fenced" else state for state in states)
            return states

        for one, states in self._function.states("clean", step):
            if self._is_exchanged(one, "atom", "red"):
                if "stored" in states:
                    self._report("announces by {names} what it stored without a fence and then a barrier", one)
                if "fenced" in states:
                    self._report("announces by {names} what other threads stored without a barrier", one)

    def taking(self) -> None:
        """Check rule 4."""

        def step(one: Instruction, states: frozenset[_Taken]) -> frozenset[_Taken]:
            if one.is_(*_BARRIERS):  # then all threads of the block know what one of them knows
                known = {state.knows for state in states}
                return frozenset([_Taken(next(what for what in ("seen", "fenced", "nothing") if what in known), True)])
            if one.is_(*_FENCES):
                return frozenset(_Taken("nothing" if knows == "nothing" else "fenced", False) for knows, _ in states)
            if self._is_exchanged(one, "atom", "red"):
                return frozenset(_Taken("seen" if behind else knows, False) for knows, behind in states)
            if self._is_exchanged(one, "ld") and _is_strong(one):
                return frozenset([_Taken("fenced" if one.has("acquire") else "seen", False)])
            return states

        for one, states in self._function.states(_Taken("nothing", False), step):
            reads = self._is_exchanged(one, "ld") and not _is_strong(one)
            if reads and any(state.knows != "fenced" for state in states):
                self._report("reads {names} without a fence after it was announced", one)

    def copies(self) -> None:
        """Check rule 5; a thread's copies are "pending", "grouped" by a commit, or "done"."""

        def step(one: Instruction, states: frozenset[str]) -> frozenset[str]:
            if one.is_("cp.async.ca", "cp.async.cg"):
                return frozenset(["pending"])
            if one.is_("cp.async.commit_group"):
                return frozenset("grouped" if state == "pending" else state for state in states)
            if one.is_("cp.async.wait_all"):
                return frozenset(["done"])
            if one.is_("cp.async.wait_group") and one.operands.strip() == "0":
                return frozenset("done" if state == "grouped" else state for state in states)
            return states

        for one, states in self._function.states("done", step):
            if one.is_("ld.shared", *_BARRIERS, "barrier.cluster.arrive", "ret", "exit") and states != {"done"}:
                self._report("does not wait for its asynchronous copies to shared memory", one)

    def clusters(self) -> None:
        """Check rule 6."""

        def step(one: Instruction, states: frozenset[_Cluster]) -> frozenset[_Cluster]:
            if one.is_("barrier.cluster.arrive") and not one.has("relaxed"):
                return frozenset(_Cluster(memory, True) for memory, _ in states)
            if one.is_("barrier.cluster.wait"):
                return frozenset(_Cluster("open", False) if state.arrived else state for state in states)
            if one.is_("ld") and REMOTE in one.parameters:
                return frozenset([_Cluster("read", False)])
            return states

        for one, states in self._function.states(_Cluster("closed", False), step):
            memory = {state.memory for state in states}
            if one.is_("ld") and REMOTE in one.parameters and "closed" in memory:
                self._report("reads another block's shared memory before the cluster has released it", one)
            if one.is_("ret", "exit") and "read" in memory:
                self._report("ends while other blocks of the cluster may read its shared memory", one)


def _is_strong(one: Instruction) -> bool:
    return one.has("volatile", "relaxed", "acquire")
