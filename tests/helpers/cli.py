"""What the tests of the shell commands share: running a command, and small files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

import gpunet
from gpunet.cli.main import main

ROOT = Path(gpunet.__file__).parent.parent
COMMAND = [sys.executable, "-m", "gpunet"]


class Result(NamedTuple):
    """What a command left behind."""

    status: int
    output: str
    errors: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        assert self.output.count("\n") == 1
        content = json.loads(self.output, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert isinstance(content, dict)
        return content


def shell(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    """Run a command in this process."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return Result(status, *capsys.readouterr())


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail with one line and nothing else, and return the line."""
    status, output, errors = shell(capsys, *arguments)
    assert status == 2
    assert output == ""
    assert errors.startswith("gpunet: ")
    assert errors.endswith("\n")
    assert errors.count("\n") == 1
    return errors


def environment() -> dict[str, str]:
    """Return an environment in which a child process finds this gpunet, and no one asks for colours."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}


def write_blobs(path: Path, rows: int = 60, seed: int = 0) -> tuple[npt.NDArray[Any], list[str]]:
    """Write a table of two clouds with text classes and return its features and classes."""
    generator = np.random.default_rng(seed)
    classes = ["north" if row % 3 else "south, far" for row in range(rows)]
    offsets = np.array([2.0 if name == "north" else -2.0 for name in classes])
    features = generator.standard_normal((rows, 3)) + offsets[:, None]
    lines = [",".join([*map(repr, row), f'"{name}"']) for row, name in zip(features.tolist(), classes, strict=True)]
    path.write_text("\n".join(["width,height,depth,place", *lines, ""]), encoding="utf-8")
    return features, classes


def write_plane(path: Path, rows: int = 80, seed: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Write an NPZ file of a linear function far from zero and return its features and targets."""
    features = np.random.default_rng(seed).standard_normal((rows, 3))
    targets = 500.0 + 40.0 * features @ np.array([1.0, -2.0, 0.5])
    np.savez(path, X=features, y=targets)
    return features, targets
