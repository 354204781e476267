"""Batches from the host on a CUDA device: gathered into page-locked memory, copied while the device computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpunet.backends.arrays import Array
from gpunet.backends.devices.device import Device
from gpunet.backends.feed import Feed, batch_shapes, copy_rows


class LaneFeed(Feed):
    """A :class:`~gpunet.backends.feed.Feed` over a lane of the device.

    Parameters
    ----------
    sources : sequence of ndarray, (N, ...)
    device : Device
    dtypes : sequence of dtype
        Of the buffers.
    rows : int
        Of the largest batch.
    """

    def __init__(self, sources: Sequence[Array], device: Device, dtypes: Sequence[npt.DTypeLike], rows: int) -> None:
        super().__init__(sources)
        self._lane = device.copy_lane(batch_shapes(sources, rows), dtypes)

    def prepare(self, rows: Array | slice) -> None:
        count = len(rows) if isinstance(rows, np.ndarray) else rows.stop - rows.start
        staged = self._lane.stage(batch_shapes(self.sources, count))
        for source, there in zip(self.sources, staged, strict=True):
            copy_rows(source, rows, there)
        self._lane.send()

    def deliver(self, buffers: Sequence[Array]) -> None:
        self._lane.receive(buffers)
