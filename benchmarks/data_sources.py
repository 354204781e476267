"""What an epoch takes by where the data are: ``python -m benchmarks.data_sources docs/arrays.md`` fills in its table.

The same network is trained from memory, from mapped files, from batches and from Parquet, in turn, so that whatever
else the machine does meets all of them. The files lie in the page cache by then.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gpunet
from gpunet.batches import batch_slices
from gpunet.data import ParquetRows
from gpunet.environment import cpu_name, usable_cores
from gpunet.files import write_text

# Layers, and rows enough for several windows of Parquet.
NETWORKS = (((64, 128, 128, 10), 400_000), ((784, 256, 256, 10), 40_000))
BATCH_SIZES = (128, 512)
ROUNDS = 3
ROW_GROUP = 10_000
MEMORY = "memory"
_SECTION = re.compile(r"(<!-- benchmarks.data_sources -->\n).*?(<!-- end -->)", re.DOTALL)


def write_files(folder: Path, X: np.ndarray, y: np.ndarray) -> None:
    """Write the data as .npy files of both dtypes and as Parquet."""
    import pyarrow
    from pyarrow import parquet

    np.save(folder / "float32.npy", X)
    np.save(folder / "float64.npy", X.astype(np.float64))
    columns = {f"x{place}": X[:, place] for place in range(X.shape[1])}
    parquet.write_table(pyarrow.table(columns | {"y": y}), folder / "rows.parquet", row_group_size=ROW_GROUP)


def sources(folder: Path, X: np.ndarray, y: np.ndarray, batch_size: int) -> dict[str, dict[str, Any]]:
    """Return the arguments of ``fit`` for each place that the data may be in."""
    mapped = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("float32", "float64")}
    rows = ParquetRows(folder / "rows.parquet", target="y", batch_size=batch_size)
    batches = [(X[here], y[here]) for here in batch_slices(len(X), batch_size, 2)]
    return {
        MEMORY: {"X": X, "y": y, "batch_size": batch_size},
        "a mapped file, float32": {"X": mapped["float32"], "y": y, "batch_size": batch_size},
        "a mapped file, float64": {"X": mapped["float64"], "y": y, "batch_size": batch_size},
        "`batches=`, arrays": {"batches": batches},
        "`batches=`, Parquet in order": {"batches": rows},
        "`batches=`, Parquet shuffled": {"batches": rows.shuffled()},
    }


def measure(layers: Sequence[int], rows: int, batch_size: int, rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median seconds of an epoch from each place."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((rows, layers[0])).astype(np.float32)
    y = generator.integers(0, layers[-1], rows)
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), X, y)
        found = sources(Path(folder), X, y, batch_size)
        networks = {name: gpunet.Network(layers, seed=0) for name in found}
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(1 + rounds):
            for name, arguments in found.items():
                seconds[name].append(gpunet.fit(networks[name], epochs=2, **arguments).records[1].seconds)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}  # the first round compiles and reads


def table(results: dict[str, dict[str, float]]) -> str:
    """Return the times from memory, and the others as multiples of them, as Markdown."""
    lines = ["| data from | " + " | ".join(results) + " |", "|---|" + "---:|" * len(results)]
    for name in next(iter(results.values())):
        times = (
            f"{found[name]:.3f} s" if name == MEMORY else f"{found[name] / found[MEMORY]:.2f}"
            for found in results.values()
        )
        lines.append(f"| {name} | " + " | ".join(times) + " |")
    return f"On {cpu_name()}, {usable_cores()} cores:\n\n" + "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and fill in the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_sources", description=__doc__)
    parser.add_argument("document", type=Path, help="a Markdown file with the section")
    path = parser.parse_args(arguments).document
    results = {
        f"{'-'.join(map(str, layers))}, {batch_size}": measure(layers, rows, batch_size)
        for layers, rows in NETWORKS
        for batch_size in BATCH_SIZES
    }
    text = path.read_text(encoding="utf-8")
    write_text(path, _SECTION.sub(lambda match: f"{match[1]}\n{table(results)}\n{match[2]}", text))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
