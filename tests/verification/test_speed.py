"""What ``gpunet verify --speed`` measures, by a clock that the test turns: no time of this machine counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import gpunet
from benchmarks.report.results import Case
from benchmarks.report.roofline import demands
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.sources import names
from gpunet.verification import speed
from gpunet.verification.configurations import CONFIGURATIONS
from gpunet.verification.operation import Operation
from gpunet.verification.subject import Cuda
from gpunet.verification.traffic import SWEEPS, bytes_moved
from tests.helpers.verification import SmallDevice

COPY_SECONDS, KERNEL_SECONDS = 1e-3, 2e-3


class ClockedDevice(SmallDevice):
    """Every copy takes a millisecond, every kernel and product two, a recorded step four; by its own clock only."""

    clock = 0.0

    def copy(self, destination: Any, source: Any) -> None:
        self.clock += COPY_SECONDS
        super().copy(destination, source)

    def launch(self, *args: Any, **kwargs: Any) -> None:
        self.clock += KERNEL_SECONDS
        super().launch(*args, **kwargs)

    def gemm(self, *args: Any, **kwargs: Any) -> None:
        self.clock += KERNEL_SECONDS
        super().gemm(*args, **kwargs)

    def gemm_bias(self, *args: Any, **kwargs: Any) -> bool:
        self.clock += KERNEL_SECONDS
        return super().gemm_bias(*args, **kwargs)

    def capture(self, step: Callable[[], object]) -> Any:
        replay = super().capture(step)

        def launch() -> None:
            self.clock += 2 * KERNEL_SECONDS
            replay.launch()

        return SimpleNamespace(nodes=replay.nodes, launch=launch)

    def record_event(self) -> float:
        return self.clock


def measured(seconds: float = math.inf, device: type = ClockedDevice) -> dict[str, Any]:
    result: dict[str, Any] = {}
    subject = Cuda(lambda precision: CudaBackend(device(), precision))
    speed.measure(subject, result, lambda done, what: None, seconds)
    return result


def test_bytes_per_second_and_shares_of_a_copy() -> None:
    result = measured()
    rate = 2 * 4 * math.prod(speed.SMALL) / COPY_SECONDS
    assert result["copy_gigabytes_per_second"] == pytest.approx(rate / 1e9, rel=5e-3)
    rows = {(row["what"], row["kind"], row["shape"]): row for row in result["kernels"]}
    shape = "40 x 24"
    copy_like = rows["dropout backward", "float32", shape]
    assert copy_like["microseconds"] == 1e6 * KERNEL_SECONDS
    assert copy_like["gigabytes_per_second"] == pytest.approx((2 * 4 + 1) * 960 / KERNEL_SECONDS / 1e9, rel=5e-3)
    for what, kind, sweeps in (("Adam step", "float32", 7), ("clipping factor", "float32", 2)):
        assert rows[what, kind, "960"]["percent_of_copy"] == pytest.approx(100 * sweeps / 2 / 2, rel=5e-3)
    half = rows["batch norm activation backward", "float16", shape]
    assert half["percent_of_copy"] == pytest.approx(100 * 3 / 2 / 2 / 2, rel=5e-3)


def test_what_the_host_takes_to_ask() -> None:
    result = measured()
    assert set(result["host_microseconds"]) == {"kernel", "product"}
    assert min(result["host_microseconds"].values()) > 0
    title, *_ = next(speed.tables(result))
    assert "the host takes" in title


def test_steps_recorded_and_not() -> None:
    rows = measured()["steps"]
    assert [(row["configuration"], row["precision"]) for row in rows] == [
        (label, precision) for label in CONFIGURATIONS for precision in ("float32", "tf32", "bfloat16", "float16")
    ]
    for row in rows:
        # One copy of the rows' numbers, one of the learning rate, and the recording.
        assert row["milliseconds"] < row["unrecorded_milliseconds"]
        copies = row["milliseconds"] - 2e3 * KERNEL_SECONDS
        assert copies == pytest.approx(1e3 * COPY_SECONDS * round(copies / 1e3 / COPY_SECONDS))
        assert row["unrecorded_milliseconds"] == pytest.approx(copies + 1e3 * KERNEL_SECONDS * row["kernels"])
        assert row["one_launch_milliseconds"] == (row["milliseconds"] if row["precision"] == "float32" else None)
    assert rows[0]["kernels"] < rows[-1]["kernels"]


def test_a_product_with_bias_and_relu_beside_two_operations() -> None:
    rows = measured()["products"]
    assert [(row["configuration"], row["precision"]) for row in rows] == [
        (label, precision) for label in CONFIGURATIONS for precision in ("float32", "tf32")
    ]
    for row in rows:
        assert row["microseconds"] == pytest.approx(1e6 * KERNEL_SECONDS)
        assert row["microseconds_in_two"] == pytest.approx(2e6 * KERNEL_SECONDS)
        assert row["kernels"] == 1


def test_a_product_that_cublaslt_does_not_have_is_measured_in_two() -> None:
    class Without(ClockedDevice):
        def gemm_bias(self, *args: Any, **kwargs: Any) -> bool:
            return False

    result = measured(device=Without)
    assert {(row["microseconds"], row["kernels"]) for row in result["products"]} == {(None, None)}
    *_, (title, columns, cells) = speed.tables(result)
    assert "cublasLt" in title
    assert {row[columns.index("us, cublasLt")] for row in cells} == {"-"}


def test_every_kernel_file_is_measured() -> None:
    methods = {operation.method for _, operation in speed.operations(is_large=False)}
    assert methods == set(SWEEPS)
    files = " ".join(methods) + " activation dropout bernoulli gather optimizer batch_norm score training narrow_pass"
    files += " loss_scale batch_norm_shards shards rounding"  # the latter moves two types at once, as a copy does
    assert all(name in files for name in names())


def test_a_limit_of_time_ends_it_and_says_so() -> None:
    result = measured(seconds=0.0)
    assert (result["kernels"], result["steps"]) == ([], [])
    assert result["ending"] == "configuration a, float32: the limit of 0 s was reached"


def test_what_has_no_room_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    step_speed = speed._step_speed

    def without_room(subject: Cuda, label: str, precision: str) -> Any:
        if label == "d":
            raise gpunet.OutOfDeviceMemoryError("no room for it")
        return step_speed(subject, label, precision)

    monkeypatch.setattr(speed, "_step_speed", without_room)
    result = measured()
    assert result["ending"] == "configuration d, float16: no room for it"
    assert {row["configuration"] for row in result["steps"]} == set("abce")
    assert result["kernels"]


def test_an_error_leaves_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    step_speed = speed._step_speed

    def failing(subject: Cuda, label: str, precision: str) -> Any:
        if label == "b":
            raise gpunet.DeviceError("an illegal address")
        return step_speed(subject, label, precision)

    monkeypatch.setattr(speed, "_step_speed", failing)
    result: dict[str, Any] = {}
    subject = Cuda(lambda precision: CudaBackend(ClockedDevice(), precision))
    with pytest.raises(gpunet.DeviceError):
        speed.measure(subject, result, lambda done, what: None)
    assert [row["configuration"] for row in result["steps"]] == ["a"] * 4
    assert result["ending"] == "configuration b, float32 was not measured to its end"
    assert len(list(speed.tables(result))) == 2  # no product was measured


def test_a_round_is_long_enough_to_be_told() -> None:
    class Fast(ClockedDevice):
        def launch(self, *args: Any, **kwargs: Any) -> None:
            self.clock += 1e-5

    device, calls = Fast(), []
    seconds = speed.device_seconds(device, lambda: (calls.append(1), device.launch()))
    assert seconds == pytest.approx(1e-5)
    assert len(calls) * 1e-5 > speed.ROUNDS * speed.ROUND_SECONDS


@pytest.mark.parametrize(
    ("operation", "mode", "method"),
    [
        ("batch_norm_activation", "forward", "batch_norm_activation_forward"),
        ("batch_norm_activation", "backward", "batch_norm_activation_backward"),
        ("bias_activation", "forward", "bias_activation_forward"),
        ("bias_activation", "backward", "bias_activation_backward"),
        ("softmax_cross_entropy", "forward", "softmax_cross_entropy"),
    ],
)
def test_the_bytes_are_those_of_the_roofline(operation: str, mode: str, method: str) -> None:
    one = next(one for storage, one in speed.operations(False) if one.method == method and storage.name == "float32")
    (demand,) = demands(Case(operation, mode, "", 40, (24,)))
    assert bytes_moved(one) == demand.bytes
    assert isinstance(one, Operation)
