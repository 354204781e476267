"""The kernels under the address and undefined-behaviour sanitizers of the compiler, which see every access."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from gpunet.backends.cuda import CudaBackend
from tests.emulation import sanitizer_environment
from tests.helpers.checkout import ROOT
from tests.helpers.verification import PlantedDevice, verify
from tests.kernels import test_planted_bugs as planted

# Patterns of kernels, and words of the checks that launch them: matrices that end inside a tile, a vector, a warp.
CHECKS: list[tuple[str, tuple[str, ...]]] = [
    (planted.RELU, ("bias and activation", "float32", "relu, 257 x 10")),
    ("", ("batch norm", "resident, cluster of 2", "float32", "129 x 40, aligned")),
    ("", ("batch norm", "striped", "float16", "257 x 36")),
    ("", ("batch norm inference", "float32", "31 x 33")),
    ("batch_norm_statistics<float,.*", ("batch norm statistics", "float32", "257 x 36")),
    ("", ("batch norm sums", "float16", "257 x 36")),
    ("", ("batch norm input gradient", "float32", "129 x 40, aligned")),
    ("sum_shards<float, .*>", ("sum over shards", "float32", "3 vectors of 1023")),
    ("dropout_forward<float, true>", ("dropout forward", "float32", "1023 x 5")),
    ("dropout_backward<__half, true>", ("dropout backward", "float16", "31 x 33")),
    ("sample_bernoulli<float, true>", ("binary samples", "float32", "1023 x 5")),
    ("gather_batch", ("rows of a batch", "float32", "45 x 33, targets and weights")),
    ("sgd_step<float, 4, true>", ("SGD step", "float32", "1023 parameters", "momentum 0.9")),
    ("adam_step<float, 4>", ("Adam step", "float32", "1023 parameters")),
    ("clip_factor<float, 4>", ("clipping factor", "float32", "40000 parameters")),
    ("keep_weights<float, 1>", ("good weights", "float32", "1023 parameters")),
    ("summarize<float, 4>", ("finite numbers", "float32", "1023 parameters")),
    ("count_step<float>", ("count of a step", "float32", "step 39, 3 numbers")),
    ("score_classes<float>", ("right classes", "float32", "33 x 31")),
    ("score_switches<float>", ("right switches", "float32", "33 x 31")),
    (planted.SIGMOID, ("sigmoid cross entropy", "float32", "257 x 10")),
    (planted.SOFTMAX, ("softmax cross entropy", "float32", "130 x 10")),
    (planted.SQUARED_ERROR, ("squared error", "float32", "257 x 10")),
    ("", ("narrow network", "batch norm, relu", "65 rows, 13 x 50 x 31 x 5")),
]

# Reads an index past the end and copies what lies there past the end.
ONE_ROW_TOO_MANY = ("row < rows;\n", "row <= rows;\n")


def run_checks() -> None:
    """Run every check, say so, and then run into a planted bug; in a process with the sanitizers."""
    for kernels, words in CHECKS:
        assert verify(PlantedDevice(None, kernels, sanitize=True), *words).is_right, words
    print("clean", flush=True)
    device = PlantedDevice(ONE_ROW_TOO_MANY, "gather_batch", "gather", sanitize=True)
    backend = CudaBackend(device)  # without the guard zones of a check
    source, index = backend.zeros((97, 4), np.float32), backend.zeros(45, np.int32)
    backend.gather_batch(index, source, backend.zeros((45, 4), np.float32))
    print("not found", flush=True)


@pytest.mark.slow
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
