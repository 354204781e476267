"""Writing files: whole or not at all, whatever happens meanwhile, and an older file stays until the new one is there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows, where nobody can remove a file that a writer has open
    fcntl = None  # type: ignore[assignment]

# Of the target's name, in that of its temporary: file systems take 255 bytes, and a character has up to four.
_NAME_CHARACTERS = 50


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
    OSError
        The file cannot be written, or may not be; its ``filename`` is ``path``.
    """
    target = Path(os.path.realpath(path))
    existing = target.stat() if target.exists() else None
    if existing is not None and not stat.S_ISREG(existing.st_mode):
        with target.open("wb") as file:
            yield file
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    temporary = None
    try:
        if existing is not None and not os.access(target, os.W_OK):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        with contextlib.ExitStack() as lock:
            temporary, file = _create(target, existing)
            with file:
                if fcntl is not None:  # a second descriptor keeps the lock until the file has its name
                    lock.callback(os.close, os.dup(file.fileno()))
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        _sync_folder(target.parent)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, os.fspath(temporary or "")):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write text as UTF-8, its line ends as they are; see :func:`replacing`."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))
    return Path(path)


def _create(target: Path, existing: os.stat_result | None) -> tuple[Path, BinaryIO]:
    """Make a locked temporary file beside ``target``."""
    mode = 0o666 if existing is None else stat.S_IMODE(existing.st_mode)
    while True:
        temporary = target.with_name(f".{target.name[:_NAME_CHARACTERS]}.{secrets.token_hex(8)}.part")
        # The system takes the umask off, as it does for open.
        file = open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        if not _lock(file, wait=True) or os.fstat(file.fileno()).st_nlink:
            break
        file.close()  # another writer took it for abandoned before it was locked
    if existing is not None and hasattr(os, "fchmod"):
        with contextlib.suppress(PermissionError):
            os.fchown(file.fileno(), existing.st_uid, existing.st_gid)
        os.fchmod(file.fileno(), mode)
    return temporary, file


def _remove_abandoned(target: Path) -> None:
    """Remove the temporary files of ``target`` that no living writer has locked."""
    pattern = re.compile(rf"\.{re.escape(target.name[:_NAME_CHARACTERS])}\.[0-9a-f]{{16}}\.part")
    with contextlib.suppress(OSError):
        for path in [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]:
            with contextlib.suppress(OSError), path.open("r+b") as file:
                if _lock(file, wait=False):
                    path.unlink()
                    continue
            if fcntl is None:
                with contextlib.suppress(OSError):
                    path.unlink()


def _lock(file: BinaryIO, wait: bool) -> bool:
    """Lock a file for as long as this process has it open; say whether it could be, which some systems cannot."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Let the new name reach the disk too, where folders can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
