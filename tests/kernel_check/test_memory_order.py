"""What no run on a CPU shows: fences, loads past the L1 cache, waits for copies, barriers of clusters.

Each bug is planted in the text of a kernel, and the check of the compiled code must name it; it finds none without.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import pytest

from gpunet.backends.cuda.sources import source_for
from gpunet.errors import InvalidValueError
from gpunet.kernel_check.budgets import default_path, read_budgets
from gpunet.kernel_check.check import Unit, compile_unit
from gpunet.kernel_check.memory_order import parameter_names, problems
from gpunet.kernel_check.nvrtc import nvrtc
from gpunet.kernel_check.ptx import functions
from tests.kernel_check.test_kernel_check import compiler as compiler  # a fixture


class Kernel(NamedTuple):
    """One instantiation for one architecture: sm_100 and sm_120 have PTX of another kind than the older ones."""

    module: str
    expression: str
    architecture: int = 75


BIAS = Kernel("activation", "bias_activation_backward<float, identity_activation, 1>")
CLIP = Kernel("optimizer", "clip_factor<float, 1>", 100)
LOSS = Kernel("squared_error", "squared_error<float>")
FORWARD = Kernel("batch_norm", "batch_norm_forward_striped<float, 1, identity_activation>")
BACKWARD = Kernel("batch_norm", "batch_norm_backward_striped<float, 1, identity_activation>", 120)
COPIES = Kernel("batch_norm", "batch_norm_forward_striped<float, 1, identity_activation>", 80)
RESIDENT = Kernel("batch_norm", "batch_norm_backward_resident<float, 1, identity_activation, 1>", 120)
CLUSTER = Kernel("batch_norm", "batch_norm_forward_resident<float, 1, identity_activation, 2>", 90)
CLUSTER_BACKWARD = Kernel("batch_norm", "batch_norm_backward_resident<float, 1, identity_activation, 2>", 100)
NARROW = Kernel("narrow_pass", "narrow_pass<float, identity_activation, true>", 90)

ARRIVAL = "    __threadfence();\n    __syncthreads();\n    if (thread_in_block() == 0) arrived_before"
ANNOUNCEMENT = "    __threadfence();\n    __syncthreads();\n    if (thread_in_block() == 0) atomicExch"
LAST = "    __threadfence();\n    return arrived_before[0] == blocks - 1;"
MEETING = "    __threadfence();\n    __syncthreads();\n    if (threadIdx.x == 0) {\n        atomicInc"
MARK = "*reinterpret_cast<volatile unsigned int*>(tile_counters + READY) == 0"
CLUSTER_SYNC = '"barrier.cluster.arrive.release.aligned;\\n\\tbarrier.cluster.wait.acquire.aligned;"'

NOT_GIVEN = "without a fence and then a barrier"
NOT_TAKEN = "without a fence after it was announced"
OLD_LINES = "which other blocks write, through the L1 cache"
NO_WAIT = "does not wait for its asynchronous copies"
NOT_RELEASED = "before the cluster has released it"
ENDS = "ends while other blocks"

BUGS = {
    "no fence before an arrival": (BIAS, ARRIVAL, ARRIVAL.split("\n", 1)[1], NOT_GIVEN),
    "a fence for the own block only": (CLIP, ARRIVAL, ARRIVAL.replace("fence", "fence_block"), NOT_GIVEN),
    "a fence for one of those that stored": (
        BIAS,
        ARRIVAL,
        ARRIVAL.replace("    __threadfence", "    if (thread_in_block() == 0) __threadfence"),
        NOT_GIVEN,
    ),
    "no barrier before an arrival": (LOSS, ARRIVAL, ARRIVAL.replace("    __syncthreads();\n", ""), "without a barrier"),
    "the barrier before the fence": (
        LOSS,
        ARRIVAL,
        "    __syncthreads();\n    __threadfence();" + ARRIVAL.split(";", 2)[2],
        "without a barrier",
    ),
    "no fence after the last arrival": (CLIP, LAST, LAST.split("\n", 1)[1], NOT_TAKEN),
    "an arrival that other blocks do not see": (LOSS, "atomicInc(counter", "atomicInc_block(counter", "none to other"),
    "no fence before a tile is announced": (FORWARD, ANNOUNCEMENT, ANNOUNCEMENT.split("\n", 1)[1], NOT_GIVEN),
    "no barrier before a tile is announced": (
        BACKWARD,
        ANNOUNCEMENT,
        ANNOUNCEMENT.replace("    __syncthreads();\n", ""),
        "without a barrier",
    ),
    "no fence after the mark": (
        BACKWARD,
        "        __threadfence();\n        if (atomicInc",
        "        if (atomicInc",
        NOT_TAKEN,
    ),
    "a mark that is read once": (FORWARD, MARK, "tile_counters[READY] == 0", OLD_LINES),
    "a mark that is written": (
        FORWARD,
        "atomicExch(tile_counters + READY, 1u)",
        "tile_counters[READY] = 1u",
        "writes counters without an atomic operation",
    ),
    "partial sums by way of L1, activation": (
        BIAS,
        "__ldcg(partial + element_offset",
        "*(partial + element_offset",
        OLD_LINES,
    ),
    "partial sums by way of L1, clip": (CLIP, "__ldcg(partial + block)", "partial[block]", OLD_LINES),
    "partial sums by way of L1, loss": (LOSS, "__ldcg(partial + block)", "partial[block]", OLD_LINES),
    "the pivot by way of L1": (FORWARD, "__ldcg(partial + region.column + i)", "partial[region.column + i]", OLD_LINES),
    "squares by way of L1": (FORWARD, "__ldcg(partial_squares + offset + i)", "partial_squares[offset + i]", OLD_LINES),
    "the mean by way of L1": (FORWARD, "__ldcg(mean + region.column + i)", "mean[region.column + i]", OLD_LINES),
    "dgamma by way of L1": (BACKWARD, "__ldcg(dgamma + column)", "dgamma[column]", OLD_LINES),
    "no fence before blocks meet": (NARROW, MEETING, MEETING.split("\n", 1)[1], NOT_GIVEN),
    "no barrier before blocks meet": (NARROW, MEETING, MEETING.replace("__syncthreads();", ""), "without a barrier"),
    "no fence after blocks have met": (
        NARROW,
        "        __threadfence();\n        atomicInc(counter",
        "        atomicInc(counter",
        NOT_TAKEN,
    ),
    "moments and sums by way of L1": (
        NARROW,
        "__ldcg(second + block * stride + unit)",
        "second[block * stride + unit]",
        OLD_LINES,
    ),
    "the mean of block 0 by way of L1": (NARROW, "__ldcg(means + unit)", "means[unit]", OLD_LINES),
    "parts of the gradient by way of L1": (
        NARROW,
        "__ldcg(partial + block * stride + i)",
        "partial[block * stride + i]",
        OLD_LINES,
    ),
    "no wait for the copies of a chunk": (COPIES, '"cp.async.wait_all;"', '""', NO_WAIT),
    "no wait for the copies of a tile": (RESIDENT, "    wait_for_copies();\n\n    A sums", "\n    A sums", NO_WAIT),
    "a wait for groups of which there are none": (
        RESIDENT,
        '"cp.async.wait_all;"',
        '"cp.async.wait_group 0;"',
        NO_WAIT,
    ),
    "a wait for all but the last copies": (
        RESIDENT,
        '"cp.async.wait_all;"',
        '"cp.async.commit_group; cp.async.wait_group 1;"',
        NO_WAIT,
    ),
    "a cluster that releases nothing": (CLUSTER, "arrive.release.aligned", "arrive.relaxed.aligned", NOT_RELEASED),
    "a cluster that does not wait": (
        CLUSTER,
        CLUSTER_SYNC,
        '"barrier.cluster.arrive.release.aligned;"',
        NOT_RELEASED,
    ),
    "a cluster of which each block waits for itself": (CLUSTER_BACKWARD, CLUSTER_SYNC, '"bar.sync 0;"', NOT_RELEASED),
    "a block that ends too early": (
        CLUSTER_BACKWARD,
        "sync_tile<CLUSTER>();  // results is complete",
        "__syncthreads();  // results is complete",
        ENDS,
    ),
}


@functools.cache
def found(kernel: Kernel, old: str = "", new: str = "") -> str:
    """Return the problems of a kernel with a piece of its text replaced."""
    text = source_for(kernel.module, [kernel.expression])
    assert not old or text.count(old) == 1, f"{text.count(old)} times: {old}"
    name, names = kernel.expression.partition("<")[0], (kernel.expression,)
    compiled = nvrtc().compile(text.replace(old, new) if old else text, names, kernel.architecture, "planted.cu")
    exchanged = read_budgets(default_path()).exchanged[kernel.module].get(name, ())
    function = functions(compiled.ptx)[compiled.symbols[kernel.expression]]
    return "\n".join(problems(function, parameter_names(text, name), exchanged))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_named(bug: str) -> None:
    kernel, old, new, problem = BUGS[bug]
    assert found(kernel) == ""
    assert problem in found(kernel, old, new)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("kernel", "old", "new"),
    [
        (RESIDENT, '"cp.async.wait_all;"', '"cp.async.commit_group; cp.async.wait_group 0;"'),
        # One thread fences after what it has seen, and a barrier lets the others know.
        (
            BIAS,
            "    __syncthreads();\n" + LAST,
            "    __threadfence();\n    __syncthreads();\n" + LAST.split("\n", 1)[1],
        ),
        (LOSS, ARRIVAL, ARRIVAL.replace("__threadfence", "__threadfence_system")),
    ],
    ids=["a group of copies", "a barrier behind the fence", "a wider fence"],
)
def test_other_ways_that_are_right_pass(kernel: Kernel, old: str, new: str) -> None:
    assert found(kernel, old, new) == ""


@pytest.mark.usefixtures("compiler")
def test_what_is_exchanged_is_declared() -> None:
    unit = Unit("squared_error", ("squared_error<float>", "total_weight<float>"), 75)
    declared = read_budgets(default_path()).exchanged["squared_error"]
    assert [kernel.order for kernel in compile_unit(nvrtc(), unit, declared).kernels] == [(), ()]
    (order, other) = [kernel.order for kernel in compile_unit(nvrtc(), unit, {}).kernels]
    assert order == ("an atomic operation on ticket, which is not declared as exchanged",)
    assert other == ()
    with pytest.raises(
        InvalidValueError, match=r"exchanged: 'tickets' is no parameter\. Expected some of: outputs, bias, targets"
    ):
        compile_unit(nvrtc(), unit, {"squared_error": ["partial", "tickets"]})


def test_names_of_parameters() -> None:
    text = "__global__ void scale(\n  T* __restrict__ x,  // (rows, columns)\n  A *y /* [1], or (2) */, int n)\n{"
    assert parameter_names(text, "scale") == ("x", "y", "n")
    with pytest.raises(InvalidValueError, match="'copy' is not in the source"):
        parameter_names(text, "copy")
