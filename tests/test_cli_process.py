"""The shell commands as processes: terminals, pipes, signals."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_support import COMMAND, environment, write_blobs

MODEL = "runs/places/model.safetensors"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_blobs(Path("places.csv"))


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
    assert failed.stderr.startswith("gpunet: data: 'digit' is not known. Did you mean 'digits'?")
    assert failed.stderr.count("\n") == 1


def on_terminal(command: list[str]) -> tuple[int, str, str]:
    """Run a command whose standard error is a terminal; return status, standard output and what the terminal got."""
    terminal, end = pty.openpty()
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=end, env=environment() | {"TERM": "xterm"}
    )
    os.close(end)
    seen = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while chunk := os.read(terminal, 65536):
            seen += chunk
    os.close(terminal)
    output, _ = child.communicate(timeout=60)
    return child.returncode, output.decode(), seen.decode()


def test_a_terminal_gets_a_bar_and_standard_output_stays_clean() -> None:
    status, output, seen = on_terminal([*TRAIN, "--epochs", "3"])
    assert status == 0
    assert "epoch 3/3" in seen
    assert "validation accuracy" in seen
    assert "samples/s" in seen
    assert "\x1b" not in output

    status, output, seen = on_terminal([*TRAIN, "--epochs", "3", "--json", "--quiet"])
    assert (status, seen) == (0, "")
    assert output.startswith("{")


def test_an_interrupt_tells_of_the_checkpoint() -> None:
    child = subprocess.Popen(
        [*TRAIN, "--epochs", "10000000", "--checkpoint", "--out", "long"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    deadline = time.monotonic() + 30
    while not Path("long/checkpoint.safetensors").exists():
        assert time.monotonic() < deadline
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=30)
    assert (child.returncode, output) == (130, "")
    assert (
        errors == "gpunet: interrupted; the checkpoint is long/checkpoint.safetensors, and --resume goes on from it\n"
    )


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
    assert (child.wait(timeout=30), errors) == (141, b"")


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
