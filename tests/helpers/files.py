"""Files as no version of gpunet writes them: any header, any tensors, any byte changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from hypothesis import strategies as st

from gpunet.serialization import open_tensors

# Of each reader's files, in a run of the tests; a fault of a reader is looked for with GPUNET_MUTANTS=3000.
MUTANTS = int(os.environ.get("GPUNET_MUTANTS", "40"))


def rewrite(path: Path, header: Any = None, tensors: Mapping[str, Any] | None = None) -> Path:
    """Give a model or checkpoint another header (text, or what JSON can hold) or other tensors, and no digest."""
    with open_tensors(path) as stored:
        tensors = stored.read() if tensors is None else tensors
        header = stored.header if header is None else header
    text = header if isinstance(header, str) else json.dumps(header)
    if path.suffix == ".npz":
        np.savez(path, **tensors, gpunet=np.array(text))
    else:
        safetensors.numpy.save_file(dict(tensors), path, {"gpunet": text})
    return path


def mutants(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield damaged copies: bits and bytes changed, ends cut off, parts left out, doubled or exchanged."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        copy = bytearray(content)
        for _ in range(generator.choice([1, 1, 1, 2, 8])):
            # Half of the damage is where names, sizes and the JSON are.
            end = len(copy) if generator.random() < 0.5 else min(len(copy), 2000)
            place, length = int(generator.integers(end)), int(generator.integers(1, 17))
            kind = generator.integers(7)
            if kind == 0:
                copy[place] ^= 1 << int(generator.integers(8))
            elif kind == 1:
                copy[place] = int(generator.integers(256))
            elif kind == 2:
                copy[place : place + length] = generator.bytes(length)
            elif kind == 3:
                del copy[place : place + length]
            elif kind == 4:
                copy[place:place] = copy[place : place + length]
            elif kind == 5:
                copy[place : place + length] = bytes([int(generator.choice([0, 255, 48, 57, 91, 123]))]) * length
            else:
                del copy[place:]
            if not copy:
                break
        yield bytes(copy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths to all values in a JSON document."""
    yield path
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a JSON document with another value at one place."""
    if not path:
        return value
    copy = content.copy()
    copy[path[0]] = replaced(content[path[0]], path[1:], value)
    return copy
