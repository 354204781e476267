"""``python -m benchmarks``: its options, its result file, parts that go on where they stopped; and its cases."""

from __future__ import annotations

import fcntl
import os
import pickle

import pytest

from benchmarks import cases
from benchmarks.__main__ import main
from benchmarks.machine import describe_machine
from benchmarks.report.files import read_results
from gpunet import __version__
from tests.helpers.checkout import ROOT

HONEST = "gpunet-numpy,tests.helpers.benchmark_peers:Honest"


@pytest.fixture(autouse=True)
def _workers_find_the_test_peers(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(capsys, *arguments: str) -> tuple[int, str]:
    """Run the program in this process; return its status and what it said."""
    try:
        status = main(list(arguments))
    except SystemExit as refused:
        status = int(refused.code or 0)
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    return status, said.out + said.err


# --- cases ---


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("group", cases.GROUPS)
def test_cases_are_distinct_and_survive_the_way_to_another_process(group, device):
    found = cases.choose_cases(device, [group])
    assert len({case.key for case in found}) == len(found) > 0
    for case in found:
        assert pickle.loads(pickle.dumps(case)) == case


def test_every_case_of_a_gpu_that_multiplies_comes_in_both_precisions():
    for build in (cases.network_cases, cases.linear_cases):
        found = build("cuda")
        for case in found:
            assert case.replace(precision="tf32") in found
            assert case.replace(precision="float32") in found
        assert all(case.precision == "float32" for case in build("cpu"))


def test_sweeps_are_in_the_precision_that_a_cpu_has_too_and_vary_one_number_at_a_time():
    assert cases.sweep_cases("cuda") == cases.sweep_cases("cpu")
    base = (256, 784, 256, 3)
    for case in cases.sweep_cases("cpu"):
        shape = (case.rows, case.sizes[0], case.sizes[1], len(case.sizes) - 1)
        assert sum(one != other for one, other in zip(shape, base, strict=True)) <= 1


def test_the_configurations_are_those_of_the_documentation():
    steps = {case.label: case for case in cases.network_cases("cuda") if case.mode == "step" and case.batch_norm}
    assert steps["d"].rows == 65536
    assert steps["d"].sizes == (512, *[500] * 9, 10)
    table = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for label, (batch, inputs, layers, width) in cases.CONFIGURATIONS.items():
        name = "d, the lecture's network" if label == "d" else label
        cpu = cases.CPU_BATCHES.get(label, batch)
        assert f"| {name} | {batch} | {cpu} | {inputs} | {layers} | {width} |" in table


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_smoke_cases_are_small_and_keep_every_operation_and_mode(device):
    def kinds(found):
        return {(case.operation, case.mode, case.activation, case.batch_norm, case.optimizer) for case in found}

    found = cases.choose_cases(device)
    small = cases.smoke(found)
    assert kinds(found) == kinds(small)
    assert all(case.rows <= 33 and max(case.sizes) <= 1000 for case in small)


def test_words_choose_cases(capsys):
    status, said = run(capsys, "--list", "-k", "batch_norm backward 2048")
    assert (status, said.splitlines()) == (
        0,
        ["batch_norm_activation/backward/4096-x-2048/4096x2048/relu/float32/float32"],
    )
    _, said = run(capsys, "--list", "-k", "batch-norm step", "--configurations", "a,e")
    assert {line.split("/")[2] for line in said.splitlines() if "-" not in line.split("/")[2]} == {"a", "e"}


# --- options ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--peers", "torch-eagr"), "Did you mean 'torch-eager'"),
        (("--configurations", "a,f"), "--configurations: 'f' is not known"),
        (("--configurations", "A"), "Did you mean 'a'"),
        (("--rounds", "0"), "--rounds: got 0. Expected at least 1."),
        (("--threads", "-1"), "--threads: got -1. Expected at least 1."),
        (("--threads", "9999"), "--threads: got 9999. Expected at most"),
        (("--minutes", "0"), "--minutes: got 0.0. Expected a number above 0."),
        (("--minutes", "nan"), "--minutes: got nan. Expected a number above 0."),
        (("--resume",), "--resume: goes on with a result file. Expected --results too."),
        (("-k", "batch norm nonsense"), "-k: these peers have no case with all of 'batch norm nonsense'"),
        (("--device", "tpu"), "invalid choice: 'tpu'"),
    ],
)
def test_bad_options_are_refused_in_one_line(capsys, arguments, message):
    status, said = run(capsys, *arguments)
    assert status == 2
    assert message in said.splitlines()[-1]


