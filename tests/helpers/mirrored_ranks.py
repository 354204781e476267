"""One rank whose others are its mirrors: what a step exchanges, without anybody to exchange it with."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array
from gpunet.distributed import Exchange
from gpunet.distributed.communicator import OneRank, Wait


class Mirror(Exchange):
    """Notes what it is asked for, by an exchange whose other ranks have what this one has."""

    def __init__(self, log: list[str], size: int) -> None:
        self.log, self.size = log, size
        self.bytes: list[int] = []

    def all_gather(self, part: Array, out: Array) -> Wait:
        out[...] = part
        return self._later("all_gather", part)

    def all_to_all(self, parts: Array, out: Array) -> Wait:
        out[...] = parts[0]
        return self._later("all_to_all", parts)

    def all_reduce(self, array: Array) -> Wait:
        array *= self.size
        return self._later("all_reduce", array)

    def _later(self, name: str, sent: Array) -> Wait:
        self.log.append(name)
        self.bytes.append(sent.nbytes)
        return lambda: self.log.append(f"end of {name}")


class FirstRank(OneRank):
    """The first of several, whose others are mirrors."""

    def __init__(self, log: list[str], size: int) -> None:
        self.size = size
        self.mirror = Mirror(log, size)

    def exchange(self, backend: Any) -> Exchange:
        return self.mirror
