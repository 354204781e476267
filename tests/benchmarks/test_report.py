"""The report: what its tables say of given rows, by what can be counted and computed by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks.report.files import RESULTS_FOLDER, choose, committed_results, read_results
from benchmarks.report.frame import frame, markdown
from benchmarks.report.results import Case, Spread
from benchmarks.report.sections import HOW_TO_READ, NOTHING_YET, SECTIONS, report, section
from benchmarks.report.tables import exponent
from benchmarks.report.words import significant, times, times_with_spread
from gpunet.errors import InvalidValueError, MissingFileError
from tests.helpers.benchmark_results import (
    ALL_PEERS,
    BATCHES,
    CASES,
    CPU_PEERS,
    GEMM,
    GPU_MACHINE,
    A,
    B,
    full_rows,
    results,
    row,
    without_time,
)
from tests.helpers.checkout import ROOT


def tables(text):
    """Return the tables of a text, each a list of rows by column names."""
    found, lines = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            lines.append([cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")])
        elif lines:
            head, rule, *rows = lines
            assert all(set(cell) <= {"-", ":"} for cell in rule)
            assert all(len(cells) == len(head) for cells in rows)
            found.append([dict(zip(head, cells, strict=True)) for cells in rows])
            lines = []
    return found


def table(name, rows, **options):
    """Return the first table of a section."""
    return tables(section(name, [results(rows, **options)]))[0]


# --- numbers and Markdown ---


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.051234, "0.0512"), (9.996, "10.0"), (1.0, "1.00"), (15312.0, "15,300"), (999.6, "1,000")],
)
def test_numbers_have_three_digits_and_no_exponent(value, text):
    assert significant(value) == text


def test_ratios_show_their_spread_where_it_is_wide():
    assert times_with_spread(Spread(1.5, 1.45, 1.55)) == "1.50x"
    assert times_with_spread(Spread(1.5, 1.2, 1.55)) == "1.50x, 1.20-1.55"
    assert times_with_spread(Spread(0.031, 0.03, 12.34)) == "0.031x, 0.0300-12.3".replace("0.031x", "0.0310x")


def test_a_table_is_aligned_and_keeps_to_its_cells():
    text = markdown(pd.DataFrame([["a|b\nc", "1"], ["d", "1,000"]], columns=["name", "n"]))
    assert text.splitlines() == [
        "| name   |     n |",
        "| ------ | ----: |",
        "| a\\|b c |     1 |",
        "| d      | 1,000 |",
    ]


# --- which rows stand side by side ---


def test_a_cell_is_the_median_and_the_ratio_and_the_fastest_is_bold():
    rows = [
        row(A, "gpunet-numpy", 4.0, gpunet_milliseconds=4.0, roofline=1.0),
        row(A, "torch-eager", [2.0, 3.0, 4.0], gpunet_milliseconds=[4.0, 4.0, 4.0], roofline=1.0),
        row(A, "sklearn", 12.0, gpunet_milliseconds=4.0, roofline=1.0),
    ]
    (line,) = table("networks", rows)
    assert line == {
        "batch x layer sizes": "a: 256 x 784-256-256-10",
        "gpunet": "4.00 ms",
        "PyTorch": "**3.00 ms (0.75x, 0.55-0.95)**",  # the percentiles of 0.5, 0.75, 1
        "scikit-learn": "12.0 ms (3.00x)",
        "of roofline: gpunet / best peer": "25 % / 33 %",
    }


def test_precisions_are_never_in_one_table():
    rows = [row(case, "gpunet-numpy", 1.0) for case in (A, A.replace(precision="tf32"), A.replace(dtype="float64"))]
    text = section("networks", [results(rows)])
    assert [len(found) for found in tables(text)] == [1] * 3
    assert text.count("on the CPU: relu, batch norm, adam, TF32.") == 1
    assert text.count("on the CPU: relu, batch norm, adam, float64.") == 1


def test_gpunet_on_the_cpu_stands_beside_the_gpu_peers_it_ran_with():
    rows = [
        row(A, "gpunet-cuda", 1.0, gpunet_milliseconds=1.0),
        row(A, "gpunet-numpy", 10.0, gpunet_milliseconds=1.0, ratio_to="gpunet-cuda"),
        row(B, "gpunet-numpy", 20.0),  # of a run without the GPU
    ]
    on_cpu, on_gpu = tables(section("networks", [results(rows)]))
    assert (on_gpu[0]["gpunet CUDA"], on_gpu[0]["gpunet (CPU)"]) == ("**1.00 ms**", "10.0 ms (10.0x)")
    assert on_cpu[0]["gpunet"] == "20.0 ms"


def test_a_guest_alone_makes_no_table():
    rows = [without_time(A, "gpunet-cuda", "missing", "no GPU"), row(A, "gpunet-numpy", 10.0)]
    assert section("networks", [results(rows)]) == NOTHING_YET


def test_what_all_cases_share_stands_above_the_table_and_the_rest_in_its_rows():
    rows = [row(A, "gpunet-numpy", 1.0), row(A.replace(batch_norm=False), "gpunet-numpy", 1.0)]
    text = section("networks", [results(rows)])
    assert "**Training step** on the CPU: relu, adam, float32." in text
    assert [line["batch x layer sizes"] for line in tables(text)[0]] == [
        "a: 256 x 784-256-256-10, batch norm",
        "a: 256 x 784-256-256-10, no batch norm",
    ]


def test_deep_networks_are_written_short():
    deep = Case("network", "step", "e", 8192, (64, *[64] * 9, 10))
    assert table("networks", [row(deep, "gpunet-numpy", 1.0)])[0]["batch x layer sizes"] == (
        "e: 8192 x 64-64-...-64-10 (10 layers)"
    )


def test_a_floor_above_one_hundred_percent_names_the_cache():
    rows = [row(A, "gpunet-numpy", 4.0, roofline=5.0, cached=True)]
    assert table("networks", rows)[0]["of roofline: gpunet / best peer"] == "125 % (cache) / -"


def test_a_failed_peer_keeps_its_column_and_a_refused_one_does_not():
    rows = [
        row(A, "gpunet-numpy", 4.0),
        without_time(A, "torch-eager", "failed", "killed | by a signal"),
        without_time(A, "torch-compile", "wrong", "W1: relative error 0.3"),
        without_time(A, "sklearn", "refused", "no batch norm"),
    ]
    (line,) = table("networks", rows)
    assert (line["PyTorch"], line["PyTorch compiled"]) == ("failed", "wrong")
    assert "scikit-learn" not in line
    listed = table("not-measured", rows)
    assert [(one["peer"], one["status"]) for one in listed] == [
        ("PyTorch compiled", "wrong"),
        ("PyTorch", "failed"),
        ("scikit-learn", "refused"),
    ]
    assert listed[1]["cases"] == "a, training step (CPU, float32)"
    assert listed[1]["reason"] == "killed \0 by a signal"


def test_many_cases_of_one_reason_are_counted():
    rows = [without_time(case, "sklearn", "missing", "no scikit-learn") for case in BATCHES]
    (line,) = table("not-measured", rows)
    assert line["cases"] == "4, such as batch 16, training step (CPU, float32)"


def test_a_failed_gpunet_leaves_times_without_ratios():
    rows = [without_time(A, "gpunet-numpy", "failed", "x"), row(A, "sklearn", 2.0)]
    (line,) = table("networks", rows)
    assert (line["gpunet"], line["scikit-learn"]) == ("failed", "2.00 ms")
    assert line["of roofline: gpunet / best peer"] == "- / -"


# --- what the sections say ---


def test_peers_counts_wins_draws_and_losses():
    ratios = {"batch 16": (2.0, 2.0, 2.0), "batch 64": (0.9, 0.99, 1.2), "batch 256": (0.5, 0.5, 0.5)}
    rows = []
    for case in BATCHES[:3]:
        rows.append(row(case, "gpunet-numpy", [1.0] * 3, gpunet_milliseconds=[1.0] * 3))
        rows.append(row(case, "torch-eager", ratios[case.label], gpunet_milliseconds=[1.0] * 3))
    counted, lost = tables(section("peers", [results(rows)]))
    (line,) = counted
    assert [line[name] for name in ("peer", "cases", "gpunet faster", "even", "slower")] == ["PyTorch", *"3111"]
    assert line["geometric mean"] == "1.00x"  # of 2, 0.99 and 1/2
    assert (line["least"], line["where"]) == ("0.50x", "batch 256, training step")
    assert [one["case"] for one in lost] == ["batch 256, training step"]


def test_peers_lists_every_loss_the_worst_first():
    rows = []
    for case, share in zip([A, B, GEMM], [0.9, 0.5, 1.5], strict=True):
        rows.append(row(case, "gpunet-numpy", 1.0, gpunet_milliseconds=1.0))
        rows.append(row(case, "sklearn", share, gpunet_milliseconds=1.0))
    text = section("peers", [results(rows)])
    assert [line["its time over gpunet's"] for line in tables(text)[1]] == ["0.50x", "0.90x"]
    assert "gpunet is slower in none of them." in text  # of the single operations


def test_growth_is_the_power_of_the_times():
    rows = [row(case, "gpunet-numpy", 3.0 * case.rows**1.5) for case in BATCHES]
    *_, growth = table("sweeps", rows)
    assert (growth["batch"], growth["gpunet"]) == ("growth", "^1.50")


def test_two_points_have_no_exponent():
    found = frame(results([row(case, "gpunet-numpy", 1.0) for case in BATCHES[:2]]))
    assert exponent(found, "gpunet-numpy") is None
    assert exponent(found, "sklearn") is None


def test_sweeps_are_in_the_order_of_their_numbers():
    cases = [Case("network", "step", f"batch {rows}", rows, (784, 256, 10)) for rows in (1024, 64, 9)]
    lines = table("sweeps", [row(case, "gpunet-numpy", 1.0) for case in cases])
    assert [line["batch"] for line in lines] == ["9", "64", "1024", "growth"]


def test_activations_stand_side_by_side_and_not_among_the_operations():
    cost = {"relu": 2.0, "sigmoid": 9.0, "identity": 1.0}
    cases = [Case("bias_activation", "forward", "8 x 3", 8, (3,), activation=name) for name in cost]
    rows = [row(case, "gpunet-numpy", cost[case.activation]) for case in cases]
    lines = table("activations", rows)
    assert [(line["activation"], line["gpunet, to relu"]) for line in lines] == [
        ("identity", "0.50 times"),
        ("relu", "1.00 times"),
        ("sigmoid", "4.50 times"),
    ]
    assert section("operations", [results(rows)]) == NOTHING_YET
    assert len(table("operations", [*rows, row(GEMM, "gpunet-numpy", 1.0)])) == 1
    assert len(table("operations", rows[1:2])) == 1


def test_without_a_gpu_the_crossover_says_so():
    assert section("crossover", [results()]).startswith("No GPU has run these benchmarks.")
    gpu_failed = [row(A, "gpunet-numpy", 1.0), without_time(A, "gpunet-cuda", "failed", "x")]
    assert section("crossover", [results(gpu_failed)]).startswith("No GPU has run these benchmarks.")
    assert "No GPU" not in section("summary", [results(full_rows(ALL_PEERS))])


@pytest.mark.parametrize(
    ("gpu", "sentence"),
    [
        ([9, 9, 0.1, 0.1], "The CPU is faster up to batch 64, the GPU from batch 256."),
        ([9, 9, 9, 9], "From batch 16 to 1024 the CPU is always faster."),
        ([0.1] * 4, "From batch 16 to 1024 the GPU is always faster."),
        ([9, 0.1, 9, 0.1], "From batch 16 to 1024 neither is faster on one side of a single size."),
    ],
)
def test_crossover_says_below_which_size_the_cpu_wins(gpu, sentence):
    rows = [row(case, "gpunet-numpy", 1.0) for case in BATCHES]
    rows += [row(case, "gpunet-cuda", time) for case, time in zip(BATCHES, gpu, strict=True)]
    text = section("crossover", [results(rows, machine=GPU_MACHINE)])
    assert sentence in text
    assert [line["CPU over GPU"] for line in tables(text)[0]] == [times(1 / time) for time in gpu]


def test_crossover_compares_one_precision_only():
    rows = [row(A, "gpunet-numpy", 1.0), row(A.replace(precision="tf32"), "gpunet-cuda", 0.1)]
    assert "at the same precision" in section("crossover", [results(rows)])


def test_summary_names_machine_date_and_what_is_missing():
    text = section("summary", [results()])
    assert "Measured on Abacus 9000, 2 cores, 2 threads, gpunet 0.5.0, 2026-05-04. No GPU has run" in text
    (lines,) = tables(text)
    assert [line["batch x layer sizes"] for line in lines] == [
        "256 x 784-256-256-10",
        "1024 x 3072-1024-...-1024-10 (5 layers)",
    ]
    assert lines[0]["gpunet, samples/s"] == "1,000,000"


def test_memory_launches_cold_start_and_peaks():
    gpu = row(A, "gpunet-cuda", 2.0, peak_bytes=1_234_000, launches=14)
    rows = [gpu, row(B, "gpunet-cuda", 2.0, first_seconds=4.0, peaks={"gigaflops": 300.0})]
    rows.append(row(A.replace(batch_norm=False), "sklearn", 1.0))
    on_cpu, on_gpu, steps, _ = tables(section("memory", [results(rows)]))
    assert (on_cpu[0]["scikit-learn"], on_gpu[0]["gpunet CUDA"]) == ("412 MB", "1.23 MB")
    assert steps[0]["scikit-learn"] == "43.0 MB"
    assert table("launches", rows)[0]["gpunet CUDA"] == "14 kernels, 1.80 ms"
    cold = {line["peer"]: line for line in table("cold-start", rows)}
    assert cold["gpunet CUDA"]["first unit of work, median"] == "2.75 s"
    assert (cold["gpunet CUDA"]["longest"], cold["gpunet CUDA"]["where"]) == (
        "4.00 s",
        "b, training step (GPU, float32)",
    )
    peaks = {line["where"]: line for line in table("roofline", rows)}
    assert peaks["GPU, float32"]["matrix product"] == "200 GFLOP/s (100 to 300)"
    assert peaks["CPU, float32, 2 threads"]["copy"] == "20.0 GB/s"


def test_the_machine_table_says_who_differs():
    rows = [row(A, "gpunet-numpy", 1.0), row(A, "torch-eager", 1.0, blas="mkl 2025 x2", versions={"torch": "2.13"})]
    facts = {line["what"]: line["here"] for line in table("machine", rows, machine=GPU_MACHINE)}
    assert facts["GPU"] == "Loom X100"
    assert facts["GPU clocks"] == "SM up to 1980 MHz, memory up to 2619 MHz"
    assert facts["GPU cache"] == "50.0 MB"
    assert facts["BLAS and thread pools"] == "gpunet: openblas 0.3.30 x2; PyTorch: mkl 2025 x2"
    assert facts["versions"] == "gpunet 1.0, numpy 2.4.0, torch 2.13"
    assert facts["gpunet"] == "0.5.0, 0123456789"
    assert facts["measured"] == "2026-05-04"


def test_the_machine_table_has_the_range_of_the_gpus_clock():
    def clock(*megahertz: int) -> str | None:
        rows = [row(A, f"torch-{number}", 1.0, gpu_megahertz=value) for number, value in enumerate(megahertz)]
        facts = {line["what"]: line["here"] for line in table("machine", rows, machine=GPU_MACHINE)}
        return facts.get("GPU clock after the rounds")

    assert clock(1980, 0, 1755, 1800) == "1755 to 1980 MHz"
    assert clock(1980, 1980) == "1980 MHz"
    assert clock(0) is None


# --- the whole report ---


def test_the_report_of_two_machines_has_every_table_of_both():
    cpu, gpu = results(), results(full_rows(ALL_PEERS), machine=GPU_MACHINE)
    text = report([cpu, gpu])
    assert [line for line in text.splitlines() if line.startswith("# ")] == [
        "# abacus, gpunet 0.5.0",
        "# loom, gpunet 0.5.0",
    ]
    assert text.count(HOW_TO_READ) == 2
    assert "## Kernel launches" not in text.split("# loom")[0]
    assert "## Kernel launches" in text.split("# loom")[1]
    for name in ("peers", "networks", "sweeps", "operations", "activations", "memory", "roofline"):
        assert section(name, [cpu]) in text.split("# loom")[0]
        assert section(name, [gpu]) in text.split("# loom")[1]
    assert len(tables(text)) > 40  # and `tables` has seen that each is one
    assert text.isascii()  # also a terminal without Unicode shows all of it
    for case in CASES:
        if case.operation == "network":
            assert case.label in text


def test_a_section_names_the_machines_where_there_are_several():
    two = section("roofline", [results(), results(full_rows(CPU_PEERS), machine=GPU_MACHINE)])
    assert "*abacus, gpunet 0.5.0*" in two
    assert "*loom, gpunet 0.5.0*" in two
    assert "*abacus" not in section("roofline", [results()])


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_of_no_rows_is_a_sentence(name):
    text = section(name, [results([])])
    assert tables(text) == [] or name == "machine"
    assert text == NOTHING_YET or name in ("crossover", "machine")
    assert NOTHING_YET in report([results([])])


def test_unknown_sections_are_told_the_nearest():
    with pytest.raises(InvalidValueError, match="section: 'sumary' is not known"):
        section("sumary", [results()])


# --- which results, which rows ---


def test_the_newest_version_of_each_machine_is_taken(tmp_path):
    for version in ("0.9.0", "0.10.0", "0.2.0"):
        file = results([row(A, "sklearn", 1.0)], version=version)
        file.save(tmp_path / file.file_name)
    other = results([row(A, "sklearn", 1.0)], machine=GPU_MACHINE, version="0.1.0")
    other.save(tmp_path / other.file_name)
    found = committed_results(tmp_path)
    assert {(file.machine["name"], file.version) for file in found} == {("abacus", "0.10.0"), ("loom", "0.1.0")}


def test_without_results_it_says_how_to_make_some(tmp_path):
    with pytest.raises(MissingFileError, match="`make benchmark`"):
        committed_results(tmp_path)


def test_committed_results_are_whole_and_of_real_machines():
    folder = RESULTS_FOLDER
    assert folder == ROOT / "benchmarks" / "results"
    for path in folder.glob("*.json"):
        file = read_results(path)
        assert path.name == file.file_name
        assert file.machine["name"] not in ("abacus", "loom")


def test_filters_take_names_one_by_one_or_with_commas():
    adam = Case("adam_step", "forward", "1,000 parameters", 1, (1000,))
    file = results([row(case, name, 1.0) for case in (A, B, adam) for name in ("sklearn", "torch-eager")])
    (both,) = choose([file], configuration=["a, b"], peer=["sklearn"])
    assert [one.case.label for one in both.rows] == ["a", "b"]
    (one,) = choose([file], configuration=["1,000 parameters"])
    assert {row.key for row in one.rows} == {adam.key}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"peer": ["sklern"]}, "peer: 'sklern' is not known. Did you mean 'sklearn'"),
        ({"configuration": ["a,batch 65"]}, "configuration: 'batch 65' is not known. Did you mean 'batch 64'"),
        ({"mode": ["steps"]}, "mode: 'steps' is not known. Did you mean 'step'"),
        ({"configuration": ["b"], "mode": ["epoch"]}, "No row is left"),
    ],
)
def test_filters_that_no_row_passes(names, message):
    with pytest.raises(InvalidValueError, match=message):
        choose([results()], **names)
