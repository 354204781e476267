"""What a training step of the five configurations should take on three GPUs, and how far measurements are from it.

A model, and no measurement. The *floor* of a step is the sum over its operations of the larger of two times, arithmetic
at the rate that large products reach and bytes at the rate that large copies reach, where an operation that others wait
for takes at least the latency of a node of a CUDA graph. How many nodes there are, how many of them wait for one
another, and how often the host calls the device is counted from recorded steps (``step_counts.json``).

Each constant says where it is from: [S] read in the source named, [M] measured on a CPU without a GPU, [D] derived from
others here, [A] assumed. What is assumed is for measurements to correct.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gpunet.errors import InvalidValueError
from gpunet.verification.configurations import CONFIGURATIONS, layer_sizes

from .frame import markdown
from .results import NETWORK, Case, Results
from .roofline import Demand, demands, parameter_count
from .words import significant, times

PRECISIONS = ("float32", "tf32", "bfloat16")
COUNTS_FILE = Path(__file__).parent / "step_counts.json"

# Of the data sheet's rates, what large products and large copies reach. [A], in the range that libraries report; the
# copy is [S] QuACK's 3.01 of 3.35 TB/s on an H100.
PRODUCT_SHARE = {"float32": 0.82, "tf32": 0.81, "bfloat16": 0.80}
COPY_SHARE = 0.896
# Of what large products reach, what those of a configuration do: they fill so much of 108 to 132 multiprocessors. [A]
PRODUCT_EFFICIENCY = {"a": 0.08, "b": 0.60, "c": 0.95, "d": 0.85, "e": 0.35}
# Of what large copies reach, what element-wise work and column sums do. Ours is what norm kernels of NVIDIA's cuDNN
# reach on an H200, 3.7 of 4.3 TB/s [S cudnn-frontend benchmark/norms, 2026-02]; the others' are [A], from that table.
KERNEL_SHARE = {"gpunet": 0.86, "eager": 0.65, "compiled": 0.74, "jax": 0.70}
# Of a node that the next one waits for, seconds. [A], from the shortest kernels of that table and of CUDA graphs.
NODE_LATENCY = 2.6e-6
# The host's call of the device, seconds. [S] ocannl#488: 6.4 us for a launch.
HOST_CALL = 6.4e-6
# Where the matrices of batch norm stay in the L2 cache: those up to this part of it. [A]
L2_PART = 0.25
# Times that PyTorch's batch norm and ReLU move the matrix of a hidden layer, forward and backward: by its own kernels
# [S aten/native/cuda/Normalization.cuh]; compiled, with the input read twice [S pytorch PR 184941, which ends that].
EAGER_SWEEPS, BIAS_GRADIENT_SWEEPS, COMPILED_SWEEPS, OWN_SWEEPS = 13, 1, 8, 5
# Bytes of a parameter that Adam's many kernels move, one for each operation on lists of tensors. [D]
FOREACH_BYTES = 64
# Seconds that PyTorch's host takes for a step of k layers, launches aside. [M] torch 2.13, tiny tensors, on a CPU.
EAGER_HOST = {3: (444e-6, 293e-6), 5: (622e-6, 417e-6), 10: (1114e-6, 788e-6)}  # Adam by lists, and fused
EAGER_LAUNCH = 2.9e-6  # [A]
EAGER_KERNELS_PER_HIDDEN, EAGER_OTHER_KERNELS, FOREACH_KERNELS = 7, 7, 12  # [S, D]
# Nodes of a compiled step that are no products: for each hidden layer, for each layer, and for the step. [A]
COMPILED_NODES_PER_HIDDEN, COMPILED_OTHER_NODES = 6, 5
# Of the peers on a GPU, which column they are.
PEERS = {
    "gpunet": "gpunet-cuda",
    "eager": "torch-cuda-eager",
    "tuned": "torch-cuda-tuned",
    "compiled": "torch-cuda-graph",
    "jax": "jax-cuda",
}
COLUMNS = {
    "gpunet": "gpunet",
    "eager": "PyTorch, as usually written",
    "tuned": "PyTorch, tuned",
    "compiled": "PyTorch, compiled, one graph",
    "jax": "JAX",
}


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet.

    Attributes
    ----------
    name : str
        Part of what its driver calls it.
    bytes_per_second : float
        Of its memory. [S]
    operations_per_second : dict of str to float
        By precision; dense, sums in float32. [S]
    l2_bytes : int
        [S]
    l2_bytes_per_second : float
        [A]
    source : str
    """

    name: str
    bytes_per_second: float
    operations_per_second: dict[str, float]
    l2_bytes: int
    l2_bytes_per_second: float
    source: str

    @property
    def copy(self) -> float:
        """Bytes per second of a large copy."""
        return COPY_SHARE * self.bytes_per_second

    def product(self, precision: str) -> float:
        """Operations per second of a large product."""
        return PRODUCT_SHARE[precision] * self.operations_per_second[precision]


