"""The suite under pytest: which cases there are, its options, its result file, parts that go on where they stopped."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys

import pytest

from benchmarks import suite
from benchmarks.cases import Case
from benchmarks.machine import describe_machine
from gpunet.bench.results import read_results
from gpunet.errors import InvalidValueError
from tests.helpers.checkout import ROOT

BUILDERS = (
    suite.network_cases,
    suite.sweep_cases,
    suite.batch_norm_cases,
    suite.activation_cases,
    suite.softmax_cross_entropy_cases,
    suite.optimizer_cases,
    suite.linear_cases,
)


def run_suite(*arguments: str) -> subprocess.CompletedProcess[str]:
    # The inner run is no worker of the outer one's pytest-xdist: pytest-benchmark would refuse to measure.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.__name__)
def test_cases_are_distinct_and_survive_the_way_to_another_process(builder, device):
    cases = builder(device)
    assert len({case.key for case in cases}) == len(cases) > 0
    for case in cases:
        assert Case.from_dict(json.loads(json.dumps(case.as_dict()))) == case


def test_every_case_of_a_gpu_that_multiplies_comes_in_both_precisions():
    for builder in (suite.network_cases, suite.linear_cases):
        cases = builder("cuda")
        for case in cases:
            assert case.replace(precision="tf32") in cases
            assert case.replace(precision="float32") in cases
        assert all(case.precision == "float32" for case in builder("cpu"))


def test_sweeps_are_in_the_precision_that_a_cpu_has_too():
    assert suite.sweep_cases("cuda") == suite.sweep_cases("cpu")


def test_the_configurations_are_those_of_the_documentation():
    steps = {case.label: case for case in suite.network_cases("cuda") if case.mode == "step" and case.batch_norm}
    assert steps["d"].rows == 65536
    assert steps["d"].sizes == (512, *[500] * 9, 10)
    table = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for label, (batch, inputs, layers, width) in suite.CONFIGURATIONS.items():
        name = "d, the lecture's network" if label == "d" else label
        cpu = suite.CPU_BATCHES.get(label, batch)
        assert f"| {name} | {batch} | {cpu} | {inputs} | {layers} | {width} |" in table


def test_sweeps_vary_one_number_at_a_time():
    base = (256, 784, 256, 3)
    for case in suite.sweep_cases("cpu"):
        shape = (case.rows, case.sizes[0], case.sizes[1], len(case.sizes) - 1)
        assert sum(one != other for one, other in zip(shape, base, strict=True)) <= 1


def test_smoke_cases_are_small_and_keep_every_operation_and_mode():
    for builder in BUILDERS:
        for device in ("cpu", "cuda"):
            cases = builder(device)
            small = suite.smoke(cases)
            kinds = {(case.operation, case.mode, case.activation, case.batch_norm, case.optimizer) for case in cases}
            assert kinds == {(c.operation, c.mode, c.activation, c.batch_norm, c.optimizer) for c in small}
            assert all(case.rows <= 33 and max(case.sizes) <= 1000 for case in small)


def test_unknown_configurations_are_named_with_the_nearest():
    with pytest.raises(InvalidValueError, match=r"configuration: 'A' is not known\. Did you mean 'a'"):
        suite.check_configuration("A")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--providers", "torch-eagr"), "Did you mean 'torch-eager'"),
        (("--configurations", "a,f"), "configuration: 'f' is not known"),
        (("--rounds", "0"), "--rounds: got 0. Expected at least 1."),
        (("--threads", "-1"), "--threads: got -1. Expected at least 1."),
        (("--threads", "9999"), "--threads: got 9999. Expected at most"),
        (("--minutes", "0"), "--minutes: got 0.0. Expected a number above 0."),
        (("--minutes", "nan"), "--minutes: got nan. Expected a number above 0."),
        (("--resume",), "--resume: goes on with a result file. Expected --results too."),
    ],
)
def test_bad_options_are_refused_in_one_line(arguments, message):
    done = run_suite(*arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_rows_are_saved_and_a_later_part_goes_on(tmp_path):
    """One case of one provider is measured and saved; the next run leaves it out and measures the other."""
    common = (
        "--providers",
        "gpunet-numpy,tests.helpers.benchmark_peers:Honest",
        "--rounds",
        "2",
        "--results",
        str(tmp_path),
    )
    done = run_suite(*common, "-k", "linear and 784")
    assert done.returncode == 0, done.stdout
    (path,) = tmp_path.iterdir()
    results = read_results(path)
    assert results.machine["name"] == describe_machine()["name"] in path.name
    assert [(row.provider, row.status) for row in results.rows] == [
        ("gpunet-numpy", "ok"),
        ("tests.helpers.benchmark_peers:Honest", "ok"),
    ]
    for row in results.rows:
        assert row.ceilings["gigaflops"] > 0
        assert row.floor_percent is not None
        assert row.floor_milliseconds is not None

    before = [row.rounds for row in results.rows]
    done = run_suite(*common, "--resume", "--minutes", "1e-9", "-k", "linear")
    assert done.returncode == 0, done.stdout
    assert "the minutes are over" in done.stdout
    assert [row.rounds for row in read_results(path).rows] == before


def test_a_damaged_result_file_is_left_alone(tmp_path):
    machine = describe_machine()["name"]
    from gpunet import __version__

    path = tmp_path / f"{machine}-{__version__}.json"
    path.write_text("{", encoding="utf-8")
    done = run_suite("--providers", "gpunet-numpy", "--results", str(tmp_path), "-k", "linear and 784")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "is damaged" in done.stdout + done.stderr
    assert path.read_text(encoding="utf-8") == "{"


def test_a_case_that_no_part_is_long_enough_for_is_given_up(tmp_path):
    """Otherwise every part would begin with it and end in it."""
    common = ("--providers", "gpunet-numpy,tests.helpers.benchmark_peers:Slow", "--results", str(tmp_path), "--resume")
    done = run_suite(*common, "--minutes", "0.05", "-k", "linear and (784 or 3072)")
    assert "the minutes are over" in done.stdout
    (path,) = tmp_path.iterdir()
    rows = read_results(path).rows
    assert [row.status for row in rows] == ["failed", "failed"]
    assert "took longer than --minutes allows" in rows[0].reason
    assert len({row.key for row in rows}) == 1


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    done = run_suite("--providers", "gpunet-numpy", "--results", str(tmp_path), "-k", "linear and 784")
    os.close(lock)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "another run writes there" in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_found_before_anything_is_measured(tmp_path):
    (tmp_path / "file").touch()
    done = run_suite("--providers", "gpunet-numpy", "--results", str(tmp_path / "file" / "results"), "-k", "linear")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--results: " in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_peer_that_is_wrong_does_not_fail_the_run(tmp_path):
    done = run_suite(
        "--providers",
        "gpunet-numpy,tests.helpers.benchmark_peers:Wrong",
        "--rounds",
        "1",
        "--results",
        str(tmp_path),
        "-k",
        "784 and linear",
    )
    assert done.returncode == 0, done.stdout
    assert "relative error" in done.stdout
    (path,) = tmp_path.iterdir()
    assert [row.status for row in read_results(path).rows] == ["ok", "wrong"]