# --- the result file ---


def test_rows_are_saved_and_a_later_part_goes_on(capsys, tmp_path):
    """One case is measured and saved; the next run leaves it out, and has no time for the others."""
    common = ("--peers", HONEST, "--rounds", "2", "--results", str(tmp_path))
    status, said = run(capsys, *common, "-k", "linear 784")
    assert status == 0, said
    (path,) = tmp_path.iterdir()
    results = read_results(path)
    assert results.machine["name"] == describe_machine()["name"] in path.name
    assert [(row.peer, row.status) for row in results.rows] == [(name, "ok") for name in HONEST.split(",")]
    for row in results.rows:
        assert row.peaks["gigaflops"] > 0
        assert row.roofline_percent is not None
        assert row.roofline_milliseconds is not None

    status, said = run(capsys, *common, "--resume", "--minutes", "1e-9", "-k", "linear")
    assert (status, said.splitlines()[-1]) == (
        0,
        "The minutes are over with 2 of 3 cases left; --resume goes on there.",
    )
    assert read_results(path).rows == results.rows


def test_a_damaged_result_file_is_left_alone(capsys, tmp_path):
    path = tmp_path / f"{describe_machine()['name']}-{__version__}.json"
    path.write_text("{", encoding="utf-8")
    status, said = run(capsys, "--peers", "gpunet-numpy", "--results", str(tmp_path), "-k", "linear 784")
    assert status == 2
    assert "is damaged" in said
    assert path.read_text(encoding="utf-8") == "{"


def test_a_case_that_no_part_is_long_enough_for_is_given_up(capsys, tmp_path):
    """Otherwise every part would begin with it and end in it."""
    common = ("--peers", "gpunet-numpy,tests.helpers.benchmark_peers:Slow", "--results", str(tmp_path), "--resume")
    status, said = run(capsys, *common, "--minutes", "0.05", "-k", "linear")
    assert status == 1
    assert "The minutes are over with 2 of 3 cases left" in said
    (path,) = tmp_path.iterdir()
    rows = read_results(path).rows
    assert [row.status for row in rows] == ["failed", "failed"]
    assert "took longer than --minutes allows" in rows[0].reason
    assert len({row.key for row in rows}) == 1


def test_two_runs_do_not_write_to_one_folder(capsys, tmp_path):
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    status, said = run(capsys, "--peers", "gpunet-numpy", "--results", str(tmp_path), "-k", "linear 784")
    os.close(lock)
    assert status == 2
    assert "another run writes there" in said
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_found_before_anything_is_measured(capsys, tmp_path):
    (tmp_path / "file").touch()
    status, said = run(capsys, "--peers", "gpunet-numpy", "--results", str(tmp_path / "file" / "results"))
    assert status == 2
    assert "Not a directory" in said


def test_a_peer_that_is_wrong_does_not_fail_the_run_but_a_smoke_run(capsys, tmp_path):
    options = ("--peers", "gpunet-numpy,tests.helpers.benchmark_peers:Wrong", "--rounds", "1", "-k", "linear 784")
    status, said = run(capsys, *options, "--results", str(tmp_path))
    assert status == 0, said
    assert "relative error" in said
    (path,) = tmp_path.iterdir()
    assert [row.status for row in read_results(path).rows] == ["ok", "wrong"]
    assert run(capsys, *options, "--smoke")[0] == 1
