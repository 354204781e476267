"""The entry point: every error that a user can cause is one line on standard error, and never a traceback."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpunet.cli.arguments import in_options, parse_arguments
from gpunet.cli.commands import build_parser
from gpunet.cli.ranks import Company
from gpunet.cli.streams import abandon_output, complain, escape_what_the_terminal_lacks, open_missing
from gpunet.errors import GpunetError, ResumeWarning, UnknownCategoryWarning
from gpunet.signals import EXIT_SIGNAL, Interruption, interrupts

EXIT_ERROR = 2
# What a shell reports for a program that a closed pipe ended.
EXIT_CLOSED_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, or None
        The arguments; None takes those of the process.

    Returns
    -------
    int
        0; 2 after an error; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP; 141 when the reader of standard
        output has gone.
    """
    company = Company()
    with interrupts() as interruption:
        try:
            return _run_telling_errors(argv, interruption, company)
        except KeyboardInterrupt as interrupt:
            return _fail(interrupt, str(interrupt) or "interrupted", EXIT_SIGNAL + interruption.number, company)


def _run_telling_errors(argv: Sequence[str] | None, interruption: Interruption, company: Company) -> int:
    open_missing()
    escape_what_the_terminal_lacks()
    try:
        return _run(argv, interruption, company)
    except BrokenPipeError as error:
        abandon_output()
        return _fail(error, "", EXIT_CLOSED_PIPE, company)
    except OSError as error:
        told = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        abandon_output()
        return _fail(error, told, EXIT_ERROR, company)
    except MemoryError as error:
        return _fail(error, str(error) or "not enough memory", EXIT_ERROR, company)
    except GpunetError as error:
        return _fail(error, str(error), EXIT_ERROR, company)


def _fail(error: BaseException, message: str, status: int, company: Company) -> int:
    """Tell an error, by one rank for all, end those that do not have it too, and return the exit status."""
    if company.is_to_tell(error) and message:
        complain(message)
    company.end(error, status)
    return status


def _run(argv: Sequence[str] | None, interruption: Interruption, company: Company) -> int:
    try:
        if not company.meet(argv):
            return 0
        arguments = parse_arguments(build_parser(), argv)
        arguments.interruption, arguments.company = interruption, company
        try:
            # What overflows shows in a result or is told as an error; NumPy's warnings would only add lines to that.
            with np.errstate(all="ignore"), _warnings_as_lines(company), _notices(arguments.parser):
                arguments.run(arguments)
        except GpunetError as error:
            error.args = (in_options(str(error), arguments.parser),)
            raise
    except SystemExit as finished:  # --help, --version, and a check that found something
        sys.stdout.flush()
        return int(finished.code or 0)
    except (ImportError, SystemError):
        if interruption.has_come:  # imports and C code make one of these of a KeyboardInterrupt
            raise KeyboardInterrupt from None
        raise
    sys.stdout.flush()  # here, where a closed pipe or a full disk can still be told
    return 0


@contextmanager
def _warnings_as_lines(company: Company) -> Iterator[None]:
    """Print gpunet's own warnings as one line each, without the place in the code, and by one of all ranks."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_as_line(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
            if company.is_silent:
                return
            if issubclass(category, (ResumeWarning, UnknownCategoryWarning)):
                complain(f"warning: {message}")
            else:
                show(message, category, *place, **options)

        warnings.showwarning = show_as_line
        for category in (ResumeWarning, UnknownCategoryWarning):
            warnings.simplefilter("always", category)
        yield


@contextmanager
def _notices(command: argparse.ArgumentParser) -> Iterator[None]:
    """Print what gpunet logs as lines that speak of options."""
    handler, logger = logging.Handler(logging.WARNING), logging.getLogger("gpunet")
    handler.emit = lambda record: complain(in_options(record.getMessage(), command))  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
