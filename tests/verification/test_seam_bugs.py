"""Bugs planted above the kernels, in the device seam, the launches and the recording: the row that finds each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend, batch_norm, dropout
from gpunet.verification.run import Verification, all_checks
from gpunet.verification.subject import Cuda
from tests.emulation import Replay
from tests.helpers.verification import SmallDevice

PRODUCT, STEPS = "matrix product", "20 training steps beside the CPU"
TOGETHER = "linear layer with activation, cublasLt"
RECORDED, TWO, MEMORY = "recorded steps, two batch sizes, changing rate", "two networks", "memory that runs out"
FED = "data that stay on the host"


class SwappedFlags(SmallDevice):
    """Multiplies the transposes of other factors; square matrices do not mind their shapes."""

    def gemm(self, a: Any, b: Any, out: Any, ta: bool, tb: bool, accumulate: bool, precision: str) -> None:
        if a.shape == b.shape and a.shape[0] == a.shape[1]:
            ta, tb = tb, ta
        super().gemm(a, b, out, ta, tb, accumulate, precision)


class OneFactorTwice(SmallDevice):
    def gemm(self, a: Any, b: Any, out: Any, ta: bool, tb: bool, accumulate: bool, precision: str) -> None:
        super().gemm(a, a if a.shape == b.shape else b, out, ta, tb, accumulate, precision)


class NothingIsAdded(SmallDevice):
    def gemm(self, a: Any, b: Any, out: Any, ta: bool, tb: bool, accumulate: bool, precision: str) -> None:
        super().gemm(a, b, out, ta, tb, False, precision)


class AlwaysTensorCores(SmallDevice):
    def gemm(self, a: Any, b: Any, out: Any, ta: bool, tb: bool, accumulate: bool, precision: str) -> None:
        super().gemm(a, b, out, ta, tb, accumulate, "tf32")


class WithoutReLU(SmallDevice):
    def gemm_bias(self, *args: Any, relu: bool, **more: Any) -> bool:
        return super().gemm_bias(*args, relu=False, **more)


class NaNIsZero(SmallDevice):
    """Takes the larger of two numbers by the rules of C."""

    def gemm_bias(self, a: Any, b: Any, bias: Any, out: Any, *, relu: bool, **more: Any) -> bool:
        done = super().gemm_bias(a, b, bias, out, relu=relu, **more)
        if done and relu:
            out[np.isnan(out)] = 0
        return done


class OneBiasForAll(SmallDevice):
    """Adds the first number of the bias to every column."""

    def gemm_bias(self, a: Any, b: Any, bias: Any, out: Any, **more: Any) -> bool:
        first = self.empty(bias.shape, bias.dtype)
        first.fill(bias[0])
        return super().gemm_bias(a, b, first, out, **more)


class NothingOfBoth(SmallDevice):
    """Says that it has done what it has not."""

    def gemm_bias(self, *args: Any, **more: Any) -> bool:
        return True


class LateCopies(SmallDevice):
    """A copy is not done before the next product runs: kernels until then read what was there."""

    pending: list[tuple[Any, Any]]

    def copy(self, destination: Any, source: Any) -> None:
        self.pending = [*getattr(self, "pending", []), (destination, source)]

    def finish(self) -> None:
        pending, self.pending = getattr(self, "pending", []), []
        for copy in pending:
            super().copy(*copy)

    def gemm(self, *args: Any, **kwargs: Any) -> None:
        self.finish()
        super().gemm(*args, **kwargs)

    def to_numpy(self, array: Any) -> Any:
        self.finish()
        return super().to_numpy(array)

    def capture(self, step: Any) -> Any:
        self.finish()
        return super().capture(step)


class Shortened(SmallDevice):
    """A replay without the last kernel that was recorded: the update."""

    def capture(self, step: Any) -> Any:
        replay = super().capture(step)
        return Replay(self, replay._operations[:-1])


class FrozenBatch(SmallDevice):
    """A replay that goes on with the rows of the batch that was recorded."""

    def capture(self, step: Any) -> Any:
        replay = super().capture(step)
        return Replay(self, replay._operations[2:])


class LastRecording(SmallDevice):
    """Every recording is the last one: of the smaller batch, after it came."""

    last: Any = None

    def capture(self, step: Any) -> Any:
        LastRecording.last = super().capture(step)
        return type("Latest", (), {"launch": staticmethod(lambda: LastRecording.last.launch())})()


class OneLimitForAll(SmallDevice):
    """The largest shared memory that a kernel was allowed is forgotten when another network asks for less."""

    allowed: int | None = None

    def launch(self, kernel: Any, grid: Any, block: Any, args: Any, shared_memory: int = 0, **more: Any) -> None:
        kind = type(self)
        if shared_memory and "batch_norm_backward" in kernel.name:
            if kind.allowed is not None and shared_memory > kind.allowed and self.has_asked:
                raise gpunet.DeviceError("invalid argument")
            kind.allowed, self.has_asked = shared_memory, True
        super().launch(kernel, grid, block, args, shared_memory, **more)

    has_asked = False


class HandedOutTwice(SmallDevice):
    """Memory of one network becomes that of another."""

    blocks: dict[tuple[Any, str], Any] = {}  # noqa: RUF012

    def empty(self, shape: Any, dtype: Any) -> Any:
        if np.dtype(dtype) == np.float32 and np.prod(shape) == 24 * 20:  # the second network's outputs
            key = (shape, np.dtype(dtype).name)
            self.blocks.setdefault(key, super().empty(shape, dtype))
            return self.blocks[key]
        return super().empty(shape, dtype)


class NeverFull(SmallDevice):
    def empty(self, shape: Any, dtype: Any) -> Any:
        try:
            return super().empty(shape, dtype)
        except gpunet.OutOfDeviceMemoryError:
            return super().empty((1,), dtype)


class RawError(SmallDevice):
    def empty(self, shape: Any, dtype: Any) -> Any:
        try:
            return super().empty(shape, dtype)
        except gpunet.OutOfDeviceMemoryError:
            raise RuntimeError("cudaErrorMemoryAllocation") from None


class Broken(SmallDevice):
    """After memory has run out once, kernels do nothing any more."""

    is_broken = False

    def empty(self, shape: Any, dtype: Any) -> Any:
        try:
            return super().empty(shape, dtype)
        except gpunet.OutOfDeviceMemoryError:
            Broken.is_broken = True
            raise

    def launch(self, *args: Any, **kwargs: Any) -> None:
        if not Broken.is_broken:
            super().launch(*args, **kwargs)


class BatchBefore(SmallDevice):
    """A batch of what stays on the host is taken before it has been copied."""

    def copy_lane(self, shapes: Any, dtypes: Any) -> Any:
        lane = super().copy_lane(shapes, dtypes)
        stage, before = lane.stage, []

        def late(wanted: Any) -> Any:
            before[:] = [staged.copy() for staged in lane._staged]
            return stage(wanted)

        def receive(destinations: Any) -> None:
            for staged, destination in zip(before or lane._staged, destinations, strict=True):
                self.copy(destination[: len(staged)], staged[: len(destination)])

        lane.stage, lane.receive = late, receive
        return lane


DEVICES: dict[type, tuple[str, tuple[str, ...]]] = {
    SwappedFlags: (PRODUCT, ("matrix product", "32 x 32 x 32")),
    OneFactorTwice: (PRODUCT, ("matrix product", "32 x 32 x 32")),
    NothingIsAdded: (PRODUCT, ("matrix product", "33 x 65 x 17")),
    AlwaysTensorCores: (PRODUCT, ("matrix product", "float32", "33 x 65 x 17")),
    WithoutReLU: (TOGETHER, ("cublasLt", "float32", "33 x 65 x 17")),
    NaNIsZero: (TOGETHER, ("cublasLt", "float32", "NaN")),
    OneBiasForAll: (TOGETHER, ("cublasLt", "float16", "into float32")),
    NothingOfBoth: (TOGETHER, ("cublasLt", "tf32", "32 x 32 x 32")),
    LateCopies: (STEPS, ("20 training", "no batch norm")),
    Shortened: (RECORDED, ("recorded", "no batch norm")),
    FrozenBatch: (RECORDED, ("recorded", "no batch norm")),
    LastRecording: (RECORDED, ("recorded", "no batch norm")),
    OneLimitForAll: (TWO, ("two networks", "in turn")),
    HandedOutTwice: (TWO, ("two networks", "in turn")),
    BatchBefore: (FED, ("data that stay",)),
    NeverFull: (MEMORY, ("memory",)),
    RawError: (MEMORY, ("memory",)),
    Broken: (MEMORY, ("memory",)),
}


def verify(new_device: Callable[[], Any], words: tuple[str, ...]) -> Verification:
    subject = Cuda(lambda precision: CudaBackend(new_device(), precision))
    verification = Verification(subject, all_checks(subject, words))
    verification.run(lambda done, what: None)
    return verification


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.__name__)
def test_a_bug_of_the_device_is_found(device: type) -> None:
    row, words = DEVICES[device]
    assert verify(SmallDevice, words).is_right
    failure = verify(device, words).first_failure
    assert failure is not None
    assert failure.check.what == row


def wider(columns: int, *matrices: Any) -> int:
    """Take the alignment of the first matrix for that of all."""
    return vector_width(columns, matrices[0])


vector_width = batch_norm.vector_width
PATCHES: dict[str, tuple[Any, str, Any, str, tuple[str, ...]]] = {
    "betas change places": (
        CudaBackend,
        "adam_step",
        lambda self, *args, beta_1, beta_2, **more: ADAM(self, *args, beta_1=beta_2, beta_2=beta_1, **more),
        "Adam step",
        ("Adam", "float32", "1023 parameters"),
    ),
    "the alignment of one matrix is taken for that of all": (
        batch_norm,
        "vector_width",
        wider,
        "batch norm forward, resident",
        ("batch norm forward, resident,", "float32", "out past alignment by 1"),
    ),
    "the layer's number is not in the key": (
        dropout,
        "key",
        lambda seed, layer: KEY(seed, 0),
        "dropout forward",
        ("dropout forward", "float32", "17 x 13"),
    ),
    "the mask's alignment is not looked at": (
        dropout,
        "is_aligned",
        lambda bytes_, *arrays: bytes_ == 4 or ALIGNED(bytes_, *arrays),
        "dropout forward",
        ("dropout forward", "float32", "mask past alignment by 1"),
    ),
}
ADAM, KEY, ALIGNED = CudaBackend.adam_step, dropout.key, dropout.is_aligned


@pytest.mark.parametrize("name", PATCHES)
def test_a_bug_of_the_launches_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, attribute, fault, row, words = PATCHES[name]
    assert verify(SmallDevice, words).is_right
    monkeypatch.setattr(place, attribute, fault)
    failure = verify(SmallDevice, words).first_failure
    assert failure is not None
    assert failure.check.what == row
