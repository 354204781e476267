"""The shell commands as processes: terminals, pipes, signals."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.helpers.cli import COMMAND, environment, write_blobs

MODEL = "runs/places/model.safetensors"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_blobs(Path("places.csv"))


# Seconds that only a process which hangs takes, also on a busy machine.
_HANGS = 240
TRAIN = [*COMMAND, "train", "places.csv", "--target", "place", "--layers", "8"]


def run(command: list[str], **options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env=environment() | options, timeout=60, check=False)


def test_round_trip_through_the_shell() -> None:
    trained = run([*TRAIN, "--epochs", "2"])
    assert (trained.returncode, trained.stderr) == (0, "")
    assert "\x1b" not in trained.stdout
    assert "test accuracy" in trained.stdout
    predicted = run([*COMMAND, "predict", MODEL, "places.csv"])
    assert (predicted.returncode, predicted.stderr) == (0, "")
    assert set(predicted.stdout.splitlines()) <= {"north", "south, far"}
    assert len(predicted.stdout.splitlines()) == 60


def test_an_error_is_one_line() -> None:
    failed = run([*COMMAND, "train", "digit"])
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("gpunet: DATA: 'digit' is not known. Did you mean 'digits'?")
    assert failed.stderr.count("\n") == 1


def on_terminal(command: list[str], width: int = 80, terminated_at: bytes = b"") -> tuple[int, str, str]:
    """Run a command whose standard error is a terminal; return status, standard output and what the terminal got.

    It is terminated as soon as the terminal has got ``terminated_at``, where that is given.
    """
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    kept = {name: value for name, value in environment().items() if name not in ("COLUMNS", "LINES")}
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=end, env=kept | {"TERM": "xterm"}
    )
    os.close(end)
    seen = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while chunk := os.read(terminal, 65536):
            seen += chunk
            if terminated_at and terminated_at in seen:
                child.terminate()
                terminated_at = b""
    os.close(terminal)
    output, _ = child.communicate(timeout=60)
    return child.returncode, output.decode(), seen.decode()


def bar_lines(seen: str) -> list[str]:
    """Return the lines of a bar, without colours, in the order in which a terminal got them."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    return [line for line in re.split(r"[\r\n]+", plain) if line.startswith("epoch ")]


@pytest.mark.parametrize(
    ("width", "shown", "left_out"),
    [
        (120, ("loss", "validation accuracy", "samples/s"), ()),
        (80, ("loss", "validation accuracy"), ("samples/s",)),
        (50, ("loss",), ("validation", "samples/s")),
    ],
)
def test_the_bar_fits_the_terminal_and_goes_when_it_is_done(
    width: int, shown: tuple[str, ...], left_out: tuple[str, ...]
) -> None:
    status, output, seen = on_terminal([*TRAIN, "--epochs", "300"], width)
    assert status == 0
    assert "\x1b" not in output
    last = bar_lines(seen)[-1]
    assert last.startswith("epoch 300/300 ")
    assert len(last.rstrip()) <= width
    assert last.count("━") >= 10
    assert re.search(r"\d:\d\d:\d\d$", last.rstrip())
    assert all(part in last for part in shown)
    assert not any(part in last for part in left_out)
    # What comes last moves to the bar's line and erases it.
    assert seen.rindex("\x1b[2K") > seen.rindex("epoch ")


