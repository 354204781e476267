"""What a training step takes on two ranks of one thread each, beside one process with as many threads.

``python -m benchmarks.ranks docs/performance.md`` measures the five configurations, keeps what it finds in
``ranks.json``, and fills in the document's section; ``--configurations ''`` fills it in from there alone. Each process
is started anew, and they take turns, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gpunet
from benchmarks.cases import CPU_BATCHES
from benchmarks.report.prediction import table
from benchmarks.report.words import significant
from gpunet.backends import NumpyBackend
from gpunet.backends.cpu import CpuBackend
from gpunet.distributed import mpi
from gpunet.environment import cpu_name, usable_cores
from gpunet.files import write_text
from gpunet.verification.configurations import CONFIGURATIONS, layer_sizes

RESULTS = Path(__file__).parent / "ranks.json"
BACKENDS: dict[str, Any] = {"NumPy": NumpyBackend, "compiled": CpuBackend}
# How many processes there are, and the shards of the ranks; one process without ranks has none.
CONTENDERS: dict[str, tuple[int, str]] = {
    "one process": (1, "no ranks"),
    "one process, 2 shards": (1, "2"),
    "two ranks, 2 shards": (2, "2"),
    "two ranks, plain sums": (2, "None"),
}
# Steps of an epoch, so that one takes tenths of a second.
STEPS = {"a": 100, "b": 5, "c": 1, "d": 1, "e": 8}
ROUNDS, EPOCHS = 3, 3
_SECTION = re.compile(r"(<!-- benchmarks.ranks -->\n).*?(<!-- end -->)", re.DOTALL)


def train(label: str, backend: str, shards: str) -> float | None:
    """Return the seconds of a step, the median of some epochs; on the first of several ranks."""
    batch, inputs, layers, width = CONFIGURATIONS[label]
    batch, steps = CPU_BATCHES.get(label, batch), STEPS[label]
    ranks = None if shards == "no ranks" else mpi(None if shards == "None" else int(shards))
    generator = np.random.default_rng(0)
    X = generator.standard_normal((steps * batch, inputs), np.float32)
    y = generator.integers(0, 10, len(X))
    network = gpunet.Network(layer_sizes(inputs, layers, width), batch_norm=True, device=BACKENDS[backend](), seed=0)
    history = gpunet.fit(
        network, X, y, epochs=1 + EPOCHS, batch_size=batch, optimizer=gpunet.Adam(1e-4), distributed=ranks
    )
    seconds = statistics.median(record.seconds for record in history.records[1:]) / steps
    return seconds if ranks is None or ranks.is_first else None


def run(label: str, backend: str, contender: str) -> float:
    """Return the seconds of a step in processes of its own."""
    processes, shards = CONTENDERS[contender]
    command = [sys.executable, "-m", "benchmarks.ranks", "--one", label, backend, shards]
    if processes > 1:
        launcher = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or "mpiexec"
        command = [launcher, "-n", str(processes), *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.split()[-1])


def measure(labels: Sequence[str], rounds: int = ROUNDS) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of a step in each round, by configuration with backend and by contender."""
    found: dict[str, dict[str, list[float]]] = {}
    for label in labels:
        for backend in BACKENDS:
            times: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
            for _ in range(rounds):
                for contender, seconds in times.items():
                    seconds.append(run(label, backend, contender))
            found[f"{label}, {backend}"] = times
    return found


def summary(results: dict[str, Any]) -> str:
    """Return the medians as Markdown: milliseconds, and how often a step of one process has room for two ranks'."""
    columns = ["configuration, backend", *CONTENDERS, "gain"]
    rows = []
    for name, times in sorted(results["seconds"].items()):
        medians = {contender: statistics.median(times[contender]) for contender in CONTENDERS}
        gain = medians["one process"] / medians["two ranks, 2 shards"]
        rows.append([name, *(significant(1e3 * seconds) for seconds in medians.values()), f"{gain:.2f}"])
    return f"On {results['machine']}, milliseconds of a step:\n\n{table(columns, rows)}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and fill in the document; as one of the processes, print the seconds of a step."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description=__doc__)
    parser.add_argument("document", type=Path, nargs="?", help="a Markdown file with the section")
    parser.add_argument("--configurations", default="".join(CONFIGURATIONS), help="those to measure, such as ae")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--one", nargs=3, metavar=("CONFIGURATION", "BACKEND", "SHARDS"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one:
        seconds = train(*given.one)
        if seconds is not None:
            print(seconds)
        return 0
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"seconds": {}}
    if given.configurations:
        results["machine"] = f"{cpu_name()}, {usable_cores()} cores"
        results["seconds"] |= measure(given.configurations, given.rounds)
        write_text(RESULTS, json.dumps(results, indent=1) + "\n")
        print(summary(results))
    if given.document is not None:
        text = given.document.read_text(encoding="utf-8")
        write_text(given.document, _SECTION.sub(lambda match: f"{match[1]}\n{summary(results)}\n{match[2]}", text))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
