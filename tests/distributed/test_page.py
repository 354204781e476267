"""docs/several-gpus.md: its script and its commands run as pasted, on one rank and on two, with the same result."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpunet
from tests.helpers.checkout import ROOT
from tests.helpers.cli import environment
from tests.helpers.mpiexec import MPIEXEC, needs_mpi

PAGE = (ROOT / "docs" / "several-gpus.md").read_text(encoding="utf-8")
pytestmark = needs_mpi


def commands(heading: str) -> list[str]:
    """Return the lines of a section's blocks for the shell, without comments."""
    section = re.search(rf"## {heading}\n(.*?)(?=\n## |\Z)", PAGE, re.DOTALL)
    assert section is not None
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", section[1], re.DOTALL)).splitlines()
    return [line.partition("  #")[0] for line in lines]


def run(command: str, folder: Path) -> str:
    """Run a line of the page with this Python and the mpiexec beside it."""
    words = shlex.split(command)
    if words[0] == "mpiexec":
        words[0] = str(MPIEXEC)
    replaced = {"python": [sys.executable], "gpunet": [sys.executable, "-m", "gpunet"]}
    line = [part for word in words for part in replaced.get(word, [word])]
    done = subprocess.run(
        line, cwd=folder, env=os.environ | environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_shell_trains_the_same_model_on_one_and_on_two(tmp_path: Path) -> None:
    for package in ("rich", "safetensors", "sklearn"):
        pytest.importorskip(package)
    install, two, one, *_ = commands("Two processes on a laptop")
    assert install == "pip install '.[cli,mpi]'"
    assert [run(command, tmp_path).count("test accuracy") for command in (two, one)] == [1, 1]
    first, second = (gpunet.load(tmp_path / "runs" / name / "model.safetensors") for name in ("digits", "alone"))
    np.testing.assert_array_equal(first.flat_parameters, second.flat_parameters)


def test_the_script_has_the_same_bits_on_one_and_on_two(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(# train\.py\n.*?)```", PAGE, re.DOTALL)
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    weights, told = [], []
    for command in commands("Two processes on a laptop")[-2:]:
        told.append(run(command, tmp_path))
        with np.load(tmp_path / "weights.npz") as file:
            weights.append(file["weights"])
    assert [text.partition(":")[0] for text in told] == ["ranks 1", "ranks 2"]
    assert told[0].partition(":")[2] == told[1].partition(":")[2]
    np.testing.assert_array_equal(*weights)


def test_the_check_before_training_passes(tmp_path: Path) -> None:
    """Of its checks those of one exchange; all of them are tried in test_verify.py."""
    pytest.importorskip("rich")
    (command,) = (line for line in commands("GPUs") if "verify" in line)
    assert "10 of 10 checks passed" in run(f"{command} --only gather", tmp_path)
