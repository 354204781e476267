"""Known bugs in the Python of the backends and of dropout, planted one at a time, and the tests that must find each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import pytest

import gpunet.backends.numpy as numpy_backend
from gpunet.activations import ReLU
from gpunet.backends import arrays
from gpunet.backends.cuda import (
    CudaBackend,
    activation,
    batch_norm,
    launcher,
    narrow_pass,
    random_words,
    softmax_cross_entropy,
)
from gpunet.backends.devices import cupy
from gpunet.layers import dropout as dropout_layer
from tests.backends.cuda import test_device as device_tests
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy
from tests.helpers.planting import planted
from tests.kernels import test_batch_norm as batch_norm_kernel_tests
from tests.kernels import test_orders as orders
from tests.kernels import test_scratch as scratch_tests
from tests.layers import test_batch_norm as batch_norm_tests
from tests.layers import test_dropout as dropout_tests

WRONG_NUMBERS = r"Not equal to tolerance|Arrays are not equal"
OVERRUN = "write outside a buffer"


@dataclass(frozen=True)
class Bug:
    """One bug, and how it is found.

    Attributes
    ----------
    name : str
    module : module
        Whose text has the bug.
    old, new : str
        The replacement.
    check : callable
        A test that passes without the bug.
    finding : str
        Pattern of the error.
    """

    name: str
    module: ModuleType
    old: str
    new: str
    check: Callable[[], None]
    finding: str = WRONG_NUMBERS

    def __str__(self) -> str:
        return self.name.replace(" ", "_")


def residual() -> None:
    batch_norm_tests.test_what_rounding_leaves_of_a_large_mean_is_taken_out()


def without_scale() -> None:
    batch_norm_tests.test_the_gradient_without_scale_and_shift_is_the_references(ReLU())


def narrow() -> None:
    orders.test_every_order("narrow network")


def masks() -> None:
    dropout_tests.test_layers_of_equal_width_have_masks_of_their_own(dropout_tests.OnNumpy)


def masks_of_kernels() -> None:
    dropout_tests.test_layers_of_equal_width_have_masks_of_their_own(dropout_tests.OnCuda)


def without_asking() -> None:
    with pytest.MonkeyPatch.context() as patch:
        fake_cupy.install(patch, fake_cupy.FakeCupy(EmulatedDevice(compute_capability=(8, 0))))
        backend = CudaBackend(cupy.CupyDevice(0))
        device_tests.test_a_row_around_what_the_driver_gives_without_asking(backend, 48 * 1024, 0)


BUGS = [
    Bug("what is left of the mean stays in y", numpy_backend, "        out -= residual\n", "", residual),
    Bug("what is left of the mean stays in it", numpy_backend, "        mean += residual\n", "", residual),
    Bug(
        "what is left of the mean stays in the variance",
        numpy_backend,
        "self._centred_dots(out, out, residual, out=variance)",
        "self._centred_dots(out, out, 0 * residual, out=variance)",
        residual,
    ),
    Bug(
        "dbeta and dgamma share their memory",
        numpy_backend,
        'self._scratch("sum_dz_shat", mean',
        'self._scratch("sum_dz", mean',
        without_scale,
    ),
    Bug(
        "offset and slope share their memory",
        numpy_backend,
        'offset = self._scratch("offset"',
        'offset = self._scratch("slope"',
        without_scale,
    ),
    Bug(
        "masks do not depend on the layer",
        numpy_backend,
        "words = random_words(Stream.DROPOUT, first + part.start, part.stop - part.start, seed, layer, number)",
        "words = random_words(Stream.DROPOUT, first + part.start, part.stop - part.start, seed, 1, number)",
        masks,
    ),
    Bug(
        "all layers have one number",
        dropout_layer,
        "self.seed, self.index, self.step",
        "self.seed, 1, self.step",
        masks,
    ),
    Bug("kernels take all layers for one", random_words, "np.uint32(layer)", "np.uint32(1)", masks_of_kernels),
    Bug(
        "kernels share one buffer for dbeta and dgamma",
        batch_norm,
        'cuda.scratch("dbeta", (columns,), number)',
        'cuda.scratch("dgamma", (columns,), number)',
        lambda: scratch_tests.test_sums_that_no_parameter_needs_have_memory_of_their_own(False),
    ),
    Bug(
        "counters are as many as the first launch needed",
        launcher,
        "self._counters is None or self._counters.size < count",
        "self._counters is None",
        scratch_tests.test_counters_and_partial_sums_grow_with_the_matrix,
        OVERRUN,
    ),
    Bug(
        "counters for two thirds of what a tile has",
        batch_norm,
        "counter_count=1 + COUNTERS_PER_TILE * tiles",
        "counter_count=1 + 2 * tiles",
        scratch_tests.test_counters_and_partial_sums_grow_with_the_matrix,
        OVERRUN,
    ),
    Bug(
        "a counter for the first tile of columns only",
        activation,
        "cuda.zeroed_counters(tiles.grid[0])",
        "cuda.zeroed_counters(1)",
        scratch_tests.test_counters_and_partial_sums_grow_with_the_matrix,
        OVERRUN,
    ),
    Bug(
        "buffers never grow",
        arrays,
        "buffer is None or buffer.size < size",
        "buffer is None",
        scratch_tests.test_counters_and_partial_sums_grow_with_the_matrix,
        "cannot reshape",
    ),
    Bug(
        "buffers of two types are one",
        arrays,
        "key = (name, np.dtype(dtype))",
        "key = (name, np.dtype(np.float32))",
        scratch_tests.test_buffers_of_one_name_are_not_mixed_up_between_types,
        "is an array of float32, but the kernel takes",
    ),
    Bug(
        "a row takes all of the shared memory",
        softmax_cross_entropy,
        "row_bytes + RESERVED_BYTES <=",
        "row_bytes <=",
        lambda: scratch_tests.test_a_row_of_softmax_as_long_as_the_shared_memory(0, scratch_tests.FLOAT32),
        "shared memory together exceed",
    ),
    Bug(
        "a row takes the shared memory of half its numbers",
        softmax_cross_entropy,
        "columns * np.dtype(number).itemsize",
        "columns * outputs.itemsize",
        lambda: scratch_tests.test_a_row_of_softmax_as_long_as_the_shared_memory(0, scratch_tests.FLOAT16),
        "outside shared array",
    ),
    Bug(
        "a tile takes more shared memory than there is",
        batch_norm,
        "plan.shared_bytes <= limits.shared_memory_per_block",
        "plan.shared_bytes <= limits.shared_memory_per_block + 1024",
        lambda: scratch_tests.test_columns_of_batch_norm_as_long_as_the_shared_memory(-16),
        "bytes of shared memory",
    ),
    Bug(
        "more threads in a block than the kernel was compiled for",
        softmax_cross_entropy,
        "BLOCK_THREADS = 512",
        "BLOCK_THREADS = 1024",
        lambda: scratch_tests.test_a_row_of_softmax_as_long_as_the_shared_memory(0, scratch_tests.FLOAT32),
        "1024 threads in a block, where __launch_bounds__ allows 512",
    ),
    Bug(
        "more threads for a large tile than the kernel was compiled for",
        batch_norm,
        "MOST_THREADS = 512",
        "MOST_THREADS = 1024",
        lambda: batch_norm_kernel_tests.test_forward_and_backward(batch_norm_kernel_tests.LARGE_TILE),
        "1024 threads of a block need more registers",
    ),
    Bug(
        "blocks that meet are not launched together",
        narrow_pass,
        "cooperative=True",
        "cooperative=False",
        narrow,
        "wait in loops for what no other thread brings",
    ),
    Bug(
        "one tile too few",
        narrow_pass,
        "(depth + 3) * TILE_BYTES",
        "(depth + 2) * TILE_BYTES",
        narrow,
        "outside",
    ),
    Bug(
        "static shared memory is not counted",
        cupy,
        "SHARED_MEMORY_WITHOUT_ASKING = 32 * 1024",
        "SHARED_MEMORY_WITHOUT_ASKING = 48 * 1024",
        without_asking,
        "shared memory together exceed",
    ),
]


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    bug.check()
    with planted(bug.module, bug.old, bug.new), pytest.raises(Exception, match=bug.finding):
        bug.check()
