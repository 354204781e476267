"""What a verification found, as rows of a table and as a file."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.bench.report.files import from_json
from gpunet.errors import FileFormatError
from gpunet.files import write_text
from gpunet.verification.run import Outcome, Verification
from gpunet.version import __version__

FORMAT, FORMAT_VERSION = "gpunet.verification", 1
COLUMNS = ("what", "tried", "worst error / tolerance")


@dataclass(frozen=True)
class Row:
    """All checks of one name.

    Attributes
    ----------
    what : str
    checks, wrong : int
        How many were done, and how many of them were wrong.
    kinds : tuple of str
        The types that they were done in.
    error : float or None
        The largest, in units of the tolerance; None where a check ended in an error or a result is not a number.
    """

    what: str
    checks: int
    wrong: int
    kinds: tuple[str, ...]
    error: float | None

    @property
    def cells(self) -> list[str]:
        """The row as text, for ``COLUMNS``."""
        size = "no number" if self.error is None else f"{self.error:.2g}"
        return [
            self.what,
            f"{self.checks}: {', '.join(self.kinds)}",
            f"{size}, {self.wrong} wrong" if self.wrong else size,
        ]


@dataclass(frozen=True)
class Failure:
    """The first check that was wrong: which, what was found, and what avoids it."""

    check: str
    text: str
    advice: str


@dataclass(frozen=True)
class Report:
    """A verification.

    Attributes
    ----------
    gpunet, date : str
        The version; ISO 8601.
    device : dict of str to str
        What was verified, and what it ran with; ``kind`` is ``"cuda"``, ``"emulated"`` or ``"cpu"``.
    is_right : bool
        Whether every check was done and passed.
    done, planned : int
        Checks.
    seconds : float
    rows : tuple of Row
    ending : str
        Why checks were not done; empty where all were.
    notes : tuple of str
        What gpunet does without on this device, and why.
    switches_off : tuple of str
        Environment variables that turned something off.
    failure : Failure or None
    speed : dict
        What ``gpunet verify --speed`` measured; empty where it did not.
    """

    gpunet: str
    date: str
    device: dict[str, str]
    is_right: bool
    done: int
    planned: int
    seconds: float
    rows: tuple[Row, ...]
    ending: str = ""
    notes: tuple[str, ...] = ()
    switches_off: tuple[str, ...] = ()
    failure: Failure | None = None
    speed: dict[str, Any] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """What is to be said beside the table."""
        lines = [note[0].upper() + note[1:] for note in self.notes]
        lines += [f"{variable}=0: not tried, and not used" for variable in self.switches_off]
        if self.failure is not None:
            lines += [f"{self.failure.check}:", f"  {self.failure.text}", f"  {self.failure.advice}"]
        right = self.done - sum(row.wrong for row in self.rows)
        lines.append(f"{right} of {self.planned} checks passed in {self.seconds:.0f} s on {self.device['model']}")
        if self.done < self.planned:
            lines.append(f"not done: {self.planned - self.done}, {self.ending}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(self)}

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises
        ------
        OSError
        """
        write_text(path, json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n")


def report(verification: Verification, with_advice: bool = True) -> Report:
    """Return what a verification has found so far.

    Parameters
    ----------
    verification : Verification
    with_advice : bool
        Whether to find out what avoids the first failure, which may repeat it.
    """
    failure = None
    first = verification.first_failure
    if first is not None:
        advice = verification.advice(first) if with_advice else ""
        failure = Failure(first.check.name, first.text, advice)
    subject = verification.subject
    return Report(
        __version__,
        datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        {**subject.description, "numpy": np.__version__, "python": platform.python_version()},
        verification.is_right,
        len(verification.outcomes),
        len(verification.checks),
        round(verification.seconds, 1),
        rows(verification.outcomes),
        verification.ending,
        tuple(dict.fromkeys((*subject.notes, *(one.note for one in verification.outcomes if one.note)))),
        tuple(switch.variable for switch in subject.switches if not switch.is_on()),
        failure,
    )


def rows(outcomes: list[Outcome]) -> tuple[Row, ...]:
    """Return a row for each name of checks."""
    by_name: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.note:
            continue
        by_name.setdefault(outcome.check.what, []).append(outcome)
    return tuple(_row(what, found) for what, found in by_name.items())


def _row(what: str, outcomes: list[Outcome]) -> Row:
    error = max(outcome.error for outcome in outcomes)
    return Row(
        what,
        len(outcomes),
        sum(not outcome.is_right for outcome in outcomes),
        tuple(dict.fromkeys(outcome.check.kind for outcome in outcomes)),
        float(f"{error:.3g}") if math.isfinite(error) else None,
    )


def read_report(path: Path) -> Report:
    """Read what :meth:`Report.save` wrote.

    Raises
    ------
    FileFormatError
        It is no such file.
    OSError
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content.pop("format"), content.pop("format_version")) != (FORMAT, FORMAT_VERSION):
            raise ValueError("it has another format")
        return from_json(Report, content, "report")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{path}: not a report of gpunet verify ({error})") from error
