"""Runs checks one after the other, each to its end or its error, within a limit of time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gpunet.activations import Activation
from gpunet.verification import (
    activation,
    batch_norm,
    batch_norm_shards,
    gather,
    loss_scale,
    losses,
    narrow_pass,
    networks,
    optimizer,
    products,
    random_bits,
    rounding,
    score,
    shards,
    training,
)
from gpunet.verification.check import Check, NotDoneError, Unit
from gpunet.verification.operation import Difference
from gpunet.verification.subject import Subject

# Kernels of one file and type that are compiled at once: fewer compilations read the same source.
COMPILED_TOGETHER = 8
_WITHOUT_CUDA = 'device="cpu" (--device cpu in the shell)'
GROUPS = (
    products,
    gather,
    rounding,
    activation,
    batch_norm,
    batch_norm_shards,
    losses,
    score,
    shards,
    random_bits,
    loss_scale,
    optimizer,
    narrow_pass,
    training,
    networks,
)


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes
    ----------
    check : Check
    error : float
        The largest, in units of what is allowed; infinite where the check did not come to an end.
    text : str
        What was wrong; empty where nothing was.
    note : str
        Why the device is not asked for this; empty where it was.
    """

    check: Check
    error: float
    text: str = ""
    note: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the check passed."""
        return not self.text


@dataclass
class Verification:
    """Checks of a subject, and what came of those that are done.

    Attributes
    ----------
    subject : Subject
    checks : list of Check
    outcomes : list of Outcome
        Of the first checks, in order.
    ending : str
        Why the others were not done; empty where all were.
    seconds : float
        That it has taken.
    """

    subject: Subject
    checks: list[Check]
    outcomes: list[Outcome] = field(default_factory=list)
    ending: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._units = merged(unit for check in self.checks for unit in check.units)

    @property
    def steps(self) -> int:
        """Pieces of work: kernels that are compiled together, and checks."""
        return len(self._units) + len(self.checks)

    @property
    def is_right(self) -> bool:
        """Whether every check was done and passed."""
        return len(self.outcomes) == len(self.checks) and all(outcome.is_right for outcome in self.outcomes)

    @property
    def first_failure(self) -> Outcome | None:
        """The first outcome that is wrong."""
        return next((outcome for outcome in self.outcomes if not outcome.is_right), None)

    def run(self, on_progress: Callable[[int, str], object], seconds: float = math.inf) -> None:
        """Do the checks; what is done so far is in ``outcomes`` whenever it ends.

        Parameters
        ----------
        on_progress : callable
            Is given how many steps are done, and what is being done.
        seconds : float
            After so many, no further check is begun.
        """
        started = time.perf_counter()
        try:
            compiled = 0
            on_progress(compiled, "compiling kernels")
            for _ in self.subject.compile_all(self._units):
                compiled += 1
                on_progress(compiled, "compiling kernels")
                if time.perf_counter() - started > seconds:
                    break
            for done, check in enumerate(self.checks, start=compiled):
                on_progress(done, check.name)
                if time.perf_counter() - started > seconds:
                    self.ending = f"the limit of {round(seconds, 1):g} s was reached"
                    return
                outcome, can_go_on = self._try(check)
                self.outcomes.append(outcome)
                if not can_go_on:
                    self.ending = "the device does not work any more"
                    return
        except KeyboardInterrupt:
            self.ending = "interrupted"
            raise
        finally:
            self.seconds = time.perf_counter() - started

    def _try(self, check: Check) -> tuple[Outcome, bool]:
        """Return what came of a check, and whether the device works on."""
        try:
            outcome = _outcome(check, check.run())
        except NotDoneError as reason:
            outcome = Outcome(check, 0.0, note=str(reason))
        except Exception as error:  # whatever it is, it is what this check found
            outcome = Outcome(check, math.inf, f"{type(error).__name__}: {' '.join(str(error).split())}")
            try:
                self.subject.prove_alive()
            except Exception:
                return outcome, False
        return outcome, True

    def advice(self, failure: Outcome) -> str:
        """Say how a failure can be avoided: by what the check knows, or by what its repetition shows."""
        if failure.check.switch:  # of kernels that networks have only with it
            return f"{failure.check.switch}=0 avoids it: networks then do without"
        switches = () if failure.check.units else self.subject.switches
        if self.ending and switches:
            names = " or ".join(f"{switch.variable}=0" for switch in switches)
            return f"{_WITHOUT_CUDA} avoids it; whether {names} does, `gpunet verify` says where that is set"
        if not self.ending:
            for switch in switches:
                with self.subject.turned_off(switch):
                    again, _ = self._try(failure.check)
                if again.is_right:
                    return f"{switch.variable}=0 avoids it: the same check passes with it"
        if failure.check.kind == "tf32":
            return 'precision="float32" (--precision float32 in the shell), the default, avoids it'
        return f"{_WITHOUT_CUDA} avoids it" if self.subject.switches else "no switch avoids it"


def _outcome(check: Check, differences: Iterable[Difference]) -> Outcome:
    worst = Difference("", 0.0)
    for found in differences:
        if found.error > worst.error:
            worst = found
    return Outcome(check, worst.error, worst.text)


def merged(units: Iterable[Unit]) -> list[Unit]:
    """Return units with all kernels of the given ones, as few as are good to compile."""
    kinds: dict[tuple[str, str, Activation | None], dict[str, None]] = {}
    whole = []
    for unit in dict.fromkeys(units):
        if len(unit.group) > 1:
            whole.append(unit)
        else:
            storage = unit.group[0].partition("<")[2].partition(",")[0]
            kinds.setdefault((unit.module, storage, unit.activation), {})[unit.group[0]] = None
    for (module, _, activation_), expressions in kinds.items():
        names = sorted(expressions)
        parts = (names[start : start + COMPILED_TOGETHER] for start in range(0, len(names), COMPILED_TOGETHER))
        whole.extend(Unit(module, tuple(part), activation_) for part in parts)
    return whole


def all_checks(subject: Subject, words: Sequence[str] = ()) -> list[Check]:
    """Return every check of a subject whose name has all of the words."""
    checks = [check for group in GROUPS for check in group.checks(subject)]
    return [check for check in checks if all(map(check.has, words))]
