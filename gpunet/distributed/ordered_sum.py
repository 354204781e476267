"""The sum of a vector over all shards of a job, in the order of their tree, whatever rank has which of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.backends.arrays import Array
from gpunet.distributed.communicator import Exchange, Wait
from gpunet.distributed.shards import Partition

# Up to so many bytes, every rank gets the vectors of all nodes and adds them up: one exchange. Above, each rank adds up
# a part of the vector, which is what an all-reduce does as well: two exchanges, and each number travels twice.
ALL_TO_ONE_BYTES = 1 << 18


class OrderedSum:
    """A vector that every rank has a part of the sum of, and gets the whole sum of.

    Parameters
    ----------
    backend : Backend
    exchange : Exchange
    partition : Partition
    length : int
    dtype : dtype
    is_ordered : bool
        Whether the bits of the sum are those of the tree, and do not depend on the number of ranks.

    Attributes
    ----------
    parts : array, (nodes, length)
        Where the sums over this rank's nodes are to be before :meth:`start`.
    """

    def __init__(
        self,
        backend: Backend,
        exchange: Exchange,
        partition: Partition,
        length: int,
        dtype: npt.DTypeLike,
        is_ordered: bool,
    ) -> None:
        self._backend, self._exchange, self._size = backend, exchange, partition.size
        levels = np.array(partition.levels(), np.int32)
        most = len(levels) // partition.size
        self._is_plain = not is_ordered
        self._is_small = most * partition.size * length * np.dtype(dtype).itemsize <= ALL_TO_ONE_BYTES
        each = length if self._is_plain or self._is_small else -(-length // partition.size)
        self._length, self._each = length, each
        padded = each if each == length else each * partition.size
        self._buffer = backend.zeros((most, padded), dtype)
        self.parts = self._buffer[: len(partition.nodes()), :length]
        self._levels = backend.asarray(levels)
        self._wait: Wait | None = None
        self._is_summed = False
        if self._is_plain:
            return
        self._gathered = backend.zeros((partition.size, most, each), dtype)
        self._own = backend.zeros(each, dtype)
        self._total = self._own if self._is_small else backend.zeros((partition.size, each), dtype)
        self._sent = self._buffer.reshape(partition.size, most, each) if most == 1 and not self._is_small else None
        if self._sent is None and not self._is_small:
            self._sent = backend.zeros((partition.size, most, each), dtype)

    def start(self) -> None:
        """Begin to exchange ``parts``, which stay as they are until :meth:`finish`."""
        self._is_summed = False
        if self._is_plain:
            self._wait = self._exchange.all_reduce(self._buffer)
        elif self._is_small:
            self._wait = self._exchange.all_gather(self._buffer, self._gathered)
        else:
            assert self._sent is not None
            if len(self._buffer) > 1:
                for rank in range(self._size):
                    for node, part in enumerate(self._buffer):
                        self._backend.copy(part[rank * self._each : (rank + 1) * self._each], self._sent[rank, node])
            self._wait = self._exchange.all_to_all(self._sent, self._gathered)

    def go_on(self) -> None:
        """Wait for the parts, add up, and begin to exchange the sums: unless that has been done, or adds up itself."""
        assert self._wait is not None
        if self._is_plain or self._is_summed:
            return
        self._wait()
        self._is_summed = True
        self._backend.sum_shards(self._gathered.reshape(-1, self._each), self._levels, self._own)
        if not self._is_small:
            self._wait = self._exchange.all_gather(self._own, self._total)

    def finish(self) -> Array:
        """Return the sum, (length,): valid until the next :meth:`start`."""
        assert self._wait is not None
        self.go_on()
        if self._is_plain or not self._is_small:
            self._wait()
        if self._is_plain:
            return self.parts[0]
        return self._total.reshape(-1)[: self._length]
