"""Files as no version of gpunet writes them: any header, any tensors, any value in JSON."""

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
    if header is None or tensors is None:
        with open_tensors(path) as stored:
            tensors = stored.read() if tensors is None else tensors
            header = stored.header if header is None else header
    text = header if isinstance(header, str) else json.dumps(header)
    if path.suffix == ".npz":
        np.savez(path, **tensors, gpunet=np.array(text))
    else:
        safetensors.numpy.save_file(dict(tensors), path, {"gpunet": text})
    return path


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