GPUS = (
    Gpu(
        "H200",
        4.8e12,
        {"float32": 67e12, "tf32": 494.7e12, "bfloat16": 989.4e12},
        50 * 2**20,
        7e12,
        "NVIDIA H200 data sheet, SXM; half of its figures with sparsity",
    ),
    Gpu(
        "A100",
        2.039e12,
        {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12},
        40 * 2**20,
        4e12,
        "NVIDIA A100 data sheet, 80 GB, SXM",
    ),
    Gpu(
        "RTX 4090",
        1.008e12,
        {"float32": 82.6e12, "tf32": 82.6e12, "bfloat16": 165.2e12},
        72 * 2**20,
        5e12,
        "NVIDIA Ada architecture white paper, appendix A",
    ),
)


@dataclass(frozen=True)
class Counts:
    """What is counted of a training step with Adam and batch norm.

    Attributes
    ----------
    nodes : int
        Kernels and products of the recorded step.
    chain : int
        The most of them that wait for one another.
    calls : float
        Calls of the device, a replay being one, of each step of an epoch that nobody watches.
    calls_of_epoch : int
        Those of an epoch beside the ones of its steps.
    """

    nodes: int
    chain: int
    calls: float
    calls_of_epoch: int = 0


@cache
def counted() -> dict[tuple[str, int], Counts]:
    """Return the counts by dtype and number of linear layers; a test holds them against recorded steps."""
    content = json.loads(COUNTS_FILE.read_text(encoding="utf-8"))
    return {
        (dtype, int(layers)): Counts(**counts) for dtype, steps in content.items() for layers, counts in steps.items()
    }


def step(label: str, precision: str, rows: int | None = None) -> Case:
    """Return the training step of a configuration, of so many rows in the place of its own."""
    batch, inputs, layers, width = CONFIGURATIONS[label]
    dtype, products = ("bfloat16", "float32") if precision == "bfloat16" else ("float32", precision)
    rows = batch if rows is None else rows
    return Case(NETWORK, "step", label, rows, layer_sizes(inputs, layers, width), dtype=dtype, precision=products)


