"""Invented result files, of machines that do not exist, for the tests of reports and comparisons."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from benchmarks.report.results import Case, Results, Row, spread

CPU_MACHINE = {
    "name": "abacus",
    "cpu": "Abacus 9000",
    "cores": 2,
    "memory_bytes": 8_000_000_000,
    "cache_bytes": 32_000_000,
    "system": "Linux 6.1",
    "python": "3.11.9",
}
GPU_MACHINE = {
    **CPU_MACHINE,
    "name": "loom",
    "gpu": "Loom X100",
    "driver": "570.1",
    "gpu_memory_bytes": 80_000_000_000,
    "gpu_cache_bytes": 50_000_000,
    "clocks": "SM up to 1980 MHz, memory up to 2619 MHz",
}
# Name: label, whether on a GPU, time over gpunet's on a CPU.
PEERS: dict[str, tuple[str, bool, float]] = {
    "gpunet-numpy": ("gpunet", False, 1.0),
    "torch-eager": ("PyTorch", False, 1.5),
    "torch-compile": ("PyTorch compiled", False, 0.8),
    "sklearn": ("scikit-learn", False, 3.0),
    "gpunet-cuda": ("gpunet CUDA", True, 0.05),
    "torch-cuda-tuned": ("PyTorch CUDA tuned", True, 0.075),
}
CPU_PEERS = [name for name, (_, on_device, _) in PEERS.items() if not on_device]
ALL_PEERS = list(PEERS)

A = Case("network", "step", "a", 256, (784, 256, 256, 10))
B = Case("network", "step", "b", 1024, (3072, 1024, 1024, 1024, 1024, 10))
BATCHES = [Case("network", "step", f"batch {rows}", rows, (784, 256, 10)) for rows in (16, 64, 256, 1024)]
GEMM = Case("gemm", "forward", "256 x 784 x 256", 256, (784, 256))
ACTIVATIONS = [
    Case("bias_activation", "forward", "8192 x 512", 8192, (512,), activation=name)
    for name in ("relu", "sigmoid", "identity")
]
CASES = [
    A,
    B,
    A.replace(mode="forward"),
    A.replace(mode="epoch", examples=5000),
    A.replace(precision="tf32"),
    *BATCHES,
    GEMM,
    *ACTIVATIONS,
]
PEAKS = {"gigaflops": 100.0, "gigabytes_per_second": 20.0}


def row(
    case: Case,
    peer: str,
    milliseconds: float | Iterable[float],
    *,
    gpunet_milliseconds: float | Iterable[float] | None = None,
    roofline: float | None = None,
    peaks: Mapping[str, float] = PEAKS,
    **changes: Any,
) -> Row:
    """Return a measured row; a single time stands for nine rounds that scatter by 1 % around it."""
    label, on_device, _ = PEERS.get(peer, (peer, False, 1.0))
    rounds = _rounds(milliseconds)
    ours = None if gpunet_milliseconds is None else _rounds(gpunet_milliseconds)
    middle = spread(rounds)
    built = Row(
        case=case,
        peer=peer,
        label=label,
        versions={peer.split("-")[0]: "1.0", "numpy": "2.4.0"},
        on_device=on_device,
        milliseconds=middle,
        device_milliseconds=spread(0.9 * rounds) if on_device else None,
        rounds=list(rounds),
        repeats=10,
        ratio=None if ours is None else spread(rounds / ours),
        ratio_to="gpunet-cuda" if on_device else "gpunet-numpy",
        samples_per_second=1000 * case.samples / middle.median,
        gigaflops=12.5,
        gigabytes_per_second=3.25,
        roofline_milliseconds=roofline,
        roofline_percent=None if roofline is None else 100 * roofline / middle.median,
        peaks=dict(peaks),
        error=1e-7,
        tolerance=1e-5,
        peak_bytes=412_000_000,
        growth_bytes=43_000_000,
        product_gigaflops=80.0,
        launches=14 if on_device else None,
        import_seconds=0.25,
        first_seconds=1.5,
        threads=2,
        blas="openblas 0.3.30 x2",
        gpu_megahertz=1755 if "cuda" in peer else 0,
        commit="0123456789abcdef",
        date="2026-05-04T03:02:01",
    )
    return dataclasses.replace(built, **changes)


def without_time(case: Case, peer: str, status: str, reason: str) -> Row:
    """Return a row that was not measured."""
    label, on_device, _ = PEERS[peer]
    return Row(case, peer, label, status=status, reason=reason, on_device=on_device)


def results(
    rows: Iterable[Row] | None = None, *, machine: Mapping[str, Any] = CPU_MACHINE, version: str = "0.5.0"
) -> Results:
    """Return a result file; without rows, that of every CPU peer in every case."""
    return Results(dict(machine), version, list(full_rows(CPU_PEERS) if rows is None else rows))


def full_rows(peers: Iterable[str]) -> list[Row]:
    """Return the rows of some peers in every case; times grow with the case's size."""
    rows = []
    for case in CASES:
        for peer in peers:
            _, on_device, share = PEERS[peer]
            reference = 0.001 * case.samples * (PEERS["gpunet-cuda"][2] if on_device else 1)
            if on_device:  # a launch costs the same however small the work
                reference, extra = reference + 0.03, 0.03
            else:
                extra = 0.0
            if case.precision == "tf32" and not on_device:
                continue
            time = 0.001 * case.samples * share + extra
            rows.append(row(case, peer, time, gpunet_milliseconds=reference, roofline=0.4 * reference))
    return rows


def _rounds(milliseconds: float | Iterable[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    if isinstance(milliseconds, (int, float)):
        return milliseconds * np.linspace(0.99, 1.01, 9)
    return np.array(list(milliseconds), dtype=np.float64)