def test_a_quiet_terminal_gets_nothing() -> None:
    status, output, seen = on_terminal([*TRAIN, "--epochs", "3", "--json", "--quiet"])
    assert (status, seen) == (0, "")
    assert output.startswith("{")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=lambda one: str(one)
)
def test_an_interrupt_tells_of_the_checkpoint(number: signal.Signals, status: int) -> None:
    child = subprocess.Popen(
        [*TRAIN, "--epochs", "10000000", "--checkpoint", "--out", "long"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    deadline = time.monotonic() + _HANGS
    while not Path("long/checkpoint.safetensors").exists():
        assert time.monotonic() < deadline
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    child.send_signal(number)
    if number != signal.SIGINT:  # a terminal that closes is told by the system and by the shell
        child.send_signal(number)
    output, errors = child.communicate(timeout=_HANGS)
    assert (child.returncode, output) == (status, "")
    assert (
        errors == "gpunet: interrupted; the checkpoint is long/checkpoint.safetensors, and --resume goes on from it\n"
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_error(closed: str) -> None:
    train = shlex.join([*TRAIN, "--epochs", "1"])
    for command, status in ((train, 0), (shlex.join([*COMMAND, "info"]), 0), (shlex.join([*COMMAND, "train", "x"]), 2)):
        ended = run(["sh", "-c", f"{command} {closed}"])
        assert ended.returncode == status
        assert "Traceback" not in ended.stderr
        if status == 2:
            assert ended.stdout == ""
            assert ended.stderr.count("\n") == (0 if "2>" in closed else 1)
    assert Path(MODEL).is_file()


def test_a_terminated_run_leaves_no_folder() -> None:
    command = [*TRAIN, "--epochs", "10000000", "--out", "long"]
    status, output, seen = on_terminal(command, terminated_at=b"/10000000")
    assert (status, output) == (128 + signal.SIGTERM, "")
    assert "gpunet: interrupted" in seen
    assert not Path("long").exists()


def test_a_signal_that_the_parent_ignores_is_ignored() -> None:
    """As ``nohup`` does for SIGHUP."""
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *TRAIN, "--epochs", "10000000", "--checkpoint"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment()) as child:
        while not Path("runs/places/checkpoint.safetensors").exists():
            assert child.poll() is None
            time.sleep(0.02)
        child.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=0.5)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=_HANGS) == 143


# Sends a signal to its own process as soon as a module is asked for, and may take it for a missing part of the module.
SITE = """
import os, signal, sys, time
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["AT_IMPORT_OF"]:
            try:
                os.kill(os.getpid(), int(os.environ["SIGNAL"]))
                time.sleep(0.05)
            except KeyboardInterrupt:
                if os.environ["IS_LOST"]:
                    raise ImportError("a part is missing") from None
                raise
sys.meta_path.insert(0, Finder())
"""
INSTALLED = Path(sys.executable).with_name("gpunet")


