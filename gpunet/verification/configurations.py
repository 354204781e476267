"""The five networks that are timed, here and in the benchmarks."""

from __future__ import annotations

# label: (batch, inputs, linear layers, hidden width); d is the lecture's network.
CONFIGURATIONS = {
    "a": (256, 784, 3, 256),
    "b": (1024, 3072, 5, 1024),
    "c": (8192, 3072, 5, 2048),
    "d": (65536, 512, 10, 500),
    "e": (8192, 64, 10, 64),
}
CLASSES = 10


def layer_sizes(inputs: int, layers: int, width: int) -> tuple[int, ...]:
    """Return d, m, ..., m, c of a network with ``layers`` linear layers."""
    return (inputs, *[width] * (layers - 1), CLASSES)
