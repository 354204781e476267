"""``gpunet --print-completion``: scripts that complete commands, options, choices and files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpunet.cli.commands import COMMANDS
from gpunet.cli.completion import SHELLS
from tests.helpers.cli import refusal, shell

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", SHELLS)
def test_every_shell_has_a_script_with_every_command_and_its_options(capsys: Capture, name: str) -> None:
    status, script, errors = shell(capsys, "--print-completion", name)
    assert (status, errors) == (0, "")
    words = [*COMMANDS, "schedule", "batch-size", "update-budgets", "reduce_on_plateau"]
    assert [word for word in words if word not in script] == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "completions"),
    [
        (["gpunet", "eva"], {"evaluate"}),
        (["gpunet", "train", "--sched"], {"--schedule"}),
        (["gpunet", "train", "digits", "--schedule", "cos"], {"cosine"}),
        (["gpunet", "kernels", "ch"], {"check"}),
        (["gpunet", "evaluate", "mod"], {"model.npz"}),
        (["gpunet", "train", "digits", "--plot", "mod"], {"model.npz"}),
    ],
)
def test_bash_completes(capsys: Capture, tmp_path: Path, line: list[str], completions: set[str]) -> None:
    (tmp_path / "script").write_text(shell(capsys, "--print-completion", "bash").output)
    (tmp_path / "model.npz").touch()
    text = " ".join(line)
    command = f"""source ./script; COMP_WORDS=({text}); COMP_CWORD={len(line) - 1}; COMP_LINE="{text}"
    _shtab_gpunet; printf '%s\\n' "${{COMPREPLY[@]}}" """
    found = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) == completions


def test_another_shell_is_refused_by_name(capsys: Capture) -> None:
    assert "invalid choice: 'ksh'" in refusal(capsys, "--print-completion", "ksh")


def test_a_missing_package_is_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert "needs the package 'shtab'" in refusal(capsys, "--print-completion", "bash")