@pytest.mark.parametrize("command", [COMMAND, [str(INSTALLED)]], ids=["module", "installed"])
@pytest.mark.parametrize(
    ("name", "number", "is_lost"),
    [
        ("gpunet.activations", signal.SIGINT, ""),
        ("numpy", signal.SIGTERM, ""),
        ("gpunet.network", signal.SIGINT, ""),
        ("gpunet.cli.main", signal.SIGINT, ""),
        ("gpunet.cli.train", signal.SIGTERM, ""),
        ("gpunet.cli.train", signal.SIGTERM, "yes"),
        ("rich", signal.SIGTERM, ""),
        ("sklearn", signal.SIGTERM, "yes"),
    ],
)
def test_an_interrupt_during_imports_is_one_line(
    command: list[str], name: str, number: signal.Signals, is_lost: str
) -> None:
    if command != COMMAND and not INSTALLED.exists():
        pytest.skip("gpunet is not installed as a command")
    Path("sitecustomize.py").write_text(SITE)
    kept = environment()
    kept |= {"PYTHONPATH": os.pathsep.join([".", kept["PYTHONPATH"]])}
    ended = subprocess.run(
        [*command, *TRAIN[len(COMMAND) :], "--epochs", "1"],
        capture_output=True,
        text=True,
        env=kept | {"AT_IMPORT_OF": name, "SIGNAL": str(int(number)), "IS_LOST": is_lost},
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (128 + number, "gpunet: interrupted\n", "")


LOST = """
import os, signal, sys, time
from gpunet.signals import interrupts

class Swallowing:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))

def clean_up():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGHUP)
    try:
        raise ValueError
    except ValueError:
        time.sleep(0.7)

with interrupts() as interruption:
    try:
        Swallowing()
        print("going on")
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        clean_up()
    finally:
        print("ended by", interruption.number)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_gets_lost_comes_again_and_leaves_the_end_alone(number: signal.Signals) -> None:
    ended = run([sys.executable, "-c", LOST, str(int(number))])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"going on\nended by {int(number)}\n"


AWAITED = """
import os, signal, sys, time
from gpunet.signals import interrupts

with interrupts() as interruption:
    interruption.is_awaited = True
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(0.5)
    print("the batch is done", flush=True)
    if len(sys.argv) > 2:
        os.kill(os.getpid(), int(sys.argv[1]))
    try:
        interruption.raise_if_come()
    except KeyboardInterrupt:
        print("ended by", interruption.number)
"""


def test_ctrl_c_that_is_awaited_comes_when_it_is_asked_for_and_a_second_ends_at_once() -> None:
    ended = run([sys.executable, "-c", AWAITED, str(int(signal.SIGINT))])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "the batch is done\nended by 2\n", "")
    ended = run([sys.executable, "-c", AWAITED, str(int(signal.SIGINT)), "twice"])
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "the batch is done\n", "gpunet: interrupted\n")


def test_what_asks_a_process_to_end_is_not_waited_with() -> None:
    ended = run([sys.executable, "-c", AWAITED, str(int(signal.SIGTERM))])
    assert "the batch is done" not in ended.stdout
    assert "KeyboardInterrupt" in ended.stderr


def test_an_interrupt_in_code_that_is_text_has_the_status_of_others() -> None:
    code = (
        "import os, signal, sys; from gpunet.signals import interrupts\n"
        "with interrupts() as interruption:\n"
        "    try: exec('os.kill(os.getpid(), signal.SIGTERM); [0 for _ in range(9)]')\n"
        "    except KeyboardInterrupt: pass\n"
        "sys.exit(128 + interruption.number)\n"
    )
    Path("ended.py").write_text(code)
    assert run([sys.executable, "-m", "ended"]).returncode == 143


def test_a_program_that_uses_the_package_keeps_its_signals() -> None:
    code = "import signal; before = signal.getsignal(2); import gpunet; assert signal.getsignal(2) is before"
    Path("program.py").write_text(code)
    for command in (["-c", code], ["program.py"], ["-m", "program", "gpunet"]):
        assert run([sys.executable, *command]).stderr == ""


def test_results_have_no_blank_first_line_and_a_closed_pipe_ends_every_command_alike() -> None:
    run([*TRAIN, "--epochs", "1"])
    for command in (
        [*TRAIN, "--epochs", "1"],
        [*COMMAND, "evaluate", MODEL, "places.csv"],
        [*COMMAND, "predict", MODEL, "places.csv"],
        [*COMMAND, "info"],
        [*COMMAND, "--help"],
    ):
        assert run(command).stdout.split("\n")[0].strip()
        reading, writing = os.pipe()
        os.close(reading)
        for unbuffered in ("", "1"):
            kept = environment() | {"PYTHONUNBUFFERED": unbuffered}
            ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=kept, timeout=60, check=False)
            assert (ended.returncode, ended.stderr) == (141, b""), command
        os.close(writing)


def test_a_closed_pipe_is_no_error() -> None:
    Path("long.csv").write_text("width,height,depth\n" + "1,2,3\n" * 30_000)
    assert run([*TRAIN, "--epochs", "1"]).returncode == 0
    child = subprocess.Popen(
        [*COMMAND, "predict", MODEL, "long.csv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline() in (b"north\n", b"south, far\n")
    child.stdout.close()
    errors = child.stderr.read()
    child.stderr.close()
    assert (child.wait(timeout=_HANGS), errors) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        failed = subprocess.run(
            [*COMMAND, "info"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=60,
            check=False,
        )
    assert failed.returncode == 2
    assert failed.stderr.startswith("gpunet: ")
    assert failed.stderr.count("\n") == 1


def test_characters_that_the_terminal_lacks_are_escaped() -> None:
    Path("places.csv").write_text(Path("places.csv").read_text().replace("north", "nörd"), encoding="utf-8")
    assert run([*TRAIN, "--epochs", "2"], PYTHONIOENCODING="ascii").returncode == 0
    predicted = run([*COMMAND, "predict", MODEL, "places.csv"], PYTHONIOENCODING="ascii")
    assert predicted.returncode == 0
    assert "n\\xf6rd" in predicted.stdout


def test_the_command_starts_without_the_optional_packages() -> None:
    code = (
        "import sys, gpunet.cli.main; "
        "sys.exit(any(name in sys.modules for name in ('rich', 'sklearn', 'pandas', 'mlxtend', 'safetensors')))"
    )
    assert run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "imported"), [(["--help"], []), (["predict", "--help"], ["predict"]), (["bench", "-h"], ["bench"])]
)
def test_a_command_is_imported_when_it_is_called(arguments: list[str], imported: list[str]) -> None:
    code = (
        "import sys; from gpunet.cli.commands import COMMANDS; from gpunet.cli.main import main; "
        "status = main(sys.argv[1:]); "
        "print(*(name for name in COMMANDS if f'gpunet.cli.{name}' in sys.modules), file=sys.stderr); sys.exit(status)"
    )
    ended = run([sys.executable, "-c", code, *arguments])
    assert (ended.returncode, ended.stderr.split()) == (0, imported)
    assert ended.stdout.startswith("usage: gpunet")
