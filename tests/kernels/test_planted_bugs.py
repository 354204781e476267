"""The proof bites: known bugs, planted one at a time in the kernels, and the kernels' own tests that must find each.

A bug is an exact replacement of text that must occur once: an edit of a kernel cannot leave a bug here that is planted
nowhere. The same test must pass without the bug.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from gpunet.activations import ReLU, SiLU
from gpunet.backends.cuda.sources import names, source_for
from tests.conftest import MULTIPROCESSORS
from tests.emulation import EmulatedDevice, EmulationError, Kernel
from tests.kernels import test_activation as activation_tests
from tests.kernels import test_batch_norm as batch_norm_tests
from tests.kernels import test_bernoulli as bernoulli_tests
from tests.kernels import test_dropout as dropout_tests
from tests.kernels import test_gather as gather_tests
from tests.kernels import test_optimizer as optimizer_tests
from tests.kernels import test_orders as order_tests
from tests.kernels import test_sigmoid_cross_entropy as sigmoid_tests
from tests.kernels import test_softmax_cross_entropy as softmax_tests
from tests.kernels import test_squared_error as squared_error_tests
from tests.kernels.test_batch_norm import FLOAT, HALF, RESIDENT, STRIPED, Case
from tests.kernels.test_orders import in_every_order

Replacement = tuple[str, str]


class PlantedDevice(EmulatedDevice):
    """An emulated device that compiles the kernels with one piece of text replaced.

    Parameters
    ----------
    replacement : (old, new), or None
        None for the kernels as they are.
    kernels : str
        Pattern of the kernels that a test launches: the others of their group are not compiled.
    sanitize : bool
        As for :class:`EmulatedDevice`.
    """

    def __init__(self, replacement: Replacement | None, kernels: str, sanitize: bool = False) -> None:
        super().__init__(multiprocessor_count=MULTIPROCESSORS, sanitize=sanitize)
        self._replacement = replacement
        self._kernels = re.compile(kernels)

    def load(self, source: str, options: Sequence[str], kernels: Sequence[str], name: str) -> Mapping[str, Kernel]:
        wanted = [kernel for kernel in kernels if self._kernels.match(kernel)]
        if self._replacement is not None:
            old, new = self._replacement
            assert source.count(old) == 1, f"{name} has {source.count(old)} times: {old}"
            source = source.replace(old, new)
        try:
            return super().load(source, options, wanted, name)
        except EmulationError as error:
            pytest.fail(f"no bug that a compiler lets through: {error}")


Check = Callable[[PlantedDevice], None]


def batch_norm(
    *case: object, test: Callable[[Case], None] = batch_norm_tests.test_forward_and_backward, **more: object
) -> Check:
    """Return a test of ``batch_norm.cu``: it makes its own devices, so that only the kernels are exchanged."""

    def check(device: PlantedDevice) -> None:
        given = Case(*case, **more)
        directions = ("forward", "backward") if given.algorithm else ("inference",)
        expressions = tuple(given.expression(direction) for direction in directions)
        kernels = device.load(source_for("batch_norm", expressions), (), expressions, "batch_norm.cu")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch_norm_tests, "compiled", lambda storage: kernels)
            test(given)

    return check


def stripes_in_every_order(device: PlantedDevice) -> None:
    batch_norm(**vars(order_tests.STRIPES), test=order_tests.test_every_order_of_batch_norm)(device)


def clusters_in_every_order(device: PlantedDevice) -> None:
    batch_norm(**vars(order_tests.CLUSTERS), test=order_tests.test_every_order_of_batch_norm)(device)


def inference(case: Case) -> None:
    batch_norm_tests.test_inference(case, True)


def relu(device: PlantedDevice) -> None:
    activation_tests.check(device, (257, 10), ReLU(), "float32")


def silu(device: PlantedDevice) -> None:
    activation_tests.check(device, (257, 10), SiLU(), "float32")


def bernoulli(device: PlantedDevice) -> None:
    bernoulli_tests.test_probabilities_next_to_a_word_and_at_the_ends(device, "float32", 0)


def sigmoid(device: PlantedDevice) -> None:
    sigmoid_tests.check(device, (257, 10), "float32", True)


def softmax(device: PlantedDevice) -> None:
    softmax_tests.check(device, *softmax_tests.problem((33, 10)))


# What the tests say, and the emulated device.
WRONG_NUMBERS = "times the tolerance|Not equal to tolerance|Arrays are not equal"
GUARD_DAMAGE = "write outside a buffer"
DIVERGENCE = "threads have diverged"
COUNTERS = "the counters are to be zero again"
ENDLESS = "wait in loops for what no other thread brings"


@dataclass(frozen=True)
class Bug:
    """One bug, and how it is found.

    Attributes
    ----------
    name, module : str
        What it is, and in which kernel file.
    old, new : str
        The replacement.
    kernels : str
        Pattern of the kernels that the test launches.
    check : callable
        One of the kernel's own tests.
    finding : str
        Pattern of the error: of an assertion, or of the emulated device.
    """

    name: str
    module: str
    old: str
    new: str
    kernels: str
    check: Check
    finding: str = WRONG_NUMBERS

    def __str__(self) -> str:
        return f"{self.module}-{self.name.replace(' ', '_')}"


RELU_KERNELS = r"bias_activation_\w+<float, relu_activation, 1>"
SILU_KERNELS = r"bias_activation_\w+<float, silu_activation, 1>"
SOFTMAX_KERNELS = "softmax_cross_entropy_lanes<float, 16, 1>|total_weight<float>"
SIGMOID_KERNELS = r"sigmoid_cross_entropy<float>|total_weight<float>"
SQUARED_ERROR_KERNELS = r"squared_error<float>|total_weight<float>"

BUGS = [
    Bug(
        "no barrier before sums are read",
        "activation",
        "= values[i];\n    __syncthreads();\n",
        "= values[i];\n",
        RELU_KERNELS,
        relu,
    ),
    Bug(
        "threads outside the matrix leave before a barrier",
        "activation",
        "    A sums[N] = {};\n    if (column < columns) {",
        "    A sums[N] = {};\n    if (column >= columns) return; {",
        RELU_KERNELS,
        relu,
        DIVERGENCE,
    ),
    Bug(
        "one column too many",
        "activation",
        "    if (column >= columns) return;\n    A shift[N];",
        "    if (column > columns) return;\n    A shift[N];",
        RELU_KERNELS,
        relu,
    ),
    Bug(
        "the last part of the rows is not added",
        "activation",
        "part < gridDim.y; part",
        "part < gridDim.y - 1; part",
        RELU_KERNELS,
        relu,
    ),
    Bug(
        "another derivative at zero",
        "activation",
        "return y > A(0) ? A(1) : A(0);",
        "return y >= A(0) ? A(1) : A(0);",
        RELU_KERNELS,
        relu,
    ),
    Bug(
        "the kept input comes without its bias",
        "activation",
        "argument = argument + shift[i];",
        "argument = argument + A(0) * shift[i];",
        SILU_KERNELS,
        silu,
    ),
    Bug(
        "the derivative forgets that the gate moves",
        "activation",
        "return gate * (A(1) + near * (A(1) - gate));",
        "return gate * (A(1) + A(0) * near);",
        SILU_KERNELS,
        silu,
    ),
    Bug(
        "minus infinity times a closed gate",
        "activation",
        "return (s < A(-1000) ? A(-1000) : s) / (A(1) + exponential(-s));",
        "return s / (A(1) + exponential(-s));",
        "bias_activation_forward<float, silu_activation, 4>",
        lambda device: activation_tests.test_nan_and_infinity_as_numpy(device, SiLU()),
        "nan location mismatch",
    ),
    Bug(
        "batch norm takes y for z",
        "batch_norm",
        "return dy * F::derivative(normalised(s, index), parameter);",
        "return dy * F::derivative(to_arithmetic(output<F>(s, index, parameter)), parameter);",
        "",
        batch_norm(FLOAT, "silu", 130, 36, STRIPED),
    ),
    Bug(
        "the normal distribution has its other half",
        "batch_norm",
        "return probability + near *",
        "return A(1) - probability + near *",
        "",
        batch_norm(HALF, "gelu", 100, 9, STRIPED),
    ),
    Bug(
        "the merge forgets the distance of the means",
        "batch_norm",
        "+ A(count) * distance * distance;\n        }\n        shared.totals",
        "+ A(count) * distance * A(0);\n        }\n        shared.totals",
        "",
        batch_norm(FLOAT, "relu", 32, 32, RESIDENT, 2),
    ),
    Bug(
        "the merge takes parts for equal",
        "batch_norm",
        "shift[0][i] += count * (",
        "shift[0][i] += (A(0) * count + A(rows / chunks)) * (",
        "",
        batch_norm(FLOAT, "relu", 1025, 100, STRIPED),
    ),
    Bug(
        "the last chunk is not added",
        "batch_norm",
        "chunk < (region.is_inside() ? chunks : 0)",
        "chunk < (region.is_inside() ? chunks - 1 : 0)",
        "",
        batch_norm(FLOAT, "relu", 1025, 100, STRIPED),
    ),
    Bug(
        "biased variance in the running average",
        "batch_norm",
        "(squares / A(rows - 1))",
        "(squares / A(rows))",
        "",
        batch_norm(FLOAT, "relu", 32, 32, RESIDENT, 2),
    ),
    Bug(
        "backward takes y before it was rounded",
        "batch_norm",
        "F::derivative(to_arithmetic(output<F>(s, index, parameter)), parameter);",
        "F::derivative(F::forward(normalised(s, index), parameter), parameter);",
        "",
        batch_norm(
            HALF, "relu", 257, 72, STRIPED, test=batch_norm_tests.test_backward_takes_the_same_side_of_zero_as_forward
        ),
    ),
    Bug(
        "blocks of a cluster do not wait for each other",
        "batch_norm",
        "    find_block_statistics(shared, region);\n    sync_tile<CLUSTER>();",
        "    find_block_statistics(shared, region);\n    __syncthreads();",
        "",
        batch_norm(FLOAT, "relu", 1023, 4, RESIDENT, 8),
    ),
    Bug(
        "a block of a cluster ends while others read its memory",
        "batch_norm",
        "sync_tile<CLUSTER>();  // results is complete",
        "__syncthreads();  // results is complete",
        "",
        clusters_in_every_order,
        "of the cluster has ended",
    ),
    Bug(
        "dz is kept where dy may be read again",
        "batch_norm",
        "sums[1][i] += dz * own.centred(input, i);",
        "sums[1][i] += dz * own.centred(input, i);"
        " ds[element_offset(row + k * stride, region.column + i, columns)] = to_storage<T>(dz);",
        "",
        batch_norm(FLOAT, "tanh", 130, 36, STRIPED),
    ),
    Bug(
        "no barrier between the sums of warps and their reader",
        "batch_norm",
        "lane * N + i] = sum;\n        }\n    __syncthreads();\n",
        "lane * N + i] = sum;\n        }\n",
        "",
        batch_norm(FLOAT, "relu", 1025, 100, STRIPED),
    ),
    Bug(
        "the counter of blocks is left as it is",
        "batch_norm",
        "atomicInc(counter, blocks - 1)",
        "atomicAdd(counter, 1u)",
        "",
        batch_norm(FLOAT, "relu", 500, 132, STRIPED, limits=batch_norm_tests.SMALL_CACHE),
        COUNTERS,
    ),
    Bug(
        "gamma and beta change places",
        "batch_norm",
        "gamma,               // (columns,) or null\n    const arithmetic<T>* __restrict__ beta,  ",
        "beta,               // (columns,) or null\n    const arithmetic<T>* __restrict__ gamma,  ",
        "",
        batch_norm(FLOAT, "relu", 33, 7, test=inference),
    ),
    Bug(
        "parts of the rows share a ticket with those of other columns",
        "activation",
        "is_last_block(tickets + blockIdx.x, gridDim.y)",
        "is_last_block(tickets, gridDim.y)",
        RELU_KERNELS,
        in_every_order(order_tests.bias_gradient),
    ),
    Bug(
        "no barrier before the ticket of the last block",
        "activation",
        "    __threadfence();\n    __syncthreads();\n    if (thread_in_block() == 0) arrived_before",
        "    __threadfence();\n    if (thread_in_block() == 0) arrived_before",
        RELU_KERNELS,
        in_every_order(order_tests.bias_gradient),
    ),
    Bug(
        "no barrier after the wait for a tile",
        "batch_norm",
        "READY, 0u);\n    }\n    __syncthreads();\n",
        "READY, 0u);\n    }\n",
        "",
        stripes_in_every_order,
    ),
    Bug(
        "no barrier before a tile is announced",
        "batch_norm",
        "    __threadfence();\n    __syncthreads();\n"
        "    if (thread_in_block() == 0) atomicExch(tile_counters + READY, 1u);",
        "    __threadfence();\n    if (thread_in_block() == 0) atomicExch(tile_counters + READY, 1u);",
        "",
        stripes_in_every_order,
    ),
    Bug(
        "nobody waits for a tile",
        "batch_norm",
        "while (*reinterpret_cast<volatile unsigned int*>(tile_counters + READY) == 0) __nanosleep(100);",
        "",
        "",
        stripes_in_every_order,
        COUNTERS,
    ),
    Bug(
        "a tile is announced before its sums are written",
        "batch_norm",
        "    sum_over_block(merged, shared);\n",
        "    sum_over_block(merged, shared);\n    announce_tile(tile_counters);\n",
        "",
        stripes_in_every_order,
        COUNTERS,
    ),
    Bug(
        "the first block to come by clears the mark",
        "batch_norm",
        "if (atomicInc(tile_counters + PASSED, chunks - 1) == chunks - 1)",
        "if (atomicInc(tile_counters + PASSED, chunks - 1) == 0)",
        "",
        stripes_in_every_order,
        ENDLESS,
    ),
    Bug(
        "blocks take their number for the order in which they start",
        "batch_norm",
        "ticket[0] = atomicInc(counters, gridDim.x - 1);",
        "ticket[0] = blockIdx.x;",
        "",
        stripes_in_every_order,
        ENDLESS,
    ),
    Bug(
        "no barrier between reduction and reduction",
        "softmax_cross_entropy",
        "scratch[warp]);\n    __syncthreads();\n",
        "scratch[warp]);\n",
        r"softmax_cross_entropy_block<float, true>|total_weight<float>",
        in_every_order(order_tests.rows_of_a_block),
    ),
    Bug(
        "a block takes its ticket before it has written",
        "squared_error",
        "    if (threadIdx.x == 0) partial[blockIdx.x] = block_sum;\n"
        "    if (!is_last_block(ticket, gridDim.x)) return;",
        "    const bool is_last = is_last_block(ticket, gridDim.x);\n"
        "    if (threadIdx.x == 0) partial[blockIdx.x] = block_sum;\n    if (!is_last) return;",
        SQUARED_ERROR_KERNELS,
        in_every_order(order_tests.mean_of_losses),
    ),
    Bug(
        "samples share the words of dropout",
        "bernoulli",
        "random_words<SAMPLING>",
        "random_words<DROPOUT>",
        "sample_bernoulli<float, true>",
        lambda device: bernoulli_tests.test_counter_and_key(device, 0, 0, 0),
    ),
    Bug(
        "the bound is rounded down",
        "bernoulli",
        "ceilf(probability * 4294967296.0f)",
        "floorf(probability * 4294967296.0f)",
        "sample_bernoulli<float, true>",
        bernoulli,
    ),
    Bug(
        "a word that equals the bound counts",
        "bernoulli",
        "word < (unsigned int)ceilf",
        "word <= (unsigned int)ceilf",
        "sample_bernoulli<float, true>",
        bernoulli,
    ),
    Bug(
        "the bound of 1 does not fit a word",
        "bernoulli",
        "if (probability >= 1.0f) return true;",
        "if (probability > 1.0f) return true;",
        "sample_bernoulli<float, true>",
        bernoulli,
    ),
    Bug(
        "a double is rounded to a float",
        "bernoulli",
        "(double)word < probability * 4294967296.0",
        "(float)word < (float)probability * 4294967296.0f",
        "sample_bernoulli<double, true>",
        lambda device: bernoulli_tests.test_probabilities_next_to_a_word_and_at_the_ends(device, "float64", 0),
    ),
    Bug(
        "the last elements are left over",
        "bernoulli",
        "4 * quad < count; quad",
        "4 * quad + 4 <= count; quad",
        "sample_bernoulli<float, true>",
        lambda device: bernoulli_tests.test_same_bits_as_numpy(device, (31, 33), "float32", 0),
    ),
    Bug(
        "a round of Philox is missing",
        "dropout",
        "constexpr int ROUNDS = 10;",
        "constexpr int ROUNDS = 9;",
        "dropout_forward<float, true>",
        lambda device: dropout_tests.test_counter_and_key(device, 0.5, 2**64 - 1, 1, 1),
    ),
    Bug(
        "the upper half of the step is not in the counter",
        "dropout",
        "(unsigned int)(step >> 32) |",
        "0u |",
        "dropout_forward<float, true>",
        lambda device: dropout_tests.test_counter_and_key(device, 0.1, 2**40 + 3, 2**31, 2**40),
    ),
    Bug(
        "16 bytes at an address that is no multiple of 16",
        "dropout",
        "if (ALIGNED && first + 4 <= count) {\n            Quad<T> values;\n            values.load(x + first);",
        "if (first + 4 <= count) {\n            Quad<T> values;\n            values.load(x + first);",
        "dropout_forward<float, false>",
        lambda device: dropout_tests.test_same_bits_as_numpy(device, (40, 32), "float32", 1),
        "misaligned address",
    ),
    Bug(
        "the rest of the row is one word short",
        "gather",
        "for (; word < words; word += step)",
        "for (; word < words - 1; word += step)",
        "gather_rows<unsigned int>",
        lambda device: gather_tests.check(device, 33, "float32", 45),
    ),
    Bug(
        "one word too many",
        "gather",
        "for (; word < words; word += step)",
        "for (; word <= words; word += step)",
        "gather_rows<unsigned int>",
        lambda device: gather_tests.check(device, 33, "float32", 45),
        GUARD_DAMAGE,
    ),
    Bug(
        "weights end one later",
        "optimizer",
        "first + i < weight_count ? decay",
        "first + i <= weight_count ? decay",
        "sgd_step<float, .*, true>",
        lambda device: optimizer_tests.check_sgd(device, 1023, 500, 0.9, False, "float32"),
    ),
    Bug(
        "the last element is left over",
        "optimizer",
        "thread < count - whole * N)",
        "thread < count - whole * N - 1)",
        "sgd_step<float, .*, true>",
        lambda device: optimizer_tests.check_sgd(device, 1023, 500, 0.9, False, "float32"),
    ),
    Bug(
        "beta_1 and beta_2 change places",
        "optimizer",
        "T decay, T beta_1, T beta_2,",
        "T decay, T beta_2, T beta_1,",
        "adam_step<float, ",
        lambda device: optimizer_tests.check_adam(device, 64, 32, 0.1, "float32"),
    ),
    Bug(
        "no barrier before the sums of warps are added",
        "optimizer",
        "    __syncthreads();\n    value = scratch[0];",
        "    value = scratch[0];",
        "clip_factor<float, ",
        lambda device: optimizer_tests.test_clip_factor(device, 40_000, 17, 0, "float32"),
    ),
    Bug(
        "lanes without a column are added",
        "softmax_cross_entropy",
        "column < columns ? exponential(shifted) : A(0)",
        "exponential(shifted)",
        SOFTMAX_KERNELS,
        softmax,
    ),
    Bug(
        "lanes of one row are taken for those of another",
        "softmax_cross_entropy",
        "sum = warp_reduce<Sum>(sum, ROWS);",
        "sum = warp_reduce<Sum>(sum, LANES);",
        SOFTMAX_KERNELS,
        softmax,
    ),
    Bug(
        "the sign of the logit is lost",
        "sigmoid_cross_entropy",
        "negative ? complement * e - target",
        "false ? complement * e - target",
        SIGMOID_KERNELS,
        sigmoid,
    ),
    Bug(
        "the logarithm loses small numbers",
        "sigmoid_cross_entropy",
        "return log1pf(value);",
        "return logf(1.0f + value);",
        SIGMOID_KERNELS,
        lambda device: sigmoid_tests.test_extreme_logits(device, "float32"),
    ),
    Bug(
        "the gradient is a difference of nearly equal numbers",
        "sigmoid_cross_entropy",
        "complement - target * e) / (A(1) + e)",
        "A(1) / (A(1) + e) - target)",
        SIGMOID_KERNELS,
        lambda device: sigmoid_tests.test_extreme_logits(device, "float32"),
    ),
    Bug(
        "exp overflows",
        "sigmoid_cross_entropy",
        "exponential(-absolute(output))",
        "exponential(-output)",
        SIGMOID_KERNELS,
        sigmoid,
    ),
    Bug(
        "the loss is not weighted",
        "sigmoid_cross_entropy",
        "part += weight * (linear",
        "part += A(1) * (linear",
        SIGMOID_KERNELS,
        sigmoid,
    ),
    Bug(
        "weights by column",
        "squared_error",
        "weights[i / columns]",
        "weights[i % columns]",
        SQUARED_ERROR_KERNELS,
        lambda device: squared_error_tests.check(device, (257, 10), "float32", True),
    ),
    Bug(
        "parts of the last blocks are not added",
        "squared_error",
        "block < gridDim.x; block",
        "block < blockDim.x && block < gridDim.x - 1; block",
        SQUARED_ERROR_KERNELS,
        lambda device: squared_error_tests.check(device, (257, 10), "float32", True),
    ),
]


def run(bug: Bug, device: PlantedDevice) -> None:
    """Run a bug's test as the fixture ``device`` does."""
    bug.check(device)
    device.check_guards()


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    run(bug, PlantedDevice(None, bug.kernels))
    with pytest.raises((AssertionError, EmulationError), match=bug.finding):
        run(bug, PlantedDevice((bug.old, bug.new), bug.kernels))


def test_every_kernel_file_has_a_planted_bug() -> None:
    assert {bug.module for bug in BUGS} == set(names())
