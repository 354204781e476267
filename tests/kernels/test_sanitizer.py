"""The kernels under the address and undefined-behaviour sanitizers of the compiler, which see every access."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

from tests.emulation import EmulatedDevice, sanitizer_environment
from tests.helpers.checkout import ROOT
from tests.kernels import test_batch_norm as batch_norm_tests
from tests.kernels import test_bernoulli as bernoulli_tests
from tests.kernels import test_dropout as dropout_tests
from tests.kernels import test_gather as gather_tests
from tests.kernels import test_optimizer as optimizer_tests
from tests.kernels import test_planted_bugs as planted
from tests.kernels import test_squared_error as squared_error_tests
from tests.kernels.test_batch_norm import FLOAT, HALF, RESIDENT, STRIPED

# Patterns of the kernels that a test launches, and the test: matrices that end inside a tile, a vector and a warp.
CHECKS: list[tuple[str, planted.Check]] = [
    (planted.RELU_KERNELS, planted.relu),
    ("", planted.batch_norm(FLOAT, "relu", 129, 20, RESIDENT, 2)),
    ("", planted.batch_norm(HALF, "relu", 257, 72, STRIPED)),
    ("", planted.batch_norm(FLOAT, "relu", 33, 7, test=planted.inference)),
    (
        "dropout_forward<float, true>",
        lambda device: dropout_tests.test_same_bits_as_numpy(device, (1023, 5), "float32", 0),
    ),
    ("dropout_backward<__half, true>", lambda device: dropout_tests.test_backward(device, (33, 7), 0, "float16")),
    (
        "sample_bernoulli<float, true>",
        lambda device: bernoulli_tests.test_same_bits_as_numpy(device, (1023, 5), "float32", 0),
    ),
    ("gather_rows<unsigned int>", lambda device: gather_tests.check(device, 33, "float32", 45)),
    (
        "sgd_step<float, 4, true>",
        lambda device: optimizer_tests.check_sgd(device, 1023, 500, 0.9, True, "float32"),
    ),
    ("adam_step<float, 4>", lambda device: optimizer_tests.check_adam(device, 1023, 500, 0.1, "float32")),
    ("clip_factor<float, 4>", lambda device: optimizer_tests.test_clip_factor(device, 40_000, 17, 0, "float32")),
    (planted.SIGMOID_KERNELS, planted.sigmoid),
    (planted.SOFTMAX_KERNELS, planted.softmax),
    (
        planted.SQUARED_ERROR_KERNELS,
        lambda device: squared_error_tests.check(device, (257, 10), "float32", True),
    ),
]

# Reads an index past the end and copies what lies there past the end: the guard zones look the same afterwards.
ONE_ROW_TOO_MANY = ("row < rows;\n", "row <= rows;\n")


def run_checks() -> None:
    """Run every check, say so, and then run into a planted bug; in a process with the sanitizers."""
    # These tests make their devices themselves.
    batch_norm_tests.EmulatedDevice = functools.partial(EmulatedDevice, sanitize=True)
    for kernels, check in CHECKS:
        check(planted.PlantedDevice(None, kernels, sanitize=True))
    print("clean", flush=True)
    gather_tests.check(planted.PlantedDevice(ONE_ROW_TOO_MANY, "gather_rows<uint4>", sanitize=True), 4, "float32", 45)
    print("not found", flush=True)


def test_sanitizers_find_nothing_but_a_planted_bug() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from tests.kernels import test_sanitizer; test_sanitizer.run_checks()"],
        cwd=ROOT,
        env={**os.environ, **sanitizer_environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "clean\n", result.stdout + result.stderr
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr
    assert "gather.cu:" in result.stderr