class Model:
    """Times of one step on one GPU, in seconds.

    Parameters
    ----------
    gpu : Gpu
    label : str
        Of the configuration.
    precision : str
    counts : Counts, optional
        By default, what is counted.
    rows : int, optional
        By default, those of the configuration.
    """

    def __init__(
        self, gpu: Gpu, label: str, precision: str, counts: Counts | None = None, rows: int | None = None
    ) -> None:
        self.gpu, self.label, self.precision = gpu, label, precision
        self.case = step(label, precision, rows)
        self.layers = len(self.case.sizes) - 1
        self.counts = counted()[self.case.dtype, self.layers] if counts is None else counts
        # The last bias is added by what reads it.
        self.demands = [demand for demand in demands(self.case) if demand.name != "bias"]

    @property
    def floor(self) -> float:
        """The least time with the nodes and chain counted, and one call."""
        return self._recorded(1.0, 1.0)

    def times(self) -> dict[str, float]:
        """Return the times predicted of gpunet and its peers, by the names of ``PEERS``."""
        calls = self.counts.calls
        ours = self._recorded(PRODUCT_EFFICIENCY[self.label], KERNEL_SHARE["gpunet"], outside=max(0.0, calls - 1))
        return {
            "gpunet": max(ours, calls * HOST_CALL),
            "eager": self._eager(is_tuned=False),
            "tuned": self._eager(is_tuned=True),
            "compiled": self._compiled(KERNEL_SHARE["compiled"], more_nodes=0),
            "jax": self._compiled(KERNEL_SHARE["jax"], more_nodes=self.layers),
        }

    # --- ours -------------------------------------------------------------------------------------------------------

    def _recorded(self, efficiency: float, share: float, outside: float = 0.0) -> float:
        """Return the time of a recorded step; ``outside`` of it are so many operations that it waits for.

        As many gradients of weights as nodes are beside the chain, the shortest, cost their work and no latency; and
        nothing where the node beside them, which has most of the device wait, takes longer.
        """
        seconds = [(demand.name, self._seconds(demand, efficiency, share)) for demand in self.demands]
        gradients = sorted(time for name, time in seconds if name == "weight gradient")
        count = min(self.counts.nodes - self.counts.chain, len(gradients) - 1)
        beside, others = gradients[:count], [time for name, time in seconds if name != "weight gradient"]
        on_chain = others + gradients[count:]
        more = self.counts.chain - len(on_chain)
        if more < 0:
            raise InvalidValueError(
                f"counts: a chain of {self.counts.chain} nodes has no room for {len(on_chain)} operations."
            )
        waited = sum(max(NODE_LATENCY, time) for time in on_chain) + (more + outside) * NODE_LATENCY
        return waited + sum(time for time in beside if time > NODE_LATENCY)

    def _seconds(self, demand: Demand, efficiency: float, share: float) -> float:
        """Return the time of an operation alone, latency aside."""
        gpu = self.gpu
        if demand.operations:
            return demand.seconds(gpu.product(self.precision), gpu.copy) / efficiency
        sweeps = {"forward": 2, "backward": 3}.get(demand.name)
        is_cached = sweeps is not None and demand.bytes / sweeps <= L2_PART * gpu.l2_bytes
        return demand.bytes / (gpu.l2_bytes_per_second if is_cached else share * gpu.copy)

    # --- peers ------------------------------------------------------------------------------------------------------

    @property
    def _products(self) -> list[float]:
        """Seconds of the products, none of which fuses with anything."""
        efficiency = PRODUCT_EFFICIENCY[self.label]
        return [self._seconds(demand, efficiency, 1.0) for demand in self.demands if demand.operations]

    def _bytes(self, *names: str) -> float:
        return math.fsum(demand.bytes for demand in self.demands if demand.name in names)

    def _eager(self, *, is_tuned: bool) -> float:
        """Return the larger of the device's time and the host's, which runs ahead of it where it is the shorter."""
        hidden, rate = self.layers - 1, KERNEL_SHARE["eager"] * self.gpu.copy
        sweeps = EAGER_SWEEPS + (0 if is_tuned else BIAS_GRADIENT_SWEEPS)
        update = self._bytes("update") if is_tuned else FOREACH_BYTES * parameter_count(self.case)
        moved = sweeps / OWN_SWEEPS * self._bytes("forward", "backward") + update
        kernels = len(self._products) + EAGER_KERNELS_PER_HIDDEN * hidden + EAGER_OTHER_KERNELS
        kernels += 0 if is_tuned else hidden + FOREACH_KERNELS
        host = EAGER_HOST[self.layers][is_tuned] + kernels * EAGER_LAUNCH
        return max(host, sum(self._products) + moved / rate)

    def _compiled(self, share: float, more_nodes: int) -> float:
        """Return the time of a step that is one graph of dependent nodes."""
        hidden, rate = self.layers - 1, share * self.gpu.copy
        moved = COMPILED_SWEEPS / OWN_SWEEPS * self._bytes("forward", "backward") / rate
        batch_norm = max(moved, COMPILED_NODES_PER_HIDDEN * hidden * NODE_LATENCY)
        products = sum(max(NODE_LATENCY, time) for time in self._products)
        update = max(NODE_LATENCY, self._bytes("update") / self.gpu.copy)
        return products + batch_norm + update + (self.layers + COMPILED_OTHER_NODES + more_nodes) * NODE_LATENCY


