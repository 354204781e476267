"""Files are written whole or not at all; what stays, what goes, and who may read them."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import gpunet
from gpunet.files import replacing, write_text
from tests.helpers.cli import environment

posix = pytest.mark.skipif(os.name != "posix", reason="modes, locks and signals of POSIX")


@pytest.fixture
def umask():
    """Set the umask for one test."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_content_appears_when_the_block_ends(tmp_path):
    path = write_text(tmp_path / "new" / "folder" / "file.txt", "old")
    with replacing(path) as file:
        file.write(b"new, and ")
        file.flush()
        assert path.read_text() == "old"
        file.write(b"whole")
    assert path.read_text() == "new, and whole"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("existing", [True, False])
def test_an_error_leaves_what_was_there(tmp_path, error, existing):
    path = tmp_path / "file.txt"
    if existing:
        path.write_text("old")

    def write_half():
        with replacing(path) as file:
            file.write(b"half")
            raise error("no more")

    with pytest.raises(error):
        write_half()
    assert names(tmp_path) == (["file.txt"] if existing else [])
    assert not existing or path.read_text() == "old"


WRITERS = {
    "network": lambda path: gpunet.Network([2, 2], device="cpu").save(path),
    "network read": lambda path: gpunet.load(path, device="cpu"),
    "onnx": lambda path: gpunet.export_onnx(gpunet.Network([2, 2], device="cpu"), path),
    "weights": lambda path: gpunet.export_safetensors(gpunet.Network([2, 2], device="cpu"), path),
    "weights read": lambda path: gpunet.load_state_dict(gpunet.Network([2, 2], device="cpu"), path),
    "history": lambda path: gpunet.History().save(path),
    "plot": lambda path: gpunet.History().plot(path),
    "text": lambda path: write_text(path, ""),
}


@pytest.mark.parametrize(
    "path", [None, 5, b"file.npz", object(), "fi\0le.npz"], ids=["none", "number", "bytes", "object", "null character"]
)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_what_is_no_path(tmp_path, monkeypatch, write, path):
    monkeypatch.chdir(tmp_path)
    error = gpunet.InvalidValueError if isinstance(path, str) else gpunet.InvalidTypeError
    with pytest.raises(error, match=r"^(path|source): .*Expected a path"):
        write(path)
    assert names(tmp_path) == []


def test_text_is_utf_8_with_the_line_ends_it_has(tmp_path):
    assert write_text(tmp_path / "file", "ä\r\nb\n").read_bytes() == b"\xc3\xa4\r\nb\n"


@posix
@pytest.mark.usefixtures("umask")
def test_modes(tmp_path):
    new, private, shared = (tmp_path / name for name in ("new", "private", "shared"))
    write_text(new, "")
    (tmp_path / "reference").touch()
    assert mode(new) == mode(tmp_path / "reference") == 0o640
    for path, wanted in ((private, 0o600), (shared, 0o666)):
        path.touch()
        path.chmod(wanted)
        write_text(path, "x")
        assert mode(path) == wanted


@posix
def test_the_umask_of_the_process_is_never_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
    network = gpunet.Network([3, 2], device="cpu")
    network.save(tmp_path / "model.npz")
    network.save(tmp_path / "model.safetensors")


@posix
def test_a_private_file_is_private_from_its_first_byte(tmp_path):
    path = tmp_path / "file"
    path.touch(0o600)
    with replacing(path):
        assert [mode(part) for part in tmp_path.iterdir()] == [0o600, 0o600]


@posix
def test_links_and_devices_stay(tmp_path):
    write_text(tmp_path / "file", "old")
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    (tmp_path / "dangling").symlink_to("later")
    write_text(tmp_path / "dangling", "x")
    assert (tmp_path / "later").read_text() == "x"
    write_text(os.devnull, "nothing")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_long_names(tmp_path):
    for name in ("n" * 250, "ü" * 120, "[a]*?.txt"):
        assert write_text(tmp_path / name, "x").read_text() == "x"


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "deeper", "/dev/full"):
        with pytest.raises(OSError, match=f"'{tmp_path}(/file)?'$|'/dev/full'$"):
            write_text(path, "x")


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_not_be_written_is_refused(tmp_path):
    write_text(tmp_path / "file", "old").chmod(0o444)
    with pytest.raises(PermissionError, match=r"file'$"):
        write_text(tmp_path / "file", "new")
    (tmp_path / "folder").mkdir(mode=0o555)
    with pytest.raises(PermissionError, match=r"new'$"):
        write_text(tmp_path / "folder" / "new", "new")


WRITER = """
import sys
from gpunet.files import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def writer(path: Path):
    """Another process in the middle of writing a file."""
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout.readline() == b"writing\n"
        yield process
        process.kill()


@posix
def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path):
    path, other = tmp_path / "file.txt", tmp_path / "file.txt.old"
    (tmp_path / ".file.txt.mine.part").touch()
    kept = [".file.txt.mine.part", "file.txt"]
    with writer(path) as killed, writer(path) as living, writer(other):
        assert len(names(tmp_path)) == 4
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(names(tmp_path)) == 4
        write_text(path, "mine")
        assert len(names(tmp_path)) == 4  # one part gone, and the file there
        with pytest.raises(ValueError, match="no more"), replacing(path):
            raise ValueError("no more")
        living.communicate(b"")
        assert path.read_text() == "half"
    write_text(path, "last")
    left = set(names(tmp_path)) - set(kept)
    assert len(left) == 1
    assert next(iter(left)).startswith(".file.txt.old.")
    write_text(other, "x")
    assert names(tmp_path) == [*kept, "file.txt.old"]


@posix
def test_many_writers_at_once(tmp_path):
    path = tmp_path / "file"
    failures = []

    def write(letter: str) -> None:
        try:
            for _ in range(40):
                write_text(path, letter * 10_000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert names(tmp_path) == ["file"]
    assert len(set(path.read_text())) == 1
    assert len(path.read_text()) == 10_000


# Not files of a run: the terminal's streams, a folder that is gone when the disassembler has read it, and memory.
EXCEPTIONS = {
    ("cli/streams.py", "open"),
    ("kernel_check/sass.py", "write_bytes"),
    ("training/loss_curve.py", "savefig"),
}
WRITERS = {"write_text", "write_bytes", "savefig", "save_file", "mkstemp", "NamedTemporaryFile", "dump", "to_csv"}


def is_write(call: ast.Call) -> str | None:
    """Return the name of what a call writes a file with."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    if name == "open":
        texts = [one.value for one in [*call.args, *(word.value for word in call.keywords)] if is_text(one)]
        return name if any(set(text) <= set("rwaxbt+") and set(text) & set("wax+") for text in texts) else None
    return name if name in WRITERS and isinstance(call.func, ast.Attribute) else None


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_the_package_writes_no_file_in_another_way():
    package = Path(gpunet.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        place = path.relative_to(package).as_posix()
        if place in ("files.py", "plotting.py"):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        found |= {(place, name) for call in calls if (name := is_write(call))}
    assert found == EXCEPTIONS
