"""What the driver says of some GPUs: their data sheets, and the CUDA C++ Programming Guide on compute capabilities."""

from __future__ import annotations

from typing import Any


def _properties(
    compute_capability: tuple[int, int],
    multiprocessors: int,
    threads: int,
    shared: tuple[int, int],
    l2: int,
) -> dict[str, Any]:
    per_block, per_multiprocessor = shared
    return {
        "major": compute_capability[0],
        "minor": compute_capability[1],
        "multiProcessorCount": multiprocessors,
        "maxThreadsPerMultiProcessor": threads,
        "sharedMemPerBlockOptin": per_block * 1024,
        "sharedMemPerMultiprocessor": per_multiprocessor * 1024,
        "l2CacheSize": l2 * 2**20,
    }


# By the names of cudaDeviceProp.
GPU_MODELS: dict[str, dict[str, Any]] = {
    "T4": _properties((7, 5), 40, 1024, (64, 64), 4),
    "A100": _properties((8, 0), 108, 2048, (163, 164), 40),
    "RTX 4090": _properties((8, 9), 128, 1536, (99, 100), 72),
    "H100": _properties((9, 0), 132, 2048, (227, 228), 50),
    "RTX 5090": _properties((12, 0), 170, 1536, (99, 100), 96),
}