# --- tables -----------------------------------------------------------------------------------------------------------


def prediction(files: Sequence[Results]) -> list[str]:
    """Return the tables of the three GPUs, with what result files have measured on them."""
    return [_constants(), *(block for gpu in GPUS for block in _of_gpu(gpu, files))]


def _constants() -> str:
    rows = [
        ["memory, TB/s", *(f"{gpu.bytes_per_second / 1e12:g}" for gpu in GPUS), "[S]"],
        *(
            [f"{name} products, TFLOP/s", *(f"{gpu.operations_per_second[name] / 1e12:g}" for gpu in GPUS), "[S]"]
            for name in PRECISIONS
        ),
        ["L2 cache, MiB", *(f"{gpu.l2_bytes / 2**20:g}" for gpu in GPUS), "[S]"],
        ["L2 cache, TB/s", *(f"{gpu.l2_bytes_per_second / 1e12:g}" for gpu in GPUS), "[A]"],
        ["a node that others wait for, microseconds", *[f"{1e6 * NODE_LATENCY:g}"] * len(GPUS), "[A]"],
        ["source", *(gpu.source for gpu in GPUS), ""],
    ]
    return table(["of the model", *(gpu.name for gpu in GPUS), "status"], rows)


def _of_gpu(gpu: Gpu, files: Sequence[Results]) -> list[str]:
    wanted = {step(label, precision): (label, precision) for label in CONFIGURATIONS for precision in PRECISIONS}
    measured = {
        (*wanted[row.case], row.peer): row.median / 1e3
        for results in files
        if gpu.name in str(results.machine.get("gpu"))
        for row in results.rows
        if row.status == "ok" and row.case in wanted
    }
    rows = []
    for label in CONFIGURATIONS:
        for precision in PRECISIONS:
            model = Model(gpu, label, precision)
            counts = [
                model.counts.nodes,
                model.counts.chain,
                f"{model.counts.calls:.3g}",
                model.counts.calls_of_epoch,
            ]
            work = [math.fsum(part) for part in zip(*((d.operations, d.bytes) for d in model.demands), strict=True)]
            cells = [
                _cell(seconds, measured.get((label, precision, PEERS[name]))) for name, seconds in model.times().items()
            ]
            numbers = [significant(amount / 1e9) for amount in work]
            rows.append([f"{label}, {precision}", *counts, *numbers, significant(1e6 * model.floor), *cells])
    columns = ["configuration", "nodes", "chain", "calls", "per epoch", "GFLOP", "GB", "floor", *COLUMNS.values()]
    status = (
        "microseconds predicted, and measured where a cell says so, with its ratio to the prediction"
        if measured
        else "microseconds, none of them measured"
    )
    return [f"**Predicted for the {gpu.name}**: {status}.", table(columns, rows)]


def _cell(seconds: float, measured: float | None) -> str:
    predicted = significant(1e6 * seconds)
    if measured is None:
        return predicted
    return f"{predicted}; measured {significant(1e6 * measured)} ({times(measured / seconds)})"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return rows of cells as Markdown."""
    import pandas as pd

    return markdown(pd.DataFrame(rows, columns=columns))
