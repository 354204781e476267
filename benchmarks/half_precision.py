"""How well half precision trains: ``python -m benchmarks.half_precision docs/precision.md`` fills in its table.

Each data set is split, scaled and learnt as ``gpunet train`` does it by default, once for each precision and seed; what
is compared is the accuracy on the test rows. Where there is no GPU, half precision is emulated: minutes, on one core.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import gpunet
from gpunet.data.loading import load_for_training
from gpunet.data.preparation import Preparation
from gpunet.data.splits import split_rows
from gpunet.data.trained import scale_inputs
from gpunet.files import write_text

DATA_SETS, SEEDS = ("digits", "mnist5k"), (0, 1, 2, 3, 4)
PRECISIONS = ("float32", "bfloat16", "float16")
LAYERS, EPOCHS, BATCH, RATE, L2 = (128, 128), 30, 32, 0.003, 1e-3
# Points of a hundred that half precision may lose, on average over the seeds.
ALLOWED = 0.5
_SECTION = re.compile(r"(<!-- benchmarks.half_precision -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Accuracy:
    """Of one precision on one data set.

    Attributes
    ----------
    data, precision, device : str
    percent : tuple of float
        Of the test rows, for each seed.
    skipped : int
        Steps whose gradients overflowed, of all seeds together.
    """

    data: str
    precision: str
    device: str
    percent: tuple[float, ...]
    skipped: int

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.percent))


def train(data: str, precision: str, seed: int, epochs: int = EPOCHS, device: str = "auto") -> tuple[float, int, str]:
    """Return the percentage of the test rows that a network gets right, the steps it skipped, and its device."""
    known = load_for_training(data)
    assert known.targets is not None
    split = split_rows(known, seed)
    preparation = Preparation.learn(known, split, seed)
    sizes = [len(preparation.input_columns), *LAYERS, preparation.outputs]
    network = gpunet.Network(sizes, seed=seed, precision=precision, device=device)
    network.metadata = preparation.to_metadata()
    inputs, targets = scale_inputs(network, known.features), preparation.network_targets(known.targets)
    steps = epochs * -(-len(split.train) // BATCH)
    optimizer = gpunet.Adam(gpunet.CosineRate(RATE, steps))
    gpunet.fit(network, inputs[split.train], targets[split.train], epochs=epochs, batch_size=BATCH,
               optimizer=optimizer, l2=L2)  # fmt: skip
    found = gpunet.evaluate(network, inputs[split.test], targets[split.test])
    assert found.accuracy is not None
    skipped = 0 if network.loss_scale is None else network.loss_scale.to_dict()["skipped_steps"]
    return 100 * found.accuracy, skipped, network.backend.device_name


def measure(data_sets: Sequence[str] = DATA_SETS, seeds: Sequence[int] = SEEDS) -> Iterator[Accuracy]:
    """Yield the accuracy of each precision on each data set."""
    for data in data_sets:
        for precision in PRECISIONS:
            percents, skipped, devices = zip(*(train(data, precision, seed) for seed in seeds), strict=True)
            yield Accuracy(data, precision, devices[0], percents, sum(skipped))


def table(found: Sequence[Accuracy]) -> str:
    """Return what was found as Markdown."""
    lines = ["| data | precision | on | test accuracy | by seed | skipped steps |", "|---|---|---|---:|---|---:|"]
    for one in found:
        seeds = ", ".join(f"{percent:.2f}" for percent in one.percent)
        lines.append(f"| {one.data} | {one.precision} | {one.device} | {one.mean:.2f} % | {seeds} | {one.skipped} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, fill in the document, and return 1 where half precision loses more than is allowed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.half_precision", description=__doc__)
    parser.add_argument("document", type=Path, help="a Markdown file with the section")
    path = parser.parse_args(arguments).document
    found = []
    for one in measure():
        found.append(one)
        print(f"{one.data}, {one.precision}: {one.mean:.2f} %", flush=True)
    text = path.read_text(encoding="utf-8")
    write_text(path, _SECTION.sub(lambda match: f"{match[1]}\n{table(found)}\n{match[2]}", text))
    exact = {one.data: one.mean for one in found if one.precision == "float32"}
    return int(any(exact[one.data] - one.mean > ALLOWED for one in found))


if __name__ == "__main__":
    raise SystemExit(main())
