"""The model of a training step's time: against bounds, against an older calculation by hand, and against counts."""

from __future__ import annotations

import json
import math
import re

import pytest

from benchmarks import case_runner, process
from benchmarks.cases import choose_cases
from benchmarks.peers import peers_for
from benchmarks.report import prediction
from benchmarks.report.prediction import (
    COUNTS_FILE,
    GPUS,
    NODE_LATENCY,
    PEERS,
    PRECISIONS,
    Counts,
    Model,
    counted,
    step,
)
from benchmarks.report.sections import section
from gpunet.errors import InvalidValueError
from gpunet.verification.configurations import CONFIGURATIONS
from tests.helpers.benchmark_results import GPU_MACHINE, results, row
from tests.helpers.step_counts import all_counts

H200 = GPUS[0]
EVERY = [(gpu, label, precision) for gpu in GPUS for label in CONFIGURATIONS for precision in PRECISIONS]


def separate_kernels(label: str) -> Counts:
    """Counts of the design with a kernel for each operation, and the gradients of weights but the last beside others.

    Forward k products and k - 1 batch norms, the loss, k gradients of weights, k - 1 of inputs and k - 1 of batch norm,
    the update: 5 k - 1 nodes, of which k - 1 are beside the chain.
    """
    layers = CONFIGURATIONS[label][2]
    return Counts(nodes=5 * layers - 1, chain=4 * layers, calls=1)


def test_the_counts_are_those_of_recorded_steps():
    """`python -m tests.helpers.step_counts` writes them; `gpunet bench report --update docs/performance.md` follows."""
    assert json.loads(COUNTS_FILE.read_text(encoding="utf-8")) == all_counts()
    for counts in counted().values():
        assert 0 < counts.chain <= counts.nodes


@pytest.mark.parametrize(("gpu", "label", "precision"), EVERY, ids=lambda value: getattr(value, "name", value))
def test_no_floor_is_below_a_bound(gpu, label, precision):
    model = Model(gpu, label, precision)
    products = [demand for demand in model.demands if demand.operations]
    assert model.floor >= math.fsum(demand.operations for demand in products) / gpu.operations_per_second[precision]
    far = [demand.bytes for demand in model.demands if demand.name not in ("forward", "backward")]
    # The short gradients of weights are beside what waits.
    beside = [demand.bytes for demand in products if demand.name == "weight gradient"]
    assert model.floor >= (math.fsum(far) - math.fsum(beside)) / gpu.bytes_per_second
    if label in "cd":  # whose matrices no cache holds, and whose gradients of weights are all long
        assert model.floor >= math.fsum(demand.bytes for demand in model.demands) / gpu.bytes_per_second
    assert model.floor >= (1 - 1e-12) * model.counts.chain * NODE_LATENCY
    times = model.times()
    assert times.keys() == PEERS.keys()
    assert times["gpunet"] >= model.floor
    assert times["tuned"] <= times["eager"]
    assert times["compiled"] <= times["jax"]


# In microseconds, by hand: products at 55, 400 and 790 TFLOP/s or 4.3 TB/s, Adam at 28 bytes a parameter (30 with a
# bfloat16 copy), batch norm read and written once forward and once backward; then all of them one after the other, none
# below 2.6, gradients of weights aside where they are short. Of b, the calculation counted the last of those too.
BY_HAND = {
    "a": ((5.8, 1.6, 0.85), (1.8, 1.8, 1.9), (31.2, 31.2, 31.2)),
    "b": ((589, 84, 42), (41, 41, 44), (658, 153, 116)),
    "c": ((15040, 2109, 1067), (123, 123, 132), (15478, 2547, 1358)),
    "d": ((15612, 2227, 1127), (15, 15, 16), (17001, 3616, 1831)),
    "e": ((33, 27, 14), (0.3, 0.3, 0.3), (104, 104, 104)),
}


def rounded(number):
    """Return what a number of so many digits stands for, by rates of which the last digit is rounded too."""
    return pytest.approx(number, rel=0.01, abs=0.5 if isinstance(number, int) else 0.05)


