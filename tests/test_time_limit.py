"""A test that hangs ends and is named, also where it hangs in native code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT

HANGS = """
import ctypes

def test_passes():
    pass

def test_hangs_in_native_code():
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    for _ in range(2):
        library.pthread_mutex_lock(mutex)  # which no signal ends
"""


@pytest.mark.skipif(sys.platform == "win32", reason="its C library has no such mutex")
@pytest.mark.parametrize("options", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_a_test_that_hangs_is_named(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "test_one.py").write_text(HANGS)
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "--timeout", "1"]
    done = subprocess.run([*command, *options, tmp_path / "test_one.py"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "test_hangs_in_native_code" in done.stdout + done.stderr
