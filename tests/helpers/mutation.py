"""Damaged copies of a file's content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def mutants(content: bytes, count: int, seed: int, pieces: Sequence[bytes] = ()) -> Iterator[bytes]:
    """Yield ``count`` damaged copies: one to three changes each, all of them decided by ``seed``.

    Parameters
    ----------
    content : bytes
    count, seed : int
    pieces : sequence of bytes
        What is written over or into the content besides random bytes; of the file's format.
    """
    generator = np.random.default_rng(seed)
    for _ in range(count):
        mutant = bytearray(content)
        for _ in range(generator.integers(1, 4)):
            start = int(generator.integers(len(mutant) + 1))
            stop = start + int(generator.integers(1, 9))
            kind = generator.integers(6)
            if kind == 0:  # bits
                mutant[start : start + 1] = bytes(
                    byte ^ (1 << generator.integers(8)) for byte in mutant[start : start + 1]
                )
            elif kind == 1:  # random bytes
                mutant[start:stop] = generator.bytes(stop - start)
            elif kind == 2:  # the largest and the smallest numbers
                mutant[start:stop] = bytes([generator.choice([0, 0x7F, 0x80, 0xFF])]) * (stop - start)
            elif kind == 3:  # an end that is missing, or a piece of it
                del mutant[start : start + int(generator.integers(1, len(mutant) + 2))]
            elif kind == 4:  # a part that comes twice
                mutant[start:start] = mutant[start : start + int(generator.integers(1, 200))]
            elif pieces:
                piece = pieces[generator.integers(len(pieces))]
                mutant[start : start + len(piece) * int(generator.integers(2))] = piece
        yield bytes(mutant)
