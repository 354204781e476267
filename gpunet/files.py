"""Writing files whole or not at all, whatever happens meanwhile; an older file stays until the new one is there."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gpunet.errors import InvalidTypeError, InvalidValueError, shown

if sys.platform != "win32":  # where nobody can remove a file that a writer has open
    import fcntl

# Of the target's name, in that of its temporary: file systems take 255 bytes, and a character has up to four.
_NAME_CHARACTERS = 50
_ENDING = ".part"


def as_path(path: Any, argument: str = "path") -> Path:
    """Return ``path`` as a path, or raise.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        It is no path, or holds a null character, which no file's name can; the message names ``argument``.
    """
    try:
        checked = Path(path)
    except TypeError:
        raise InvalidTypeError(f"{argument}: got {shown(path)}. Expected a path.") from None
    if "\0" in str(checked):
        raise InvalidValueError(f"{argument}: {shown(path)} holds a null character. Expected a path.")
    return checked


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of ``path``, at once, when the block ends without an error.

    The content goes to a temporary file beside it, reaches the disk, and then gets the name. A new file has the mode
    that ``open`` would give it, a replaced one keeps its mode, and its owner where that is allowed. Temporary files of
    this path that killed writers have left are removed; those of writers that live, in whatever process, are not.
    What is no regular file (``/dev/stdout``, a pipe) is written to as it is.

    Parameters
    ----------
    path : path
        Missing folders are created. A symbolic link stays, and the file that it names is replaced.

    Yields
    ------
    binary file

    Raises
    ------
    InvalidTypeError, InvalidValueError
        It is no path.
    OSError
        The file cannot be written, or may not be; it names ``path``, or the folder that cannot be made.
    """
    path = as_path(path)
    try:
        target = Path(os.path.realpath(path))
        existing = target.stat() if target.exists() else None
        if existing is None or stat.S_ISREG(existing.st_mode):
            opened: contextlib.AbstractContextManager[BinaryIO] = _replacement(target, existing)
        else:
            opened = target.open("wb")
        with opened as file:
            yield file
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename).endswith(_ENDING)):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write text as UTF-8, its line ends as they are; see :func:`replacing`."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))
    return Path(path)


@contextlib.contextmanager
def _replacement(target: Path, existing: os.stat_result | None) -> Iterator[BinaryIO]:
    if existing is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    with _temporary(target, existing) as (temporary, file):
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    _sync_folder(target.parent)


@contextlib.contextmanager
def _temporary(target: Path, existing: os.stat_result | None) -> Iterator[tuple[Path, BinaryIO]]:
    """Make a file beside ``target`` that is locked for as long as the block runs, and is gone after an error in it."""
    mode = 0o666 if existing is None else stat.S_IMODE(existing.st_mode)
    with contextlib.ExitStack() as ending:
        while True:
            temporary = target.with_name(f".{target.name[:_NAME_CHARACTERS]}.{secrets.token_hex(8)}{_ENDING}")
            # The system takes the umask off, as it does for open.
            file = open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
            if not _lock(file, wait=True) or os.fstat(file.fileno()).st_nlink:
                break
            file.close()  # another writer removed it before it was locked
        if sys.platform != "win32":  # a second descriptor keeps the lock when the file has been closed
            ending.callback(os.close, os.dup(file.fileno()))
        try:
            if existing is not None and hasattr(os, "fchmod"):
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), existing.st_uid, existing.st_gid)
                os.fchmod(file.fileno(), mode)
            yield temporary, file
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk would be told a second time
                file.close()
            temporary.unlink(missing_ok=True)
            raise


def _remove_abandoned(target: Path) -> None:
    """Remove the temporary files of ``target`` that no living writer has locked."""
    pattern = re.compile(rf"\.{re.escape(target.name[:_NAME_CHARACTERS])}\.[0-9a-f]{{16}}{re.escape(_ENDING)}")
    with contextlib.suppress(OSError):
        for path in [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]:
            with contextlib.suppress(OSError), path.open("r+b") as file:
                if sys.platform == "win32":
                    file.close()
                    path.unlink()
                elif _lock(file, wait=False):
                    path.unlink()


def _lock(file: BinaryIO, wait: bool) -> bool:
    """Lock a file for as long as this process has it open; say whether it could be, which some systems cannot."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def _sync_folder(folder: Path) -> None:
    """Let the new name reach the disk too, where folders can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