@pytest.mark.parametrize("label", CONFIGURATIONS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_floors_of_an_h200_are_those_calculated_by_hand(label, precision):
    model, place = Model(H200, label, precision, separate_kernels(label)), PRECISIONS.index(precision)
    products, update, floor = (numbers[place] for numbers in BY_HAND[label])
    seconds = [(demand, model._seconds(demand, 1.0, 1.0)) for demand in model.demands]
    in_products = sum(time for demand, time in seconds if demand.operations)
    assert 1e6 * in_products == rounded(products)
    (found,) = (time for demand, time in seconds if demand.name == "update")
    assert 1e6 * found == rounded(update)
    assert 1e6 * model.floor == pytest.approx(floor, rel=0.025)


# gpunet, PyTorch eager as usually written and tuned, compiled whole-step graph, JAX, by the same hand.
STEPS_BY_HAND = {
    ("a", "tf32"): (36, 570, 380, 72, 109),
    ("b", "tf32"): (217, 815, 560, 272, 275),
    ("b", "bfloat16"): (148, 815, 560, 204, 206),
    ("c", "tf32"): (2730, 3990, 3640, 3090, 3150),
    ("c", "bfloat16"): (1450, 2225, 1925, 1640, 1670),
    ("d", "tf32"): (4240, 8600, 8150, 5780, 6000),
    ("d", "bfloat16"): (2150, 4350, 4110, 2920, 3040),
    ("e", "tf32"): (141, 1470, 1070, 255, 280),
    ("e", "bfloat16"): (102, 1470, 1070, 216, 243),
}


@pytest.mark.parametrize(("label", "precision"), STEPS_BY_HAND)
def test_the_steps_of_an_h200_are_near_those_calculated_by_hand(label, precision):
    """Within 3 % where products and bytes decide; where nodes do, whose number was a guess of compilers, 20 %."""
    found = Model(H200, label, precision, separate_kernels(label)).times().values()
    for time, by_hand in zip(found, STEPS_BY_HAND[label, precision], strict=True):
        assert 1e6 * time == pytest.approx(by_hand, rel=0.03 if label in "cd" else 0.20)


def test_what_counts_change():
    few, many = Counts(14, 12, 1), Counts(18, 18, 5)
    assert Model(H200, "a", "tf32", few).floor == pytest.approx(12 * NODE_LATENCY)
    assert Model(H200, "a", "tf32", many).floor == pytest.approx(18 * NODE_LATENCY)
    times = [Model(H200, "a", "tf32", Counts(14, 12, calls)).times()["gpunet"] for calls in (0.1, 1, 5, 50)]
    assert times[0] == times[1]
    assert times[2] == pytest.approx(times[1] + 4 * NODE_LATENCY)
    assert times[3] == 50 * prediction.HOST_CALL
    with pytest.raises(InvalidValueError, match="a chain of 9 nodes has no room for 12 operations"):
        _ = Model(H200, "a", "tf32", Counts(11, 9, 1)).floor


# --- the section ---


def test_nothing_reads_as_measured_that_was_not():
    text = section("prediction", [results()])
    assert [gpu.name for gpu in GPUS] == re.findall(
        r"Predicted for the (.*?)\*\*: microseconds, none of them meas", text
    )
    assert text.count("measured") == len(GPUS)
    assert text.count("\n| a, tf32 ") == len(GPUS)


def test_a_measurement_stands_beside_its_prediction():
    case = step("b", "tf32")
    predicted = Model(H200, "b", "tf32").times()["gpunet"]
    rows = [row(case, "gpunet-cuda", 2e3 * predicted), row(case.replace(rows=7), "jax-cuda", 1.0)]
    h200 = results(rows, machine=GPU_MACHINE | {"gpu": "NVIDIA H200"})
    text = section("prediction", [results(), h200])
    (line,) = (line for line in text.splitlines() if "measured" in line and line.startswith("| b, tf32"))
    assert re.search(r"\| [\d,.]+; measured [\d,.]+ \(2\.00x\) \|", line)
    assert text.count("; measured") == 1
    assert "**Predicted for the H200**: microseconds predicted, and measured where a cell says so" in text
    assert "**Predicted for the A100**: microseconds, none of them measured" in text


def test_one_loan_is_enough():
    """What `make benchmark-gpu` is asked for in docs/performance.md, and the time of its rounds by the model."""
    cases = choose_cases("cuda", ["network/step", "batch-norm", "tf32"])
    assert cases == [step(label, "tf32") for label in CONFIGURATIONS]
    assert set(PEERS.values()) <= set(peers_for("cuda"))
    rounds, longest = 9, case_runner._LONGEST_ROUND
    for gpu in GPUS:
        seconds = 0.0
        for case in cases:
            for once in Model(gpu, case.label, "tf32").times().values():
                a_round = max(min(case_runner._STEPS_ON_DEVICE * once, longest), 0.05)
                seconds += rounds * ((1 + case_runner._WARM_UP_SHARE) * a_round + process._REST)
        assert seconds < 120
